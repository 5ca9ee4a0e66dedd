"""What is run: one body a workload, and for whom.

A case is a function without arguments that runs the workload once on the loop that is running.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import trio
from implementations import (
    BARE,
    LIMITED,
    NAMESAKE,
    OURS,
    SEMAPHORE,
    STOCK,
    TRIO,
    UNLIMITED,
    Job,
    Nothing,
    Run,
    flat,
    namesake,
)

import quattro

N = 10_000

Case = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Workload:
    """One row of the tables."""

    name: str
    cases: dict[str, Case]
    units: int = N  # how many of `unit` one run makes
    unit: str = "task"
    floors: dict[str, tuple[float, float]] = field(default_factory=dict)  # design.md 5: (asyncio's loop, uvloop)
    only: tuple[str, ...] = ()  # for comparisons that need few


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


async def trio_sleep0() -> None:
    """sleep0() for Trio."""
    await trio.lowlevel.checkpoint()


async def trio_sleep0_thrice() -> None:
    """sleep0_thrice() for Trio."""
    await trio.lowlevel.checkpoint()
    await trio.lowlevel.checkpoint()
    await trio.lowlevel.checkpoint()


async def for_ever() -> None:
    """It waits until it is cancelled."""
    await asyncio.get_running_loop().create_future()


async def failing() -> None:
    """It aborts its group."""
    raise ValueError


async def all_wait(event: Callable[[], Any], run: Run, n: int) -> None:
    """Every task waits until the last one runs."""
    gate, left = event(), n

    async def job() -> None:
        nonlocal left
        left -= 1
        if left:
            await gate.wait()
        else:
            gate.set()

    await run(job, n)


# --- Bodies of their own


async def background(group: Callable[[], Any], n: int) -> None:
    """Background tasks that run and are cancelled at the exit."""
    async with group() as tg:
        for _ in range(n):
            tg.create_background_task(for_ever())
        await asyncio.sleep(0)


async def manual_background(n: int) -> None:
    """The same by hand."""
    async with asyncio.TaskGroup() as tg:
        tasks = [tg.create_task(for_ever()) for _ in range(n)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()


async def bare_background(n: int) -> None:
    """The same without a group."""
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


async def abort(group: Callable[[], Any], n: int) -> None:
    """One task fails while n wait."""
    try:
        async with group() as tg:
            for _ in range(n):
                tg.create_task(for_ever())
            await asyncio.sleep(0)
            tg.create_task(failing())
    except* ValueError:
        pass


def everyone(job: Job, size: int, groups: int = 1, trio_job: Job | None = None) -> dict[str, Case]:
    """A case for every implementation without a limit."""
    return {
        name: partial(run, trio_job if name == TRIO and trio_job else job, size, groups)
        for name, run in UNLIMITED.items()
    }


def everyone_limited(job: Job, n: int, limit: int, trio_job: Job | None = None) -> dict[str, Case]:
    """A case for every implementation with a limit."""
    return {
        name: partial(run, trio_job if name == TRIO and trio_job else job, n, limit) for name, run in LIMITED.items()
    }


# --- The rows of design.md, section 5

ROWS = [
    Workload("10,000 x noop", everyone(noop, N), floors={STOCK: (1.35, 1.6)}, only=(STOCK, BARE)),
    Workload("100 x noop", everyone(noop, 100, N // 100), floors={STOCK: (1.55, 2.0)}, only=(STOCK, BARE)),
    Workload("group of 3", everyone(noop, 3, 2000), 2000, "group", {STOCK: (1.5, 1.7)}, (STOCK, BARE)),
    Workload(
        "empty group",
        everyone(noop, 0, N) | {BARE: partial(flat, Nothing, noop, 0, N)},
        unit="group",
        floors={STOCK: (2.0, 2.0)},
        only=(STOCK, BARE),
    ),
    Workload(
        "limit 10, noop",
        everyone_limited(noop, N, 10),
        floors={NAMESAKE: (2.2, 1.9), SEMAPHORE: (1.9, 1.7)},
        only=(NAMESAKE, SEMAPHORE, BARE),
    ),
    Workload(
        "limit 10, sleep(0)",
        everyone_limited(sleep0, N, 10, trio_sleep0),
        floors={NAMESAKE: (2.6, 2.3)},
        only=(NAMESAKE, SEMAPHORE, BARE),
    ),
    Workload(
        "background, cancelled at exit",
        {
            OURS: partial(background, quattro.TaskGroup, N),
            NAMESAKE: partial(background, namesake.TaskGroup, N),
            "TaskGroup + cancel()": partial(manual_background, N),
            BARE: partial(bare_background, N),
        },
        floors={NAMESAKE: (2.2, 2.2), "TaskGroup + cancel()": (1.0, 1.0)},
    ),
    Workload(
        "abort with all waiting",
        {
            OURS: partial(abort, quattro.TaskGroup, N),
            STOCK: partial(abort, asyncio.TaskGroup, N),
            NAMESAKE: partial(abort, namesake.TaskGroup, N),
            BARE: partial(bare_background, N),
        },
        floors={STOCK: (1.3, 1.4)},
        only=(STOCK, BARE),
    ),
]
