"""Bad input and misuse: rules X of docs/behaviour.md, and hostile objects in every place that the C calls."""

from __future__ import annotations

import asyncio
import copy
import functools
import gc
import inspect
import pickle
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Coroutine
from typing import Any

import pytest
from helpers import Log, fail, forever, noop, settle

from quattro import TaskGroup, _quattro

METHODS = pytest.mark.parametrize("method", ["create_task", "create_background_task"])
LIMITS = pytest.mark.parametrize("limit", [None, 1])


@METHODS
@LIMITS
async def test_not_a_coroutine(method: str, limit: int | None) -> None:
    """Neither a coroutine nor callable: asyncio's TypeError at the call, limit or not. [X1]"""
    async with TaskGroup(concurrency_limit=limit) as tg:
        tg.create_task(noop())
        future = asyncio.get_running_loop().create_future()
        generator = (i for i in ())
        for value in (42, None, "coro", future, generator):
            with pytest.raises(TypeError) as caught:
                getattr(tg, method)(value)
            assert str(caught.value) == f"a coroutine was expected, got {value!r}"
        assert tg.statistics().queued == 0


@METHODS
@LIMITS
async def test_callable_without_a_coroutine(method: str, limit: int | None) -> None:
    """A callable that returns something else fails in its task with the same TypeError. [X2]"""
    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup(concurrency_limit=limit) as tg:
            tg.create_task(noop())
            task = getattr(tg, method)(lambda: 42)
            await settle()
    assert str(task.exception()) == "a coroutine was expected, got 42"
    assert caught.value.exceptions == (task.exception(),)


@METHODS
async def test_wrong_arguments_close_the_coroutine(method: str) -> None:
    """Missing, superfluous and doubled arguments are TypeErrors; no coroutine is left unclosed. [X3]"""
    async with TaskGroup() as tg:
        create = getattr(tg, method)
        with pytest.raises(TypeError, match="coro"):
            create()
        with pytest.raises(TypeError, match="coro"):
            create(name="x")
        coros = [noop() for _ in range(3)]
        with pytest.raises(TypeError, match=r"2 arguments given.*pass what it returns.*keyword-only"):
            create(coros[0], "name")
        with pytest.raises(TypeError, match="multiple values for argument 'coro'"):
            create(coros[1], coro=coros[2])
        assert all(coro.cr_frame is None for coro in coros)
        task = create(name="by keyword", coro=noop())
        assert task.get_name() == "by keyword"
        await task


@METHODS
@pytest.mark.parametrize("given", ["by position", "by name"])
async def test_a_task_of_a_call_that_failed(method: str, given: str) -> None:
    """A call that fails when the group has the task already does not close the coroutine, which that runs."""

    class Stubborn(asyncio.Task[Any]):
        asked = 0

        def cancel(self, msg: Any = None) -> bool:
            self.asked += 1
            if self.asked == 1:
                raise LookupError("not now")
            return super().cancel(msg)

    def factory(loop: Any, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
        tg.cancel()
        return Stubborn(coro, loop=loop, **kwargs)

    loop = asyncio.get_running_loop()
    previous = loop.get_task_factory()
    log = Log()
    async with TaskGroup() as tg:
        coro = log.job("runs")
        loop.set_task_factory(factory)
        with pytest.raises(LookupError, match="not now"):
            getattr(tg, method)(*[coro] * (given == "by position"), **{"coro": coro} if given == "by name" else {})
        loop.set_task_factory(previous)
        await settle()
    assert log.started == ["runs"]


@METHODS
@LIMITS
async def test_unknown_keyword(method: str, limit: int | None) -> None:
    """An unknown keyword is what the loop says, and the coroutine is closed. [X5]"""
    async with TaskGroup(concurrency_limit=limit) as tg:
        tg.create_task(noop())
        coro = noop()
        with pytest.raises(TypeError, match="colour"):
            getattr(tg, method)(coro, colour="red")
        assert coro.cr_frame is None
        assert tg.statistics().queued == 0


@METHODS
async def test_refusals_say_what_to_do(method: str) -> None:
    """asyncio's three RuntimeErrors keep their texts; a note below them, as tracebacks show it, says what to do."""

    async def late() -> None:
        try:
            await forever()
        finally:
            with pytest.raises(RuntimeError) as caught:
                getattr(tg, method)(noop())
            refused.append(caught.value)

    refused: list[RuntimeError] = []
    tg = TaskGroup()
    with pytest.raises(RuntimeError) as caught:
        getattr(tg, method)(noop())
    refused.append(caught.value)
    async with tg:
        tg.create_task(late())
        await settle()
        tg.cancel()
    with pytest.raises(RuntimeError) as caught:
        getattr(tg, method)(noop())
    refused.append(caught.value)
    texts, notes = zip(*((str(error), " ".join(error.__notes__)) for error in refused), strict=True)
    assert texts == (
        "TaskGroup <TaskGroup> has not been entered",
        "TaskGroup <TaskGroup tasks=1 cancelling> is shutting down",
        "TaskGroup <TaskGroup cancelling> is finished",
    )
    assert "async with" in notes[0] and "cancel()" in notes[1] and "has ended" in notes[2]


async def test_refusal_of_a_late_background_task() -> None:
    """While background tasks are being stopped, the note of that refusal names the method that still works."""
    refused: list[RuntimeError] = []

    async def background() -> None:
        try:
            await forever()
        finally:
            with pytest.raises(RuntimeError, match="is shutting down") as caught:
                tg.create_background_task(noop())
            refused.append(caught.value)

    async with TaskGroup() as tg:
        tg.create_background_task(background())
        tg.create_task(settle(2))
    assert "create_task()" in refused[0].__notes__[0]


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="asyncio.Task takes eager_start from 3.12 on")
@LIMITS
async def test_eager_start_on_3_11(limit: int | None) -> None:
    """eager_start is a TypeError on 3.11, and the coroutine is closed. [X4]"""
    async with TaskGroup(concurrency_limit=limit) as tg:
        tg.create_task(noop())
        coro = noop()
        with pytest.raises(TypeError, match="eager_start"):
            tg.create_task(coro, eager_start=True)
        assert coro.cr_frame is None


async def test_entered_twice() -> None:
    """A group is entered once. [X6]"""
    async with TaskGroup() as tg:
        with pytest.raises(RuntimeError, match="has already been entered"):
            async with tg:
                pass
        with pytest.raises(RuntimeError, match="has already been entered"):
            tg.__init__(concurrency_limit=3)  # type: ignore[misc]
    with pytest.raises(RuntimeError, match="has already been entered"):
        await tg.__aenter__()


def test_no_parent_task() -> None:
    """Without a task around it a group can't be entered, and without a loop neither. [X6]"""

    async def main() -> None:
        errors: list[BaseException] = []

        def enter() -> None:
            try:
                next(TaskGroup().__aenter__().__await__())
            except BaseException as error:
                errors.append(error)

        asyncio.get_running_loop().call_soon(enter)
        await settle(2)
        assert type(errors[0]) is RuntimeError and "cannot determine the parent task" in str(errors[0])

    asyncio.run(main())
    with pytest.raises(RuntimeError, match="no running event loop"):
        TaskGroup().__aenter__().send(None)  # type: ignore[attr-defined]


async def test_exit_without_enter_and_twice() -> None:
    """Leaving a group that was never entered, or again, is a RuntimeError."""
    group = TaskGroup()
    with pytest.raises(RuntimeError, match="has not been entered"):
        await group.__aexit__(None, None, None)
    async with group:
        pass
    with pytest.raises(RuntimeError, match="is already exiting"):
        await group.__aexit__(None, None, None)
    with pytest.raises(TypeError):
        group.__aexit__(None, None)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        await group.__aexit__(42, 42, None)  # type: ignore[arg-type]


async def test_init_misuse() -> None:
    """__new__ without __init__ is a group without a limit; a second __init__ sets the limit anew. [X6]"""
    group = TaskGroup.__new__(TaskGroup)
    assert repr(group) == "<TaskGroup>" and group.concurrency_limit is None
    async with group:
        task = group.create_task(noop())
    assert task.result() == 1
    group = TaskGroup(concurrency_limit=2)
    group.__init__()  # type: ignore[misc]
    assert group.concurrency_limit is None


def test_a_keyword_that_replaces_another_while_it_is_read() -> None:
    """A limit that the other keyword's __bool__() gets hold of and replaces is not read any more."""
    seen: list[str] = []

    class Limit:
        def __index__(self) -> int:
            raise AssertionError

        def __del__(self) -> None:
            seen.append("dropped")

    class Replacing:
        def __bool__(self) -> bool:
            for keywords in gc.get_referrers(self):
                if type(keywords) is dict and "concurrency_limit" in keywords:
                    keywords["concurrency_limit"] = 7
            return False

    group = TaskGroup(concurrency_limit=Limit(), cancel_on_error=Replacing())
    assert (group.concurrency_limit, group.cancel_on_error, seen) == (7, False, ["dropped"])


def test_pickle_and_copy() -> None:
    """A group can't be pickled or copied. [X9]"""
    group = TaskGroup()
    for action in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot pickle or copy a 'TaskGroup' object"):
            action(group)


def test_internal_types() -> None:
    """The helper types can't be made by hand, and no type of ours can be patched."""
    for name in ("_Turn", "_Await"):
        with pytest.raises(TypeError):
            getattr(_quattro, name)()
        with pytest.raises(TypeError):
            getattr(_quattro, name).patched = 1
    with pytest.raises(TypeError):
        _quattro.TaskGroup._abort = None  # type: ignore[method-assign,assignment]


async def test_turn_ended_by_a_stranger() -> None:
    """Who gets hold of a queued task's turn and ends it gets an error out of the group."""
    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup(concurrency_limit=1) as tg:
            tg.create_task(settle(3))
            task = tg.create_task(noop())
            await asyncio.sleep(0)
            turn: Any = task.get_coro().cr_await  # type: ignore[union-attr]
            turn.end()
    assert "closed" in str(task.exception())
    assert caught.value.exceptions == (task.exception(),)


async def test_awaitables_are_used_once() -> None:
    """What __aenter__() and __aexit__() return is awaited once, like a coroutine; dropped unused, it warns like one."""
    group = TaskGroup()
    entering = group.__aenter__()
    for unused in (group.__aenter__, lambda: group.__aexit__(None, None, None)):
        with pytest.warns(RuntimeWarning, match=r"coroutine 'TaskGroup.__a\w+__' was never awaited"):
            unused()  # type: ignore[unused-coroutine]
    assert await entering is group
    with pytest.raises(RuntimeError, match="cannot reuse already awaited"):
        await entering
    thrown_into: Any = group.__aexit__(None, None, None)
    with pytest.raises(ValueError, match="thrown"):
        thrown_into.throw(ValueError("thrown"))
    for bad in ((), (1,), (1, 2, 3, 4)):
        leaving: Any = group.__aexit__(None, None, None)
        with pytest.raises(TypeError):
            leaving.throw(*bad)
        leaving.close()
    task = group.create_task(noop())
    await group.__aexit__(None, None, None)
    assert task.result() == 1


class Awkward(Coroutine[Any, Any, Any]):
    """A coroutine that is not native, with methods that do what a test wants."""

    def __init__(self, **methods: Any) -> None:
        self.methods = methods
        self.closed = 0

    def send(self, value: Any) -> Any:
        """Finish at once, unless told otherwise."""
        if "send" in self.methods:
            return self.methods["send"](value)
        raise StopIteration("awkward")

    def throw(self, *args: Any) -> Any:
        """Let it through."""
        raise args[0]

    def close(self) -> None:
        """Count, and do as told."""
        self.closed += 1
        if "close" in self.methods:
            self.methods["close"]()

    def __await__(self) -> Any:
        """Be one's own iterator."""
        return self

    def __iter__(self) -> Any:
        """Be one's own iterator."""
        return self

    def __next__(self) -> Any:
        """One step."""
        return self.send(None)


@LIMITS
async def test_coroutine_that_is_not_native(limit: int | None) -> None:
    """A coroutine of another kind (Cython's, say) runs, in the queue as well, and is closed when refused."""
    async with TaskGroup(concurrency_limit=limit) as tg:
        tg.create_task(noop())
        task = tg.create_task(Awkward())
    assert task.result() == "awkward"
    refused = Awkward()
    with pytest.raises(RuntimeError, match="is finished"):
        tg.create_task(refused)
    assert refused.closed == 1


async def test_coroutine_whose_close_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """The original error goes on when close() fails; that error is reported as unraisable."""
    seen: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: seen.append(type(unraisable.exc_value)))
    with pytest.raises(RuntimeError, match="has not been entered"):
        TaskGroup().create_task(Awkward(close=lambda: 1 / 0))
    assert seen == [ZeroDivisionError]


@LIMITS
async def test_factory_that_raises(limit: int | None) -> None:
    """When the task factory raises, its error goes on, the coroutine is closed, and no slot is lost. [G18]"""
    loop = asyncio.get_running_loop()
    previous = loop.get_task_factory()

    def factory(*args: Any, **kwargs: Any) -> Any:
        raise LookupError("no task today")

    log = Log()
    async with TaskGroup(concurrency_limit=limit) as tg:
        coros = [forever() for _ in range(3)]
        loop.set_task_factory(factory)
        for coro in coros:
            with pytest.raises(LookupError, match="no task today"):
                tg.create_task(coro)
        loop.set_task_factory(previous)
        assert all(coro.cr_frame is None for coro in coros)
        assert tg.statistics()[:3] == (0, 0, 0) and tg._tasks == set()
        tg.create_task(log.job("after"))
        blocked = tg.create_task(log.job("blocked", 3))
        loop.set_task_factory(factory)
        coro = forever()
        with pytest.raises(LookupError):
            tg.create_task(coro)
        loop.set_task_factory(previous)
        assert coro.cr_frame is None
    assert blocked.done() and log.started[0] == "after"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no eager tasks")
@pytest.mark.loops("asyncio", "uvloop")
async def test_factory_that_raises_when_the_task_runs() -> None:
    """A coroutine that runs already is its task's, not ours to close, when the factory raises after all."""
    started: list[asyncio.Task[Any]] = []

    def factory(loop: Any, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
        started.append(asyncio.Task(coro, loop=loop, **{**kwargs, "eager_start": True}))
        raise LookupError("no task after all")

    async def job() -> str:
        await settle(2)
        return "to its end"

    loop = asyncio.get_running_loop()
    async with TaskGroup() as tg:
        loop.set_task_factory(factory)
        with pytest.raises(LookupError, match="no task after all"):
            tg.create_task(job())
        loop.set_task_factory(None)
    assert await started[0] == "to its end"


@LIMITS
@pytest.mark.parametrize("nonsense", [None, 42, "task", object()])
async def test_factory_that_returns_nonsense(limit: int | None, nonsense: Any) -> None:
    """A factory that returns no task is an error at the call; the coroutine is closed, and nothing is lost."""
    loop = asyncio.get_running_loop()
    previous = loop.get_task_factory()
    async with TaskGroup(concurrency_limit=limit) as tg:
        running = tg.create_task(settle(5))
        loop.set_task_factory(lambda *args, **kwargs: nonsense)
        coro = forever()
        with pytest.raises((AttributeError, TypeError)):
            tg.create_task(coro)
        loop.set_task_factory(previous)
        assert coro.cr_frame is None and tg._tasks == {running}


@LIMITS
async def test_factory_that_returns_a_task_twice(limit: int | None) -> None:
    """A factory that returns a task which the group has already is an error, and the group still ends."""
    loop = asyncio.get_running_loop()
    previous = loop.get_task_factory()
    async with TaskGroup(concurrency_limit=limit) as tg:
        known = tg.create_task(settle(5))
        loop.set_task_factory(lambda *args, **kwargs: known)
        coro = forever()
        with pytest.raises(TypeError, match="a new task was expected"):
            tg.create_task(coro)
        loop.set_task_factory(previous)
        assert coro.cr_frame is None
    assert known.done()


@pytest.mark.loops("asyncio", "uvloop")
@pytest.mark.parametrize("stop", ["abort", "cancel"])
async def test_factory_that_shields(stop: str) -> None:
    """Behind a shield a queued task runs no line either, and waits for no turn for ever."""
    loop = asyncio.get_running_loop()
    shielded: list[Any] = []

    async def shield(coro: Any) -> Any:
        shielded.append(asyncio.Task(coro, loop=loop))
        return await asyncio.shield(shielded[0])

    async with TaskGroup(concurrency_limit=1) as tg:
        tg.create_task(settle(9))
        loop.set_task_factory(lambda loop, coro, **kwargs: asyncio.Task(shield(coro), loop=loop, **kwargs))
        queued = tg.create_task(fail(AssertionError()))
        loop.set_task_factory(None)
        await settle(3)
        if stop == "cancel":
            queued.cancel()
        else:
            tg.cancel()
    await settle(3)
    assert [task.cancelled() for task in shielded] == [True]


async def test_factory_that_re_enters_the_group() -> None:
    """A factory that creates tasks, cancels and asks for statistics while it is called does no harm. [X7]"""
    loop = asyncio.get_running_loop()
    previous = loop.get_task_factory()
    depth = 0

    def factory(loop: Any, coro: Any, **kwargs: Any) -> Any:
        nonlocal depth
        depth += 1
        if depth < 5:
            tg.create_task(noop())
        if depth == 7:
            tg.cancel()
        repr(tg), tg.statistics(), tg._tasks
        return asyncio.Task(coro, loop=loop, **kwargs)

    async with TaskGroup(concurrency_limit=2) as tg:
        loop.set_task_factory(factory)
        with pytest.raises(RuntimeError, match="is shutting down"):
            for _ in range(9):
                tg.create_task(forever())
        loop.set_task_factory(previous)
    assert tg._tasks == set() and depth == 7


@LIMITS
async def test_factory_that_finishes_the_group(limit: int | None) -> None:
    """A factory that drives the group's exit to its end while a task is made gets "is finished", and no crash."""
    loop = asyncio.get_running_loop()
    previous = loop.get_task_factory()
    tg = TaskGroup(concurrency_limit=limit)
    await tg.__aenter__()
    made: list[asyncio.Task[Any]] = []

    def factory(loop: Any, coro: Any, **kwargs: Any) -> Any:
        with pytest.raises(StopIteration):
            tg.__aexit__(None, None, None).send(None)  # type: ignore[attr-defined]
        made.append(asyncio.Task(coro, loop=loop, **kwargs))
        return made[0]

    loop.set_task_factory(factory)
    with pytest.raises(RuntimeError, match="is finished"):
        tg.create_task(forever())
    loop.set_task_factory(previous)
    await settle()
    assert made[0].cancelled() and tg._tasks == set()


async def test_on_task_done_out_of_season() -> None:
    """_on_task_done() with a task that is not the group's, or before the group is entered, crashes nothing."""
    future: Any = asyncio.get_running_loop().create_future()
    future.set_exception(ValueError("not ours"))
    with pytest.raises(RuntimeError, match="has not been entered"):
        TaskGroup()._on_task_done(future)
    with pytest.raises(ExceptionGroup):
        async with TaskGroup() as tg:
            tg._on_task_done(future)
            await forever()
    with pytest.raises(AttributeError):
        TaskGroup()._on_task_done(42)


@LIMITS
async def test_callable_whose_class_raises(limit: int | None) -> None:
    """A callable that raises when asked what it is loses nothing, whenever it does."""

    class Moody:
        asked = 0

        def __init__(self, patience: int) -> None:
            self.patience = patience

        @property
        def __class__(self) -> Any:
            self.asked += 1
            if self.asked >= self.patience:
                raise LookupError("enough")
            return Moody

        def __call__(self) -> Any:
            return noop()

    for patience in range(1, 6):
        try:
            async with TaskGroup(concurrency_limit=limit) as tg:
                tg.create_task(asyncio.sleep(0))
                assert await tg.create_task(Moody(patience)) == 1
        except* LookupError:
            pass


@pytest.mark.loops("asyncio", "debug", "uvloop")
async def test_partial_of_itself() -> None:
    """A functools.partial that was made to contain itself does not hang create_task() (calling it crashes CPython)."""
    knot = functools.partial(noop)
    knot.__setstate__((knot, (), {}, {}))
    async with TaskGroup() as tg:
        tg.create_task(knot).cancel()


async def test_task_whose_methods_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Task whose add_done_callback() raises is not adopted; one whose cancel() raises does not stop an abort."""
    loop = asyncio.get_running_loop()
    previous = loop.get_task_factory()

    class NoCallbacks(asyncio.Task):  # type: ignore[type-arg]
        def add_done_callback(self, *args: Any, **kwargs: Any) -> None:
            raise LookupError("no callbacks")

    class NoCancel(asyncio.Task):  # type: ignore[type-arg]
        def cancel(self, msg: Any = None) -> bool:
            super().cancel(msg)
            raise LookupError("but cancelled")

    async with TaskGroup() as tg:
        loop.set_task_factory(lambda loop, coro, **kw: NoCallbacks(coro, loop=loop, **kw))
        with pytest.raises(LookupError):
            tg.create_task(forever())
        loop.set_task_factory(previous)
        assert tg._tasks == set()
    await settle()
    others: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: others.append(str(unraisable.exc_value)))
    async with TaskGroup() as tg:
        loop.set_task_factory(lambda loop, coro, **kw: NoCancel(coro, loop=loop, **kw))
        tasks = [tg.create_task(forever()) for _ in range(3)]
        loop.set_task_factory(previous)
        with pytest.raises(LookupError, match="but cancelled"):
            tg._abort()
    assert others == ["but cancelled"] * 2
    assert all(task.cancelling() == 1 and task.cancelled() for task in tasks)


@pytest.mark.loops("asyncio", "uvloop")
@pytest.mark.parametrize("passes", [0, 3])
async def test_queued_task_that_refuses_its_cancel(passes: int) -> None:
    """On an abort a queued Task whose cancel() does nothing runs no line all the same, and the group ends."""

    class Stubborn(asyncio.Task[Any]):
        def cancel(self, msg: Any = None) -> bool:
            return False

    loop = asyncio.get_running_loop()
    log = Log()
    async with TaskGroup(concurrency_limit=1) as tg:
        tg.create_task(forever())
        loop.set_task_factory(lambda loop, coro, **kwargs: Stubborn(coro, loop=loop, **kwargs))  # type: ignore[arg-type]
        queued = tg.create_task(log.job("queued"))
        loop.set_task_factory(None)
        await settle(passes)
        tg.cancel()
    assert queued.cancelled() and log.started == []


async def test_task_with_hostile_hash_and_eq() -> None:
    """__hash__ and __eq__ of a Task are never asked."""

    class Unhashable(asyncio.Task):  # type: ignore[type-arg]
        def __hash__(self) -> int:
            if sys._getframe(1).f_globals.get("__name__", "").startswith("asyncio"):
                return id(self)
            raise LookupError("hash")

        def __eq__(self, other: object) -> bool:
            return self is other

    loop = asyncio.get_running_loop()
    previous = loop.get_task_factory()
    async with TaskGroup(concurrency_limit=2) as tg:
        loop.set_task_factory(lambda loop, coro, **kw: asyncio.Task(coro, loop=loop, **kw))
        for _ in range(50):
            tg.create_task(noop())
        loop.set_task_factory(previous)
    assert tg._tasks == set()


async def test_last_reference_dropped_in_the_body() -> None:
    """A group whose last name goes away in the body lives on until its exit."""
    tasks: list[Any] = []

    async def main() -> None:
        async with TaskGroup(concurrency_limit=1) as tg:
            tasks.extend(tg.create_task(noop()) for _ in range(3))
            del tg
            gc.collect()

    await main()
    assert [task.result() for task in tasks] == [1, 1, 1]


def test_other_thread_does_not_step_a_queued_task() -> None:
    """A task that another thread queues takes no step there, where it would displace the loop's current task."""

    async def main() -> None:
        async with TaskGroup(concurrency_limit=1) as tg:
            tg.create_task(settle(3))
            tasks: list[asyncio.Task[int]] = []
            thread = threading.Thread(target=lambda: tasks.append(tg.create_task(noop())))
            thread.start()
            thread.join()
            assert inspect.getcoroutinestate(tasks[0].get_coro()) == inspect.CORO_CREATED  # type: ignore[arg-type]
        assert tasks[0].result() == 1

    asyncio.run(main())


def test_other_thread() -> None:
    """Another thread that touches a group may get errors, but crashes nothing. [X8]"""

    async def main() -> None:
        stop = threading.Event()

        def bother(tg: TaskGroup) -> None:
            while not stop.is_set():
                repr(tg), tg.statistics(), tg._tasks, tg._errors, tg._parent_task

        async with TaskGroup(concurrency_limit=3) as tg:
            threads = [threading.Thread(target=bother, args=(tg,)) for _ in range(2)]
            for thread in threads:
                thread.start()
            for _ in range(2000):
                tg.create_task(noop())
            await settle(700)
            stop.set()
            for thread in threads:
                thread.join()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        asyncio.run(main())
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.parametrize("limit", [None, 1])
@pytest.mark.parametrize("kind", ["KeyboardInterrupt", "SystemExit"])
@pytest.mark.parametrize("where", ["create_task", "create_background_task"])
def test_base_error_in_a_child(limit: int | None, kind: str, where: str) -> None:
    """KeyboardInterrupt and SystemExit in a task come out of asyncio.run(), and every task that began has ended."""
    script = textwrap.dedent(f"""
        import asyncio
        from quattro import TaskGroup

        began, ended = [], []

        async def sibling(i):
            began.append(i)
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(i)

        async def bad():
            await asyncio.sleep(0)
            raise {kind}(7)

        async def main():
            async with TaskGroup(concurrency_limit={limit}) as tg:
                tg.create_background_task(sibling(0))
                tg.{where}(bad())
                for i in range(1, 4):
                    tg.create_task(sibling(i))

        try:
            asyncio.run(main())
        except {kind} as error:
            assert error.args == (7,)
        else:
            raise AssertionError("not raised")
        assert began and sorted(began) == sorted(ended)
    """)
    done = subprocess.run([sys.executable, "-X", "dev", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0 and "never awaited" not in done.stderr and "destroyed" not in done.stderr, done.stderr


@pytest.mark.skipif(sys.version_info < (3, 12), reason="interpreters with their own GIL came with 3.12")
def test_subinterpreters() -> None:
    """The extension works in interpreters with a GIL of their own. [T8]"""
    code = textwrap.dedent("""
        import asyncio
        from quattro import TaskGroup
        async def noop(): return 1
        async def main():
            async with TaskGroup(concurrency_limit=2) as tg:
                tasks = [tg.create_task(noop()) for _ in range(10)]
                tg.create_background_task(asyncio.sleep(3600))
            assert sum(task.result() for task in tasks) == 10
        asyncio.run(main())
    """)
    asyncio_alone = _run_in_subinterpreters("import asyncio")
    if asyncio_alone.returncode < 0:
        pytest.skip("this CPython crashes when a sub-interpreter imports asyncio, without quattro (3.12.1 does)")
    done = _run_in_subinterpreters(code)
    assert done.returncode == 0, done.stderr


def _run_in_subinterpreters(code: str) -> subprocess.CompletedProcess[str]:
    script = textwrap.dedent(f"""
        import sys
        if sys.version_info >= (3, 14):
            from concurrent import interpreters
            for _ in range(5):
                interpreter = interpreters.create()
                interpreter.exec({code!r})
                interpreter.close()
        else:
            try:
                import _interpreters
            except ImportError:
                import _xxsubinterpreters as _interpreters
            for _ in range(5):
                interpreter = _interpreters.create()
                error = _interpreters.run_string(interpreter, {code!r})
                assert error is None, error
                _interpreters.destroy(interpreter)
    """)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)


# ---- what messages say to do


def notes(error: BaseException) -> str:
    """What stands below the message in the traceback."""
    return "\n".join(getattr(error, "__notes__", []))


async def needs_an_argument(argument: int) -> int:
    return argument


class Answers:
    """A callable object, and a method that needs an argument."""

    def __call__(self) -> int:
        return 42

    async def add(self, number: int) -> int:
        return 42 + number

    def __repr__(self) -> str:
        return "<answers>"


@pytest.mark.parametrize("limit", [None, 1])
async def test_callable_that_gives_no_coroutine_is_named(limit: int | None) -> None:
    """A callable that needs an argument, or gives no coroutine, is named with its file and line. [X2]"""
    give: Any = lambda: 42  # noqa: E731
    line = needs_an_argument.__code__.co_firstlineno
    call, add = (function.__code__.co_firstlineno for function in (Answers.__call__, Answers.add))
    for bad, where in (
        (needs_an_argument, f"needs_an_argument at 0x.*, in '.*test_misuse.py', line {line}, is called without"),
        (functools.partial(needs_an_argument), f"line {line}, is called without arguments"),
        (give, f"<lambda> at 0x.*, line {give.__code__.co_firstlineno}, .* has to return a coroutine"),
        (Answers(), f"^<answers>, in '.*test_misuse.py', line {call}, is called without arguments and has to return"),
        (functools.partial(Answers()), f"line {call}, is called without arguments"),
        (Answers().add, f"<bound method Answers.add of <answers>>, in '.*test_misuse.py', line {add}, is called"),
        (Answers, "^<class '.*Answers'> is called without arguments and has to return a coroutine"),
        (iter, "^<built-in function iter> is called without arguments and has to return a coroutine"),
    ):
        with pytest.raises(ExceptionGroup) as caught:
            async with TaskGroup(concurrency_limit=limit) as tg:
                tg.create_task(bad)
        (error,) = caught.value.exceptions
        assert isinstance(error, TypeError) and re.search(where, notes(error))


async def test_error_of_a_callable_itself_has_no_note() -> None:
    """A TypeError that comes out of the callable's own code is its own affair. [X2]"""

    def broken() -> Any:
        raise TypeError("mine")

    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup() as tg:
            tg.create_task(broken)
    assert notes(caught.value.exceptions[0]) == ""


async def test_future_is_told_to_be_awaited() -> None:
    """A future is no coroutine, and the message says what to do with it. [X1]"""
    async with TaskGroup() as tg:
        with pytest.raises(TypeError, match="a coroutine was expected, got <Future") as caught:
            tg.create_task(asyncio.get_running_loop().create_future())  # type: ignore[call-overload]
    assert "await future" in notes(caught.value)


async def test_group_that_is_used_twice_says_so() -> None:
    """A second ``async with``, and a second __init__(), say that a group is used once. [X6]"""
    tg = TaskGroup()
    async with tg:
        for again in (tg.__aenter__, lambda: tg.__init__()):  # type: ignore[misc]
            with pytest.raises(RuntimeError, match="has already been entered") as caught:
                await again()
            assert "used once" in notes(caught.value)


@pytest.mark.loops("asyncio", "debug", "uvloop")
async def test_a_task_that_cannot_join_gives_its_slot_back() -> None:
    """If the group cannot have its callback on a task, the next task takes the slot. [L5]"""

    class Deaf(asyncio.Task[Any]):
        def add_done_callback(self, *args: Any, **kwargs: Any) -> None:
            raise LookupError

    loop = asyncio.get_running_loop()
    async with TaskGroup(concurrency_limit=1) as tg:
        loop.set_task_factory(lambda loop, coro, **kwargs: Deaf(coro, loop=loop, **kwargs))
        with pytest.raises(LookupError):
            tg.create_task(noop())
        loop.set_task_factory(None)
        assert tg.statistics().running == 0
        tg.create_task(noop())
