"""What is measured: each way of running `n` jobs, written as its users write it.

A job is a coroutine function without arguments. `UNLIMITED` holds functions (job, size, groups), which run `groups`
groups of `size` jobs one after the other; `LIMITED` functions (job, n, limit); `MAPS` the same, where the job takes an
item, and its results are iterated over. The keys are the names in the tables.
"""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import aiometer
import anyio
import trio
from aiostream import stream
from bodies import Job, bare, flat, hooked, limited, mapped, waiting_for_slots

import quattro

Run = Callable[..., Awaitable[None]]

OURS, STOCK, BARE, NAMESAKE = "quattro", "asyncio.TaskGroup", "loop.create_task", "namesake"
HOOKED, ACQUIRED = "hooked task", "Semaphore, acquired before"
AS_COMPLETED, AIOSTREAM = "as_completed + Semaphore", "aiostream"
SEMAPHORE, GATHER, ANYIO, AIOMETER, TRIO = "TaskGroup + Semaphore", "asyncio.gather", "anyio", "aiometer", "trio"


def load_namesake() -> ModuleType:
    """The pure-Python project of our name, under another one; `make` puts it into build/."""
    path = Path(__file__).parent.parent / "build" / "namesake" / "quattro" / "__init__.py"
    if not path.exists():
        sys.exit("the namesake is missing: make build/namesake")
    spec = importlib.util.spec_from_file_location("namesake", path, submodule_search_locations=[str(path.parent)])
    assert spec is not None and spec.loader is not None
    module = sys.modules["namesake"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


namesake = load_namesake()


async def start_soon(group: Callable[[], Any], job: Job, size: int, groups: int = 1) -> None:
    """Whatever has start_soon()."""
    for _ in range(groups):
        async with group() as tg:
            for _ in range(size):
                tg.start_soon(job)


async def gather(job: Job, size: int, groups: int = 1) -> None:
    """asyncio.gather()."""
    for _ in range(groups):
        await asyncio.gather(*[job() for _ in range(size)])


UNLIMITED: dict[str, Run] = {
    OURS: partial(flat, quattro.TaskGroup),
    STOCK: partial(flat, asyncio.TaskGroup),
    NAMESAKE: partial(flat, namesake.TaskGroup),
    GATHER: gather,
    ANYIO: partial(start_soon, anyio.create_task_group),
    TRIO: partial(start_soon, trio.open_nursery),
    HOOKED: hooked,
    BARE: bare,
}


async def acquired(job: Job, n: int, limit: int) -> None:
    """A Semaphore that is acquired before each task is made, and released in its done callback."""
    slots = asyncio.Semaphore(limit)

    def release(_: asyncio.Task[Any]) -> None:
        slots.release()

    async with asyncio.TaskGroup() as tg:
        for _ in range(n):
            await slots.acquire()
            tg.create_task(job()).add_done_callback(release)


PRODUCING: dict[str, Run] = {OURS: partial(waiting_for_slots, quattro.TaskGroup), ACQUIRED: acquired}


async def semaphore(job: Job, n: int, limit: int) -> None:
    """A Semaphore in a wrapper around every job."""
    slots = asyncio.Semaphore(limit)

    async def wrapper(coro: Any) -> Any:
        async with slots:
            return await coro

    async with asyncio.TaskGroup() as tg:
        for _ in range(n):
            tg.create_task(wrapper(job()))


async def capacity(group: Callable[[], Any], limiter: Callable[[int], Any], job: Job, n: int, limit: int) -> None:
    """anyio's and Trio's CapacityLimiter."""
    slots = limiter(limit)

    async def wrapper() -> None:
        async with slots:
            await job()

    async with group() as tg:
        for _ in range(n):
            tg.start_soon(wrapper)


async def run_all(job: Job, n: int, limit: int) -> None:
    """aiometer."""
    await aiometer.run_all([job] * n, max_at_once=limit)


LIMITED: dict[str, Run] = {
    OURS: partial(limited, quattro.TaskGroup),
    SEMAPHORE: semaphore,
    NAMESAKE: partial(limited, namesake.TaskGroup),
    ANYIO: partial(capacity, anyio.create_task_group, anyio.CapacityLimiter),
    AIOMETER: run_all,
    TRIO: partial(capacity, trio.open_nursery, trio.CapacityLimiter),
    BARE: lambda job, n, limit: bare(job, n),
}


async def as_completed(job: Job, n: int, limit: int) -> None:
    """asyncio.as_completed(), with a Semaphore in a wrapper; all tasks are there from the start."""
    slots = asyncio.Semaphore(limit)

    async def wrapper(item: int) -> Any:
        async with slots:
            return await job(item)

    for result in asyncio.as_completed([wrapper(item) for item in range(n)]):
        await result


async def amap(job: Job, n: int, limit: int) -> None:
    """aiometer."""
    async with aiometer.amap(job, list(range(n)), max_at_once=limit) as results:
        async for _ in results:
            pass


async def stream_map(job: Job, n: int, limit: int) -> None:
    """aiostream, with the results in the order of the items."""
    async with stream.map(stream.iterate(range(n)), job, task_limit=limit).stream() as results:
        async for _ in results:
            pass


async def anyio_amap(job: Job, n: int, limit: int) -> None:
    """anyio's has no limit, and gives a list."""
    for _ in await anyio.amap(job, range(n)):
        pass


MAPS: dict[str, Run] = {
    OURS: partial(mapped, quattro.TaskGroup),
    f"{OURS}, buffersize=20": partial(mapped, quattro.TaskGroup, buffersize=20),
    f"{OURS}, as they come": partial(mapped, quattro.TaskGroup, ordered=False),
    AS_COMPLETED: as_completed,
    AIOMETER: amap,
    AIOSTREAM: stream_map,
    f"{ANYIO}, no limit": anyio_amap,
    f"{BARE}, no limit": lambda job, n, limit: bare(partial(job, 1), n),
}
