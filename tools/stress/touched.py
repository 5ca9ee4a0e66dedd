"""Other threads use a group while its loop runs, which is not allowed: errors and lost tasks, but never a crash.

A group that does not end by itself once the others have left it alone is given up, and counted.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import warnings
from threading import Event
from typing import Any

import common
from common import TaskGroup
from helpers import fail, forever, noop, settle

logging.disable()
warnings.simplefilter("ignore")

groups: list[Any] = [TaskGroup()]
working, idle, stop = Event(), [Event() for _ in range(4)], Event()
given_up = 0


async def parent(n: int) -> None:
    async with TaskGroup(concurrency_limit=None if n % 3 == 0 else n % 3) as tg:
        groups[0] = tg
        tg.create_background_task(forever)
        for _ in range(10):
            tg.create_task(noop())
            tg.create_task(settle)
        await settle(20)


async def many_rounds() -> None:
    global given_up
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    for n in range(common.rounds(1_000)):
        working.set()
        task: Any = asyncio.create_task(parent(n))
        await settle(30)
        working.clear()
        for event in idle:
            while not event.is_set():
                await asyncio.sleep(0)
        for _attempt in range(3):
            for _ in range(100):
                if not task.done():
                    await asyncio.sleep(0)
            if not task.done():
                task.cancel()
        given_up += not task.done()
        if task.done() and not task.cancelled():
            task.exception()
        del task


def actions(n: int) -> list[Any]:
    """All that can be done to a group, which the threads begin at different places."""
    every = [
        lambda: groups[0].create_task(noop()),
        lambda: groups[0].create_task(noop),
        lambda: groups[0].create_task(forever()).cancel(),
        lambda: groups[0].create_background_task(forever()),
        lambda: [task.cancel() for task in list(groups[0]._tasks)[:3]],
        lambda: groups[0].statistics(),
        lambda: repr(groups[0]),
        lambda: len(groups[0]._tasks),
        lambda: len(groups[0]._errors),
        lambda: groups[0].__init__(concurrency_limit=n + 1),
        lambda: groups[0].create_task(settle(3), name="named"),
        lambda: groups[0].create_task(fail(KeyError())) if n == 0 else None,
        lambda: groups[0].cancel() if n == 1 else None,
        lambda: groups[0]._abort() if n == 2 else None,
        lambda: gc.collect() if n == 3 else None,
    ]
    return every[n * 4 :] + every[: n * 4]


def bother(n: int) -> None:
    todo = actions(n)
    while not stop.is_set():
        idle[n].set()
        working.wait(0.1)
        idle[n].clear()
        while working.is_set() and not stop.is_set():
            for action in todo:
                common.attempt(action)


common.main(lambda: asyncio.run(many_rounds()), *[lambda n=n: bother(n) for n in range(4)], stop=stop)
print(f"{given_up} groups given up")
