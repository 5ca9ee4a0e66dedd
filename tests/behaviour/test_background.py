"""Background tasks: rules B of docs/behaviour.md."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from helpers import Log, fail, forever, noop, settle

from quattro import TaskGroup


async def test_pump_feeds_a_consumer() -> None:
    """A pump outlives the body, as long as the consumer that it feeds: the consumer gets everything. [B1]"""
    queue: asyncio.Queue[int] = asyncio.Queue(1)
    got: list[int] = []

    async def pump() -> None:
        for number in range(1_000_000):
            await queue.put(number)

    async def consume() -> None:
        while len(got) < 100:
            got.append(await queue.get())

    async with TaskGroup() as tg:
        task = tg.create_background_task(pump)
        tg.create_task(consume)
    assert got == list(range(100)) and task.cancelled()


async def test_ends_after_the_last_foreground_task() -> None:
    """Not the end of the body, nor that of some foreground tasks, but the last one's ends a background task. [B1]"""
    log = Log()
    async with TaskGroup(concurrency_limit=1) as tg:
        background = tg.create_background_task(log.waiter("background"))
        tg.create_task(log.job("first", 3))
        tg.create_task(log.job("queued", 3))
    assert log.events[-2:] == [("end", "queued"), ("cancelled", "background")]
    assert background.cancelling() == 1


async def test_created_by_a_child_after_the_body_ended() -> None:
    """A child may start a background task when the body has ended; it is cancelled at the end, too. [G16, B1]"""
    tasks: list[asyncio.Task[Any]] = []

    async def child(tg: TaskGroup) -> None:
        await settle(5)
        tasks.append(tg.create_background_task(forever))
        await settle(5)
        assert not tasks[0].done()

    async with TaskGroup() as tg:
        tg.create_task(child(tg))
    assert tasks[0].cancelled() and tasks[0].cancelling() == 1


async def test_takes_no_slot() -> None:
    """Background tasks do not count against the limit. [B2]"""
    async with TaskGroup(concurrency_limit=1) as tg:
        for _ in range(5):
            tg.create_background_task(forever)
        task = tg.create_task(noop())
        assert tg.statistics()[:3] == (0 if task.done() else 1, 0, 5)
        await task


@pytest.mark.parametrize("phase", ["body", "exiting", "stopping"])
async def test_error_aborts_the_group(phase: str) -> None:
    """An error in a background task aborts the group before and after the body ended, and while it is stopped. [B3]"""
    release = asyncio.Event()

    async def background() -> None:
        try:
            await release.wait()
        except asyncio.CancelledError:
            if phase != "stopping":
                raise
        raise ValueError("background")

    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup() as tg:
            tg.create_background_task(background)
            other = tg.create_background_task(forever)
            if phase == "body":
                release.set()
                await forever()
            elif phase == "exiting":
                tg.create_task(forever())
                asyncio.get_running_loop().call_soon(release.set)
            else:
                await settle()
    assert [str(e) for e in caught.value.exceptions] == ["background"]
    assert other.cancelled() and other.cancelling() == 1
    assert asyncio.current_task().cancelling() == 0


async def test_slow_to_stop_is_awaited_and_not_cancelled_again() -> None:
    """A background task that takes its time, or swallows its cancel, is awaited; it gets one cancel only. [B6]"""
    log: list[str] = []

    async def slow() -> None:
        try:
            await forever()
        finally:
            await settle(10)
            log.append("slow")

    async def swallows() -> str:
        try:
            await forever()
        except asyncio.CancelledError:
            await settle(10)
            log.append("swallows")
        return "went on"

    async with TaskGroup() as tg:
        one, two = tg.create_background_task(slow), tg.create_background_task(swallows)
        await settle()
    assert sorted(log) == ["slow", "swallows"]
    assert one.cancelled() and two.result() == "went on"
    assert one.cancelling() == two.cancelling() == 1


@pytest.mark.parametrize("aborted", [False, True])
async def test_cancelled_by_somebody_else_is_left_to_its_clean_up(aborted: bool) -> None:
    """A background task that the body's last line cancels gets no second cancel, even on an abort. [B5]"""
    log: list[str] = []

    async def background() -> None:
        try:
            await forever()
        finally:
            await settle(10)
            log.append("clean")

    async with TaskGroup() as tg:
        task = tg.create_background_task(background)
        await settle()
        task.cancel()
        if aborted:
            await settle(2)
            tg.cancel()
    assert log == ["clean"] and task.cancelling() == 1


@pytest.mark.parametrize("aborted", [False, True])
@pytest.mark.parametrize("passes", [0, 10])
async def test_timeout_of_its_own_is_not_its_end(aborted: bool, passes: int) -> None:
    """A background task that a timeout within it has just cancelled goes on after that: it still gets the group's
    cancel, when its clean-up is done. [B5]"""
    timeouts: list[asyncio.Timeout] = []
    log: list[str] = []

    async def background() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None) as timeout:
                timeouts.append(timeout)
                try:
                    await forever()
                finally:
                    await settle(passes)
                    log.append("clean")
        await asyncio.sleep(5)  # for ever, but the test ends if it is forgotten
        log.append("forgotten")

    async with TaskGroup() as tg:
        task = tg.create_background_task(background)
        await settle()
        timeouts[0].reschedule(0)
        await settle(1)  # it is cancelled, and has yet to find out
        if aborted:
            tg.cancel()
    assert log == ["clean"] and task.cancelled() and task.cancelling() == 1


async def test_flushing_helper_while_stopping() -> None:
    """While background tasks are stopped, create_task() works and is awaited; no background task may start. [B7, B8]"""
    log = Log()
    errors: list[str] = []

    async def helper(tg: TaskGroup) -> None:
        try:
            await forever()
        finally:
            tg.create_task(log.job("flush", 5))
            with pytest.raises(RuntimeError, match="is shutting down") as caught:
                tg.create_background_task(forever)
            errors.append(str(caught.value))

    async with TaskGroup(concurrency_limit=1) as tg:
        tg.create_background_task(helper(tg))
        await settle()
    assert log.events == [("start", "flush"), ("end", "flush")] and len(errors) == 1


async def test_that_ends_by_itself() -> None:
    """A background task may return, or be cancelled, before the end. [B9]"""
    async with TaskGroup() as tg:
        done = tg.create_background_task(noop)
        gone = tg.create_background_task(forever)
        await settle()
        gone.cancel()
        await settle()
        assert tg.statistics().background == 0
    assert done.result() == 1 and gone.cancelled()


async def test_only_background_tasks() -> None:
    """With an empty body they are cancelled at once (before their first step, unless they are eager)."""
    log = Log()
    async with TaskGroup() as tg:
        tasks = [tg.create_background_task(log.waiter(i)) for i in range(3)]
    assert all(task.cancelled() and task.cancelling() == 1 for task in tasks)


async def test_outside_cancel_while_stopping() -> None:
    """A parent cancelled while background tasks stop does not cancel them again, and passes the cancel on."""
    stopped = asyncio.Event()
    tasks: list[asyncio.Task[Any]] = []

    async def background() -> None:
        try:
            await forever()
        finally:
            stopped.set()
            await settle(10)

    async def body() -> None:
        async with TaskGroup() as tg:
            tasks.append(tg.create_background_task(background))
            await settle()

    parent = asyncio.ensure_future(body())
    await stopped.wait()
    parent.cancel()
    await settle(40)
    assert parent.cancelled() and tasks[0].cancelling() == 1


async def test_child_error_cancels_background_tasks() -> None:
    """An error of a child ends the background tasks at once. [B4]"""
    with pytest.raises(ExceptionGroup):
        async with TaskGroup() as tg:
            background = tg.create_background_task(forever)
            tg.create_task(fail(ValueError(), 3))
    assert background.cancelled() and background.cancelling() == 1


async def test_ends_where_abort_is_overridden() -> None:
    """Where a subclass keeps the group from aborting, background tasks still end after the foreground ones."""

    class Tolerant(TaskGroup):
        def _abort(self) -> None:
            pass

    with pytest.raises(ExceptionGroup):
        async with Tolerant() as tg:
            task = tg.create_background_task(forever)
            await settle()
            raise ValueError
    assert task.cancelled() and task.cancelling() == 1
