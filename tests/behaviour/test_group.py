"""The group: rules G of docs/behaviour.md, beyond what asyncio.TaskGroup's own suite, in test_conformance, asks."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import contextvars
import gc
import pickle
import sys
import weakref
from typing import Any

import pytest
from helpers import Log, fail, forever, noop, settle

import quattro
from quattro import TaskGroup


async def test_is_a_drop_in() -> None:
    """isinstance(tg, asyncio.TaskGroup) holds, and `as tg` is the group. [T1]"""
    group = TaskGroup()
    assert isinstance(group, asyncio.TaskGroup)
    async with group as tg:
        assert tg is group
        task = tg.create_task(noop())
        assert type(task) is asyncio.Task
    assert task.result() == 1


async def test_documented_example() -> None:
    """Functions passed uncalled run as tasks, and the background task ends after the others. [G2, G15]"""
    log = Log()

    async def task_1() -> Any:
        return await log.job("task_1", 2)

    async def task_2() -> Any:
        return await log.job("task_2", 4)

    async def background_task() -> None:
        await log.waiter("background")

    async with TaskGroup() as tg:
        t1 = tg.create_task(task_1)
        t2 = tg.create_task(task_2)
        background = tg.create_background_task(background_task)
    assert (t1.result(), t2.result()) == ("task_1", "task_2")
    assert background.cancelled() and background.cancelling() == 1
    assert log.events[-1] == ("cancelled", "background")
    assert sorted(log.started) == ["background", "task_1", "task_2"]


async def test_callable_is_called_in_its_task() -> None:
    """What a callable does and raises belongs to the task that it starts. [G15]"""
    seen: list[Any] = []

    def make() -> Any:
        seen.append(asyncio.current_task())
        return noop()

    def broken() -> Any:
        raise LookupError("in the task")

    async with TaskGroup() as tg:
        task = tg.create_task(make, name="made")
    assert seen == [task] and task.get_name() == "made" and task.result() == 1
    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup() as tg:
            task = tg.create_task(broken)
    assert caught.value.exceptions == (task.exception(),)


async def test_errors_and_body_error_are_grouped() -> None:
    """The errors of tasks and of the body come in one group, without a cause. [G4]"""
    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup() as tg:
            tg.create_task(fail(ValueError("child")))
            try:
                await forever()
            finally:
                raise KeyError("body")
    assert [type(e) for e in caught.value.exceptions] == [ValueError, KeyError]
    assert caught.value.message == "unhandled errors in a TaskGroup"
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    assert asyncio.current_task().cancelling() == 0


@pytest.mark.loops("asyncio", "uvloop", "debug")
async def test_stray_cancellation_does_not_leave_the_group() -> None:
    """A cancel() that hit the parent without its awaiting anything again is taken back at the exit. [G8]"""
    async with TaskGroup() as tg:
        tg.cancel()
    await asyncio.sleep(0)  # would raise
    assert asyncio.current_task().cancelling() == 0


async def test_fresh_outside_cancel_while_passing_through_the_loop() -> None:
    """An outside cancel that arrives while a stray one is swallowed is propagated."""

    async def body() -> None:
        async with TaskGroup() as tg:
            tg.cancel()
            asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)
        await forever()

    task = asyncio.ensure_future(body())
    await settle()
    assert task.cancelled()


@pytest.mark.parametrize("with_error", [False, True])
async def test_timeout_around_a_group(with_error: bool) -> None:
    """A timeout around a group ends in its own error, leaves no cancellation behind, and is not lost. [G8]"""

    async def stubborn() -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            if with_error:
                raise ValueError("in clean-up") from None
            raise

    with pytest.raises((TimeoutError, ExceptionGroup)) as caught:
        async with asyncio.timeout(0):
            async with TaskGroup() as tg:
                tg.create_task(stubborn())
    assert isinstance(caught.value, ExceptionGroup) == with_error
    for _ in range(3):
        await asyncio.sleep(0)  # a leaked cancellation would show here
    assert asyncio.current_task().cancelling() == 0


async def test_outside_cancel_survives_an_exception_group() -> None:
    """A parent cancelled from outside sees the cancellation at its next await after the ExceptionGroup. [G7]"""
    seen: list[str] = []

    async def body() -> None:
        try:
            async with TaskGroup() as tg:
                tg.create_task(bad_clean_up())
                await forever()
        except* ValueError:
            seen.append("group")
        try:
            await forever()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def bad_clean_up() -> None:
        try:
            await forever()
        finally:
            raise ValueError

    task = asyncio.ensure_future(body())
    await settle()
    task.cancel()
    await settle()
    assert seen == ["group", "cancelled"] and task.cancelled() and task.cancelling() == 1


@pytest.mark.reports
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
async def test_base_error_of_the_body_displaces_and_reports(kind: type[BaseException]) -> None:
    """SystemExit and KeyboardInterrupt go on as they are; what they displace is reported; no cancel() is left. [G6]"""
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    error, child_error = kind(), ValueError("displaced")
    with pytest.raises(kind) as caught:
        async with TaskGroup() as tg:
            tg.create_task(fail(child_error))
            try:
                await forever()
            finally:
                raise error
    assert caught.value is error
    assert [context["exception"] for context in reports] == [child_error]
    assert kind.__name__ in reports[0]["message"]
    assert asyncio.current_task().cancelling() == 0
    await asyncio.sleep(0)


def test_base_error_of_a_child_displaces_and_reports() -> None:
    """The same for one of a task: the errors of other tasks and of the body are reported, in that order. [G6]"""
    reports: list[dict[str, Any]] = []
    child_error, body_error = ValueError("child"), KeyError("body")

    async def child(error: BaseException) -> None:
        try:
            await forever()
        finally:
            raise error

    async def main() -> None:
        async with TaskGroup() as tg:
            tg.create_task(child(child_error))
            tg.create_task(child(SystemExit(7)))
            await settle(1)
            raise body_error

    with contextlib.closing(asyncio.new_event_loop()) as loop:
        loop.set_exception_handler(lambda _, context: reports.append(context))
        parent = loop.create_task(main())
        for _ in ("the child's step", "the parent's"):
            with pytest.raises(SystemExit, match="7"):
                loop.run_until_complete(parent)
        assert parent.done()
    assert [context["exception"] for context in reports] == [child_error, body_error]


async def test_body_cancelled_error_with_child_error() -> None:
    """An error of a child has priority over the CancelledError that it causes in the body."""
    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup() as tg:
            tg.create_task(fail(ValueError()))
            await forever()
    assert len(caught.value.exceptions) == 1


@pytest.mark.parametrize("refusal", ["not entered", "finished", "shutting down"])
@pytest.mark.parametrize("method", ["create_task", "create_background_task"])
async def test_refusals_close_the_coroutine(refusal: str, method: str) -> None:
    """The three RuntimeErrors of asyncio, in its words; the coroutine is closed. [G17]"""
    words = {"not entered": "has not been entered", "finished": "is finished", "shutting down": "is shutting down"}
    group = TaskGroup()
    coro = noop()
    if refusal == "finished":
        async with group:
            pass
    if refusal == "shutting down":
        async with group:
            group.create_task(forever())
            group.cancel()
            with pytest.raises(RuntimeError, match=r"^TaskGroup <TaskGroup tasks=1 cancelling> is shutting down"):
                getattr(group, method)(coro)
    else:
        with pytest.raises(RuntimeError, match=words[refusal]):
            getattr(group, method)(coro)
    assert coro.cr_frame is None


async def test_repr_and_statistics() -> None:
    """repr() is asyncio's with background and queued counts; statistics() has Trio's and anyio's names. [G22]"""
    group = TaskGroup(concurrency_limit=2)
    assert repr(group) == "<TaskGroup>"
    assert group.statistics() == (0, 0, 0, 2)
    async with group:
        assert repr(group) == "<TaskGroup entered>"
        for _ in range(5):
            group.create_task(forever())
        group.create_background_task(forever())
        await settle()
        assert repr(group) == "<TaskGroup tasks=6 background=1 queued=3 entered>"
        statistics = group.statistics()
        assert (statistics.running, statistics.queued, statistics.background) == (2, 3, 1)
        assert statistics.concurrency_limit == group.concurrency_limit == 2
        group.cancel()
        assert group.statistics().queued == 0
        assert "cancelling" in repr(group)
    assert TaskGroup().concurrency_limit is None and TaskGroup().statistics().concurrency_limit is None


def test_statistics_are_a_named_tuple() -> None:
    """What statistics() returns is told apart by its fields, shown with their names, and can be pickled. [G22]"""
    statistics = TaskGroup(concurrency_limit=3).statistics()
    assert type(statistics) is quattro.TaskGroupStatistics and pickle.loads(pickle.dumps(statistics)) == statistics
    assert repr(statistics) == "TaskGroupStatistics(running=0, queued=0, background=0, concurrency_limit=3)"
    assert statistics._asdict() == {"running": 0, "queued": 0, "background": 0, "concurrency_limit": 3}
    assert type(statistics).__match_args__ == type(statistics)._fields


async def test_after_the_exit_nothing_is_held() -> None:
    """A finished group holds no task, no error and no parent. [G20]"""

    class Marked(Exception):
        pass

    group = TaskGroup(concurrency_limit=1)
    refs: list[weakref.ref[Any]] = []

    async def run() -> None:
        try:
            async with group:
                refs.extend(weakref.ref(group.create_task(forever())) for _ in range(3))
                refs.append(weakref.ref(group.create_background_task(forever())))
                await asyncio.sleep(0)
                error = Marked()
                refs.append(weakref.ref(error))
                try:
                    raise error
                finally:
                    del error
        except* Marked:
            pass

    gc.collect()
    gc.disable()
    try:
        await asyncio.ensure_future(run())
        await asyncio.sleep(0)
        assert [ref() for ref in refs] == [None] * 5
    finally:
        gc.enable()
    assert group._tasks == set() and group._errors is None and group._parent_task is None
    assert gc.get_referents(group) != [] and asyncio.current_task() not in gc.get_referents(group)


async def test_private_names_of_asyncio() -> None:
    """What code in the wild reads of asyncio's group is there, and _abort() can be called. [G23]"""
    group = TaskGroup(concurrency_limit=1)
    assert not group._entered and group._loop is None and group._errors == []
    async with group:
        one = group.create_task(forever())
        two = group.create_task(forever())
        three = group.create_background_task(forever())
        assert group._tasks == {one, two, three}
        assert group._entered and not group._exiting and not group._aborting
        assert group._parent_task is asyncio.current_task() and group._loop is asyncio.get_running_loop()
        assert not group._parent_cancel_requested
        group._abort()
        assert group._aborting
    assert all(task.cancelled() and task.cancelling() == 1 for task in (one, two, three))
    assert group._exiting


async def test_overridden_hooks_are_honoured() -> None:
    """A subclass's _abort, _on_task_done, create_task, __aenter__ and __aexit__ are used, and may call ours. [G23]"""
    calls: list[str] = []

    class Group(TaskGroup):
        async def __aenter__(self) -> Any:
            calls.append("enter")
            return await super().__aenter__()

        async def __aexit__(self, *args: Any) -> Any:
            calls.append("exit")
            return await super().__aexit__(*args)

        def create_task(self, *args: Any, **kwargs: Any) -> Any:
            calls.append("create")
            return super().create_task(*args, **kwargs)

        def _abort(self) -> None:
            calls.append("abort")
            super()._abort()

        def _on_task_done(self, task: Any) -> None:
            calls.append("done")
            super()._on_task_done(task)

    with pytest.raises(ExceptionGroup):
        async with Group(concurrency_limit=1) as group:
            group.create_task(noop())
            group.create_task(fail(ValueError()))
            group.create_task(noop())
    assert calls == ["enter", "create", "create", "create", "exit", "done", "done", "abort", "done"]


async def test_overridden_hook_comes_to_its_end_before_the_parent_goes_on() -> None:
    """A subclass's _on_task_done() is a done callback like any other, also that of the last task."""
    seen: list[str] = []

    class Hooked(TaskGroup):
        def _on_task_done(self, task: asyncio.Task[object]) -> None:
            super()._on_task_done(task)
            seen.append("hook")

    async with Hooked() as tg:
        tg.create_task(noop())
    seen.append("parent")
    assert seen == ["hook", "parent"]


async def test_the_group_hears_first() -> None:
    """Who awaits a task, or gave it a callback, learns of its error when the group has acted on it. [G9]"""
    seen = []

    async def boom() -> None:
        await asyncio.sleep(0)
        raise OSError

    async def sibling() -> None:
        try:
            await task
        except BaseException as error:
            seen.append(f"sibling: {type(error).__name__}")
            raise

    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup() as tg:
            task = tg.create_task(boom())
            task.add_done_callback(lambda _: seen.append(f"callback: {tg!r}"))
            tg.create_task(sibling())
            try:
                await task
            except BaseException as error:
                seen.append(f"body: {type(error).__name__}")
                raise
    assert [type(error) for error in caught.value.exceptions] == [OSError]
    assert sorted(seen) == [
        "body: CancelledError",
        "callback: <TaskGroup tasks=1 errors=1 cancelling>",
        "sibling: CancelledError",
    ]


async def test_private_names_that_are_written_to() -> None:
    """What a program writes to asyncio's private names has asyncio's effect, or is an error. [G24]"""

    class Forgiving(TaskGroup):
        def __init__(self) -> None:
            super().__init__()
            self._parent_cancel_requested = True  # the body shall not be cancelled

    body_went_on = False
    with pytest.raises(ExceptionGroup):
        async with Forgiving() as tg:
            tg.create_task(fail(OSError()))
            await settle()
            body_went_on = True
    assert body_went_on
    async with TaskGroup() as tg:
        with pytest.raises(AttributeError):
            tg._tasks.add(asyncio.current_task())  # type: ignore[attr-defined]


async def test_subclass_with_arguments_and_attributes() -> None:
    """A subclass may have an __init__ of its own, attributes and weak references."""

    class Named(TaskGroup):
        def __init__(self, name: str) -> None:
            super().__init__(concurrency_limit=3)
            self.name = name

    group = Named("crawler")
    assert (group.name, group.concurrency_limit, weakref.ref(group)()) == ("crawler", 3, group)
    async with group:
        group.create_task(noop())


async def test_tasks_end_in_any_order() -> None:
    """Whichever of many tasks ends next, the group knows exactly the others."""
    async with TaskGroup() as tg:
        tasks = [tg.create_task(forever()) for _ in range(300)]
        await asyncio.sleep(0)
        for i in range(300):
            tasks[i * 77 % 300].cancel()
            await settle(2)
            assert len(tg._tasks) == 299 - i
            assert tg._tasks == {task for task in tasks if not task.done()}


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no eager tasks")
@pytest.mark.loops("eager")
async def test_abort_by_an_eager_task_cancels_it_once() -> None:
    """A task that aborts the group in its first step, within create_task(), gets its one cancel then."""

    async def job() -> None:
        tg._abort()
        await forever()

    async with TaskGroup() as tg:
        task = tg.create_task(job())
        assert task.cancelling() == 1
        tg._abort()
        assert task.cancelling() == 1


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no eager tasks")
@pytest.mark.loops("asyncio", "debug", "uvloop")
@pytest.mark.parametrize("group", [TaskGroup, asyncio.TaskGroup] if sys.version_info >= (3, 14) else [TaskGroup])
async def test_what_is_scheduled_between_eager_tasks_runs_between_their_ends(group: Any) -> None:
    """Tasks that ended in create_task() leave the group one after the other, in the order of all callbacks. [G12]"""
    counts: list[int] = []

    def count() -> None:
        counts.append(len(tg._tasks))

    loop = asyncio.get_running_loop()
    async with group() as tg:
        loop.call_soon(count)
        for _ in range(3):
            tg.create_task(noop(), eager_start=True)
        count()
        loop.call_soon(count)
        tg.create_task(noop(), eager_start=True).add_done_callback(lambda _: count())
        tg.create_task(noop(), eager_start=True)
        loop.call_soon(count)
        await settle(1)
        count()
        tg.create_task(noop(), eager_start=True)  # not with those before, which have left
        await settle(1)
        count()
    assert counts == [3, 5, 2, 1, 0, 0, 0]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no eager tasks")
@pytest.mark.loops("asyncio", "debug")
async def test_who_wraps_call_soon_sees_the_ends_of_eager_tasks_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the loop does not show what is ready, each has its own call, and a refusal is the caller's. [G12, X7]"""
    loop: Any = asyncio.get_running_loop()
    own, seen = loop.call_soon, []

    def call_soon(callback: Any, *args: Any, context: Any = None) -> Any:
        seen.extend(args)
        return own(callback, *args, context=context)

    def refuses(*args: Any, **kwargs: Any) -> None:
        raise OSError

    async with TaskGroup() as tg:
        monkeypatch.setattr(loop, "call_soon", call_soon)
        tasks = [tg.create_task(noop(), eager_start=True) for _ in range(2)]
        monkeypatch.undo()
        assert seen == tasks
        # A loop that shows it, and refuses.
        monkeypatch.setattr(asyncio.BaseEventLoop, "_call_soon", refuses)
        with pytest.raises(OSError):
            tg.create_task(noop(), eager_start=True)
        monkeypatch.undo()
        assert tg._tasks == {*tasks}


@pytest.mark.parametrize("kind", ["coroutine", "callable", "queued"])
async def test_what_a_task_has_scheduled_finds_the_group_open(kind: str) -> None:
    """The group ends with its last task's end, though the end of an earlier one is seen later. [G2, G10, G16]"""
    seen: list[str] = []

    async def more() -> None:
        seen.append("more")

    async def schedules() -> None:
        asyncio.get_running_loop().call_soon(lambda: tg.create_task(more()))

    async def serve() -> None:
        try:
            await forever()
        finally:
            seen.append("stopped")

    async with TaskGroup(concurrency_limit=2 if kind == "queued" else None) as tg:
        tg.create_background_task(serve())
        if kind == "queued":
            tg.create_task(settle(1))
        tg.create_task(noop())
        tg.create_task(schedules() if kind == "coroutine" else schedules)
    seen.append("parent")
    assert seen == ["more", "stopped", "parent"]


@pytest.mark.parametrize("kind", ["coroutine", "callable", "queued"])
async def test_an_error_is_dealt_with_in_the_context_of_the_call(kind: str) -> None:
    """As with asyncio's group: a copy of create_task()'s, in which the task itself changes nothing. [G12]"""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="of the caller")
    seen: list[str] = []

    class Hooked(TaskGroup):
        def _abort(self) -> None:
            seen.append(variable.get())
            super()._abort()

    async def breaks() -> None:
        variable.set("of the task")
        await asyncio.sleep(0)
        raise ValueError

    with pytest.raises(ExceptionGroup):
        async with Hooked(concurrency_limit=1 if kind == "queued" else None) as tg:
            tg.create_task(noop())
            tg.create_task(breaks() if kind == "coroutine" else breaks)
    assert seen == ["of the caller"]


async def test_the_callbacks_of_a_callables_task_are_compared_with_nothing() -> None:
    """Whatever they say that they are equal to, they are called, and so is the group's. [G9]"""
    called: list[str] = []

    class Callback:
        __hash__ = object.__hash__

        def __init__(self, equal: bool | None) -> None:
            self.equal = equal

        def __eq__(self, other: object) -> bool:
            if self.equal is None:
                raise LookupError("ambiguous")
            return self.equal

        def __call__(self, task: object) -> None:
            called.append(str(self.equal))

    async with TaskGroup() as tg:
        for equal in (True, False, None):
            tg.create_task(noop).add_done_callback(Callback(equal))
    assert called == ["True", "False", "None"]
    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup() as tg:
            tg.create_task(lambda: fail(ValueError())).add_done_callback(tg._on_task_done)
    assert len(caught.value.exceptions) == 2  # as with asyncio's: one for each callback


async def test_abort_cancels_once() -> None:
    """On abort every task gets one cancel, background and queued ones too. [G3, B4]"""
    with pytest.raises(ExceptionGroup):
        async with TaskGroup(concurrency_limit=3) as tg:
            tasks = [tg.create_task(forever()) for _ in range(2)]
            tg.create_task(fail(ValueError(), passes=3))
            tasks += [tg.create_task(forever()) for _ in range(3)]
            tasks += [tg.create_background_task(forever()) for _ in range(2)]
    assert [task.cancelling() for task in tasks] == [1] * 7
    assert all(task.cancelled() for task in tasks)


@pytest.mark.parametrize("when", ["before", "body", "child", "exiting", "after"])
async def test_cancel(when: str) -> None:
    """cancel() leaves the group without CancelledError, whenever it is called. [G13]"""
    group = TaskGroup()

    async def canceller() -> None:
        await settle(3)
        group.cancel()
        group.cancel()

    reached = []
    if when == "before":
        group.cancel()
    async with group:
        if when in ("child", "exiting"):
            group.create_task(canceller())
        if when == "body":
            group.cancel()
        if when == "exiting":
            group.create_task(forever())
        elif when != "after":
            await forever()
        reached.append(True)
    if when == "after":
        group.cancel()
    assert bool(reached) == (when in ("exiting", "after"))
    assert asyncio.current_task().cancelling() == 0
    await asyncio.sleep(0)


async def test_outside_cancel_while_cancel_is_carried_out() -> None:
    """A cancel from outside that comes while the exit waits for what cancel() cancelled goes on after it. [G14]"""
    gate = asyncio.get_running_loop().create_future()

    async def slow() -> None:
        try:
            await forever()
        finally:
            await gate

    async def parent() -> None:
        async with TaskGroup() as tg:
            tg.create_task(slow())
            await settle()
            tg.cancel()

    task = asyncio.create_task(parent())
    await settle(40)
    task.cancel("from outside")
    await settle()
    assert not task.done()
    gate.set_result(None)
    with pytest.raises(asyncio.CancelledError, match="from outside"):
        await task
    assert task.cancelling() == 1


async def test_async_generator_closed_early() -> None:
    """A group in an async generator that is closed swallows nothing and leaves GeneratorExit alone."""
    log = Log()

    async def numbers() -> Any:
        async with TaskGroup() as tg:
            tg.create_task(log.waiter("child"))
            tg.create_background_task(log.waiter("background"))
            yield 1

    generator = numbers()
    assert await anext(generator) == 1
    await settle()
    await generator.aclose()
    assert sorted(log.events) == [
        ("cancelled", "background"), ("cancelled", "child"), ("start", "background"), ("start", "child"),
    ]  # fmt: skip


async def test_exit_in_another_task() -> None:
    """A group that is exited in another task than it was entered in (as some test fixtures do) just works. [X6]"""
    group = TaskGroup()
    await asyncio.ensure_future(_enter(group))
    task = group.create_task(noop())
    background = group.create_background_task(forever())
    await asyncio.ensure_future(_exit(group))
    assert task.result() == 1 and background.cancelled()


async def _enter(group: TaskGroup) -> None:
    await group.__aenter__()


async def _exit(group: TaskGroup) -> None:
    await group.__aexit__(None, None, None)


async def test_exit_says_that_the_exception_was_dealt_with() -> None:
    """What __aexit__() returns is true if it swallows an exception of the body's. [G1]"""
    tg = TaskGroup()
    await tg.__aenter__()
    tg.create_task(noop())
    tg.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await forever()
    assert await tg.__aexit__(caught.type, caught.value, None) is True


async def test_exit_stack() -> None:
    """AsyncExitStack enters and leaves it like any other context manager."""
    async with contextlib.AsyncExitStack() as stack:
        tg = await stack.enter_async_context(TaskGroup())
        task = tg.create_task(noop())
    assert task.result() == 1


async def test_parent_cancelled_at_the_exit() -> None:
    """A parent cancelled while it waits at the exit cancels its tasks and goes on with the message. [G7]"""

    async def body() -> None:
        async with TaskGroup(concurrency_limit=1) as tg:
            for _ in range(3):
                tg.create_task(forever())
            tg.create_background_task(forever())

    task = asyncio.ensure_future(body())
    await settle()
    task.cancel("why")
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert caught.value.args == ("why",)


async def test_task_error_after_the_exit_was_broken_off() -> None:
    """A group whose parent was destroyed while waiting reports errors to the loop, not to nobody. [G21]"""
    group = TaskGroup()
    waiting = group.__aenter__().__await__()
    with contextlib.suppress(StopIteration):
        next(waiting)
    task = group.create_task(forever())
    leaving = group.__aexit__(None, None, None)
    assert asyncio.isfuture(leaving.send(None))
    leaving.close()
    with pytest.raises(RuntimeError, match="is finished"):
        group.create_task(noop())
    if hasattr(task, "_asyncio_awaited_by"):
        assert task._asyncio_awaited_by is None
    task.cancel()
    await settle()
    assert group._tasks == set()


@pytest.mark.parametrize("limit", [None, 1, 10])
def test_nested_loop_in_a_hook(limit: int | None) -> None:
    """A subclass's _abort() that runs the loop inside (as nest_asyncio allows) loses no done callback."""

    class Nesting(asyncio.SelectorEventLoop):
        def _run_once(self) -> None:  # asyncio's own counts the handles beforehand
            timeout = 0 if self._ready else 0.01
            self._process_events(self._selector.select(timeout))
            for _ in range(len(self._ready)):
                if self._ready:
                    self._ready.popleft()._run()

    class Group(TaskGroup):
        def _abort(self) -> None:
            super()._abort()
            for _ in range(4):
                loop._run_once()

    async def main() -> None:
        async with Group(concurrency_limit=limit) as tg:
            tg.create_task(fail(ValueError()))
            for _ in range(5):
                tg.create_task(settle(50))

    reports: list[Any] = []
    with contextlib.closing(Nesting()) as loop:
        loop.set_exception_handler(lambda _, context: reports.append(context))
        with pytest.raises(ExceptionGroup):
            loop.run_until_complete(main())
    assert reports == []


def test_version_and_exports() -> None:
    """The package exports two names and has a version."""
    assert quattro.__all__ == ["TaskGroup", "TaskGroupStatistics"]
    assert quattro.__version__.count(".") == 2


@pytest.mark.loops("asyncio")
@pytest.mark.parametrize("steps", [0, 1])
async def test_parent_goes_on_within_the_last_done_callback(steps: int) -> None:
    """With nothing else to do, an iteration of the loop for each step of the task, and one for its done callback."""
    selector = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]
    select, passes = selector.select, []
    selector.select = lambda timeout: passes.append(timeout) or select(timeout)
    try:
        async with TaskGroup() as tg:
            tg.create_task(settle(steps))
    finally:
        selector.select = select
    assert len(passes) == 2 + steps


@pytest.mark.parametrize("limit", [None, 1])
async def test_callbacks_that_a_task_gives_itself_run_before_the_parent_goes_on(limit: int | None) -> None:
    """Also while the parent waits already, and when nobody else knows the task."""
    seen: list[str] = []

    async def child() -> None:
        await asyncio.sleep(0)
        asyncio.current_task().add_done_callback(lambda _: seen.append("callback"))  # type: ignore[union-attr]

    async with TaskGroup(concurrency_limit=limit) as tg:
        tg.create_task(child())
        tg.create_task(child())
    seen.append("parent")
    assert seen == ["callback", "callback", "parent"]


@pytest.mark.parametrize("limit", [None, 9])
async def test_what_an_abort_schedules_comes_after_the_parent(limit: int | None) -> None:
    """The parent has been woken when the last task's error aborts the group, as in asyncio. [G12]"""
    loop = asyncio.get_running_loop()
    seen: list[str] = []

    class Hooked(TaskGroup):
        def _abort(self) -> None:
            loop.call_soon(seen.append, "scheduled")
            super()._abort()

    with pytest.raises(ExceptionGroup):
        async with Hooked(concurrency_limit=limit) as tg:
            tg.create_task(fail(ValueError()))
    seen.append("parent")
    await settle()
    assert seen == ["parent", "scheduled"]


@pytest.mark.loops("asyncio")
@pytest.mark.parametrize("own", ["nothing", "create_task", "_ready"])
async def test_what_is_ready_runs_before_the_parent_goes_on(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On asyncio's loop the parent overtakes nothing, as if the loop had woken it, whoever patches the loop. [G10]"""
    loop: Any = asyncio.get_running_loop()
    seen: list[str] = []

    class Ready(collections.deque[Any]):
        """Keeps to itself how much there is, but for the loop."""

        def __len__(self) -> int:
            return super().__len__() if sys._getframe(1).f_code.co_name == "_run_once" else 0

    if own == "create_task":
        monkeypatch.setattr(loop, own, lambda coro, **kwargs: asyncio.Task(coro, loop=loop, **kwargs))
    if own == "_ready":
        monkeypatch.setattr(loop, own, Ready(loop._ready))

    async def outsider() -> None:
        loop.call_soon(seen.append, "ready")

    async with TaskGroup() as tg:
        tg.create_task(noop())
        task = loop.create_task(outsider())
    seen.append("parent")
    await task
    assert seen == ["ready", "parent"]


@pytest.mark.parametrize("own", [False, True])
def test_parent_on_a_loop_that_keeps_what_is_ready_elsewhere(own: bool) -> None:
    """A loop with a call_soon() of its own, as qasync's, may leave _ready empty: the parent overtakes nothing there.

    The same holds if it makes tasks itself, and lets go of what it has called as uvloop does.
    """

    class Elsewhere(asyncio.SelectorEventLoop):
        def __init__(self) -> None:
            super().__init__()
            self.elsewhere: collections.deque[tuple[asyncio.Handle, Any, list[Any], Any]] = collections.deque()

        def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
            handle = asyncio.Handle(callback, (), self, context)
            self.elsewhere.append((handle, callback, list(args), context or contextvars.copy_context()))
            return handle

        def _run_once(self) -> None:
            while self.elsewhere and not self._stopping:  # type: ignore[attr-defined]
                handle, callback, args, context = self.elsewhere.popleft()
                if not handle.cancelled():
                    context.run(callback, args.pop()) if args else context.run(callback)

    def create_task(self: Any, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=self, **kwargs)

    if own:
        Elsewhere.create_task = create_task  # type: ignore[assignment]

    async def child() -> None:
        await asyncio.sleep(0)
        loop.call_soon(loop.call_soon, lambda: seen.append("callback"))

    async def main() -> None:
        async with TaskGroup() as tg:
            tg.create_task(child())
        seen.append("parent")
        await settle(2)

    seen: list[str] = []
    loop = Elsewhere()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()
    assert seen == ["callback", "parent"]


@pytest.mark.loops("asyncio", "debug", "factory")
@pytest.mark.parametrize("delay", [0, 3600])
async def test_timer_that_is_due_comes_before_the_parents_second_step(delay: int) -> None:
    """A timer that is due runs where it would with asyncio's group, and one that is not does no harm. [G11]"""
    loop = asyncio.get_running_loop()
    seen: list[str] = []
    timers: list[asyncio.TimerHandle] = []

    async def outsider() -> None:
        await settle(2)
        timers.append(loop.call_later(delay, seen.append, "timer"))

    task = loop.create_task(outsider())
    async with TaskGroup() as tg:
        tg.create_task(settle(1))
    seen.append("first")
    await settle(1)
    seen.append("second")
    await task
    timers[0].cancel()
    assert seen == (["first", "second"] if delay else ["first", "timer", "second"])


@pytest.mark.skipif(sys.platform == "win32", reason="uvloop is not for Windows")
def test_parent_on_a_loop_over_uvloop_that_keeps_what_is_ready_elsewhere() -> None:
    """A loop over uvloop's may have a call_soon() of its own as well. [G10]"""
    import uvloop

    class Elsewhere(uvloop.Loop):
        elsewhere: tuple[asyncio.Handle, ...] = ()

        def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
            if not self.elsewhere:
                super().call_soon(self.call_all)
            self.elsewhere += (asyncio.Handle(callback, args, self, context),)
            return self.elsewhere[-1]

        def call_all(self) -> None:
            handles, self.elsewhere = self.elsewhere, ()
            for handle in handles:
                handle._run()

    async def outsider() -> None:
        loop.call_soon(seen.append, "ready")

    async def main() -> None:
        async with TaskGroup() as tg:
            tg.create_task(noop())
            task = loop.create_task(outsider())
        seen.append("parent")
        await task

    seen: list[str] = []
    loop: Any = Elsewhere()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()
    assert seen == ["ready", "parent"]


@pytest.mark.parametrize("limit", [None, 1])
def test_a_task_that_is_created_while_the_loop_does_not_run(limit: int | None) -> None:
    """What is given to a group between two runs of its loop, a callable too, runs when the loop goes on."""

    async def main() -> None:
        async with group:
            await event.wait()

    group = TaskGroup(concurrency_limit=limit)
    with asyncio.Runner() as runner:
        event = asyncio.Event()
        parent = runner.get_loop().create_task(main())
        runner.run(settle())
        tasks = [group.create_task(noop), group.create_task(noop()), group.create_task(noop)]
        event.set()
        runner.run(settle())
        assert parent.done() and [task.result() for task in tasks] == [1, 1, 1]


@pytest.mark.reports
async def test_displaced_error_of_two_tasks_is_reported_once() -> None:
    """An error that two tasks have failed with, and that a SystemExit displaces, is reported once. [G6]"""
    reports: list[BaseException] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context["exception"]))
    error = ValueError()
    with pytest.raises(SystemExit):
        async with TaskGroup(cancel_on_error=False) as tg:
            tasks = [tg.create_task(fail(error)) for _ in range(2)]
            await asyncio.wait(tasks)
            await settle(2)
            raise SystemExit
    assert reports == [error]
