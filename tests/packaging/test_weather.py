"""Every program of the pages in bad weather: Ctrl-C, a task that fails, a task that is cancelled, at any moment.

Whatever happens, the program ends, by itself, with that error and no other; no task, coroutine or connection is left.
What a recipe promises beyond that is in test_recipes.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import re
import selectors
import signal
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from helpers import Selector, settle

import quattro

ROOT = Path(__file__).parents[2]
MOMENTS = 20  # at most, of a program: as many passes of its loop, and as many steps of its tasks
EXEMPT = {
    "plain-server-1-cancelled": "the body waits for the address of the server that was cancelled",
    "servers-4-cancelled": "the client waits for the answer that was cancelled",
    "shared-limits-2-cancelled": "its last lines expect that there were ten requests",
}
PATIENCE = 10  # seconds that a program with sockets may wait for nothing
NETWORK = re.compile(r"import aiohttp|from (aiohttp|httpx) |asyncio\.start_server|signal\.")

# What runs the function that stands in for gather() on its page.
GATHERS = """
import asyncio

async def job(number):
    await asyncio.sleep(0)
    return number

async def main():
    await gather(*map(job, range(4)), return_exceptions=%s, concurrency_limit=2)

asyncio.run(main())
"""


def programs() -> Iterator[Any]:
    """Each block that runs a loop, and gather()."""
    page = (ROOT / "docs" / "coming-from-pure-python-quattro.md").read_text("utf-8")
    (block,) = re.findall(r"^:name: gather\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    for number, caught in enumerate((False, True), 1):
        yield pytest.param(block + GATHERS % caught, id=f"gather-{number}")
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = page.read_text("utf-8")
        blocks = [match[1] for match in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)]
        for number, block in enumerate(filter(re.compile(r"\b(asyncio|anyio)\.run\(").search, blocks), 1):
            if "AsyncioInstrumentor" in block:
                continue  # it patches asyncio for good: test_recipes.py has it
            windows = pytest.mark.skipif(sys.platform == "win32", reason="asyncio has no signal handlers on Windows")
            marks = windows if "add_signal_handler" in block else ()
            yield pytest.param(block, id=f"{page.stem}-{number}", marks=marks)


class Injected(OSError):
    """What a task fails with."""


class Watched(Coroutine[Any, Any, Any]):
    """A coroutine in whose n-th step something happens."""

    def __init__(self, coro: Any, weather: Weather) -> None:
        self.coro = coro
        self.weather = weather
        self.__name__ = self.__qualname__ = "watched"

    def send(self, value: Any) -> Any:
        if self.weather.now("step"):
            if self.weather.kind == "fails":
                return self.coro.throw(Injected("injected"))
            task = asyncio.current_task()
            assert task is not None
            asyncio.get_running_loop().call_soon(task.cancel)
        return self.coro.send(value)

    def throw(self, *error: Any) -> Any:
        return self.coro.throw(*error)

    def close(self) -> None:
        self.coro.close()

    def __await__(self) -> Any:
        return self  # as of a coroutine, whose send and throw these are

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return self.send(None)


class Weather:
    """What happens, and when: in which pass of the loop, or in which step of all the group's tasks together."""

    def __init__(self, kind: str, moment: int) -> None:
        self.kind = kind
        self.moment = moment
        self.passes = self.steps = 0
        self.running = self.happened = False
        self.reports: list[Any] = []
        self.left: set[Any] = set()

    def now(self, what: str) -> bool:
        """Count, and tell whether it is to happen now."""
        if what == "pass":
            self.passes += self.running
            now = self.kind == "interrupted" and self.running and self.passes == self.moment
        else:
            self.steps += 1
            now = self.kind in ("fails", "cancelled") and self.steps == self.moment
        self.happened |= now
        return now

    def group(self) -> type[Any]:
        """A task group whose tasks are watched."""
        weather = self

        class TaskGroup(quattro.TaskGroup):
            def create_task(self, coro: Any, **options: Any) -> Any:
                return super().create_task(weather.watch(coro), **options)

            def create_background_task(self, coro: Any, **options: Any) -> Any:
                kind = weather.kind  # who cancels a helper has to know who waits for it
                return super().create_background_task(coro if kind == "cancelled" else weather.watch(coro), **options)

        return TaskGroup

    def watch(self, coro: Any) -> Any:
        """A coroutine that is watched, or a callable that returns one."""
        return Watched(coro, self) if asyncio.iscoroutine(coro) else lambda: Watched(coro(), self)

    def loop(self, real: bool) -> Any:
        """A loop that counts, and knows when nothing can happen any more; without sockets, time passes at once."""
        weather = self
        ahead = 0.0

        class Idle(Selector):
            def select(self, timeout: float | None = None) -> Any:
                nonlocal ahead
                if real:
                    ready = selectors.SelectSelector.select(self, PATIENCE if timeout is None else timeout)
                    assert ready or timeout is not None
                    return ready
                ready = super().select(timeout and 0)
                if not ready and timeout:
                    ahead += timeout
                return ready

        class Loop(asyncio.SelectorEventLoop):
            async def create_server(self, *args: Any, **options: Any) -> Any:
                server = await super().create_server(*args, start_serving=False, **options)
                server._start_serving()  # asyncio yields after this, and loses the sockets if it is cancelled there
                return server

            async def _accept_connection2(
                self, make: Any, socket: Any, extra: Any, ssl: Any, server: Any, *rest: Any, **options: Any
            ) -> None:
                if server.sockets:  # asyncio leaves the connection open if the server has been closed meanwhile
                    await super()._accept_connection2(make, socket, extra, ssl, server, *rest, **options)  # type: ignore[misc]
                else:
                    socket.close()

            def time(self) -> float:
                return super().time() if real else ahead

            def _run_once(self) -> None:
                if weather.now("pass"):
                    signal.raise_signal(signal.SIGINT)
                super()._run_once()  # type: ignore[misc]

        loop = Loop(Idle())
        loop.slow_callback_duration = 1e9
        loop.set_exception_handler(lambda _, context: self.reports.append(context))
        return loop

    def run(self, block: str, monkeypatch: pytest.MonkeyPatch) -> BaseException | None:
        """Run a program; return what it ends with."""

        async def running(main: Any) -> Any:
            self.running = True
            try:
                return await main
            finally:
                self.running = False
                await asyncio.sleep(0)  # an interrupt that came together with errors is raised at the next await

        real = bool(NETWORK.search(block))

        def run(main: Any, **_: Any) -> Any:
            with asyncio.Runner(loop_factory=lambda: self.loop(real)) as runner:
                try:
                    return runner.run(running(main() if callable(main) else main))
                finally:
                    if real and "signal." not in block:
                        runner.run(settle())  # both ends of a connection learn that it is closed
                    self.left |= asyncio.all_tasks(runner.get_loop())

        with monkeypatch.context() as patch:
            patch.setattr("asyncio.run", run)
            patch.setattr("anyio.run", run)
            patch.setattr("quattro.TaskGroup", self.group())
            patch.setattr("sys.unraisablehook", lambda error: self.reports.append(error.exc_value))
            try:
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    exec(compile(block, "block", "exec", dont_inherit=True), {"__name__": "__main__"})
            except BaseException as error:
                if isinstance(error, AssertionError):
                    raise
                return strip(error)
            finally:
                gc.collect()
        return None


def strip(error: BaseException) -> BaseException:
    """An error without its frames, which hold what is to be collected."""
    seen = set()
    todo: list[BaseException | None] = [error]
    while todo:
        one = todo.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            todo += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]
    return error


def leaves(error: BaseException | None) -> list[BaseException]:
    """The errors in a group of errors, or in the one that was raised from it."""
    if error is None:
        return []
    if isinstance(error, BaseExceptionGroup):
        return [leaf for one in error.exceptions for leaf in leaves(one)]
    return leaves(error.__cause__) if isinstance(error.__cause__, BaseExceptionGroup) else [error]


def told_by_itself(error: BaseException, block: str) -> bool:
    """The program raises this error without our doing, or it is what a client learns of an error in its server."""
    itself = type(error) is OSError and str(error) in block
    return itself or isinstance(error, aiohttp.ClientError | aiohttp.WSMessageTypeError)


@pytest.fixture(autouse=True)
def terminal() -> Iterator[None]:
    """Ctrl-C is heard, as by a program in a terminal: a shell's background job ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("kind", ["interrupted", "fails", "cancelled"])
@pytest.mark.parametrize("block", [*programs()])
def test_program(block: str, kind: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """It ends with what happened, once, or deals with it; nothing is left."""
    if reason := EXEMPT.get(request.node.callspec.id):
        pytest.skip(reason)
    fair = Weather("fair", 0)
    assert fair.run(block, monkeypatch) is None
    assert not fair.reports and not fair.left
    moments = range(1, 1 + (fair.passes if kind == "interrupted" else fair.steps))
    for moment in moments[:: 1 + len(moments) // MOMENTS]:
        weather = Weather(kind, moment)
        error = weather.run(block, monkeypatch)
        where = f"{kind} at {moment} of {len(moments)}: {error!r}"
        assert not weather.reports and not weather.left, (where, weather.reports, weather.left)
        found = [type(leaf) for leaf in leaves(error) if not told_by_itself(leaf, block)]
        if kind == "interrupted" and weather.happened:
            assert found == [KeyboardInterrupt], where
        elif found:
            assert found == [Injected if kind == "fails" else asyncio.CancelledError], where
