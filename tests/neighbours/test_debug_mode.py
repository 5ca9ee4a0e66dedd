"""asyncio's debug mode: its report of a slow callback names the task that was slow, wherever it was stepped."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from helpers import noop

from quattro import TaskGroup


class Clock:
    """What the loop takes for the time: it stands still but where a task says that it has worked."""

    def __init__(self, loop: Any) -> None:
        self.now = loop.time()
        loop.time = lambda: self.now
        loop.slow_callback_duration = 1.0

    async def work(self, passes: int = 0) -> None:
        for _ in range(passes):
            await asyncio.sleep(0)
        self.now += 2


def name_of_current_task() -> str:
    task = asyncio.current_task()
    assert task is not None
    return task.get_name()


def patch(loop: Any) -> None:
    """As tracing tools do."""
    create_task = loop.create_task
    loop.create_task = lambda coro, **kwargs: create_task(coro, **kwargs)


def use_factory(loop: Any) -> None:
    """As tracing tools did."""
    loop.set_task_factory(lambda loop, coro, **kwargs: asyncio.Task(coro, loop=loop, **kwargs))


JOBS = {
    "the first": [True, False, False],
    "in the middle": [False, True, False],
    "the last": [False, False, True],
    "two of four": [False, True, False, True],
}


@pytest.mark.loops("debug")
@pytest.mark.parametrize("passes", [0, 1, 2])
@pytest.mark.parametrize("callables", [False, True], ids=["coroutines", "callables"])
@pytest.mark.parametrize("limit", [None, 1, 2])
@pytest.mark.parametrize("prepare", [None, patch, use_factory])
@pytest.mark.parametrize("jobs", JOBS.values(), ids=JOBS)
async def test_the_report_names_the_task_that_was_slow(
    caplog: pytest.LogCaptureFixture,
    jobs: list[bool],
    prepare: Callable[[Any], None] | None,
    limit: int | None,
    callables: bool,
    passes: int,
) -> None:
    """First, queued or last, a coroutine or a callable: one report for each slow step, of the Task that took it."""
    loop = asyncio.get_running_loop()
    if prepare is not None:
        prepare(loop)
    clock = Clock(loop)
    with caplog.at_level(logging.WARNING, "asyncio"):
        async with TaskGroup(concurrency_limit=limit) as tg:
            for number, slow in enumerate(jobs):
                job = (lambda: clock.work(passes)) if slow else noop
                tg.create_task(job if callables else job(), name=f"{'slow' if slow else 'quick'} {number}")
    reports = [record.getMessage() for record in caplog.records if "took 2.000 seconds" in record.getMessage()]
    expected = [f"slow {number}" for number, slow in enumerate(jobs) if slow]
    assert len(reports) == len(expected), reports
    for report, name in zip(reports, expected, strict=True):
        assert report.startswith("Executing <Task ") and f"name='{name}'" in report


@pytest.mark.loops("debug")
@pytest.mark.parametrize("limit", [None, 1])
async def test_the_report_names_the_parent(caplog: pytest.LogCaptureFixture, limit: int | None) -> None:
    """The step that the last task's end lets the parent take is the parent's."""
    loop = asyncio.get_running_loop()
    clock = Clock(loop)
    with caplog.at_level(logging.WARNING, "asyncio"):
        async with TaskGroup(concurrency_limit=limit) as tg:
            tg.create_task(noop())
            tg.create_task(noop())
        clock.now += 2
        await asyncio.sleep(0)
    assert len(caplog.records) == 1
    assert f"Executing <Task pending name={name_of_current_task()!r}" in caplog.records[0].getMessage()
