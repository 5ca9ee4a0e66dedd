"""Fresh tasks (see the essay of the C) have no done callback until they need one, and nobody can tell.

Random programs, on ``quattro.TaskGroup`` and on the plain Python one of ``reference.py``, whose tasks all have done
callbacks: each step of each task, and of whoever else uses the loop, comes in the same order. Only the parent may go on
earlier. Then the places where that could go wrong, one by one.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
from collections.abc import Iterator
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


def of_the_group(events: list[Any]) -> list[Any]:
    """Without the outsiders, and what depends on when the parent goes on."""
    return [event for event in events if isinstance(event, tuple) and event[0] not in ("first", "second")]


@pytest.mark.parametrize("loop_name", [name for name in LOOPS if name != "eager"])
@SOME
@given(BODY, st.tuples(st.booleans(), st.booleans()))
def test_every_step_comes_when_it_would(loop_name: str, body: list[Any], outsiders: tuple[bool, bool]) -> None:
    """As in a group whose tasks have a done callback each; errors are collected in the same order, too. [G11]"""
    expected = run(ReferenceTaskGroup, loop_name, body, outsiders)
    seen = run(quattro.TaskGroup, loop_name, body, outsiders)
    if loop_name == "uvloop":  # which does not show what is ready, so that the parent may overtake it
        expected, seen = of_the_group(expected), of_the_group(seen)
    assert [event for event in seen if not isinstance(event, list)] == [
        event for event in expected if not isinstance(event, list)
    ]
    assert [event for event in seen if isinstance(event, list)] == [
        event for event in expected if isinstance(event, list)
    ]


def callbacks(task: asyncio.Task[Any]) -> int:
    """How many done callbacks a task has."""
    return len(task._callbacks or [])  # type: ignore[attr-defined]


@pytest.mark.loops("asyncio", "uvloop")
async def test_body_that_goes_on() -> None:
    """Before anything runs but the oldest one's first step, all of them have their done callback."""
    seen: list[int] = []

    async def job() -> None:
        seen.append(callbacks(asyncio.current_task()))  # type: ignore[arg-type]

    async with TaskGroup() as tg:
        tasks = [tg.create_task(job()) for _ in range(3)]
        assert [callbacks(task) for task in tasks] == [0, 0, 0]
        await asyncio.sleep(0)
        assert seen == [0, 1, 1]


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
async def test_stranger_announces_the_end_of_a_fresh_task(exiting: bool) -> None:
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
async def test_exit_that_is_broken_off_with_fresh_tasks() -> None:
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


class Refusing(asyncio.SelectorEventLoop):
    """A loop that refuses what a group schedules, at the n-th time."""

    refuse_at = 0
    error: type[BaseException] = MemoryError

    def call_soon(self, callback: Any, *args: Any, **kwargs: Any) -> asyncio.Handle:
        if getattr(callback, "__name__", "") == "_sweep":
            self.refuse_at -= 1
            if self.refuse_at == 0:
                raise self.error("no")
        return super().call_soon(callback, *args, **kwargs)


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_loop_that_refuses_to_look(at: int, error: type[BaseException]) -> None:
    """The error comes out where it can, no task is lost, and every coroutine is closed or runs."""
    loop, reports, ended = Refusing(), [], []
    loop.set_exception_handler(lambda _, context: reports.append(context["exception"]))
    loop.error = error

    async def job(number: int) -> None:
        ended.append(number)

    async def main() -> None:
        loop.refuse_at = at
        async with TaskGroup() as tg:
            for number in range(3):
                tg.create_task(job(number))
            loop.call_soon(noop)  # so that the last one stays for another pass

    noop = lambda: None  # noqa: E731
    with contextlib.closing(loop):
        try:
            loop.run_until_complete(main())
        except (MemoryError, KeyboardInterrupt, BaseExceptionGroup) as raised:
            reports.append(raised)
        loop.run_until_complete(settle())
        assert asyncio.all_tasks(loop) == set()
    assert len(reports) == 1
    assert ended == ([0, 1, 2] if at > 1 else [])
    gc.collect()


class AtOnce(asyncio.SelectorEventLoop):
    """A loop that calls what a group schedules right away."""

    def call_soon(self, callback: Any, *args: Any, **kwargs: Any) -> asyncio.Handle:
        handle = super().call_soon(callback, *args, **kwargs)
        if getattr(callback, "__name__", "") == "_sweep":
            callback(*args)
        return handle


@pytest.mark.parametrize("job", [noop, functools.partial(settle, 2)])
def test_loop_that_looks_at_once(job: Any) -> None:
    """Whoever calls what the loop should call changes nothing."""

    async def main() -> list[bool]:
        async with TaskGroup() as tg:
            tasks = [tg.create_task(job()) for _ in range(3)]
        return [task.done() for task in tasks]

    with contextlib.closing(AtOnce()) as loop:
        assert loop.run_until_complete(main()) == [True] * 3


@pytest.mark.loops("asyncio", "uvloop")
async def test_cancel_finds_fresh_tasks() -> None:
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


@pytest.fixture
def handles(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of what asyncio's loop is asked to call."""
    names: list[str] = []
    call_soon = asyncio.BaseEventLoop.call_soon

    def recorded(self: Any, callback: Any, *args: Any, **kwargs: Any) -> asyncio.Handle:
        names.append(getattr(callback, "__name__", "step"))
        return call_soon(self, callback, *args, **kwargs)

    monkeypatch.setattr(asyncio.BaseEventLoop, "call_soon", recorded)
    yield names


@pytest.mark.loops("asyncio")
async def test_handles(handles: list[str]) -> None:
    """However many tasks end at once, the group takes three handles at most; once one of them has waited, it takes none
    for others, which have their done callbacks from the start."""
    async with TaskGroup() as tg:
        for _ in range(100):
            tg.create_task(noop())
    assert handles.count("_sweep") == 3 and "_on_task_done" not in handles
    async with TaskGroup() as tg:
        tg.create_task(settle(1))
        await settle(3)
        del handles[:]
        for _ in range(3):
            tg.create_task(noop())
    assert handles.count("_on_task_done") == 3 and "_sweep" not in handles


@pytest.mark.loops("debug")
async def test_debug_mode_sees_each_end(handles: list[str]) -> None:
    """In debug mode, which times each callback under its own name, every task has its done callback."""
    async with TaskGroup() as tg:
        for _ in range(3):
            tg.create_task(noop())
    assert handles.count("_on_task_done") == 3 and "_sweep" not in handles


@pytest.mark.loops("asyncio")
@pytest.mark.parametrize("background", [False, True])
async def test_many_that_are_cancelled_together(background: bool, handles: list[str]) -> None:
    """Those that end with it are forgotten by one handle; each of the others has its done callback again."""

    async def stubborn() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await forever()
        await settle(2)
        assert tg.statistics()[:3] == ((0, 0, 1) if background else (1, 0, 0))

    async with TaskGroup() as tg:
        create = tg.create_background_task if background else tg.create_task
        tasks = [create(forever()) for _ in range(50)] + [create(stubborn())]
        await settle(2)
        del handles[:]
        if not background:
            tg.cancel()
    assert handles.count("_on_task_done") == 1 and 0 < handles.count("_sweep") <= 2
    assert [task.cancelled() for task in tasks] == [True] * 50 + [False]
    assert [task.cancelling() for task in tasks] == [1] * 51


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
    """The group's own done callback is taken from a task that has others, whose errors are not the task's."""

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
        with pytest.raises(LookupError, match="odd"):
            tg.cancel()
    assert called == [tasks[2]]
    assert all(task.cancelled() for task in tasks)


@pytest.mark.loops("asyncio", "uvloop")
async def test_task_that_makes_another_and_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the exit create_task() asks who runs it; if that raises, nothing is lost but the new task."""

    def unknown(loop: object = None) -> None:
        raise LookupError("who?")

    async def child() -> None:
        coro = noop()
        with monkeypatch.context() as patch:
            patch.setattr(asyncio.tasks, "current_task", unknown)
            with pytest.raises(LookupError, match="who"):
                tg.create_task(coro)
        assert coro.cr_frame is None
        await tg.create_task(noop())

    async with TaskGroup() as tg:
        tasks = [tg.create_task(noop()), tg.create_task(child()), tg.create_task(noop())]
    assert all(task.done() for task in tasks)


@pytest.mark.parametrize("background", [False, True])
def test_loop_that_refuses_to_look_after_a_cancel(background: bool) -> None:
    """The error comes out of where the tasks were cancelled, and each of them is still seen to end."""
    loop = Refusing()

    async def main() -> None:
        async with TaskGroup() as tg:
            create = tg.create_background_task if background else tg.create_task
            tasks.extend(create(forever()) for _ in range(5))
            await settle(2)
            loop.refuse_at = 1
            if not background:
                with pytest.raises(MemoryError):
                    tg.cancel()
                return
        raise AssertionError("not reached")

    tasks: list[asyncio.Task[None]] = []
    with contextlib.closing(loop):
        with pytest.raises(MemoryError) if background else contextlib.nullcontext():
            loop.run_until_complete(main())
        loop.run_until_complete(settle())
    assert all(task.cancelled() for task in tasks) and loop.refuse_at == 0


@pytest.mark.loops("asyncio", "uvloop")
async def test_tasks_of_another_kind_keep_their_done_callback() -> None:
    """Only asyncio's own Task is known to give it back."""
    loop = asyncio.get_running_loop()
    async with TaskGroup() as tg:
        loop.set_task_factory(lambda loop, coro, **kwargs: asyncio.tasks._PyTask(coro, loop=loop, **kwargs))  # type: ignore[attr-defined]
        tasks = [tg.create_task(forever())]
        loop.set_task_factory(None)
        tasks += [tg.create_task(forever()) for _ in range(5)]
        await settle(2)
        tg.cancel()
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
