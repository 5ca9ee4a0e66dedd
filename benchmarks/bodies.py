"""The bodies of the workloads, one each, for whatever has an asyncio.TaskGroup's methods, and for no group at all.

Nothing but asyncio is needed here, so that instructions.py can count without the rest.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

Job = Callable[..., Any]  # a coroutine function without arguments (of a map: with one)
Group = Callable[..., Any]


# --- Jobs


async def noop() -> int:
    """It ends at once."""
    return 1


async def sleep0() -> None:
    """It lets the others run once."""
    await asyncio.sleep(0)


async def sleep0_thrice() -> None:
    """It lets the others run three times."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def same(item: Any) -> Any:
    """It gives an item back at once."""
    return item


async def same_later(item: Any) -> Any:
    """It lets the others run once before."""
    await asyncio.sleep(0)
    return item


async def for_ever() -> None:
    """It waits until it is cancelled."""
    await asyncio.get_running_loop().create_future()


async def failing() -> None:
    """It aborts its group."""
    raise ValueError


# --- Groups


async def flat(group: Group, job: Job, size: int, groups: int = 1) -> None:
    """Groups of `size` tasks, one group after the other."""
    for _ in range(groups):
        async with group() as tg:
            for _ in range(size):
                tg.create_task(job())


async def flat_kept(group: Group, job: Job, size: int, groups: int = 1) -> None:
    """The same, with the tasks in a list, as who wants their results has them."""
    for _ in range(groups):
        async with group() as tg:
            tasks = [tg.create_task(job()) for _ in range(size)]
        del tasks


async def empty(group: Group, groups: int) -> None:
    """Groups without tasks, one after the other."""
    for _ in range(groups):
        async with group():
            pass


async def flat_callables(group: Group, job: Job, size: int) -> None:
    """A group that is given callables."""
    async with group() as tg:
        for _ in range(size):
            tg.create_task(job)


async def flat_eager(group: Group, job: Job, size: int) -> None:
    """A group whose tasks start within create_task()."""
    async with group() as tg:
        for _ in range(size):
            tg.create_task(job(), eager_start=True)


async def nested(group: Group, job: Job, size: int) -> None:
    """Each of `size` tasks has a group of `size` tasks of its own."""

    async def inner() -> None:
        async with group() as tg:
            for _ in range(size):
                tg.create_task(job())

    async with group() as tg:
        for _ in range(size):
            tg.create_task(inner())


async def limited(group: Group, job: Job, n: int, limit: int) -> None:
    """A concurrency limit."""
    async with group(concurrency_limit=limit) as tg:
        for _ in range(n):
            tg.create_task(job())


async def limited_callables(group: Group, job: Job, n: int, limit: int) -> None:
    """A concurrency limit, and callables."""
    async with group(concurrency_limit=limit) as tg:
        for _ in range(n):
            tg.create_task(job)


async def mapped(group: Group, job: Job, n: int, limit: int, **options: Any) -> None:
    """The results of n items, as they come out of the group's map."""
    async with group(concurrency_limit=limit) as tg:
        async for _ in tg.map(job, range(n), **options):
            pass


async def waiting_for_slots(group: Group, job: Job, n: int, limit: int) -> None:
    """A producer that makes a task when a slot is free."""
    async with group(concurrency_limit=limit) as tg:
        for _ in range(n):
            await tg.wait_for_slot()
            tg.create_task(job())


async def background(group: Group, n: int) -> None:
    """Background tasks that run, and are cancelled at the exit."""
    async with group() as tg:
        for _ in range(n):
            tg.create_background_task(for_ever())
        await asyncio.sleep(0)


async def cancelled_by_hand(group: Group, n: int) -> None:
    """The same for a group without background tasks."""
    async with group() as tg:
        tasks = [tg.create_task(for_ever()) for _ in range(n)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()


async def abort(group: Group, n: int) -> None:
    """One task fails while n wait."""
    try:
        async with group() as tg:
            for _ in range(n):
                tg.create_task(for_ever())
            await asyncio.sleep(0)
            tg.create_task(failing())
    except* ValueError:
        pass


async def abort_queued(group: Group, n: int, limit: int) -> None:
    """The body fails while `limit` tasks wait and the rest of n is queued."""
    try:
        async with group(concurrency_limit=limit) as tg:
            for _ in range(n):
                tg.create_task(for_ever())
            await asyncio.sleep(0)
            raise ValueError
    except* ValueError:
        pass


async def cancel_queued(group: Group, n: int, limit: int) -> None:
    """Every task is cancelled from outside, those that are queued first."""
    async with group(concurrency_limit=limit) as tg:
        tasks = [tg.create_task(for_ever()) for _ in range(n)]
        await asyncio.sleep(0)
        for task in reversed(tasks):
            task.cancel()


# --- The same without a group: the cost of the tasks themselves


async def bare(job: Job, size: int, groups: int = 1) -> None:
    """Tasks that are awaited one by one."""
    loop = asyncio.get_running_loop()
    for _ in range(groups):
        tasks = [loop.create_task(job()) for _ in range(size)]
        for task in tasks:
            await task


async def hooked(job: Job, size: int, groups: int = 1) -> None:
    """Tasks with a done callback in C each, awaited by nobody: the least that any exact group can do."""
    loop = asyncio.get_running_loop()
    for _ in range(groups):
        ended: deque[asyncio.Task[Any]] = deque(maxlen=1)
        for _ in range(size):
            task = loop.create_task(job())
            task.add_done_callback(ended.append)
        while not (ended and ended[0] is task):
            await asyncio.sleep(0)


async def bare_eager(job: Job, size: int) -> None:
    """bare(), started within create_task()."""
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(job(), eager_start=True) for _ in range(size)]
    for task in tasks:
        await task


async def bare_nested(job: Job, size: int) -> None:
    """nested() without groups."""
    await bare(lambda: bare(job, size), size)


async def bare_cancelled(n: int) -> None:
    """Tasks that run, and are cancelled and awaited."""
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(for_ever()) for _ in range(n)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    for task in tasks:
        try:
            await task
        except asyncio.CancelledError:
            pass


class Nothing:
    """An `async with` that does nothing: what an empty group would cost if groups were free."""

    async def __aenter__(self) -> Nothing:
        return self

    async def __aexit__(self, *args: object) -> None:
        return None
