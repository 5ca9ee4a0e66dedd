"""Groups of every kind on loops in many threads at once: each behaves as if it were alone, while a thread collects."""

from __future__ import annotations

import asyncio
import gc
import sys
from threading import Event

import common
import soak

if common.OPTIONS.stock:
    common.not_applicable("asyncio.TaskGroup has not all the kinds")


def loop(eager: bool) -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    if eager and sys.version_info >= (3, 12):
        loop.set_task_factory(asyncio.eager_task_factory)
    return loop


def work(eager: bool) -> None:
    for _ in range(common.rounds(100)):
        with asyncio.Runner(loop_factory=lambda: loop(eager)) as runner:
            for kind in soak.KINDS.values():
                runner.run(kind(20))


def collect() -> None:
    gc.collect()
    stop.wait(0.01)  # a free-threaded build stops all threads to collect: let them get somewhere


stop = Event()
threads = [lambda: work(False), lambda: work(True)] * 4
common.main(lambda: common.in_threads(*threads), common.until(stop, collect), stop=stop)
