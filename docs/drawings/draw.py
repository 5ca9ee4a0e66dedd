"""Draw the pictures of the guides: ``python docs/drawings/draw.py``.

The timelines are of real groups, which run here on a clock that is moved by hand; a test runs them again and compares.
All pictures are as wide as a telephone and take the colour of the text around them, so that they read on white and on
black.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from html import escape
from pathlib import Path
from typing import Any

from quattro import TaskGroup

FOLDER = Path(__file__).parent
WIDTH, LABELS, ROW, BAR = 400, 88, 26, 16
FONT = 'font-family="var(--font-stack, sans-serif)" font-size="13" fill="currentColor"'
BARS = {
    "runs": 'fill="#2f8f83"',
    "is queued": 'fill="none" stroke="currentColor" stroke-dasharray="3 2"',
    "waits": 'fill="none" stroke="currentColor" stroke-dasharray="3 2"',
    "cleans up": 'fill="#c9a24b"',
}
ERROR = "#d64550"
GROUND = "var(--color-background-primary, white)"
DASHED = 'stroke-dasharray="5 3"'


class Stage:
    """A clock that is moved by hand, and what was seen at which time: bars and crosses, a row for each name."""

    def __init__(self) -> None:
        self.now = 0
        self.sleepers: list[tuple[int, asyncio.Future[None]]] = []
        self.rows: dict[str, list[tuple[str, int, int]]] = {}
        self.crosses: list[tuple[str, str, int]] = []

    async def sleep(self, ticks: int) -> None:
        """Wait for the clock to move on."""
        future = asyncio.get_running_loop().create_future()
        self.sleepers.append((self.now + ticks, future))
        await future

    @contextmanager
    def shown(self, name: str, kind: str) -> Iterator[None]:
        """A bar, as long as the block takes."""
        begin = self.now
        try:
            yield
        finally:
            if self.now > begin:
                self.rows.setdefault(name, []).append((kind, begin, self.now))

    async def work(self, name: str, ticks: int, error: Exception | None = None, clean_up: int = 0) -> None:
        """What a task, or a body, does."""
        try:
            with self.shown(name, "runs"):
                await self.sleep(ticks)
            if error:
                self.crosses.append((name, "fails", self.now))
                raise error
        except asyncio.CancelledError:
            self.crosses.append((name, "is cancelled", self.now))
            with self.shown(name, "cleans up"):
                if clean_up:
                    await self.sleep(clean_up)
            raise

    def create(
        self, create: Callable[..., asyncio.Task[None]], name: str, ticks: int, **options: Any
    ) -> asyncio.Task[None]:
        """A task, which may have to queue first."""
        self.rows[name] = []
        created, started = self.now, False

        async def job() -> None:
            nonlocal started
            started = True
            if self.now > created:
                self.rows[name].append(("is queued", created, self.now))
            await self.work(name, ticks, **options)

        def ended(_: Any) -> None:
            if not started:
                self.rows[name].append(("is queued", created, self.now))
                self.crosses.append((name, "is cancelled", self.now))

        task = create(job())
        task.add_done_callback(ended)
        return task

    def perform(self, program: Callable[[Stage], Awaitable[None]]) -> Stage:
        """Run a program to its end."""

        async def main() -> None:
            performance = asyncio.ensure_future(program(self))
            while True:
                for _ in range(50):
                    await asyncio.sleep(0)
                if performance.done():
                    return performance.result()
                self.now += 1
                for due, future in self.sleepers:
                    if due <= self.now and not future.done():
                        future.set_result(None)

        asyncio.run(main())
        return self


# --- what is shown


async def limit(stage: Stage) -> None:
    """A queue at limit 2, in which somebody cancels a task."""
    async with TaskGroup(concurrency_limit=2) as tg:
        stage.create(tg.create_task, "task 1", 4)
        stage.create(tg.create_task, "task 2", 7)
        stage.create(tg.create_task, "task 3", 5)
        fourth = stage.create(tg.create_task, "task 4", 3)
        stage.create(tg.create_task, "task 5", 3)
        await stage.sleep(2)
        fourth.cancel()


async def good(stage: Stage) -> None:
    """A background task ends last."""
    async with TaskGroup() as tg:
        stage.rows["body"] = []
        stage.create(tg.create_background_task, "background", 99, clean_up=2)
        stage.create(tg.create_task, "task 1", 6)
        stage.create(tg.create_task, "task 2", 9)
        await stage.work("body", 3)


async def bad(stage: Stage) -> None:
    """An error cancels everything at once."""
    with suppress(ExceptionGroup):
        async with TaskGroup() as tg:
            stage.rows["body"] = []
            stage.create(tg.create_background_task, "background", 99, clean_up=2)
            stage.create(tg.create_task, "task 1", 6, error=OSError())
            stage.create(tg.create_task, "task 2", 9, clean_up=1)
            await stage.work("body", 8)


async def cancelling(stage: Stage) -> None:
    """An error ends the others, and the queue."""
    await with_an_error(stage, TaskGroup(concurrency_limit=2))


async def going_on(stage: Stage) -> None:
    """An error ends its own task alone."""
    await with_an_error(stage, TaskGroup(concurrency_limit=2, cancel_on_error=False))


async def with_an_error(stage: Stage, group: TaskGroup) -> None:
    """Four tasks, of which the first fails."""
    with suppress(ExceptionGroup):
        async with group as tg:
            stage.create(tg.create_task, "task 1", 4, error=OSError())
            stage.create(tg.create_task, "task 2", 7)
            stage.create(tg.create_task, "task 3", 5)
            stage.create(tg.create_task, "task 4", 3)


async def producer(stage: Stage) -> None:
    """It makes a task when there is a slot, and so nothing is queued."""
    async with TaskGroup(concurrency_limit=2) as tg:
        stage.rows["producer"] = []
        for number, ticks in enumerate((4, 6, 5, 3), 1):
            with stage.shown("producer", "waits"):
                await tg.wait_for_slot()
            await stage.work("producer", 1)
            stage.create(tg.create_task, f"task {number}", ticks)


# --- how it is drawn


def text(x: float, y: float, words: str, more: str = "") -> str:
    """Some words that begin at x, unless said otherwise."""
    return f'<text x="{x:g}" y="{y:g}" {more}>{escape(words)}</text>'


def cross(x: float, y: float, colour: str) -> str:
    """Where something ends before its time, set off from its bar."""
    path = f'<path d="M{x - 4:g} {y - 4:g}l8 8m0-8l-8 8" fill="none" stroke='
    return f'{path}"{GROUND}" stroke-width="6"/>{path}"{colour}" stroke-width="2.5"/>'


def picture(name: str, label: str, height: float, parts: list[str]) -> str:
    """An SVG to be put into a page."""
    head = f'<svg viewBox="0 0 {WIDTH} {height:g}" xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{label}">'
    return "\n".join(
        [f'<div class="drawing" id="drawing-{name}">', head, f"<g {FONT}>", *parts, "</g></svg></div>", ""]
    )


def timeline(name: str, label: str, programs: dict[str, Callable[[Stage], Awaitable[None]]]) -> str:
    """One panel a program, under its title, all on one scale; below them what the signs mean."""
    stages = {title: Stage().perform(program) for title, program in programs.items()}
    tick = (WIDTH - LABELS - 10) / max(stage.now for stage in stages.values())
    parts: list[str] = []
    signs: dict[str, None] = {}
    y = 0.0
    for title, stage in stages.items():
        if title:
            parts.append(text(0, y + 15, title, 'font-weight="bold"'))
            y += 24
        top, below = y, len(parts)
        for row, bars in stage.rows.items():
            parts.append(text(LABELS - 8, y + 17, row, 'text-anchor="end"'))
            for kind, begin, end in bars:
                signs[kind] = None
                x, width = LABELS + begin * tick + 0.5, (end - begin) * tick - 1
                parts.append(
                    f'<rect x="{x:.1f}" y="{y + 5:g}" width="{width:.1f}" height="{BAR}" rx="3" {BARS[kind]}/>'
                )
            for kind, end in ((kind, end) for who, kind, end in stage.crosses if who == row):
                signs[kind] = None
                parts.append(cross(LABELS + end * tick, y + 13, ERROR if kind == "fails" else "currentColor"))
            y += ROW
        end = LABELS + stage.now * tick
        parts.insert(below, f'<path d="M{end:.1f} {top:g}V{y + 4:g}" stroke="currentColor" stroke-width="1.5"/>')
        parts.append(text(end, y + 17, "the block ends", 'text-anchor="end"'))
        y += 34
    x = 0.0
    for sign in signs:
        parts.append(
            f'<rect x="{x + 1:g}" y="{y:g}" width="22" height="12" rx="3" {BARS[sign]}/>'
            if sign in BARS
            else cross(x + 14, y + 6, ERROR if sign == "fails" else "currentColor")
        )
        parts.append(text(x + 28, y + 11, sign, 'font-size="12"'))
        x += 42 + 6.2 * len(sign)
    return picture(name, label, y + 18, parts)


def states(name: str, label: str, height: float, boxes: dict[str, tuple[float, float, str]], arrows: list[str]) -> str:
    """Boxes with words, and arrows with theirs."""
    tip = f'<marker id="{name}-tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    parts = [f'<defs>{tip}<path d="M0 0L8 4L0 8z" fill="currentColor"/></marker></defs>']
    for words, (x, y, style) in boxes.items():
        parts.append(
            f'<rect x="{x - 55:g}" y="{y - 17:g}" width="110" height="34" rx="8" fill="none" stroke="currentColor" '
            f'stroke-width="{3 if style == "thick" else 1.5}" {DASHED if style == "dashed" else ""}/>'
        )
        parts.append(text(x, y + 5, words, 'text-anchor="middle" font-size="15"'))
    for arrow in arrows:
        path, _, rest = arrow.partition(" | ")
        parts.append(
            f'<path d="{path}" fill="none" stroke="currentColor" stroke-width="1.5" marker-end="url(#{name}-tip)"/>'
        )
        for words in rest.split(" | ") if rest else []:
            x, y, line = words.split(" ", 2)
            parts.append(text(float(x), float(y), line, 'font-size="12.5"'))
    return picture(name, label, height, parts)


def drawings() -> dict[str, str]:
    """Every picture, by its file."""
    return {
        "limit.svg": timeline(
            "limit",
            "Five tasks in a group with a limit of 2: two run, three are queued; each starts when another has ended; "
            "the fourth is cancelled in the queue and never runs.",
            {"": limit},
        ),
        "background.svg": timeline(
            "background",
            "When all goes well, a background task runs until the body and all other tasks have ended, is cancelled, "
            "and cleans up. When a task fails, body, tasks and background task are cancelled at that moment.",
            {"All goes well": good, "A task fails": bad},
        ),
        "errors.svg": timeline(
            "errors",
            "A task of a group with a limit of 2 fails. By default the other running task and the queued ones are "
            "cancelled at that moment. With cancel_on_error=False they go on, and the next one in the queue starts.",
            {"By default": cancelling, "cancel_on_error=False": going_on},
        ),
        "wait-for-slot.svg": timeline(
            "wait-for-slot",
            "A producer takes an item, makes a task for it, and waits until one of the two slots is free before it "
            "takes the next one. No task is ever queued.",
            {"": producer},
        ),
        "group.svg": states(
            "group",
            "The states of a group: new, entered, exiting, stopping, finished; an abort leads from entered, exiting or "
            "stopping to aborting, and from there to finished.",
            392,
            {
                "new": (80, 20, ""),
                "entered": (80, 110, ""),
                "exiting": (80, 200, ""),
                "stopping": (80, 290, ""),
                "finished": (80, 372, "thick"),
                "aborting": (330, 200, "dashed"),
            },
            [
                "M80 37V90 | 88 68 __aenter__",
                "M80 127V180 | 88 158 __aexit__",
                "M80 217V270 | 88 240 the last foreground | 88 255 task has ended",
                "M80 307V352 | 88 326 background tasks | 88 341 have ended",
                "M135 110H290Q330 110 330 180 | 180 104 an error, cancel(), | 180 128 a cancelled parent",
                "M135 200H272",
                "M135 290H240Q310 290 320 220",
                "M342 217V340Q342 372 320 372H138 | 196 364 all tasks have ended",
            ],
        ),
        "task.svg": states(
            "task",
            "The life of a task: with a slot free it runs at once; otherwise it is queued, granted a slot, and runs; "
            "cancelled while it is queued or granted a slot, it ends without having run.",
            392,
            {
                "create_task": (80, 20, ""),
                "queued": (80, 110, ""),
                "granted": (80, 200, ""),
                "running": (80, 290, ""),
                "ended": (80, 372, "thick"),
                "cancelled": (330, 155, "dashed"),
            },
            [
                "M80 37V90 | 88 68 no slot",
                "M80 127V180 | 88 158 a slot comes free",
                "M80 217V270 | 88 248 its first step",
                "M80 307V352",
                "M135 116H240Q268 116 280 136 | 195 108 cancel()",
                "M135 194H240Q268 194 280 174 | 195 212 cancel()",
                "M345 172V340Q345 372 320 372H138 | 190 346 its coroutine is | 190 362 closed; it has not run",
                "M135 20H380Q392 20 392 40V270Q392 290 372 290H138"
                " | 160 38 a slot is free, no limit, | 160 54 or a background task",
            ],
        ),
    }


if __name__ == "__main__":
    for file, drawn in drawings().items():
        (FOLDER / file).write_text(drawn, encoding="utf-8")
