"""One function for each path through a group; run as a script, `python leaks.py PATH`, it counts what a path leaves.

It prints by how many blocks of memory (and references, in a debug build) the process grew over ROUNDS runs of the path,
the least of a few tries: what is held once, by a cache say, does not count; what every run leaves does.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress

from helpers import fail, forever, noop, settle

from quattro import TaskGroup

ROUNDS = 500
PATHS: dict[str, Callable[[], Awaitable[None]]] = {}


def path(function: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    PATHS[function.__name__] = function
    return function


@path
async def create_task() -> None:
    async with TaskGroup() as tg:
        for _ in range(3):
            tg.create_task(noop(), name="named")


@path
async def create_background_task() -> None:
    async with TaskGroup() as tg:
        tg.create_background_task(forever)
        tg.create_background_task(noop())
        tg.create_task(settle(2))


@path
async def concurrency_limit() -> None:
    async with TaskGroup(concurrency_limit=2) as tg:
        for _ in range(4):
            tg.create_task(settle(2))
            tg.create_task(noop)


@path
async def statistics() -> None:
    async with TaskGroup(concurrency_limit=1) as tg:
        tg.create_task(noop())
        tg.create_task(noop())
        repr(tg), tg.statistics(), tg._tasks, tg._errors, tg._parent_task, tg._loop, tg.concurrency_limit


@path
async def cancel() -> None:
    async with TaskGroup(concurrency_limit=1) as tg:
        for _ in range(4):
            tg.create_task(forever())
        tg.create_background_task(forever)
        await asyncio.sleep(0)
        tg.cancel()


@path
async def cancel_in_the_queue() -> None:
    async with TaskGroup(concurrency_limit=1) as tg:
        tasks = [tg.create_task(settle(2)) for _ in range(5)]
        await asyncio.sleep(0)
        for task in tasks[1:]:
            task.cancel("message")


@path
async def cancel_before_the_first_step() -> None:
    async with TaskGroup(concurrency_limit=1) as tg:
        for _ in range(4):
            tg.create_task(settle(2)).cancel()


@path
async def child_error() -> None:
    with suppress(ExceptionGroup):
        async with TaskGroup() as tg:
            tg.create_task(fail(ValueError()))
            tg.create_task(forever())
            tg.create_background_task(forever)


@path
async def queued_error() -> None:
    with suppress(ExceptionGroup):
        async with TaskGroup(concurrency_limit=1) as tg:
            tg.create_task(asyncio.sleep(0))
            tg.create_task(fail(ValueError()))
            tg.create_task(forever)


@path
async def callable_error() -> None:
    for broken in (lambda: 42, lambda: 1 / 0):
        with suppress(ExceptionGroup):
            async with TaskGroup(concurrency_limit=1) as tg:
                tg.create_task(asyncio.sleep(0))
                tg.create_task(broken)  # type: ignore[arg-type]


@path
async def body_error() -> None:
    with suppress(ExceptionGroup):
        async with TaskGroup(concurrency_limit=1) as tg:
            for _ in range(4):
                tg.create_task(noop())
            raise KeyError


@path
async def base_error() -> None:
    with suppress(SystemExit):
        async with TaskGroup() as tg:
            tg.create_task(forever())
            raise SystemExit


@path
async def outside_cancel() -> None:
    async def parent() -> None:
        async with TaskGroup(concurrency_limit=1) as tg:
            for _ in range(3):
                tg.create_task(forever())
            tg.create_background_task(forever)

    task = asyncio.ensure_future(parent())
    await settle(3)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@path
async def refused() -> None:
    group = TaskGroup()
    with suppress(RuntimeError):
        group.create_task(noop())
    async with group:
        for coro, kwargs in ((42, {}), (noop(), {"colour": "red"})):
            with suppress(TypeError):
                group.create_task(coro, **kwargs)  # type: ignore[arg-type]
    with suppress(RuntimeError):
        group.create_task(noop())


@path
async def eager_start() -> None:
    if sys.version_info >= (3, 12):
        async with TaskGroup(concurrency_limit=1) as tg:
            for coro in (noop(), noop(), settle(2), settle(2)):
                tg.create_task(coro, eager_start=True)


class Subclass(TaskGroup):
    def _on_task_done(self, task: asyncio.Task[object]) -> None:
        super()._on_task_done(task)

    def _abort(self) -> None:
        super()._abort()


@path
async def subclass() -> None:
    with suppress(ExceptionGroup):
        async with Subclass(concurrency_limit=1) as tg:
            tg.create_task(noop())
            tg.create_task(fail(ValueError()))
            tg.create_task(noop())


@path
async def task_factory() -> None:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(lambda loop, coro, **kwargs: asyncio.Task(coro, loop=loop, **kwargs))
    await concurrency_limit()
    await queued_error()
    loop.set_task_factory(lambda *args, **kwargs: None)
    async with TaskGroup() as tg:
        with suppress(AttributeError):
            tg.create_task(noop())
    loop.set_task_factory(None)


@path
async def never_entered() -> None:
    TaskGroup(concurrency_limit=3).cancel()
    TaskGroup().__aenter__()
    with suppress(ValueError):
        TaskGroup(concurrency_limit=0)


@path
async def dropped_while_running() -> None:
    group = TaskGroup(concurrency_limit=1)
    await group.__aenter__()
    for _ in range(3):
        group.create_task(settle(1))
    del group
    await settle(12)


@path
async def broken_off() -> None:
    group = TaskGroup()
    await group.__aenter__()
    task = group.create_task(forever())
    leaving = group.__aexit__(None, None, None)
    leaving.send(None)
    leaving.close()
    task.cancel()
    await settle(2)


async def repeat(function: Callable[[], Awaitable[None]]) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    for _ in range(ROUNDS):
        await function()


def measure(function: Callable[[], Awaitable[None]]) -> tuple[int, int]:
    count_references = getattr(sys, "gettotalrefcount", lambda: 0)
    growth = []
    with asyncio.Runner() as runner:
        runner.run(repeat(function))
        for _ in range(3):
            gc.collect()
            blocks, references = sys.getallocatedblocks(), count_references()
            runner.run(repeat(function))
            gc.collect()
            growth.append((sys.getallocatedblocks() - blocks, count_references() - references))
    return min(blocks for blocks, _ in growth), min(references for _, references in growth)


if __name__ == "__main__":
    print(*measure(PATHS[sys.argv[1]]))
