"""A group that is entered and never left. What asyncio's group would lose, the loop's handler is told."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from typing import Any

import pytest
from helpers import fail, settle

from quattro import TaskGroup


def hear() -> list[tuple[str, BaseException]]:
    """What the loop's exception handler is told from now on."""
    told: list[tuple[str, BaseException]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append((context["message"], context["exception"])))
    return told


DROPPED = "unhandled error in a TaskGroup that was never left"


@pytest.mark.reports
@pytest.mark.parametrize("limit", [None, 1])
async def test_the_errors_of_a_group_whose_owner_fails_before_the_block(limit: int | None) -> None:
    """A child's failure cancels the owner between __aenter__() and the block: the error is reported (anyio 902)."""
    told = hear()

    class Owner:
        async def __aenter__(self) -> None:
            self.group = await TaskGroup(concurrency_limit=limit).__aenter__()
            for number in (1, 2):
                self.group.create_task(fail(ValueError(number)))
            await settle()

        async def __aexit__(self, *_: object) -> None:
            await self.group.__aexit__(None, None, None)

    async def main() -> None:
        async with Owner():
            raise AssertionError("not reached")

    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.create_task(main())
    await settle(1)  # the step that the CancelledError was thrown into keeps it
    gc.collect()
    # Behind a limit of one the second has never run.
    assert [(message, str(error)) for message, error in told] == [(DROPPED, "1"), (DROPPED, "2")][:limit]


@pytest.mark.reports
async def test_an_error_that_was_reported_as_it_came_is_not_reported_again() -> None:
    """The error of a task whose parent has ended is reported there and then, once, also if the group is dropped."""
    told = hear()

    async def enter() -> None:
        group = await TaskGroup().__aenter__()
        group.create_task(fail(ValueError("early")))
        group.create_task(fail(ValueError("late"), 4))
        group._abort = lambda: None  # type: ignore[attr-defined]
        await settle(2)

    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.create_task(enter())
    await settle()
    gc.collect()
    messages = [(message.partition(" has ")[2], str(error)) for message, error in told]
    assert [error for _, error in messages] == ["late", "early"], told
    assert messages[0][0].startswith("errored out but its parent task")


@pytest.mark.reports
async def test_whoever_hears_of_a_dropped_group_leaves_it() -> None:
    """An error leads its handler back to the group, which then raises none of those that are being reported."""
    told: list[BaseException] = []
    left: list[Any] = []

    class Error(Exception):
        group: Any

    def handler(_: Any, context: dict[str, Any]) -> None:
        error = context["exception"]
        told.append(error)
        with pytest.raises((StopIteration, RuntimeError)) as caught:
            error.group.__aexit__(None, None, None).send(None)
        left.append(caught.value)
        error.group = None

    async def enter() -> None:
        group = await TaskGroup().__aenter__()
        for number in (1, 2):
            error = Error(number)
            error.group = group
            group.create_task(fail(error))
        del error
        await settle()

    asyncio.get_running_loop().set_exception_handler(handler)
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.create_task(enter())
    await settle(1)
    gc.collect()
    assert [str(error) for error in told] == ["1", "2"] and [type(error) for error in left] == [
        StopIteration,
        RuntimeError,
    ]


@pytest.mark.reports
async def test_an_exit_that_is_dropped_while_it_waits() -> None:
    """It is broken off, as asyncio's coroutine is: the group holds no parent, and errors are told as they come."""
    told = hear()
    group = await TaskGroup().__aenter__()
    task = group.create_task(fail(ValueError("late"), 2))
    step = group.__aexit__(None, None, None)
    step.send(None)  # type: ignore[attr-defined]
    del step
    gc.collect()
    assert group._parent_task is None and group._errors is None and group._tasks == {task}
    await settle()
    assert [str(error) for _, error in told] == ["late"] and group._tasks == frozenset()
