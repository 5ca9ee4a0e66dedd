"""What nobody does who uses a group as intended: its awaitables and turns in the hands of strangers."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import sys
import weakref
from contextvars import Context, ContextVar, copy_context
from typing import Any
from unittest.mock import Mock

import pytest
from helpers import fail, forever, noop, settle

from quattro import TaskGroup, _quattro


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


@pytest.mark.loops("asyncio", "uvloop")
@pytest.mark.parametrize("name", ["set_name", "cancel"])
async def test_somebody_else_waits_on_a_turn(name: str) -> None:
    """Builtins that are not a Task's wake-up are called as they are, and none is kept for the next to wait."""
    loop = asyncio.get_running_loop()
    marker = asyncio.Task(forever(), loop=loop)
    loop.set_task_factory(lambda loop, coro, **kwargs: asyncio.Task(coro, loop=loop, **kwargs))  # parks later
    try:
        async with TaskGroup(concurrency_limit=1) as tg:
            holder = tg.create_task(forever())
            queued: Any = tg.create_task(noop())
            turn = queued.get_coro().cr_frame.f_locals["turn"]
            turn.add_done_callback(getattr(marker, name))
            turn.cancel()
            said = str(turn)
            await settle(4)
            assert queued.cancelled() and marker.get_name() == said if name == "set_name" else marker.cancelled()
            heard: list[object] = []
            turn.add_done_callback(heard.append)
            await settle(2)
            assert heard == [turn]
            others = [tg.create_task(noop()) for _ in range(3)]
            await settle(2)
            holder.cancel()
    finally:
        loop.set_task_factory(None)
    assert all(task.done() and not task.cancelled() for task in others)
    marker.cancel()
    await asyncio.wait([marker])


async def test_somebody_else_waits_on_a_turn_that_has_failed() -> None:
    """Between its task's failure and its done callback it holds its slot still; whoever waits on it then is told."""
    heard: list[object] = []
    with pytest.raises(ExceptionGroup, match="unhandled errors"):
        async with TaskGroup(concurrency_limit=1) as tg:
            parked = Parked(tg)
            await settle(2)
            turn, (holder,) = parked.turn, tg._tasks - {parked.task}
            parked.task.add_done_callback(lambda _: turn.add_done_callback(heard.append))
            turn.end()  # closes its coroutine; its task fails when it is woken
            holder.cancel()
            await settle(6)
    await settle()
    assert heard == [turn] and isinstance(parked.task.exception(), RuntimeError)


async def test_a_cancelled_turn_says_so() -> None:
    """It is a future to who looks at it, cancelled or not; whoever awaits it gets its CancelledError and message."""
    async with TaskGroup(concurrency_limit=1) as tg:
        parked = Parked(tg)
        await settle(2)
        turn = parked.turn
        assert isinstance(turn, asyncio.Future) and not turn.done() and not turn.cancelled()
        parked.task.cancel("why")
        assert turn.done() and turn.cancelled()
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
    leaving: Any = _quattro.TaskGroup.__aexit__(group, KeyError, KeyError(), None)
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
        leaving.close()  # what was not thrown has not begun it
    leaving = TaskGroup().__aexit__(None, None, None)
    with pytest.raises(TypeError, match=r"^throw\b.* argument"):
        leaving.throw()
    leaving.close()


async def test_what_cannot_be_thrown_into_an_exit() -> None:
    """What only says that it is an exception is none, and what with_traceback() returns does not count."""

    class Odd(Exception):
        def with_traceback(self, tb: Any) -> Any:
            return 42

    with pytest.raises(KeyError) as caught:
        raise KeyError
    for use in (lambda: TaskGroup().__aexit__(None, None, None), TaskGroup().__aenter__, TaskGroup().wait_for_slot):
        for args, expected in (
            ((Mock(spec=ValueError),), TypeError),
            ((KeyError, Mock(spec=ValueError)), KeyError),
            ((Odd, None, caught.tb), Odd),
            ((Odd(), None, caught.tb), Odd),
        ):
            awaitable: Any = use()
            with pytest.raises(expected):
                awaitable.throw(*args)
            awaitable.close()
    group = TaskGroup()
    await group.__aenter__()
    leaving: Any = group.__aexit__(Odd, None, caught.tb)  # type: ignore[arg-type]
    with pytest.raises(ExceptionGroup) as raised:
        await leaving
    assert [type(error) for error in raised.value.exceptions] == [Odd]


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


@pytest.mark.parametrize("how", ["close", "fail"])
async def test_a_waiter_for_a_slot_that_is_broken_off_by_a_stranger_can_be_cancelled(how: str) -> None:
    """The same of the task that waits for a slot."""
    async with TaskGroup(concurrency_limit=1) as tg:
        tg.create_task(settle(5))
        await settle(1)
        waiting: Any = tg.wait_for_slot()

        async def wait() -> None:
            await waiting

        task = asyncio.create_task(wait())
        await settle(1)
        if how == "close":
            waiting.close()
        else:
            with pytest.raises(KeyError):
                waiting.throw(KeyError())
        task.cancel()
        await settle(2)
        assert isinstance(task.exception(), RuntimeError)


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


async def test_a_turn_ends_once() -> None:
    """Who ends a turn that has ended gives no second slot back."""
    async with TaskGroup(concurrency_limit=1) as tg:
        parked = Parked(tg)
        await settle(2)
        turn = parked.turn
        for task in tg._tasks - {parked.task}:
            task.cancel()
        await parked.task
        tg.create_task(forever())
        queued = tg.create_task(noop())
        turn.end(), turn.fail()
        await settle(2)
        assert tg.statistics() == (1, 1, 0, 1) and not queued.done()
        tg.cancel()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="a queued task has a done callback there, which is heard anyway")
@pytest.mark.loops("asyncio", "uvloop")
@pytest.mark.parametrize("fails", [False, True])
async def test_a_queued_task_whose_end_a_stranger_announced(fails: bool) -> None:
    """A task that _on_task_done() was called with too early is the group's no more, but gives its slot back."""
    async with TaskGroup(concurrency_limit=1) as tg:
        tg.create_task(settle(1))
        task = tg.create_task(fail(ValueError(), 3) if fails else settle(3))
        after = tg.create_task(noop())
        await settle(3)
        tg._on_task_done(task)
        assert task not in tg._tasks
        assert await after == 1
    assert isinstance(task.exception(), ValueError) if fails else task.result() is None


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_queued_task_that_is_announced_to_have_ended(cancelled: bool) -> None:
    """The group does not wait for it; it is cancelled when the group is left, and waits for no turn for ever."""
    async with TaskGroup(concurrency_limit=1) as tg:
        running = tg.create_task(settle(4))
        queued = tg.create_task(forever)
        await settle(1)
        tg._on_task_done(running)
        tg._on_task_done(queued)
        if cancelled:
            queued.cancel()
    await settle(5)
    assert queued.cancelled()


async def test_the_last_task_whose_end_a_stranger_announced() -> None:
    """The parent does not step within another task: the loop wakes it."""
    tasks: list[asyncio.Task[Any]] = []
    seen: list[str] = []

    async def main() -> None:
        async with TaskGroup() as tg:
            groups.append(tg)
            tasks.append(tg.create_task(forever()))
        seen.append("parent")

    groups: list[TaskGroup] = []
    parent = asyncio.create_task(main())
    await settle(3)
    groups[0]._on_task_done(tasks[0])
    assert seen == []
    await parent
    tasks[0].cancel()


@pytest.mark.loops("asyncio", "debug", "factory", "uvloop")
async def test_a_turn_that_is_got_hold_of_while_it_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A coroutine that is closed at the group's end, and finds its turn then, gets one that says so, and no crash."""
    kept: list[Any] = []
    reports: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: reports.append(type(unraisable.exc_value)))

    class Wait:
        def __await__(self) -> Any:
            yield

    async def begun() -> None:
        try:
            await Wait()
        finally:
            kept.extend(op for op in gc.get_objects() if repr(op) == "<turn cancelled>")
            raise LookupError("closed")

    class NoTask:
        """What a factory may return: it is never stepped, and keeps its coroutine."""

        def __init__(self, coro: Any) -> None:
            self.coro = coro
            self.callbacks: list[Any] = []

        def add_done_callback(self, callback: Any, context: Any = None) -> None:
            self.callbacks.append(callback)

        def cancelled(self) -> bool:
            return True

        def set_name(self, name: str) -> None:
            """asyncio's loop of 3.13.0 calls it."""

    loop = asyncio.get_running_loop()
    factory = loop.get_task_factory()
    coro = begun()
    coro.send(None)
    async with TaskGroup(concurrency_limit=1) as tg:
        running = tg.create_task(settle(2))
        loop.set_task_factory(lambda loop, coro, **kwargs: NoTask(coro))  # type: ignore[arg-type,return-value]
        task = tg.create_task(coro)
        loop.set_task_factory(factory)
        await running
        await settle(1)
        assert tg.statistics().running == 1  # it has been granted the slot
        tg._on_task_done(task)
        task.callbacks.clear()  # type: ignore[attr-defined]
        task.coro.close()  # type: ignore[attr-defined]
        del task
    assert reports == [LookupError] and coro.cr_frame is None
    with pytest.raises(asyncio.CancelledError):
        kept.pop().begin()


@pytest.mark.loops("asyncio")
@pytest.mark.skipif(sys.version_info >= (3, 13), reason="uncancel() leaves nothing to pass through the loop for")
async def test_an_exit_that_an_error_is_thrown_into_on_its_way_through_the_loop() -> None:
    """An error that arrives where the parent lets a stray cancellation pass goes on, and the group is finished."""
    group = TaskGroup()
    await group.__aenter__()
    group.cancel()
    leaving: Any = group.__aexit__(None, None, None)
    if leaving.send(None) is None:
        with pytest.raises(KeyError):
            leaving.throw(KeyError())
    assert group._parent_task is None
    with pytest.raises(asyncio.CancelledError):
        await settle(1)


def leave_context(context: Context) -> None:
    """What only C code can do, and only by mistake: leave a context that it has not entered."""
    leave = ctypes.pythonapi.PyContext_Exit
    leave.argtypes, leave.restype = [ctypes.py_object], ctypes.c_int
    leave(context)


@pytest.mark.loops("asyncio")
@pytest.mark.parametrize("who", ["a queued task", "the parent"])
@pytest.mark.reports
async def test_code_that_leaves_the_context_it_runs_in(who: str) -> None:
    """An extension that breaks the nesting of contexts is told so by the loop; all tasks end."""
    loop, reports = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, told: reports.append(str(told["exception"])))
    context = copy_context()

    async def leaver() -> int:
        if who == "the parent":
            async with TaskGroup() as tg:
                tg.create_task(noop())
        leave_context(context)
        return 1

    async with TaskGroup(concurrency_limit=1) as tg:
        if who == "a queued task":
            tg.create_task(noop())
            tasks = [tg.create_task(leaver(), context=context), tg.create_task(noop())]
        else:
            tasks = [loop.create_task(leaver(), context=context)]
    assert [await task for task in tasks] == [1] * len(tasks)
    assert len(reports) == 1 and "exit context" in reports[0]


def stop_of(entering: Any) -> StopIteration:
    """What carries __aenter__()'s result to code that sends by hand."""
    try:
        next(entering)
    except StopIteration as stop:
        assert stop.__traceback__ is not None and stop.__traceback__.tb_next is None  # this frame's alone
        stop.__traceback__ = None
        return stop
    raise AssertionError("it did not stop")


async def test_what_carries_a_result_goes_with_it() -> None:
    """Neither __aenter__()'s result nor an awaitable that was awaited keeps the group alive."""
    for _ in range(3):
        async with TaskGroup() as tg:
            dead = weakref.ref(tg)
        del tg
        assert dead() is None
        tg = TaskGroup()
        dead = weakref.ref(tg)
        stop_of(_quattro.TaskGroup.__aenter__(tg))
        del tg
        assert dead() is None


async def test_what_carries_a_result_belongs_to_its_catcher() -> None:
    """A StopIteration that somebody caught keeps its value, whatever other groups do."""
    groups = [TaskGroup() for _ in range(4)]
    stops = [stop_of(_quattro.TaskGroup.__aenter__(tg)) for tg in groups]
    async with TaskGroup():
        assert [stop.value for stop in stops] == groups


@pytest.mark.parametrize("when", ["never", "at once", "late"])
async def test_a_wait_for_a_slot_that_no_task_waits_on(when: str) -> None:
    """Who takes its first step by hand keeps no background task from being stopped, also if it is woken and does not
    look; who waits later is woken."""
    woken: list[Any] = []
    async with TaskGroup(concurrency_limit=1) as tg:
        background = tg.create_background_task(forever())
        tg.create_task(settle(2))
        waiting: Any = _quattro.TaskGroup.wait_for_slot(tg)
        turn = waiting.send(None)
        if when == "at once":
            turn.add_done_callback(woken.append)
        if when == "late":
            await settle(5)
            turn.add_done_callback(woken.append)
            await settle(2)
            waiting.close()
    assert background.cancelled() and woken == ([] if when == "never" else [turn])
    if when == "never":
        with pytest.raises(RuntimeError, match="is finished"):
            waiting.send(None)


@pytest.mark.parametrize("waits", ["exit", "slot", "turn"])
async def test_somebody_else_waits_on_what_a_task_waits_on(waits: str) -> None:
    """The future that the parent, who waits for a slot, or a queued task waits on is for one task: others are told."""
    heard: list[object] = []

    async def child() -> None:
        await settle(2)
        waiting: Any = queued if waits == "turn" else parent
        turn = tg._on_completed_fut if waits == "exit" else waiting._fut_waiter
        with pytest.raises(RuntimeError, match="one task"):
            turn.add_done_callback(heard.append)
        with pytest.raises(RuntimeError, match="only once"):
            await turn

    parent = asyncio.current_task()
    async with TaskGroup(concurrency_limit=1) as tg:
        tg.create_task(child())
        if waits == "slot":
            await tg.wait_for_slot()
        queued = tg.create_task(noop())
    assert heard == []


@pytest.mark.loops("asyncio", "debug", "uvloop")
@pytest.mark.parametrize(("kind", "steps"), [("coroutine", 0), ("callable", 0), ("callable", 1), ("queued", 1)])
async def test_a_coroutine_that_is_run_by_somebody_else_than_its_task(kind: str, steps: int) -> None:
    """Who steps a task's coroutine by hand leaves nothing for the Task to run: the group hears of that error."""
    future = asyncio.get_running_loop().create_future()

    async def job() -> None:
        if steps:
            await future

    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup(concurrency_limit=2 if kind == "queued" else None) as tg:
            last = tg.create_task(settle(9))
            if kind == "queued":
                tg.create_task(noop())
            task: Any = tg.create_task(job() if kind == "coroutine" else job)
            await settle(3 * steps)
            future.set_result(None)
            with pytest.raises(StopIteration):
                task.get_coro().send(None)
            assert tg._tasks == {task, last}
    assert [str(error) for error in caught.value.exceptions] == ["cannot reuse already awaited coroutine"]


@pytest.mark.loops("asyncio", "uvloop")
async def test_the_groups_callback_that_a_task_calls() -> None:
    """The parent does not take its step within that of another task, though nothing else is ready."""
    parents: list[Any] = []
    tasks: list[Any] = []

    async def leave() -> None:
        async with TaskGroup() as tg:
            tasks.append(tg.create_task(forever()))
        parents.append(asyncio.current_task())

    parent = asyncio.get_running_loop().create_task(leave())
    await settle(2)
    callback, _ = tasks[0]._callbacks[0]
    callback(tasks[0])
    assert parents == []
    await parent
    assert parents == [parent]
    tasks[0].cancel()
    await settle(2)


@pytest.mark.loops("asyncio", "debug", "uvloop")
async def test_a_granted_turn_that_is_run_by_somebody_else() -> None:
    """Its Task gets its step all the same, and the group ends."""

    def run() -> None:
        with pytest.raises(StopIteration):
            task.get_coro().send(None)

    async def schedules() -> None:
        await settle(2)  # until the other has parked
        asyncio.get_running_loop().call_soon(run)

    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup(concurrency_limit=1) as tg:
            tg.create_task(schedules)
            task: Any = tg.create_task(noop())
    assert [str(error) for error in caught.value.exceptions] == ["cannot reuse already awaited coroutine"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="there a queued task has a callback, which tells")
@pytest.mark.reports
@pytest.mark.loops("asyncio", "debug", "uvloop")
async def test_a_queued_task_that_is_announced_and_closed() -> None:
    """It takes no place in the queue any more: who comes after it starts."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: None)
    async with TaskGroup(concurrency_limit=1) as tg:
        tg.create_task(noop())
        announced: Any = tg.create_task(noop())
        last = tg.create_task(noop())
        tg._on_task_done(announced)
        announced.get_coro().close()
    assert last.result() == 1
    await settle(2)
    assert announced.done()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no eager tasks")
@pytest.mark.reports
@pytest.mark.loops("asyncio", "debug")
async def test_the_error_of_an_eager_task_that_could_not_be_adopted(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is reported as never retrieved, as asyncio's is."""
    loop: Any = asyncio.get_running_loop()
    reports: list[Any] = []
    loop.set_exception_handler(lambda loop, context: reports.append(context["exception"]))

    def refuses(*args: Any, **kwargs: Any) -> None:
        raise OSError

    async def fails() -> None:
        monkeypatch.setattr(loop, "call_soon", refuses)
        raise error

    error = ValueError()
    async with TaskGroup() as tg:
        with pytest.raises(OSError):
            tg.create_task(fails(), eager_start=True)
        monkeypatch.undo()
    gc.collect()
    assert reports == [error]


@pytest.mark.reports
@pytest.mark.loops("asyncio", "debug", "factory", "uvloop")
async def test_what_uses_the_group_as_a_displaced_error_goes() -> None:
    """It finds a group that has let go of everything."""
    seen: list[Any] = []

    class Last:
        def __del__(self) -> None:
            tg.cancel()
            seen.append([tg._errors, tg._parent_task, tg._base_error, tg._on_completed_fut])

    async def fails(_: Last) -> None:
        raise ValueError

    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    with pytest.raises(SystemExit):
        async with TaskGroup() as tg:
            tg.create_task(fails(Last()))
            tg.create_task(forever())
            await settle(1)
            raise SystemExit
    assert seen == [[None] * 4]


@pytest.mark.reports
@pytest.mark.loops("asyncio", "debug", "factory", "uvloop")
@pytest.mark.parametrize(("count", "each"), [(3, False), (2000, True)])
async def test_every_displaced_error_is_reported_whatever_the_handler_raises(count: int, each: bool) -> None:
    """A handler that is interrupted by the first, or by each of many, hears of the others as well."""
    reports: list[BaseException] = []

    def handler(loop: Any, context: Any) -> None:
        reports.append(context["exception"])
        if len(reports) == 1 or each:
            raise KeyboardInterrupt

    asyncio.get_running_loop().set_exception_handler(handler)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "unraisablehook", lambda unraisable: reports.append(unraisable.exc_value))
        with pytest.raises(SystemExit):
            async with TaskGroup() as tg:
                for number in range(count):
                    tg.create_task(fail(ValueError(number)))
                await settle(1)
                raise SystemExit
    assert [type(error) for error in reports] == [ValueError] * count + [KeyboardInterrupt]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="a task does not show its context")
@pytest.mark.loops("asyncio", "debug", "uvloop")
async def test_what_goes_with_the_context_of_a_callback_that_is_taken_back() -> None:
    """It may announce the end of the very task that takes its first step, and is then none of the group's."""
    variable: ContextVar[Any] = ContextVar("variable", default=None)
    announced: list[Any] = []

    class Last:
        def __init__(self, group: TaskGroup) -> None:
            self.group = group

        def __del__(self) -> None:
            announced.append(task)
            self.group._on_task_done(task)

    for limit in (None, 2):
        async with TaskGroup(concurrency_limit=limit) as tg:
            tg.create_task(settle(4))
            variable.set(Last(tg))
            task: asyncio.Task[None] = tg.create_task(lambda: settle(1))
            variable.set(None)
            task.get_context().run(variable.set, None)  # the callback's has the last one
            await settle(1)
            assert announced.pop() is task
            assert task not in tg._tasks and tg.statistics().running == 1
        assert task.done()
