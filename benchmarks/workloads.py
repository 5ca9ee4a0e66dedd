"""What is run, and for whom.

A case is a function without arguments that runs the workload once on the loop that is running.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio
import trio
from bodies import (
    Job,
    Nothing,
    abort,
    abort_queued,
    background,
    bare,
    bare_cancelled,
    bare_eager,
    bare_nested,
    cancel_queued,
    cancelled_by_hand,
    empty,
    flat,
    flat_callables,
    flat_eager,
    flat_kept,
    limited_callables,
    nested,
    noop,
    same,
    same_later,
    sleep0,
    sleep0_thrice,
)
from implementations import (
    ACQUIRED,
    ANYIO,
    AS_COMPLETED,
    BARE,
    LIMITED,
    MAPS,
    NAMESAKE,
    OURS,
    PRODUCING,
    SEMAPHORE,
    STOCK,
    TRIO,
    UNLIMITED,
    Run,
    namesake,
)

import quattro

N = 10_000
BY_HAND = "TaskGroup + cancel()"

Case = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Workload:
    """One row of the tables."""

    name: str
    cases: dict[str, Case]
    units: int = N  # how many of `unit` one run makes
    unit: str = "task"
    targets: dict[str, tuple[float, float]] = field(default_factory=dict)  # times ours: asyncio's loop, uvloop
    turns: int | None = None  # at most, where one takes long


# --- Jobs and bodies that the others need


async def trio_sleep0() -> None:
    """sleep0() for Trio."""
    await trio.lowlevel.checkpoint()


async def trio_sleep0_thrice() -> None:
    """sleep0_thrice() for Trio."""
    await trio.lowlevel.checkpoint()
    await trio.lowlevel.checkpoint()
    await trio.lowlevel.checkpoint()


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


async def echo(run: Run, n: int, limit: int) -> None:
    """Each of n tasks opens a connection to a server of this process, sends a line, and reads it back."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    async def job() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"hello\n")
        assert await reader.readline() == b"hello\n"
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1000) as server:
        port = server.sockets[0].getsockname()[1]
        await run(job, n, limit)


class SemaphoreGroup(asyncio.TaskGroup):
    """TaskGroup + Semaphore, as a class, for bodies that want one."""

    def __init__(self, *, concurrency_limit: int) -> None:
        super().__init__()
        self.slots = asyncio.Semaphore(concurrency_limit)

    async def _wrapper(self, coro: Any) -> Any:
        try:
            async with self.slots:
                return await coro
        finally:
            coro.close()

    def create_task(self, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
        """The coroutine in the wrapper, which closes it if it never ran: a warning each, else."""
        return super().create_task(self._wrapper(coro), **kwargs)


# --- Cases


def everyone(job: Job, size: int, groups: int = 1, trio_job: Job | None = None) -> dict[str, Case]:
    """Every implementation, without a limit."""
    return {
        name: partial(run, trio_job if name == TRIO and trio_job else job, size, groups)
        for name, run in UNLIMITED.items()
    }


def everyone_limited(job: Job, n: int, limit: int, trio_job: Job | None = None) -> dict[str, Case]:
    """Every implementation, with a limit."""
    return {
        name: partial(run, trio_job if name == TRIO and trio_job else job, n, limit) for name, run in LIMITED.items()
    }


GROUPS = {OURS: quattro.TaskGroup, STOCK: asyncio.TaskGroup, NAMESAKE: namesake.TaskGroup}
EMPTY = GROUPS | {ANYIO: anyio.create_task_group, TRIO: trio.open_nursery, BARE: Nothing}
LIMITING = {OURS: quattro.TaskGroup, SEMAPHORE: SemaphoreGroup, NAMESAKE: namesake.TaskGroup}

KEPT = {
    OURS: partial(flat_kept, quattro.TaskGroup),
    STOCK: partial(flat_kept, asyncio.TaskGroup),
    BARE: bare,
}
Targets = dict[str, tuple[float, float]]


def at_most(asyncio: float, uvloop: float) -> Targets:
    """What our time may be of that of the bare tasks."""
    return {BARE: (1 / asyncio, 1 / uvloop)}


def both(
    name: str, job: Job, size: int, groups: int, targets: Targets, trio_job: Job | None = None, unit: str = "task"
) -> list[Workload]:
    """Tasks that nobody keeps, and tasks that somebody keeps in a list."""
    units = groups if unit == "group" else size * groups
    return [
        Workload(name, everyone(job, size, groups, trio_job), units, unit, targets),
        Workload(
            f"{name}, kept", {who: partial(run, job, size, groups) for who, run in KEPT.items()}, units, unit, targets
        ),
    ]


# The rows that have targets: what waits comes first, for that is what people's tasks do.
ROWS = [
    *both("group of 3, sleep(0)", sleep0, 3, N // 5, {STOCK: (1.25, 1.30)} | at_most(1.25, 1.32), trio_sleep0, "group"),
    *both("100 x sleep(0)", sleep0, 100, N // 100, {STOCK: (1.20, 1.35)} | at_most(1.32, 1.25), trio_sleep0),
    *both(
        "10,000 x three sleep(0)", sleep0_thrice, N, 1, {STOCK: (1.17, 1.17)} | at_most(1.17, 1.15), trio_sleep0_thrice
    ),
    *both("group of 1", noop, 1, N // 4, {STOCK: (1.45, 1.40)} | at_most(1.27, 1.55), unit="group"),
    *both("group of 3", noop, 3, N // 5, {STOCK: (1.42, 1.42)} | at_most(1.35, 1.50), unit="group"),
    *both("group of 10", noop, 10, N // 10, {STOCK: (1.35, 1.50)} | at_most(1.45, 1.42), unit="group"),
    *both("100 x noop", noop, 100, N // 100, {STOCK: (1.33, 1.60)} | at_most(1.55, 1.40)),
    *both("10,000 x noop", noop, N, 1, {STOCK: (1.22, 1.35)} | at_most(1.42, 1.28)),
    Workload(
        "eager_start=True",
        {name: partial(flat_eager, group, noop, N) for name, group in GROUPS.items() if name != NAMESAKE}
        | {BARE: partial(bare_eager, noop, N)},
        targets={STOCK: (1.40, 1.40)},
    ),
    Workload(
        "empty group",
        {name: partial(empty, group, N) for name, group in EMPTY.items()},
        unit="group",
        targets={STOCK: (1.5, 1.5)},
    ),
    Workload(
        "limit 10, noop",
        everyone_limited(noop, N, 10),
        targets={SEMAPHORE: (1.80, 1.52), NAMESAKE: (2.1, 1.8)} | at_most(1.22, 1.72),
    ),
    Workload(
        "limit 10, sleep(0)",
        everyone_limited(sleep0, N, 10, trio_sleep0),
        targets={SEMAPHORE: (2.30, 2.15), NAMESAKE: (2.5, 2.25)} | at_most(1.05, 1.30),
    ),
    Workload(
        "callables",
        {
            OURS: partial(flat_callables, quattro.TaskGroup, noop, N),
            "quattro, coroutines": partial(flat, quattro.TaskGroup, noop, N),
            BARE: partial(bare, noop, N),
        },
        targets=at_most(1.4, 1.5),
    ),
    Workload(
        "callables, limit 10",
        {OURS: partial(limited_callables, quattro.TaskGroup, noop, N, 10)}
        | {name: case for name, case in everyone_limited(noop, N, 10).items() if name != OURS},
        targets=at_most(1.1, 1.3),
    ),
    Workload(
        "background, cancelled at exit",
        {
            OURS: partial(background, quattro.TaskGroup, N),
            NAMESAKE: partial(background, namesake.TaskGroup, N),
            BY_HAND: partial(cancelled_by_hand, asyncio.TaskGroup, N),
            BARE: partial(bare_cancelled, N),
        },
        targets={NAMESAKE: (2.0, 2.0), BY_HAND: (1.05, 1.05)} | at_most(1.20, 1.20),
    ),
    Workload(
        "abort, 10,000 waiting",
        {name: partial(abort, group, N) for name, group in GROUPS.items()} | {BARE: partial(bare_cancelled, N)},
        targets={STOCK: (1.22, 1.38)} | at_most(1.17, 1.10),
    ),
    *(
        Workload(
            f"a slot first, limit {limit}, {name}",
            {who: partial(run, job, N, limit) for who, run in PRODUCING.items()},
            targets={ACQUIRED: (1.5, 1.5)},
        )
        for limit in (10, 100)
        for name, job in (("noop", noop), ("sleep(0)", sleep0))
    ),
]

# What else people do.
MORE = [
    Workload(
        "10,000 that wait for one another",
        {
            name: partial(all_wait, trio.Event if name == TRIO else asyncio.Event, run, N)
            for name, run in UNLIMITED.items()
        },
    ),
    Workload(
        "nested, 100 x 100",
        {name: partial(nested, group, noop, 100) for name, group in GROUPS.items()}
        | {BARE: partial(bare_nested, noop, 100)},
    ),
    Workload(
        "cancelled in the queue",
        {name: partial(cancel_queued, group, N, 10) for name, group in LIMITING.items()}
        | {BARE: partial(bare_cancelled, N)},
    ),
    Workload(
        "abort, 10,000 queued",
        {name: partial(abort_queued, group, N, 10) for name, group in LIMITING.items()}
        | {BARE: partial(bare_cancelled, N)},
    ),
    *(
        Workload(
            f"errors cancel nothing, {name}",
            {
                OURS: partial(flat, quattro.TaskGroup, job, N),
                "cancel_on_error=False": partial(flat, partial(quattro.TaskGroup, cancel_on_error=False), job, N),
            },
        )
        for name, job in (("noop", noop), ("sleep(0)", sleep0))
    ),
    Workload(
        "TCP echo, limit 50",
        {name: partial(echo, run, 500, 50) for name, run in LIMITED.items() if name not in (TRIO, BARE)},
        units=500,
        unit="request",
    ),
]


# The rows of map(), in a table of their own: the results of 10,000 items, ten at a time.
MAPPED = [
    Workload(
        f"map, {name}",
        {who: partial(run, job, N, 10) for who, run in MAPS.items()},
        unit="item",
        targets={AS_COMPLETED: target} if target else {},
    )
    for name, job, target in (("sleep(0)", same_later, (2.0, 2.0)), ("noop", same, None))
]


def growing(n: int) -> list[Workload]:
    """What should cost a task the same whatever n is; what is quadratic is left out where it takes too long."""
    groups = max(1, 10_000 // n)
    who = LIMITING if n <= 10_000 else {OURS: quattro.TaskGroup}
    cases: dict[str, dict[str, Case]] = {
        "noop": {name: partial(UNLIMITED[name], noop, n, groups) for name in (OURS, STOCK, BARE)},
        "limit 100": {name: partial(repeated, groups, LIMITED[name], noop, n, 100) for name in (OURS, SEMAPHORE, BARE)},
        "cancelled in the queue": {
            name: partial(repeated, groups, cancel_queued, group, n, 100) for name, group in who.items()
        },
        "abort with a queue": {
            name: partial(repeated, groups, abort_queued, group, n, 100) for name, group in who.items()
        },
    }
    turns = 2 if n > 10_000 else None
    return [Workload(f"{name}, n = {n:,}", by_name, n * groups, turns=turns) for name, by_name in cases.items()]


async def repeated(times: int, run: Run, *args: Any) -> None:
    """So that a run takes long enough to measure."""
    for _ in range(times):
        await run(*args)


GROWTH = [workload for n in (1_000, 10_000, 100_000, 1_000_000) for workload in growing(n)]
