"""Other threads look at a group while its loop runs: it does what it would do alone."""

from __future__ import annotations

import asyncio
import gc
from threading import Event
from typing import Any

import common
from common import TaskGroup
from helpers import forever, settle

ATTRIBUTES = ["_errors", "_loop", "_parent_task", "_entered", "_exiting", "_aborting", "_parent_cancel_requested"]
groups: list[Any] = [TaskGroup()]


async def child(n: int) -> int:
    await asyncio.sleep(0)
    return n


async def one_round() -> None:
    async with TaskGroup(concurrency_limit=3) as tg:
        groups[0] = tg
        background = None if common.OPTIONS.stock else tg.create_background_task(forever)
        tasks = [tg.create_task(child(i)) for i in range(20)]
        callables = [tg.create_task(lambda: child(1)) for _ in range(5)]
        dropped = [tg.create_task(forever()) for _ in range(5)]
        await settle(3)
        for task in dropped:
            task.cancel()
    assert [task.result() for task in tasks] == list(range(20))
    assert [task.result() for task in callables] == [1] * 5
    assert all(task.cancelled() for task in dropped)
    assert background is None or background.cancelled()


async def many_rounds() -> None:
    for _ in range(common.rounds(1_000)):
        await one_round()


def look() -> None:
    group = groups[0]
    repr(group)
    if not common.OPTIONS.stock:
        statistics = group.statistics()
        assert statistics.running >= 0 and statistics.queued >= 0 and statistics.background in (0, 1)
        assert group.concurrency_limit in (None, 3)
    for task in list(group._tasks):
        repr(task.get_coro())
        task.done()
    for name in ATTRIBUTES:
        getattr(group, name)
    gc.get_referents(group)


stop = Event()
looks = [common.until(stop, look) for _ in range(3)]
common.main(lambda: asyncio.run(many_rounds()), *looks, stop=stop)
