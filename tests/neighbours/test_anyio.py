"""Neighbours, for real: anyio's scopes, task groups, limiters and threads inside our groups, and ours inside its."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.abc
import anyio.from_thread
import anyio.to_thread
import pytest
from helpers import Log, fail, forever, noop, settle

from quattro import TaskGroup


def end(scope: anyio.CancelScope) -> None:
    """Let the time of a scope be up, now."""
    scope.deadline = -math.inf


async def slow_to_stop(log: Log, name: Any) -> None:
    """Wait to be cancelled, and take some passes of the loop for the clean-up, which a second cancel() would break."""
    try:
        await log.waiter(name)
    finally:
        await settle(10)
        log.events.append(("cleaned", name))


async def careful(log: Log, name: Any) -> None:
    """Wait to be cancelled, and clean up as anyio wants it, which cancels until it is obeyed: in a shielded scope."""
    try:
        await log.waiter(name)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.lowlevel.checkpoint()
            await settle(10)
            log.events.append(("cleaned", name))


async def test_a_scope_that_ends_with_the_last_task() -> None:
    """The parent has been woken by then: it is cancelled at its next await, as after asyncio's group. [G12]"""
    seen: list[str] = []
    with anyio.CancelScope() as scope:
        async with TaskGroup() as tg:
            tg.create_task(noop()).add_done_callback(lambda _: scope.cancel())
        seen.append("left")
        await settle()
        seen.append("not cancelled")
    assert seen == ["left"] and scope.cancelled_caught


@pytest.mark.parametrize("waits", ["at the exit", "in the queue", "for a slot", "for a map"])
async def test_what_anyio_knows_of_a_task_that_waits(waits: str) -> None:
    """Whether it has been cancelled, and that it waits."""

    async def main() -> None:
        async with TaskGroup(concurrency_limit=1) as tg:
            tg.create_task(forever())
            if waits == "in the queue":
                await asyncio.gather(tg.create_task(noop()))
            elif waits == "for a slot":
                await tg.wait_for_slot()
            elif waits == "for a map":
                await anext(aiter(tg.map(asyncio.sleep, [0])))

    task = asyncio.create_task(main())
    await settle()
    (waiter,) = [each for each in asyncio.all_tasks() if each.get_coro().__name__ == "noop"] or [task]
    info = next(info for info in anyio.get_running_tasks() if info.id == id(waiter))
    await asyncio.wait_for(anyio.wait_all_tasks_blocked(), 10)
    assert not info.has_pending_cancellation()
    waiter.cancel()
    assert info.has_pending_cancellation()
    task.cancel()
    await asyncio.wait([task])


@pytest.mark.parametrize("where", ["in the body", "at the exit"])
async def test_fail_after_around_a_group(where: str) -> None:
    """anyio cancels who is in the scope again and again until it has left: the tasks of the group feel it once."""
    log = Log()
    with pytest.raises(TimeoutError):
        with anyio.fail_after(None) as scope:
            async with TaskGroup(concurrency_limit=1) as tg:
                tasks = [
                    tg.create_task(slow_to_stop(log, "task")),
                    tg.create_task(log.job("queued")),
                    tg.create_background_task(slow_to_stop(log, "background")),
                ]
                await settle()
                if where == "in the body":
                    end(scope)
                    await forever()
                asyncio.get_running_loop().call_soon(end, scope)
    assert [what for what, _ in log.events] == ["start"] * 2 + ["cancelled"] * 2 + ["cleaned"] * 2
    assert ("start", "queued") not in log.events
    assert [task.cancelling() for task in tasks] == [1, 1, 1] and all(task.cancelled() for task in tasks)
    assert asyncio.current_task().cancelling() == 0
    await settle()  # a cancellation that leaked would be raised here


async def test_move_on_with_an_error_in_the_clean_up() -> None:
    """An error in a task's clean-up goes through the scope that ended the group, and no cancellation follows it."""

    async def bad_clean_up() -> None:
        try:
            await forever()
        finally:
            await settle(3)
            raise ValueError("in clean-up")

    with pytest.raises(ExceptionGroup) as caught:
        with anyio.CancelScope() as scope:
            async with TaskGroup() as tg:
                tg.create_task(bad_clean_up())
                await settle()
                scope.cancel()
    assert repr(caught.value.exceptions) == "(ValueError('in clean-up'),)"
    await settle()
    assert asyncio.current_task().cancelling() == 0


async def test_scope_cancelled_by_a_task_of_the_group() -> None:
    """A task of ours may cancel the scope that its group lives in; the code after the scope goes on."""
    log = Log()
    with anyio.CancelScope() as outer:
        with anyio.CancelScope() as scope:
            async with TaskGroup() as tg:
                tg.create_background_task(log.waiter("background"))
                await settle()
                tg.create_task(log.waiter("task"))
                asyncio.get_running_loop().call_soon(tg.create_task, _cancel(scope))
        assert scope.cancelled_caught and not outer.cancel_called
        await anyio.lowlevel.checkpoint()
        log.events.append("after")
    assert log.events[-3:-1] == [("cancelled", "background"), ("cancelled", "task")] and log.events[-1] == "after"


async def _cancel(scope: anyio.CancelScope) -> None:
    scope.cancel()


async def test_scopes_inside_tasks() -> None:
    """A scope in a task of ours is that task's matter alone, started at once or from the queue."""

    async def hurried(n: int) -> int:
        with anyio.move_on_after(0):
            await forever()
        with pytest.raises(TimeoutError):
            with anyio.fail_after(0):
                await anyio.sleep_forever()
        return n

    async with TaskGroup(concurrency_limit=2) as tg:
        background = tg.create_background_task(anyio.sleep_forever)
        tasks = [tg.create_task(hurried(n)) for n in range(6)]
        tasks.append(tg.create_task(Log().job("sibling", 10)))
    assert [task.result() for task in tasks] == [0, 1, 2, 3, 4, 5, "sibling"]
    assert background.cancelled() and all(task.cancelling() == 0 for task in tasks)


async def test_shielded_clean_up() -> None:
    """A clean-up in a shielded scope, anyio's own way, runs to its end when a group aborts or is cancelled."""
    log = Log()
    with anyio.CancelScope() as scope:
        async with TaskGroup() as tg:
            tg.create_task(careful(log, "task"))
            tg.create_background_task(careful(log, "background"))
            await settle()
            scope.cancel()
    assert sorted(log.events[-2:]) == [("cleaned", "background"), ("cleaned", "task")]


async def test_ours_inside_theirs() -> None:
    """Our group in a task of anyio's group: an error there cancels ours, which ends before anyio's goes on."""
    log = Log()

    async def handler() -> None:
        async with TaskGroup(concurrency_limit=1) as tg:
            tg.create_background_task(slow_to_stop(log, "background"))
            tg.create_task(slow_to_stop(log, "task"))
            tg.create_task(log.job("queued"))

    async def failing() -> None:
        await settle()
        raise ValueError("theirs")

    with pytest.raises(ExceptionGroup) as caught:
        async with anyio.create_task_group() as theirs:
            theirs.start_soon(handler)
            theirs.start_soon(failing)
    assert repr(caught.value.exceptions) == "(ValueError('theirs'),)"
    assert sorted(log.events[-2:]) == [("cleaned", "background"), ("cleaned", "task")]
    assert ("start", "queued") not in log.events


async def test_an_error_of_ours_inside_theirs() -> None:
    """An error in our group cancels the siblings in anyio's, once ours has ended, and comes out in both groups."""
    log = Log()

    async def handler() -> None:
        async with TaskGroup() as tg:
            tg.create_background_task(slow_to_stop(log, "background"))
            tg.create_task(fail(ValueError("ours"), 5))

    with pytest.raises(ExceptionGroup) as caught:
        async with anyio.create_task_group() as theirs:
            theirs.start_soon(log.waiter, "sibling")
            theirs.start_soon(handler)
    (inner,) = caught.value.exceptions
    assert isinstance(inner, ExceptionGroup) and repr(inner.exceptions) == "(ValueError('ours'),)"
    assert log.events[-2:] == [("cleaned", "background"), ("cancelled", "sibling")]


async def test_start_with_a_group_of_ours() -> None:
    """anyio's start() gets its answer from inside our group, which then serves until anyio's scope is cancelled."""
    log = Log()

    async def service(*, task_status: anyio.abc.TaskStatus[TaskGroup]) -> None:
        async with TaskGroup(concurrency_limit=2) as tg:
            tg.create_background_task(log.waiter("background"))
            task_status.started(tg)
            await anyio.sleep_forever()

    async with anyio.create_task_group() as theirs:
        tg = await theirs.start(service)
        assert [await tg.create_task(log.job(n)) for n in range(3)] == [0, 1, 2]
        theirs.cancel_scope.cancel()
    assert log.events[-1] == ("cancelled", "background")


@pytest.mark.parametrize("ending", ["cancel", "error", "scope"])
async def test_theirs_inside_ours(ending: str) -> None:
    """anyio's group in a task of ours ends with ours, whatever ends ours; its tasks end before."""
    log = Log()

    async def handler() -> None:
        async with anyio.create_task_group() as theirs:
            theirs.start_soon(careful, log, "first")
            theirs.start_soon(careful, log, "second")

    with contextlib.suppress(ExceptionGroup), anyio.CancelScope() as scope:
        async with TaskGroup() as tg:
            task = tg.create_task(handler)
            await settle()
            if ending == "cancel":
                tg.cancel()
            elif ending == "scope":
                scope.cancel()
            else:
                tg.create_task(fail(ValueError()))
    assert task.cancelled() and task.cancelling() == 1
    assert sorted(log.events[-2:]) == [("cleaned", "first"), ("cleaned", "second")]


async def test_task_group_of_theirs_with_an_error_inside_ours() -> None:
    """The ExceptionGroup of anyio's group is an error of its task like any other: our group aborts."""
    log = Log()

    async def handler() -> None:
        async with anyio.create_task_group() as theirs:
            theirs.start_soon(fail, ValueError("theirs"), 3)
            await anyio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup(concurrency_limit=2) as tg:
            tg.create_task(log.waiter("sibling"))
            tg.create_task(handler())
            tg.create_task(log.job("queued"))
    (inner,) = caught.value.exceptions
    assert isinstance(inner, ExceptionGroup) and repr(inner.exceptions) == "(ValueError('theirs'),)"
    assert log.events == [("start", "sibling"), ("cancelled", "sibling")]


async def test_limiter_inside_a_limit() -> None:
    """A CapacityLimiter over two groups and the limits of these hold together; a cancelled waiter frees its token."""
    log, limiter = Log(), anyio.CapacityLimiter(3)

    async def job(n: int) -> Any:
        async with limiter:
            return await log.job(n, 3)

    async with TaskGroup(concurrency_limit=2) as one, TaskGroup(concurrency_limit=4) as other:
        tasks = [(one, other)[n % 2].create_task(job(n)) for n in range(20)]
        await settle(3)
        cancelled = [task for task in tasks if not task.done()][:5]
        for task in cancelled:
            task.cancel()
    assert sum(task.cancelled() for task in tasks) == 5
    assert log.peak == 3 and limiter.borrowed_tokens == 0


async def test_streams_between_our_tasks() -> None:
    """anyio's memory streams between our tasks: the consumers end when the producers have closed their ends."""
    send, receive = anyio.create_memory_object_stream[int](1)
    got: list[int] = []

    async def produce(start: int) -> None:
        async with send.clone() as stream:
            for n in range(start, start + 10):
                await stream.send(n)

    async def consume() -> None:
        async with receive.clone() as stream:
            async for n in stream:
                got.append(n)

    async with TaskGroup(concurrency_limit=4) as tg:
        with send, receive:
            for n in range(3):
                tg.create_task(produce(10 * n))
            tg.create_task(consume)
            await settle(1)
    assert sorted(got) == list(range(30))


async def test_threads() -> None:
    """anyio's worker threads under our limit, and from_thread, which runs code of ours and makes tasks in the group."""
    log = Log()

    def work(n: int) -> int:
        assert anyio.from_thread.run(noop) == 1
        task = anyio.from_thread.run_sync(tg.create_background_task, log.waiter(n))
        assert isinstance(task, asyncio.Task)
        return n

    async with TaskGroup(concurrency_limit=3) as tg:
        tasks = [tg.create_task(anyio.to_thread.run_sync(work, n)) for n in range(10)]
    assert [task.result() for task in tasks] == list(range(10))
    assert sorted(name for what, name in log.events if what == "cancelled") == list(range(10))


async def test_async_generator_with_a_scope_and_a_group() -> None:
    """A scope and a group in an async generator that serves as a context manager end in order."""
    log = Log()

    @contextlib.asynccontextmanager
    async def service() -> AsyncIterator[TaskGroup]:
        with anyio.CancelScope() as scope:
            async with TaskGroup() as tg:
                tg.create_background_task(slow_to_stop(log, "background"))
                yield tg
                scope.cancel()
        assert scope.cancelled_caught
        log.events.append("left")

    async with service() as tg:
        task = tg.create_task(slow_to_stop(log, "task"))
        await settle()
    assert task.cancelled() and log.events[-1] == "left"
    assert sorted(log.events[-3:-1]) == [("cleaned", "background"), ("cleaned", "task")]
