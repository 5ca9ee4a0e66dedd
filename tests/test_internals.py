"""What nobody does who uses a group as intended: its awaitables and turns in the hands of strangers."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from helpers import forever, noop, settle

from quattro import TaskGroup


class Parked:
    """A task that has parked in its turn, and the turn."""

    def __init__(self, tg: TaskGroup) -> None:
        tg.create_task(forever())
        self.task: Any = tg.create_task(noop())

    @property
    def turn(self) -> Any:
        return self.task._fut_waiter


async def test_a_turn_is_awaited_and_begun_once() -> None:
    """A turn that somebody else awaits, begins or gives a second task says so; its own task is not harmed."""
    async with TaskGroup(concurrency_limit=1) as tg:
        parked = Parked(tg)
        await settle(2)
        turn = parked.turn
        with pytest.raises(RuntimeError, match="begin only once"):
            turn.begin()
        with pytest.raises(RuntimeError, match="one task"):
            turn.add_done_callback(print)
        with pytest.raises(TypeError):
            turn.add_done_callback()
        with pytest.raises(TypeError):
            turn.add_done_callback(print, colour="red")
        with pytest.raises(asyncio.InvalidStateError):
            turn.result()

        class Untrue:
            def __bool__(self) -> bool:
                raise LookupError("untrue")

        with pytest.raises(LookupError):
            turn._asyncio_future_blocking = Untrue()
        for task in tg._tasks - {parked.task}:
            task.cancel()
        await parked.task
        for use in (turn.begin, lambda: next(iter(turn))):
            with pytest.raises(RuntimeError):
                use()


async def test_a_cancelled_turn_says_so() -> None:
    """Whoever awaits a turn that was cancelled gets the CancelledError, with its message."""
    async with TaskGroup(concurrency_limit=1) as tg:
        parked = Parked(tg)
        await settle(2)
        turn = parked.turn
        parked.task.cancel("why")
        for use in (turn.begin, turn.result, lambda: next(iter(turn))):
            with pytest.raises(asyncio.CancelledError, match="why"):
                use()
        tg.cancel()


@pytest.mark.loops("asyncio")
async def test_an_exit_that_is_stepped_from_within() -> None:
    """A step, throw() or close() of an exit that is taking a step is a ValueError, as for a coroutine."""
    seen: list[str] = []

    class Curious(TaskGroup):
        def _abort(self) -> None:
            for use in (lambda: leaving.send(None), lambda: leaving.throw(KeyError()), leaving.close):
                try:
                    use()
                except ValueError as error:
                    seen.append(str(error))
            super()._abort()

    group = Curious()
    await group.__aenter__()
    leaving: Any = group.__aexit__(KeyError, KeyError(), None)
    with pytest.raises(ExceptionGroup):
        await leaving
    assert seen == ["already executing"] * 3


async def test_what_can_be_thrown_into_an_exit() -> None:
    """throw() takes what a coroutine's does: a class, a class and a value, an exception, a traceback."""
    for args, expected in (
        ((KeyError,), KeyError),
        ((KeyError, "value"), KeyError),
        ((KeyError, KeyError("value"), None), KeyError),
        ((int,), TypeError),
        ((KeyError("value"), None, "no traceback"), TypeError),
    ):
        leaving: Any = TaskGroup().__aexit__(None, None, None)
        with pytest.raises(expected):
            leaving.throw(*args)


async def test_an_exit_that_another_error_is_thrown_into() -> None:
    """An error that is no cancellation breaks the exit off; the tasks go on."""
    group = TaskGroup()
    await group.__aenter__()
    task = group.create_task(settle(3))
    leaving: Any = group.__aexit__(None, None, None)
    leaving.send(None)
    with pytest.raises(KeyError):
        leaving.throw(KeyError())
    await task


async def test_asyncio_without_what_a_group_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where somebody has taken a function out of asyncio, entering a group says so."""
    monkeypatch.delattr(asyncio.tasks, "current_task")
    with pytest.raises(AttributeError, match="current_task"):
        await TaskGroup().__aenter__()


async def test_more_keywords_than_fit_on_the_stack() -> None:
    """A task factory may take any number of keywords."""
    loop = asyncio.get_running_loop()
    seen: dict[str, Any] = {}

    def create_task(coro: Any, **kwargs: Any) -> Any:
        seen.update(kwargs)
        return asyncio.Task(coro, loop=loop)

    keywords = {f"keyword{i}": i for i in range(20)}
    async with TaskGroup() as tg:
        loop.create_task = create_task  # type: ignore[method-assign,assignment]
        try:
            tg.create_task(noop(), **keywords)
        finally:
            del loop.create_task
    assert seen == keywords


def test_private_flags() -> None:
    """The flags of asyncio's group can be read."""
    group = TaskGroup()
    group.cancel()
    assert group._cancel_on_enter and not group._entered  # type: ignore[attr-defined]


@pytest.mark.parametrize("how", ["close", "cancel", "fail"])
async def test_a_parent_whose_exit_is_broken_off_by_a_stranger_can_be_cancelled(how: str) -> None:
    """close() or throw() from outside leaves its task on a turn that the group has forgotten; cancel() wakes it."""
    exits: list[Any] = []
    tasks: list[asyncio.Task[Any]] = []

    async def main() -> None:
        group = TaskGroup()
        await group.__aenter__()
        tasks.append(group.create_task(forever()))
        exits.append(group.__aexit__(None, None, None))
        await exits[0]

    parent = asyncio.create_task(main())
    await settle(3)
    if how == "close":
        exits[0].close()
    elif how == "cancel":
        exits[0].throw(asyncio.CancelledError())
    else:
        with pytest.raises(KeyError):
            exits[0].throw(KeyError())
    tasks[0].cancel()
    await settle(3)
    parent.cancel()
    await settle(3)
    assert parent.done()
    assert parent.cancelled() or isinstance(parent.exception(), RuntimeError)


@pytest.mark.loops("factory")
async def test_a_group_that_is_left_under_a_task_that_joins_it() -> None:
    """A Task class whose add_done_callback() leaves the group and fails: the group lets go of all that it held."""

    class Leaving(asyncio.Task[Any]):
        def add_done_callback(self, *args: Any, **kwargs: Any) -> None:
            leaving: Any = group.__aexit__(None, None, None)
            leaving.send(None)
            leaving.close()
            raise KeyError("leaving")

    loop = asyncio.get_running_loop()
    factory = loop.get_task_factory()
    loop.set_task_factory(lambda loop, coro, **kw: Leaving(coro, loop=loop, **kw))
    group = TaskGroup()
    await group.__aenter__()
    with pytest.raises(KeyError, match="leaving"):
        group.create_task(noop())
    loop.set_task_factory(factory)
    assert not any(callable(held) and "_on_task_done" in repr(held) for held in gc.get_referents(group))
    await settle(3)
