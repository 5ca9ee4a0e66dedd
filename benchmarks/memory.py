"""Bytes as tracemalloc counts them: a task, while all of them are there; and the peak of a run with a limit."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import subprocess
import sys
import tracemalloc
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio
from bodies import Job, bare, limited_callables, noop, sleep0
from implementations import (
    ACQUIRED,
    ANYIO,
    BARE,
    LIMITED,
    MAPS,
    OURS,
    PRODUCING,
    SEMAPHORE,
    TRIO,
    UNLIMITED,
    Run,
    namesake,
)
from workloads import trio_sleep0

import quattro

N = 10_000
MILLION = 1_000_000
PASSES = 20  # of the loop, until everything is where it waits

Start = Callable[[Job], Awaitable[None]]


async def on_asyncio(start: Start) -> float:
    """Start it all, look, let it end."""
    gate = asyncio.get_running_loop().create_future()

    async def job() -> None:
        await gate

    before = traced()
    task = asyncio.create_task(start(job))
    for _ in range(PASSES):
        await asyncio.sleep(0)
    size = traced() - before
    gate.set_result(None)
    await task
    return size / N


async def on_trio(start: Start) -> float:
    """The same."""
    gate = trio.Event()

    async def job() -> None:
        await gate.wait()

    before = traced()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(start, job)
        for _ in range(PASSES):
            await trio.lowlevel.checkpoint()
        size = traced() - before
        gate.set()
    return size / N


async def peak(run: Run, job: Job, n: int) -> int:
    """The most bytes at any time of a run of n items, a hundred at a time."""
    before = traced()
    tracemalloc.reset_peak()
    await run(job, n, 100)
    return tracemalloc.get_traced_memory()[1] - before


async def coroutines() -> float:
    """Coroutines alone."""
    before = traced()
    made = [noop() for _ in range(N)]
    size = traced() - before
    for coro in made:
        coro.close()
    return size / N


async def background_tasks(group: Callable[[], Any], job: Job) -> None:
    """Background tasks, with a body that waits, too."""
    async with group() as tg:
        for _ in range(N):
            tg.create_background_task(job())
        await job()


def with_item(job: Job) -> Job:
    """The job as a coroutine function of an item."""

    async def with_item(_: int) -> None:
        await job()

    return with_item


def traced() -> int:
    """Bytes in use."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


KINDS: dict[str, dict[str, Start]] = {
    "waiting task": {name: partial(lambda run, job: run(job, N), run) for name, run in UNLIMITED.items()},
    "queued task": {
        name: partial(lambda run, job: run(job, N, 10), run) for name, run in LIMITED.items() if name != BARE
    }
    | {
        f"{OURS}, callables": lambda job: limited_callables(quattro.TaskGroup, job, N, 10),
        "loop.create_task, no limit": lambda job: bare(job, N),
    },
    "item of a map, limit 10": {
        name: partial(lambda run, job: run(with_item(job), N, 10), run) for name, run in MAPS.items()
    },
    "background task": {
        OURS: partial(background_tasks, quattro.TaskGroup),
        "namesake": partial(background_tasks, namesake.TaskGroup),
    },
}

# For items that come one after the other. Ours and those of PRODUCING make a task when a slot is free; the others make
# all at once.
PRODUCERS: dict[str, Run] = {
    f"{OURS}, wait_for_slot()": PRODUCING[OURS],
    f"{OURS}, map()": lambda job, n, limit: MAPS[OURS](with_item(job), n, limit),
    ACQUIRED: PRODUCING[ACQUIRED],
} | {name: LIMITED[name] for name in (SEMAPHORE, ANYIO, TRIO)}


def in_this_process(name: str) -> int:
    """The peak of a million items of one of PRODUCERS, which may take what memory is free, and no more."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (free, free))
    tracemalloc.start()
    if name == TRIO:
        return trio.run(peak, PRODUCERS[name], trio_sleep0, MILLION)
    return asyncio.run(peak(PRODUCERS[name], sleep0, MILLION))


def in_its_own(name: str) -> int | None:
    """The same in a process of its own; none if the memory is not enough."""
    command = [sys.executable, __file__, name]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    return int(done.stdout) if done.returncode == 0 else None


def measure(million: bool = True) -> dict[str, dict[str, float]]:
    """Bytes by kind and implementation; the runs of a million items take minutes, and ten gigabytes."""
    tracemalloc.start()
    try:
        result = {
            kind: {
                name: trio.run(on_trio, start) if name == TRIO else asyncio.run(on_asyncio(start))
                for name, start in implementations.items()
            }
            for kind, implementations in KINDS.items()
        }
        result["queued task"]["the coroutine alone"] = asyncio.run(coroutines())
        if million:
            sizes = {name: in_its_own(name) for name in PRODUCERS}
            fitting = {name: size for name, size in sizes.items() if size is not None}
            result[f"run of {MILLION:,} items, limit 100"] = fitting
        return result
    finally:
        tracemalloc.stop()


if __name__ == "__main__" and len(sys.argv) > 1:
    print(in_this_process(sys.argv[1]))
elif __name__ == "__main__":
    for kind, sizes in measure().items():
        print(kind)
        for name, size in sizes.items():
            print(f"    {name:28}{size:8.0f}")
