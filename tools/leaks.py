"""One function for each path through a group; run as a script it counts what a path leaves behind.

`python leaks.py PATH LOOP ROUNDS` prints by how many blocks of memory, references (in a debug build) and bytes of
resident memory (on Linux) the process grew over so many rounds of a path, the least of a few tries: what is held once,
by a cache say, does not count; what every round leaves does. Blocks are small; what is larger shows in the bytes.

On a second line comes what a round leaves to the collector.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import gc
import sys
from asyncio import CancelledError
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from helpers import LOOPS, forever, noop, settle

from quattro import TaskGroup, TaskGroupStatistics, _quattro

PATHS: dict[str, Callable[[], Awaitable[None]]] = {}
TYPES: dict[str, type] = {}  # what a path is about
CYCLIC: set[str] = set()  # paths that leave a cycle to the collector, by their nature


def path(about: type, cyclic: bool = False) -> Callable[..., Any]:
    """A cyclic path leaves work to the collector: its docstring says why."""

    def add(function: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        PATHS[function.__name__] = function
        TYPES[function.__name__] = about
        if cyclic:
            CYCLIC.add(function.__name__)
        return function

    return add


async def fail(passes: int = 0) -> None:
    await settle(passes)
    raise ValueError


# ---- a group that ends well


@path(TaskGroup)
async def create_task() -> None:
    async with TaskGroup() as tg:
        for _ in range(3):
            context = contextvars.copy_context()
            tg.create_task(noop(), name="named", context=context)
        tg.create_task(coro=noop())
        tg.create_task(noop)


@path(TaskGroup)
async def create_background_task() -> None:
    async with TaskGroup(concurrency_limit=1) as tg:
        tg.create_background_task(forever)
        tg.create_background_task(noop())
        tg.create_background_task(forever()).cancel()
        tg.create_task(settle(2))


@path(TaskGroup)
async def concurrency_limit() -> None:
    async with TaskGroup(concurrency_limit=2) as tg:
        for _ in range(tg.concurrency_limit or 0):
            tg.create_task(settle(2))
            tg.create_task(noop)
            context = contextvars.copy_context()
            tg.create_task(settle(1), name="named", context=context)


@path(TaskGroup)
async def empty() -> None:
    async with TaskGroup():
        pass


@path(TaskGroup)
async def many() -> None:
    """More than what a block of memory holds; they end in another order than they came."""
    async with TaskGroup() as tg:
        tasks = [tg.create_task(forever()) for _ in range(300)]
        for i in range(300):
            tasks[i * 7 % 300].cancel()


@path(TaskGroup)
async def nested() -> None:
    with suppress(ExceptionGroup):
        async with TaskGroup(concurrency_limit=1) as outer, TaskGroup() as inner:
            outer.create_task(queued_error())
            inner.create_task(cancel())
            inner.create_task(body_error())
            inner.create_background_task(fail(3))


@path(TaskGroup)
async def private_names() -> None:
    async with TaskGroup(concurrency_limit=1) as tg:
        tg.create_task(noop())
        tg.create_task(noop())
        repr(tg), tg._tasks, tg._errors, tg._parent_task, tg._loop, tg._base_error, tg._on_completed_fut, TaskGroup[int]


# ---- eagerly, and hooks of all kinds


def can_start_eagerly() -> bool:
    """Below 3.14 a task factory excludes the keyword."""
    return sys.version_info >= (3, 12 if asyncio.get_running_loop().get_task_factory() is None else 14)


@path(TaskGroup)
async def eager_start() -> None:
    if sys.version_info >= (3, 14) or (
        sys.version_info >= (3, 12) and not asyncio.get_running_loop().get_task_factory()
    ):
        async with TaskGroup(concurrency_limit=1) as tg:
            for passes in (0, 2, 2):
                tg.create_task(settle(passes), eager_start=True)
                tg.create_task(noop, eager_start=True)
            tg.create_background_task(forever(), eager_start=True)


@path(TaskGroup)
async def eager_error() -> None:
    if sys.version_info >= (3, 14) or (
        sys.version_info >= (3, 12) and not asyncio.get_running_loop().get_task_factory()
    ):
        with suppress(ExceptionGroup):
            async with TaskGroup(concurrency_limit=1) as tg:
                tg.create_task(fail(), eager_start=True)
                tg.create_task(noop(), eager_start=True)


class Subclass(TaskGroup):
    def _on_task_done(self, task: asyncio.Task[object]) -> None:
        super()._on_task_done(task)

    def _abort(self) -> None:
        super()._abort()


@path(TaskGroup)
async def subclass() -> None:
    async with Subclass(concurrency_limit=1) as tg:
        tg.create_task(settle(1))
        tg.create_task(noop())
        tg.create_task(noop()).cancel()
    with suppress(ExceptionGroup):
        async with Subclass(concurrency_limit=1) as tg:
            tg.create_task(noop())
            tg.create_task(fail())
            tg.create_task(noop())


def factory(loop: Any, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
    return asyncio.Task(coro, loop=loop, **kwargs)


@path(TaskGroup)
async def task_factory() -> None:
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    try:
        loop.set_task_factory(factory)
        await concurrency_limit()
        await queued_error()
        loop.set_task_factory(lambda *args, **kwargs: None)  # type: ignore[arg-type,return-value]
        async with TaskGroup(concurrency_limit=1) as tg:
            for _ in range(2):
                with suppress(AttributeError):
                    tg.create_task(noop())
    finally:
        loop.set_task_factory(before)


@path(TaskGroup)
async def many_keywords() -> None:
    loop: Any = asyncio.get_running_loop()
    loop.create_task = lambda coro, **kwargs: asyncio.Task(coro, loop=loop)
    try:
        async with TaskGroup(concurrency_limit=1) as tg:
            for _ in range(2):
                tg.create_task(noop(), a=1, b=2, c=3, d=4, e=5, f=6, g=7)
    finally:
        del loop.create_task


# ---- a group that is left early


@path(TaskGroup)
async def cancel() -> None:
    async with TaskGroup(concurrency_limit=1) as tg:
        for _ in range(4):
            tg.create_task(forever())
            tg.create_task(forever)
        tg.create_background_task(forever)
        await asyncio.sleep(0)
        tg.cancel()


@path(TaskGroup)
async def cancel_in_the_queue() -> None:
    async with TaskGroup(concurrency_limit=1) as tg:
        tasks = [tg.create_task(settle(2)) for _ in range(5)]
        await asyncio.sleep(0)
        for task in tasks[1:]:
            task.cancel("message")


@path(TaskGroup)
async def cancel_before_the_first_step() -> None:
    async with TaskGroup(concurrency_limit=1) as tg:
        for _ in range(4):
            tg.create_task(settle(2)).cancel()


@path(TaskGroup)
async def child_error() -> None:
    with suppress(ExceptionGroup):
        async with TaskGroup() as tg:
            tg.create_task(fail())
            tg.create_task(forever())
            tg.create_background_task(forever)


@path(TaskGroup)
async def background_error() -> None:
    with suppress(ExceptionGroup):
        async with TaskGroup(concurrency_limit=1) as tg:
            tg.create_background_task(fail(2))
            tg.create_task(forever())
            tg.create_task(forever())


@path(TaskGroup)
async def queued_error() -> None:
    with suppress(ExceptionGroup):
        async with TaskGroup(concurrency_limit=1) as tg:
            tg.create_task(settle(1))
            tg.create_task(fail())
            tg.create_task(forever)


@path(TaskGroup)
async def watched_by_others() -> None:
    """Queued tasks with done callbacks of somebody's, one of which fails."""
    for job in (noop, fail):
        with suppress(ExceptionGroup):
            async with TaskGroup(concurrency_limit=1) as tg:
                tasks = [tg.create_task(settle(1)), tg.create_task(job()), tg.create_task(settle(1))]
                for task in tasks * 2:
                    task.add_done_callback(lambda _: None)


class Answer:
    def __call__(self) -> int:
        return 42


@path(TaskGroup)
async def callable_error() -> None:
    for broken in (lambda: 42, lambda: 1 / 0, Answer()):
        for limit in (None, 1):
            with suppress(ExceptionGroup):
                async with TaskGroup(concurrency_limit=limit) as tg:
                    tg.create_task(settle(1))
                    tg.create_task(broken)  # type: ignore[arg-type]


@path(TaskGroup)
async def body_error() -> None:
    with suppress(ExceptionGroup):
        async with TaskGroup(concurrency_limit=1) as tg:
            for _ in range(4):
                tg.create_task(noop())
            raise KeyError


@path(TaskGroup)
async def base_error() -> None:
    """SystemExit in the body, with an error of a child that it displaces, and alone."""

    async def fail_when_cancelled() -> None:
        try:
            await forever()
        finally:
            raise KeyError

    with suppress(SystemExit):
        async with TaskGroup() as tg:
            tg.create_task(fail_when_cancelled())
            await settle(2)
            raise SystemExit
    with suppress(SystemExit):
        async with TaskGroup():
            raise SystemExit


@path(TaskGroup)
async def outside_cancel() -> None:
    async def parent() -> None:
        async with TaskGroup(concurrency_limit=1) as tg:
            for _ in range(3):
                tg.create_task(forever())
            tg.create_background_task(forever)

    task = asyncio.ensure_future(parent())
    await settle(3)
    task.cancel()
    with suppress(CancelledError):
        await task


@path(TaskGroup)
async def timeout_around() -> None:
    """With an error of a child as well, so that the group cancels the parent again."""

    async def fail_when_cancelled() -> None:
        try:
            await forever()
        finally:
            raise KeyError

    for job in (forever, fail_when_cancelled):
        with suppress(TimeoutError, ExceptionGroup):
            async with asyncio.timeout(None) as scope, TaskGroup() as tg:
                tg.create_task(job())
                await settle(2)
                scope.reschedule(asyncio.get_running_loop().time() - 1)
                await forever()


@path(TaskGroup)
async def stray_cancel() -> None:
    """cancel() called by the parent itself, which awaits nothing afterwards."""
    async with TaskGroup() as tg:
        tg.cancel()
        tg.cancel()


# ---- errors that cancel nothing, and waiting for a slot


@path(TaskGroup)
async def cancel_on_error() -> None:
    for abort in (noop, fail, cancel):
        with suppress(ExceptionGroup):
            async with TaskGroup(concurrency_limit=1, cancel_on_error=False) as tg:
                for passes in (0, 2, 0):
                    tg.create_task(fail(passes))
                await settle(9)
                tg.create_background_task(abort())
                assert not tg.cancel_on_error


@path(TaskGroup)
async def wait_for_slot() -> None:
    async with TaskGroup(concurrency_limit=1) as tg:
        for _ in range(3):
            await tg.wait_for_slot()
            tg.create_task(settle(2))
        waiters = [asyncio.ensure_future(tg.wait_for_slot()) for _ in range(3)]
        await asyncio.sleep(0)
        waiters[0].cancel()
        await asyncio.wait(waiters)
        tg.create_task(forever())
        stranger = asyncio.ensure_future(tg.wait_for_slot())
        stranger.add_done_callback(lambda stranger: stranger.cancelled() or stranger.exception())
        await asyncio.sleep(0)
        tg.cancel()
    await asyncio.wait([stranger])
    assert stranger.exception()
    with suppress(RuntimeError):
        await tg.wait_for_slot()


# ---- map


async def later(number: int) -> int:
    await settle(number % 3)
    return number


async def numbers(fails: bool = False) -> AsyncIterator[int]:
    for number in range(10):
        await settle(number % 2)
        yield number
    if fails:
        raise ValueError


@path(TaskGroup)
async def mapped() -> None:
    async with TaskGroup(concurrency_limit=2) as tg:
        for ordered in (True, False):
            for source in (range(10), numbers()):
                async for _ in tg.map(later, source, ordered=ordered, buffersize=3):
                    pass
            for source in (range(10), numbers()):
                async for _ in tg.map(later, source, ordered=ordered):
                    break


@path(TaskGroup)
async def map_that_fails() -> None:
    async def half(number: int) -> float:
        return await later(number) / (number - 5)

    for source in (range(10), numbers(), numbers(fails=True)):
        for f in (half, later):
            with suppress(ExceptionGroup):
                async with TaskGroup(concurrency_limit=2) as tg:
                    async for _ in tg.map(f, source):
                        pass


@path(TaskGroup)
async def map_that_is_cancelled() -> None:
    for source in (range(10), numbers()):
        async with TaskGroup(concurrency_limit=2) as tg:
            results = tg.map(later, source)
            for _ in range(3):
                consumer = asyncio.ensure_future(anext(results))  # type: ignore[arg-type]
                await asyncio.sleep(0)
                consumer.cancel()
                await asyncio.wait([consumer])
            async for _ in results:
                tg.cancel()
        with suppress(RuntimeError):
            await anext(results)


@path(TaskGroup)
async def map_that_is_refused() -> None:
    with suppress(TypeError):
        TaskGroup().map(later, [1])
    with suppress(TypeError):
        TaskGroup().map(later(1), [1])  # type: ignore[call-overload]
    with suppress(RuntimeError):
        await anext(TaskGroup().map(later, [1], buffersize=1))


# ---- what is refused


@path(TaskGroup)
async def refused() -> None:
    group = TaskGroup()
    with suppress(RuntimeError):
        group.create_task(noop())
    async with group:
        with suppress(TypeError):
            group.create_task(42)  # type: ignore[arg-type]
        with suppress(TypeError):
            group.create_task(noop(), colour="red")
        with suppress(RuntimeError):
            await group.__aenter__()
        group._abort()
        with suppress(RuntimeError):
            group.create_background_task(noop())
    for refusal in (lambda: group.create_task(noop()), lambda: group.__init__(), lambda: copy.copy(group)):  # type: ignore[misc]
        with suppress(RuntimeError, TypeError):
            refusal()


@path(TaskGroup)
async def never_entered() -> None:
    TaskGroup(concurrency_limit=3).cancel()
    TaskGroup.__new__(TaskGroup)
    for arguments in ({"concurrency_limit": 0}, {"concurrency_limit": "1"}, {"limit": 1}):
        with suppress(ValueError, TypeError):
            TaskGroup(**arguments)  # type: ignore[arg-type]


@path(TaskGroup, cyclic=True)
async def dropped_while_running() -> None:
    """Until it finishes, a group and its done callback hold each other."""
    group = TaskGroup(concurrency_limit=1)
    await group.__aenter__()
    for _ in range(3):
        group.create_task(settle(1))
    del group
    await settle(12)


@path(TaskGroup, cyclic=True)
async def dropped_in_a_cycle() -> None:
    """Only the collector can free this one: it holds its tasks, and they hold it."""
    group = Subclass(concurrency_limit=1)
    await group.__aenter__()
    tasks = [group.create_task(job, name="held") for job in (forever(), forever, forever)]
    tasks.append(group.create_background_task(forever))
    await settle(2)
    tasks.append(group.create_task(noop))
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined]


# ---- the helper types


@path(_quattro._Callback)
async def callbacks_by_hand() -> None:
    """A callback that somebody compares, shows and calls, and that has noted the slowest task in debug mode."""
    loop = asyncio.get_running_loop()
    debug = loop.get_debug()
    loop.set_debug(True)
    try:
        async with TaskGroup(concurrency_limit=1) as tg:
            first = tg.create_task(noop())
            tg.create_task(noop())
            callbacks = [op for op in gc.get_referents(tg) if type(op) is _quattro._Callback]
            for callback in callbacks:
                hash(callback), repr(callback), callback.__name__, callback.__qualname__, callback.__self__
                with suppress(TypeError):
                    callback(1, 2, 3)
            first.remove_done_callback(tg._on_task_done)
            first.add_done_callback(callbacks[0])
    finally:
        loop.set_debug(debug)


@path(_quattro._Await)
async def awaited_by_hand() -> None:
    """Each way to drive what __aenter__() and __aexit__() return, and the wrong ones."""
    group = TaskGroup()
    enter, leave = _quattro.TaskGroup.__aenter__, _quattro.TaskGroup.__aexit__
    for refused in (enter(group), leave(group, None, None, None)):
        with suppress(KeyError):
            refused.throw(KeyError("k"))
        for again in (lambda: refused.send(None), lambda: refused.throw(1), refused.throw):
            with suppress(RuntimeError, TypeError):
                again()
        refused.close()
    with suppress(StopIteration):
        enter(group).send(None)
    leaving = leave(group, None, None, None)
    with suppress(StopIteration):
        next(iter(leaving))
    with suppress(RuntimeError):
        await leaving


@path(_quattro._Await)
async def exit_by_hand() -> None:
    """An exit that is thrown into while it waits."""
    group = TaskGroup()
    await group.__aenter__()
    task = group.create_task(settle(3))
    leaving = group.__aexit__(None, None, None)
    leaving.send(None)
    leaving.throw(CancelledError("outside"))
    with suppress(KeyError):
        leaving.throw(KeyError, KeyError("value"), None)
    task.cancel()
    await settle(3)


@path(_quattro._Await)
async def broken_off() -> None:
    """The same for an exit that is closed while it waits."""
    group = TaskGroup(concurrency_limit=1)
    await group.__aenter__()
    task = group.create_task(forever())
    group.create_task(noop())
    leaving = group.__aexit__(None, None, None)
    leaving.send(None)
    leaving.close()
    task.cancel()
    await settle(4)


@path(_quattro._Turn)
async def turn_by_hand() -> None:
    """A queued task's turn, which nobody but the task should touch."""
    with suppress(ExceptionGroup):
        async with TaskGroup(concurrency_limit=1) as tg:
            running = tg.create_task(forever())
            queued = [tg.create_task(noop()) for _ in range(4)]
            await settle(2)
            turns = [task.get_coro().cr_await for task in queued]  # type: ignore[union-attr]
            repr(turns[0]), turns[0]._loop, turns[0].done(), turns[0]._asyncio_future_blocking
            for wrong in (
                turns[0].begin,
                turns[0].result,
                lambda: turns[0].add_done_callback(print),
                lambda: turns[0].cancel(1, 2),
            ):
                with suppress(RuntimeError, TypeError, asyncio.InvalidStateError):
                    wrong()
            turns[0].cancel(msg="by hand")
            turns[1].end()
            turns[2].fail()
            running.cancel()


@path(_quattro._Turn, cyclic=True)
async def python_task() -> None:
    """The Task of pure Python calls the turn's methods from Python; its own frames hold the errors that they handle."""
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    loop.set_task_factory(lambda loop, coro, **kwargs: asyncio.tasks._PyTask(coro, loop=loop, **kwargs))  # type: ignore[attr-defined]
    try:
        await concurrency_limit()
        await cancel_in_the_queue()
        await queued_error()
    finally:
        loop.set_task_factory(before)


@path(TaskGroupStatistics)
async def statistics() -> None:
    """Of numbers that the interpreter does not keep, too."""
    TaskGroup(concurrency_limit=1000).statistics()
    async with TaskGroup(concurrency_limit=1) as tg:
        tg.create_task(noop())
        tg.create_task(noop())
        stats = tg.statistics()
        stats.running, stats.queued, stats.background, stats.concurrency_limit, repr(stats), stats[:], stats == stats
    tg.statistics()


async def repeat(function: Callable[[], Awaitable[None]], rounds: int) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)
    loop.slow_callback_duration = 1e9  # a slow machine is nobody's leak
    for _ in range(rounds):
        await function()
    await settle()


def new_runner(kind: str) -> asyncio.Runner:
    loop_factory, debug = LOOPS[kind]
    return asyncio.Runner(loop_factory=loop_factory, debug=debug)


def resident() -> int:
    """The bytes of memory that this process has, 0 where nothing tells."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    except FileNotFoundError:
        return 0


def measure(function: Callable[[], Awaitable[None]], kind: str, rounds: int) -> list[int]:
    def now() -> list[int]:
        gc.collect()
        return [sys.getallocatedblocks(), getattr(sys, "gettotalrefcount", lambda: 0)(), resident()]

    least = [sys.maxsize] * 3
    with new_runner(kind) as runner:
        runner.run(repeat(function, min(rounds, 1000)))
        for tries in range(8):
            before = now()
            runner.run(repeat(function, rounds))
            least = [min(old, b - a) for old, a, b in zip(least, before, now(), strict=True)]
            if tries >= 2 and max(least[:2]) < 10:
                break  # caches have settled
    return least


def garbage(function: Callable[[], Awaitable[None]], kind: str) -> list[str]:
    async def main() -> list[str]:
        await repeat(function, 2)
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        await repeat(function, 1)
        gc.collect()
        gc.set_debug(0)
        left = [repr(op)[:100] for op in gc.garbage]
        gc.garbage.clear()
        return left

    with new_runner(kind) as runner:
        return runner.run(main())


if __name__ == "__main__":
    _, name, kind, rounds = sys.argv
    print(*measure(PATHS[name], kind, int(rounds)))
    print(garbage(PATHS[name], kind))
