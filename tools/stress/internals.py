"""Threads share what a group is made of: its awaitables and its places in the queue. Errors, but never a crash."""

from __future__ import annotations

import asyncio
import logging
import warnings
from threading import Event
from typing import Any

import common
from common import TaskGroup
from helpers import noop, settle

if common.OPTIONS.stock:
    common.not_applicable("asyncio.TaskGroup has no such parts")
logging.disable()
warnings.simplefilter("ignore")

turns: list[Any] = []
awaits: list[Any] = []
stop = Event()


async def parent(n: int) -> None:
    async with TaskGroup(concurrency_limit=1) as tg:
        tasks = [tg.create_task(settle(3)) for _ in range(10)]
        await asyncio.sleep(0)
        turns[:] = [turn for task in tasks[1:] if (turn := task.get_coro().cr_await) is not None]
        awaits[:] = [tg.__aexit__(None, None, None), tg.__aenter__(), TaskGroup().__aenter__()]
        await settle(10)
        if n % 2:
            tg.cancel()


async def many_rounds() -> None:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    for n in range(common.rounds(1_000)):
        task = asyncio.create_task(parent(n))
        for _ in range(300):
            if not task.done():
                await asyncio.sleep(0)
        task.cancel()


def touch_turns() -> None:
    for turn in list(turns):
        repr(turn), turn._loop, turn._asyncio_future_blocking
        turn._asyncio_future_blocking = True
        turn._asyncio_future_blocking = False
        common.attempt(turn.result)
    for turn in turns[-2:]:
        common.attempt(lambda: turn.cancel(msg="from another thread"))
    for turn in turns[-3:-2]:
        common.attempt(lambda: turn.__await__().send(None))
        common.attempt(lambda: turn.add_done_callback(id))
        common.attempt(turn.end)


def touch_awaits() -> None:
    for awaitable in list(awaits):
        common.attempt(lambda: awaitable.send(None))
        common.attempt(lambda: awaitable.throw(KeyError()))
        common.attempt(awaitable.close)


def race_on_one_group() -> None:
    """Threads with loops of their own enter, fill and leave the same group at once."""
    shared = TaskGroup(concurrency_limit=2)

    async def enter() -> None:
        async with shared as tg:
            for _ in range(3):
                tg.create_task(noop())
            await settle(2)

    async def with_errors() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        task = asyncio.create_task(enter())
        for _ in range(100):
            if not task.done():
                await asyncio.sleep(0)
        task.cancel()

    common.in_threads(*[lambda: common.attempt(lambda: asyncio.run(with_errors()))] * 3)


def many_races() -> None:
    for _ in range(common.rounds(50)):
        race_on_one_group()


others = [common.until(stop, touch_turns), common.until(stop, touch_awaits)] * 2
common.main(lambda: asyncio.run(many_rounds()), *others, stop=stop)
many_races()
