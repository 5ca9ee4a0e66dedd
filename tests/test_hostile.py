"""A hostile object in place of each callable that the C calls: it raises, re-enters the group, or returns nonsense."""

from __future__ import annotations

import asyncio
from typing import Any

from helpers import forever, settle

from quattro import TaskGroup


def task_class(**methods: Any) -> Any:
    """A task factory that makes tasks with these methods."""
    cls = type("HostileTask", (asyncio.Task,), methods)
    return lambda loop, coro, **kwargs: cls(coro, loop=loop, **kwargs)


def raising(error: BaseException) -> Any:
    """A function that raises."""

    def function(*args: Any, **kwargs: Any) -> Any:
        raise error

    return function


async def test_background_task_that_does_not_say_how_often_it_was_cancelled() -> None:
    """A background task whose cancelling() raises is cancelled all the same, and the group ends."""
    loop = asyncio.get_running_loop()
    previous = loop.get_task_factory()
    reports: list[Any] = []
    loop.set_exception_handler(lambda _, context: reports.append(context["exception"]))
    error = LookupError("cancelling")
    async with TaskGroup() as tg:
        loop.set_task_factory(task_class(cancelling=raising(error)))
        background = tg.create_background_task(forever())
        loop.set_task_factory(previous)
        tg.create_task(settle(2))
    assert background.cancelled() and reports == [error]
