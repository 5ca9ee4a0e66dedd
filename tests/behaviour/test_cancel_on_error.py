"""Errors that cancel nothing: rules E of docs/behaviour.md."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import sys
from typing import Any

import pytest
from helpers import LOOPS, Log, fail, forever, noop, settle

import quattro


async def to_be_cancelled() -> None:
    """Wait for the cancel of an abort, and do not hang if none comes."""
    await settle(100)
    raise AssertionError("the group has not been aborted")


def test_attribute(TaskGroup: Any) -> None:
    """True by default; what is given counts by its truth value. [E10]"""
    assert TaskGroup().cancel_on_error is True
    for value in (False, 0, "", None, []):
        assert TaskGroup(cancel_on_error=value).cancel_on_error is False
    for value in (True, 1, "no", [0]):
        assert TaskGroup(cancel_on_error=value).cancel_on_error is True


def test_attribute_is_read_only() -> None:
    """It can't be changed, nor taken away. [E10]"""
    group = quattro.TaskGroup(cancel_on_error=False)
    with pytest.raises(AttributeError):
        group.cancel_on_error = True  # type: ignore[misc]
    with pytest.raises(AttributeError):
        del group.cancel_on_error
    assert group.cancel_on_error is False


def test_keyword_only(TaskGroup: Any) -> None:
    """TaskGroup(False) is a TypeError. [E10]"""
    with pytest.raises(TypeError):
        TaskGroup(False)


def test_truth_value_that_raises(TaskGroup: Any) -> None:
    """The error of __bool__ goes on."""

    class Broken:
        def __bool__(self) -> bool:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        TaskGroup(cancel_on_error=Broken())


def test_signature() -> None:
    """Both options are keyword-only, and show their defaults."""
    parameters = inspect.signature(quattro.TaskGroup).parameters
    assert [(p.name, p.default, p.kind) for p in parameters.values()] == [
        ("concurrency_limit", None, inspect.Parameter.KEYWORD_ONLY),
        ("cancel_on_error", True, inspect.Parameter.KEYWORD_ONLY),
    ]


def test_init_misuse() -> None:
    """__new__ without __init__ is a group with the default; a second __init__ sets it anew."""
    assert quattro.TaskGroup.__new__(quattro.TaskGroup).cancel_on_error is True
    group = quattro.TaskGroup(cancel_on_error=False)
    group.__init__()  # type: ignore[misc]
    assert group.cancel_on_error is True


@pytest.mark.parametrize("value", [True, 1])
async def test_true_is_the_default(TaskGroup: Any, value: Any) -> None:
    """With a true value an error aborts the group as ever."""
    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup(cancel_on_error=value) as tg:
            tg.create_task(fail(ValueError()))
            other = tg.create_task(forever())
            await to_be_cancelled()
    assert other.cancelled() and len(caught.value.exceptions) == 1


async def test_cancels_nothing(TaskGroup: Any) -> None:
    """A failing task cancels neither its siblings nor the queue nor the body; its error comes out at the exit. [E1]"""
    log = Log()
    error = ValueError("one of three")
    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup(concurrency_limit=2, cancel_on_error=False) as tg:
            failed = tg.create_task(fail(error, 2))
            sibling = tg.create_task(log.job("sibling", 10))
            queued = tg.create_task(log.job("queued", 10))
            await settle(5)
            assert failed.done() and not sibling.done()
            assert asyncio.current_task().cancelling() == 0
            await log.job("body", 3)
    assert caught.value.exceptions == (error,)
    assert str(caught.value) == "unhandled errors in a TaskGroup (1 sub-exception)"
    assert (sibling.result(), queued.result()) == ("sibling", "queued")
    assert sibling.cancelling() == queued.cancelling() == asyncio.current_task().cancelling() == 0
    assert {name for what, name in log.events if what == "end"} == {"sibling", "queued", "body"}


async def test_no_error(TaskGroup: Any) -> None:
    """Without an error nothing is raised."""
    async with TaskGroup(cancel_on_error=False) as tg:
        task = tg.create_task(noop())
    assert task.result() == 1


async def test_errors_in_order_of_arrival(TaskGroup: Any) -> None:
    """All errors come out together, in the order in which they came. [E2]"""
    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup(cancel_on_error=False) as tg:
            for number in (3, 0, 4, 1, 2):
                tg.create_task(fail(ValueError(number), 3 * number))
            await settle(3)
    assert [error.args[0] for error in caught.value.exceptions] == [0, 1, 2, 3, 4]


async def test_raised_after_the_last_task(TaskGroup: Any) -> None:
    """Not before every foreground task, queued or not, has ended, and the background tasks have been stopped. [E2]"""
    log = Log()

    async def background() -> None:
        try:
            await forever()
        finally:
            await log.job("flush", 5)

    with pytest.raises(ExceptionGroup):
        async with TaskGroup(concurrency_limit=1, cancel_on_error=False) as tg:
            helper = tg.create_background_task(background())
            tg.create_task(fail(ValueError()))
            tg.create_task(log.job("slow", 10))
            tg.create_task(log.job("queued", 10))
            await settle(1)
    assert [name for what, name in log.events if what == "end"] == ["slow", "queued", "flush"]
    assert helper.cancelled() and helper.cancelling() == 1


async def test_failed_task_passes_its_slot_on(TaskGroup: Any) -> None:
    """A queue of tasks that fail runs to its end, first in, first out, within the limit. [E5]"""
    log = Log()

    async def job(number: int) -> None:
        await log.job(number, number % 3)
        raise ValueError(number)

    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup(concurrency_limit=2, cancel_on_error=False) as tg:
            for number in range(20):
                tg.create_task(job(number))
    assert log.started == list(range(20)) and log.peak == 2
    assert sorted(error.args[0] for error in caught.value.exceptions) == list(range(20))


async def test_callables_that_fail(TaskGroup: Any) -> None:
    """What a callable raises, or returns instead of a coroutine, is an error of its task like any other."""
    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup(concurrency_limit=1, cancel_on_error=False) as tg:
            tg.create_task(lambda: 1 / 0)
            tg.create_task(lambda: 42)
            task = tg.create_task(noop)
    assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError, TypeError]
    assert task.result() == 1


async def test_create_task_goes_on_working(TaskGroup: Any) -> None:
    """After failures, and during the exit, tasks of both kinds can be created. [E6]"""
    log = Log()

    async def late() -> None:
        await settle(5)
        tg.create_task(fail(ValueError("late")))
        tg.create_background_task(log.waiter("background"))
        await settle(5)
        tg.create_task(log.job("last"))

    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup(cancel_on_error=False) as tg:
            tg.create_task(fail(ValueError("early")))
            await settle(5)
            tg.create_task(log.job("first"))
            tg.create_task(late())
    assert [str(error) for error in caught.value.exceptions] == ["early", "late"]
    assert log.started == ["first", "background", "last"]


async def test_body_can_ask(TaskGroup: Any) -> None:
    """The body is not told of an error; the task says it to whoever asks. [E7]"""
    error = ValueError()
    with pytest.raises(ExceptionGroup):
        async with TaskGroup(cancel_on_error=False) as tg:
            task = tg.create_task(fail(error))
            await settle(5)
            assert task.exception() is error
            with pytest.raises(ValueError):
                await task


async def test_body_that_awaits_a_failed_task(TaskGroup: Any) -> None:
    """It gets the error as its own, which aborts the group as the body's errors do; the group holds it once."""
    error = ValueError()
    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup(cancel_on_error=False) as tg:
            other = tg.create_task(forever())
            await tg.create_task(fail(error, 2))
    assert caught.value.exceptions == (error,)
    assert other.cancelled()


@pytest.mark.parametrize("first", [False, True])
async def test_error_of_the_body_aborts(TaskGroup: Any, first: bool) -> None:
    """The body's error cancels everything at once; errors of tasks are raised before it, whenever they came. [E3]"""
    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup(concurrency_limit=2, cancel_on_error=False) as tg:
            if first:
                tg.create_task(fail(ValueError("task")))
                await settle(5)
            else:
                tg.create_task(_fails_on_cancel())
                await settle(2)
            others = [tg.create_task(forever()) for _ in range(3)]
            background = tg.create_background_task(forever())
            raise KeyError("body")
    assert [type(error) for error in caught.value.exceptions] == [ValueError, KeyError]
    assert all(task.cancelled() and task.cancelling() == 1 for task in (*others, background))


async def _fails_on_cancel() -> None:
    try:
        await forever()
    finally:
        raise ValueError


@pytest.mark.parametrize("exiting", [False, True])
async def test_outside_cancel_aborts(TaskGroup: Any, exiting: bool) -> None:
    """A cancel from outside, in the body or at the exit, ends everything, and goes on with its message. [E3]"""
    tasks: list[asyncio.Task[Any]] = []

    async def parent() -> None:
        async with TaskGroup(concurrency_limit=1, cancel_on_error=False) as tg:
            tasks.extend(tg.create_task(forever()) for _ in range(3))
            tasks.append(tg.create_background_task(forever()))
            if not exiting:
                await forever()

    task = asyncio.ensure_future(parent())
    await settle(5)
    task.cancel("why")
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert caught.value.args == ("why",)
    assert all(task.cancelled() and task.cancelling() == 1 for task in tasks)


@pytest.mark.parametrize("exiting", [False, True])
async def test_outside_cancel_with_errors(TaskGroup: Any, exiting: bool) -> None:
    """As in CPython 3.15: the errors are raised, and the next await of the parent sees the cancel. [E4]"""
    seen: list[Any] = []

    async def parent() -> None:
        try:
            async with TaskGroup(cancel_on_error=False) as tg:
                tg.create_task(fail(ValueError()))
                tg.create_task(forever())
                if not exiting:
                    await forever()
        except ExceptionGroup as group:
            seen.append(len(group.exceptions))
        try:
            await forever()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    task = asyncio.ensure_future(parent())
    await settle(5)
    task.cancel()
    await settle()
    assert seen == [1, "cancelled"] and task.cancelled() and task.cancelling() == 1


async def test_timeout_with_errors(TaskGroup: Any) -> None:
    """A timeout around the group ends it; the errors come out, and no cancel is left over."""
    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.timeout(None) as scope:
            async with TaskGroup(cancel_on_error=False) as tg:
                tg.create_task(fail(ValueError()))
                await settle(3)
                scope.reschedule(asyncio.get_running_loop().time() - 1)
                await forever()
    assert len(caught.value.exceptions) == 1 and scope.expired()
    await settle(3)
    assert asyncio.current_task().cancelling() == 0


@pytest.mark.parametrize("failed", [False, True])
async def test_cancel_aborts(TaskGroup: Any, failed: bool) -> None:
    """cancel() leaves the group early; it raises the errors that it has, and nothing if it has none. [E3]"""
    with pytest.raises(ExceptionGroup) if failed else contextlib.nullcontext():
        async with TaskGroup(concurrency_limit=2, cancel_on_error=False) as tg:
            if failed:
                tg.create_task(fail(ValueError()))
                await settle(3)
            tasks = [tg.create_task(forever()) for _ in range(4)]
            tg.cancel()
            await to_be_cancelled()
    assert all(task.cancelled() and task.cancelling() == 1 for task in tasks)
    assert asyncio.current_task().cancelling() == 0


class Fatal(BaseException):
    """No Exception."""


@pytest.mark.parametrize("error", [Fatal(), GeneratorExit(), BaseExceptionGroup("several", [Fatal()])])
async def test_what_is_no_exception_aborts(TaskGroup: Any, error: BaseException) -> None:
    """Any other BaseException of a task cancels everything; the errors collected before are raised with it. [E3]"""
    before = ValueError()
    with pytest.raises(BaseExceptionGroup) as caught:
        async with TaskGroup(cancel_on_error=False) as tg:
            tg.create_task(fail(before))
            tg.create_task(fail(error, 3))
            other = tg.create_task(forever())
            await to_be_cancelled()
    assert caught.value.exceptions == (before, error)
    assert other.cancelled() and asyncio.current_task().cancelling() == 0


async def test_group_of_errors_is_an_exception(TaskGroup: Any) -> None:
    """An ExceptionGroup, as a group inside a task raises it, cancels nothing."""

    async def nested() -> None:
        async with TaskGroup() as inner:
            inner.create_task(fail(KeyError()))

    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup(cancel_on_error=False) as tg:
            tg.create_task(nested())
            other = tg.create_task(settle(10))
    assert [type(error) for error in caught.value.exceptions] == [ExceptionGroup]
    assert not other.cancelled()


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("loop_name", LOOPS)
def test_exit_and_interrupt_abort(TaskGroup: Any, kind: type[BaseException], loop_name: str) -> None:
    """SystemExit and KeyboardInterrupt of a task cancel everything and are raised as they are; the errors collected
    before, which they displace, are reported."""
    reports: list[Any] = []
    tasks: list[asyncio.Task[Any]] = []
    before, error = ValueError("before"), kind()

    async def main() -> None:
        async with TaskGroup(cancel_on_error=False) as tg:
            tg.create_task(fail(before))
            await settle(3)
            tasks.append(tg.create_task(forever()))
            tg.create_task(fail(error, 1))
            await to_be_cancelled()

    make_loop, debug = LOOPS[loop_name]
    with contextlib.closing(make_loop()) as loop:
        loop.set_debug(debug)
        loop.set_exception_handler(lambda _, context: reports.append(context.get("exception")))
        task = loop.create_task(main())
        for _ in range(2):  # the task's error leaves the loop, then the group's
            with pytest.raises(kind):
                loop.run_until_complete(task)
    assert task.exception() is error
    assert tasks[0].cancelled() and reports == [before]


@pytest.mark.parametrize("phase", ["body", "exiting", "stopping"])
async def test_error_of_a_background_task_aborts(TaskGroup: Any, phase: str) -> None:
    """What served the others is gone: everything is cancelled, and the errors collected before are raised, too. [E3]"""
    release = asyncio.Event()

    async def background() -> None:
        try:
            await release.wait()
        except asyncio.CancelledError:
            if phase != "stopping":
                raise
        raise KeyError

    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup(cancel_on_error=False) as tg:
            tg.create_background_task(background())
            tg.create_task(fail(ValueError()))
            other = tg.create_background_task(forever())
            await settle(5)
            if phase == "body":
                release.set()
                await to_be_cancelled()
            elif phase == "exiting":
                tg.create_task(forever())
                asyncio.get_running_loop().call_soon(release.set)
    assert [type(error) for error in caught.value.exceptions] == [ValueError, KeyError]
    assert other.cancelled() and other.cancelling() == 1
    assert asyncio.current_task().cancelling() == 0


async def test_background_task_that_is_cancelled(TaskGroup: Any) -> None:
    """It has no error, and ends nothing, as ever."""
    async with TaskGroup(cancel_on_error=False) as tg:
        background = tg.create_background_task(forever())
        other = tg.create_task(settle(10))
        await settle(2)
        background.cancel()
        await settle(2)
    assert background.cancelled() and not other.cancelled()


async def test_task_that_is_cancelled(TaskGroup: Any) -> None:
    """A task that somebody cancels, or that raises CancelledError itself, is no error. [G5]"""
    async with TaskGroup(concurrency_limit=1, cancel_on_error=False) as tg:
        first, queued = tg.create_task(forever()), tg.create_task(noop())
        tg.create_task(fail(asyncio.CancelledError()))
        last = tg.create_task(noop())
        await settle(2)
        queued.cancel()
        first.cancel()
    assert last.result() == 1


def check_eager(task: asyncio.Task[Any]) -> None:
    """A task that has failed within create_task()."""
    assert task.done() and type(task.exception()) is ValueError
    assert asyncio.current_task().cancelling() == 0


@pytest.mark.loops("eager")
@pytest.mark.parametrize("limit", [None, 1])
async def test_eager_task_that_fails(TaskGroup: Any, limit: int | None) -> None:
    """A task that fails inside create_task() is returned, failed; nothing else happens; its slot is back. [E8]"""
    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup(concurrency_limit=limit, cancel_on_error=False) as tg:
            for _ in range(3):
                check_eager(tg.create_task(fail(ValueError())))
            await settle(3)
            assert tg.create_task(noop()).result() == 1
    assert len(caught.value.exceptions) == 3


@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio.Task takes eager_start from 3.12 on")
@pytest.mark.loops("asyncio", "debug")
@pytest.mark.parametrize("limit", [None, 1])
async def test_eager_start_that_fails(TaskGroup: Any, limit: int | None) -> None:
    """The same with eager_start=True."""
    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup(concurrency_limit=limit, cancel_on_error=False) as tg:
            for _ in range(3):
                check_eager(tg.create_task(fail(ValueError()), eager_start=True))
    assert len(caught.value.exceptions) == 3


async def test_repr_counts_the_errors(TaskGroup: Any) -> None:
    """Errors stay in the group until its exit, and its repr says how many; afterwards it keeps none. [E9]"""
    with pytest.raises(ExceptionGroup):
        async with TaskGroup(cancel_on_error=False) as tg:
            for _ in range(3):
                tg.create_task(fail(ValueError()))
            await settle(3)
            assert repr(tg) == "<TaskGroup errors=3 entered>"
            assert len(tg._errors) == 3
    assert "errors" not in repr(tg) and not tg._errors


async def test_hooks_of_a_subclass(TaskGroup: Any) -> None:
    """_on_task_done() is called for every task, _abort() only for an error that aborts. [E11]"""
    calls: list[str] = []

    class Group(TaskGroup):  # type: ignore[misc]
        def _on_task_done(self, task: asyncio.Task[Any]) -> None:
            calls.append(task.get_name())
            super()._on_task_done(task)

        def _abort(self) -> None:
            calls.append("abort")
            super()._abort()

    with pytest.raises(ExceptionGroup):
        async with Group(cancel_on_error=False) as tg:
            tg.create_task(fail(ValueError()), name="first")
            await settle(3)
            tg.create_background_task(fail(ValueError()), name="second")
            await to_be_cancelled()
    assert calls == ["first", "second", "abort"]


@pytest.mark.usefixtures("collected")
async def test_no_reference_cycle(TaskGroup: Any) -> None:
    """What is raised, and what it holds, goes with its last reference; nothing is left to the collector."""

    async def job() -> None:
        await asyncio.sleep(0)
        raise ValueError

    async def main() -> None:
        with contextlib.suppress(ExceptionGroup):
            async with TaskGroup(concurrency_limit=1, cancel_on_error=False) as tg:
                for _ in range(3):
                    tg.create_task(job())

    gc.collect()
    await asyncio.ensure_future(main())
    assert gc.collect() == 0
