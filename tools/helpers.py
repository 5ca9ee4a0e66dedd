"""What many tests need: kinds of loops, passes of the loop, and jobs that say what happens to them."""

from __future__ import annotations

import asyncio
import re
import selectors
import sys
from collections.abc import Callable
from typing import Any

ESCAPES = re.compile(r"\x1b\[[\d;?]*[A-Za-z]")  # colours, and where to write


async def wait_for_text(stream: asyncio.StreamReader | None, pattern: str) -> None:
    """Read what a program draws on the terminal until the pattern is in it."""
    assert stream is not None
    seen = ""
    while not re.search(pattern, seen):
        chunk = await stream.read(1024)
        assert chunk, seen[-1000:]
        seen += ESCAPES.sub("", chunk.decode())


def table_rows(printed: str) -> list[list[str]]:
    """The cells of a table that a program has printed, below the head, which has bars like theirs on Windows."""
    below = re.split("^[┡├]", printed, maxsplit=1, flags=re.MULTILINE)[-1]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in below.splitlines() if line[:1] == "│"]


def eager_loop() -> asyncio.AbstractEventLoop:
    """asyncio's loop with the eager task factory."""
    loop = asyncio.new_event_loop()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
    return loop


def factory_loop() -> asyncio.AbstractEventLoop:
    """asyncio's loop with a task factory of the old kind, as tracing tools install them."""
    loop = asyncio.new_event_loop()

    def factory(loop: Any, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=loop, **kwargs)

    loop.set_task_factory(factory)
    return loop


def uvloop_loop() -> asyncio.AbstractEventLoop:
    """uvloop's loop, which what only needs the other helpers can do without."""
    import uvloop

    return uvloop.new_event_loop()


LOOPS: dict[str, tuple[Callable[[], asyncio.AbstractEventLoop], bool]] = {
    "asyncio": (asyncio.new_event_loop, False),
    "debug": (asyncio.new_event_loop, True),
    "factory": (factory_loop, False),
}
if sys.platform != "win32":  # uvloop is not for Windows
    LOOPS["uvloop"] = (uvloop_loop, False)
if sys.version_info >= (3, 12):
    LOOPS["eager"] = (eager_loop, False)


async def settle(passes: int = 20) -> None:
    """Let the loop run until nothing that could run is left."""
    for _ in range(passes):
        await asyncio.sleep(0)


async def noop() -> int:
    """The least that a task can do."""
    return 1


async def forever() -> None:
    """Wait to be cancelled."""
    await asyncio.get_running_loop().create_future()


async def fail(error: BaseException, passes: int = 0) -> None:
    """Raise after some passes of the loop."""
    for _ in range(passes):
        await asyncio.sleep(0)
    raise error


class Log:
    """What happened, in order."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.running = 0
        self.peak = 0

    async def job(self, name: Any, passes: int = 1) -> Any:
        """Say when it starts and ends, and how many run at once."""
        self.events.append(("start", name))
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            for _ in range(passes):
                await asyncio.sleep(0)
        finally:
            self.running -= 1
            self.events.append(("end", name))
        return name

    async def waiter(self, name: Any) -> None:
        """Wait to be cancelled, and say so."""
        self.events.append(("start", name))
        try:
            await forever()
        except asyncio.CancelledError:
            self.events.append(("cancelled", name))
            raise

    @property
    def started(self) -> list[Any]:
        """The names of the jobs that have started, in order."""
        return [name for what, name in self.events if what == "start"]


class Idle(BaseException):
    """The loop has nothing to do."""


class Selector(selectors.SelectSelector):
    """Waits for nobody."""

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise Idle
        return super().select(timeout)
