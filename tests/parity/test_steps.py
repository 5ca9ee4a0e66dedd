"""Every task takes its steps in the order in which it would in asyncio's group.

Random programs, on ``quattro.TaskGroup`` and on the plain Python one of ``reference.py``: each step of each task, and
of whoever else uses the loop, comes in the same order. Then the places where that could go wrong, one by one.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from dataclasses import dataclass
from typing import Any

import pytest
from helpers import LOOPS, fail, forever, noop, settle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import ReferenceTaskGroup

import quattro
from quattro import TaskGroup

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("unfrozen")]

SOME = settings(max_examples=500, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))


@dataclass(frozen=True)
class Child:
    """What a task does."""

    steps: int  # passes of the loop
    end: str
    callback: bool  # does somebody else add a done callback?
    creates: bool  # another task, at its end


CHILD = st.builds(
    Child,
    steps=st.sampled_from([0, 0, 0, 1, 2]),
    end=st.sampled_from(["return", "return", "return", "raise", "cancel", "stubborn"]),
    callback=st.booleans(),
    creates=st.sampled_from([False, False, False, True]),
)
BODY = st.lists(st.one_of(CHILD, CHILD, CHILD, st.sampled_from(["step", "raise", "cancel"])), max_size=7)


def run(group_class: Any, loop_name: str, body: list[Any], outsiders: tuple[bool, bool]) -> list[Any]:
    """What happened, in order."""
    seen: list[Any] = []

    async def outsider(name: str) -> None:
        for step in range(6):
            seen.append((name, step))
            await asyncio.sleep(0)

    async def child(name: Any, what: Child, tg: Any) -> None:
        try:
            seen.append((name, "starts"))
            for step in range(what.steps):
                await asyncio.sleep(0)
                seen.append((name, step))
            if what.creates:
                create(tg, f"{name}'s", Child(0, "return", what.callback, False))
            if what.end == "raise":
                raise ValueError(name)
            if what.end == "cancel":
                raise asyncio.CancelledError
        except asyncio.CancelledError:
            seen.append((name, "cancelled"))
            if what.end == "stubborn":
                await asyncio.sleep(0)
            else:
                raise
        finally:
            seen.append((name, "ends"))

    def create(tg: Any, name: Any, what: Child) -> None:
        job = child(name, what, tg)
        try:
            task = tg.create_task(job)
        except RuntimeError:
            seen.append((name, "refused"))
            return
        if what.callback:
            task.add_done_callback(lambda task: seen.append((name, "callback", task.cancelled())))

    async def main() -> None:
        others = []
        tg = group_class()
        if outsiders[0]:
            others.append(asyncio.ensure_future(outsider("first")))
        try:
            async with tg:
                for number, what in enumerate(body):
                    if isinstance(what, Child):
                        create(tg, number, what)
                    elif what == "step":
                        await asyncio.sleep(0)
                        seen.append("body")
                    elif what == "cancel":
                        tg.cancel()
                    else:
                        raise KeyError
                if outsiders[1]:
                    others.append(asyncio.ensure_future(outsider("second")))
        except BaseExceptionGroup as group:
            seen.append([repr(error) for error in group.exceptions])
        for other in others:
            await other

    make_loop, debug = LOOPS[loop_name]
    with asyncio.Runner(loop_factory=make_loop, debug=debug) as runner:
        runner.get_loop().slow_callback_duration = 3600
        runner.run(main())
    return seen


@pytest.mark.parametrize("loop_name", [name for name in LOOPS if name != "eager"])
@SOME
@given(BODY, st.tuples(st.booleans(), st.booleans()))
def test_every_step_comes_when_it_would(loop_name: str, body: list[Any], outsiders: tuple[bool, bool]) -> None:
    """As in a group whose tasks have a done callback each; errors are collected in the same order, too. [G11]"""
    expected = run(ReferenceTaskGroup, loop_name, body, outsiders)
    seen = run(quattro.TaskGroup, loop_name, body, outsiders)
    assert [event for event in seen if not isinstance(event, list)] == [
        event for event in expected if not isinstance(event, list)
    ]
    assert [event for event in seen if isinstance(event, list)] == [
        event for event in expected if isinstance(event, list)
    ]


@pytest.mark.loops("asyncio", "uvloop")
async def test_error_is_not_seen_too_early() -> None:
    """A body that lets a task take its first step goes on after that, and is cancelled in its next await."""
    seen: list[str] = []
    with pytest.raises(ExceptionGroup):
        async with TaskGroup() as tg:
            task = tg.create_task(fail(ValueError()))
            await asyncio.sleep(0)
            seen.append("body")
            assert task.done()
            await asyncio.sleep(0)
            seen.append("not reached")
    assert seen == ["body"]


@pytest.mark.loops("asyncio")
async def test_group_stays_open_while_something_is_ready() -> None:
    """What is ready when the last task has ended can still use the group; with a done callback it could, too. [G16]"""
    seen: list[int] = []

    async def late(tg: TaskGroup) -> None:
        seen.append(await tg.create_task(noop()))

    async with TaskGroup() as tg:
        tg.create_task(noop())
        other = asyncio.ensure_future(late(tg))
    await other
    assert seen == [1]


@pytest.mark.loops("asyncio", "uvloop")
@pytest.mark.parametrize("exiting", [False, True])
async def test_stranger_announces_the_end_of_a_task(exiting: bool) -> None:
    """Somebody who calls _on_task_done() takes it out of the group, which goes on without it."""
    async with TaskGroup() as tg:
        task = tg.create_task(noop())
        tg.create_task(noop())
        if exiting:
            asyncio.get_running_loop().call_soon(tg._on_task_done, task)  # type: ignore[attr-defined]
        else:
            tg._on_task_done(task)  # type: ignore[attr-defined]
            assert task not in tg._tasks  # type: ignore[attr-defined]
    await task
    assert task.result() == 1


@pytest.mark.loops("asyncio", "uvloop")
async def test_exit_that_is_broken_off_with_tasks() -> None:
    """They are looked after all the same: an error is reported, for nobody can raise it any more."""
    loop, reports = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: reports.append(context["message"]))
    tg = TaskGroup()
    await tg.__aenter__()
    tasks = [tg.create_task(noop()), tg.create_task(fail(ValueError())), tg.create_task(settle(2))]
    leave = tg.__aexit__(None, None, None)
    leave.send(None)  # type: ignore[attr-defined]
    leave.close()  # type: ignore[attr-defined]
    await settle()
    assert all(task.done() for task in tasks)
    assert tg._tasks == set()  # type: ignore[attr-defined]
    assert len(reports) == 1 and "its parent task" in reports[0]


class AtOnce(asyncio.SelectorEventLoop):
    """A loop that calls what a group schedules right away."""

    def call_soon(self, callback: Any, *args: Any, **kwargs: Any) -> asyncio.Handle:
        handle = super().call_soon(callback, *args, **kwargs)
        if getattr(callback, "__name__", "") == "_on_task_done":
            callback(*args)
        return handle


@pytest.mark.parametrize("job", [noop, functools.partial(settle, 2)])
def test_loop_that_looks_at_once(job: Any) -> None:
    """Whoever calls what the loop should call changes nothing."""

    async def main() -> list[bool]:
        async with TaskGroup() as tg:
            tasks = [tg.create_task(job() if i % 2 else job) for i in range(5)]
        return [task.done() for task in tasks]

    with contextlib.closing(AtOnce()) as loop:
        assert loop.run_until_complete(main()) == [True] * 5


@pytest.mark.loops("asyncio", "uvloop")
async def test_cancel_before_the_first_steps() -> None:
    """A group that is cancelled before they have been started: none runs a line, each is cancelled once."""
    async with TaskGroup() as tg:
        tasks = [tg.create_task(forever()) for _ in range(3)]
        tg.cancel()
    assert all(task.cancelled() for task in tasks)
    assert [task.cancelling() for task in tasks] == [1] * 3


@pytest.mark.loops("asyncio", "uvloop")
async def test_those_after_an_error_are_cancelled_once() -> None:
    """Also those that the group cancels before it acts on the error."""
    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup() as tg:
            before = tg.create_task(forever())
            tg.create_task(fail(ValueError("first")))
            tg.create_task(fail(ValueError("second")))
            after = [tg.create_task(forever()) for _ in range(3)]
    assert [str(error) for error in caught.value.exceptions] == ["first", "second"]
    assert [task.cancelling() for task in (before, *after)] == [1] * 4


@pytest.mark.loops("asyncio", "uvloop")
async def test_those_after_an_error_that_have_not_been_started() -> None:
    """A task that creates another in its first step has the group look at the others: who is still to start does so."""
    seen: list[str] = []

    async def creator(tg: TaskGroup) -> None:
        tg.create_task(job("created"))

    async def job(name: str) -> None:
        seen.append(name)
        await forever()

    with pytest.raises(ExceptionGroup):
        async with TaskGroup() as tg:
            tg.create_task(fail(ValueError()))
            tg.create_task(creator(tg))
            tg.create_task(job("third"))
    assert seen == ["third"]


@pytest.mark.loops("asyncio", "uvloop")
@pytest.mark.parametrize("background", [False, True])
async def test_errors_of_many_that_are_cancelled_together(background: bool) -> None:
    """All that they raise is collected, in the order in which they end; what they create then is awaited, too."""
    seen: list[int] = []

    async def job(number: int, passes: int) -> None:
        try:
            await forever()
        finally:
            if background and number == 1:
                tg.create_task(helper())
            await settle(passes)
            raise ValueError(number)

    async def helper() -> None:
        await settle(5)
        seen.append(0)

    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup() as tg:
            create = tg.create_background_task if background else tg.create_task
            for number, passes in enumerate((2, 0, 1, 0, 0)):
                create(job(number, passes))
            await settle(2)
            if not background:
                tg.cancel()
    assert [error.args[0] for error in caught.value.exceptions] == [1, 3, 4, 2, 0]
    assert seen == []  # the first error has aborted the group


@pytest.mark.loops("asyncio", "uvloop")
async def test_done_callback_that_cannot_be_compared() -> None:
    """A done callback of somebody's whose ``__eq__`` raises keeps no task from being cancelled once."""

    class Odd:
        def __eq__(self, other: object) -> bool:
            raise LookupError("odd")

        def __call__(self, task: asyncio.Task[None]) -> None:
            called.append(task)

    called: list[asyncio.Task[None]] = []
    async with TaskGroup() as tg:
        tasks = [tg.create_task(forever()) for _ in range(5)]
        await settle(2)
        tasks[2].add_done_callback(Odd())
        tg.cancel()
    assert called == [tasks[2]]
    assert all(task.cancelled() for task in tasks)


@pytest.mark.parametrize("which", [0, 1, 2])
async def test_callbacks_of_others_come_before_the_parent(which: int) -> None:
    """Whichever of the tasks somebody else has added a done callback to, it has been called when the group is left."""
    called: list[asyncio.Task[int]] = []
    async with TaskGroup() as tg:
        for i in range(3):
            task = tg.create_task(noop())
            if i == which:
                task.add_done_callback(called.append)
            del task
    assert len(called) == 1
