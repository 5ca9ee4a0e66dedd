"""Waiting until a task can start: rules W of docs/behaviour.md."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import sys
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from helpers import Log, fail, forever, noop, settle

import quattro

EAGER_START = pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio.Task starts eagerly from 3.12 on")


def returns_at_once(awaitable: Awaitable[None]) -> bool:
    """Is an awaitable done with its first step?"""
    iterator = awaitable.__await__()
    try:
        next(iterator)
    except StopIteration as stop:
        assert stop.value is None
        return True
    iterator.close()  # type: ignore[attr-defined]
    return False


class Gates:
    """Tasks that end when they are told to."""

    def __init__(self, tg: Any) -> None:
        self.tg = tg
        self.gates: list[asyncio.Future[None]] = []

    async def job(self) -> None:
        gate = asyncio.get_running_loop().create_future()
        self.gates.append(gate)
        await gate

    async def start(self, count: int) -> None:
        for _ in range(count):
            self.tg.create_task(self.job())
        await settle()

    def end(self) -> None:
        self.gates.pop(0).set_result(None)


@contextlib.asynccontextmanager
async def full_group(TaskGroup: Any, limit: int = 1) -> AsyncIterator[tuple[Any, Gates]]:
    """A group in which as many tasks run as may; those that still do at the end of the body are ended."""
    async with TaskGroup(concurrency_limit=limit) as tg:
        gates = Gates(tg)
        await gates.start(limit)
        yield tg, gates
        while tg.statistics().running:
            if gates.gates:
                gates.end()
            await settle(3)


# ---- when it returns


@pytest.mark.parametrize("limit", [None, 1, 3])
async def test_at_once_if_a_slot_is_free(TaskGroup: Any, limit: int | None) -> None:
    """If a task would start now, or without a limit, it returns without a pass of the loop. [W2]"""
    async with TaskGroup(concurrency_limit=limit) as tg:
        assert returns_at_once(tg.wait_for_slot())
        for _ in range((limit or 100) - 1):
            tg.create_task(settle(2))
        assert returns_at_once(tg.wait_for_slot())


async def test_waits_while_no_slot_is_free(TaskGroup: Any) -> None:
    """With all slots taken it returns when one is given back; a task created then does not queue. [W1]"""
    async with full_group(TaskGroup, 2) as (tg, gates):
        assert not returns_at_once(tg.wait_for_slot())
        waiter = asyncio.ensure_future(tg.wait_for_slot())
        await settle()
        assert not waiter.done()
        gates.end()
        assert await waiter is None
        task = tg.create_task(noop())
        assert tg.statistics().queued == 0
        assert await task == 1


async def test_waits_while_something_is_queued(TaskGroup: Any) -> None:
    """It does not overtake the queue: it returns when a slot is free and nobody waits for it. [W1]"""
    async with full_group(TaskGroup) as (tg, gates):
        await gates.start(2)  # which queue
        waiter = asyncio.ensure_future(tg.wait_for_slot())
        for queued in (1, 0):
            gates.end()
            await settle()
            assert not waiter.done() and tg.statistics()[:2] == (1, queued)
        gates.end()
        await waiter
        assert tg.statistics()[:2] == (0, 0)


@pytest.mark.loops("asyncio")
async def test_waits_while_who_was_granted_a_slot_has_yet_to_move(TaskGroup: Any) -> None:
    """With a slot free and nobody queued, it returns when whoever was granted a slot has started. [W1]"""
    seen: list[Any] = []

    def look() -> None:
        seen.append((tg.statistics()[:2], returns_at_once(tg.wait_for_slot())))

    async def wait() -> None:
        await tg.wait_for_slot()
        seen.append("slot")

    async def granted() -> None:
        seen.append("granted")
        await forever()

    async with TaskGroup(concurrency_limit=2) as tg:
        gates = Gates(tg)
        await gates.start(4)
        gates.end()
        gates.end()
        await settle()  # the two that run had queued: their slots are given back with their last step
        tg.create_task(granted())
        waiter = asyncio.ensure_future(wait())
        await settle()
        gates.end()
        gates.end()
        asyncio.get_running_loop().call_soon(look)  # after the last steps of the two, in the same pass
        await settle()
        assert seen == [((1, 0), False), "granted", "slot"]
        await waiter
        tg.cancel()


async def test_move_of_who_was_granted_a_slot(TaskGroup: Any) -> None:
    """Two tasks end at once, and one is queued: when that has started, the other slot is free for who waits."""
    seen: list[str] = []

    async def granted() -> None:
        seen.append("granted")
        await forever()

    with pytest.raises(ExceptionGroup):
        async with TaskGroup(concurrency_limit=2, cancel_on_error=False) as tg:
            for _ in range(2):
                tg.create_task(fail(ValueError(), 5))
            tg.create_task(granted())
            waiter = asyncio.ensure_future(tg.wait_for_slot())
            waiter.add_done_callback(lambda _: seen.append("slot"))
            await settle()
            tg.cancel()
    await asyncio.wait([waiter])
    assert seen == ["granted", "slot"] and waiter.exception() is None


async def test_cancelled_in_the_queue(TaskGroup: Any) -> None:
    """Queued tasks that are cancelled are not waited for."""
    async with full_group(TaskGroup) as (tg, gates):
        task = tg.create_task(noop())
        waiter = asyncio.ensure_future(tg.wait_for_slot())
        await settle()
        task.cancel()
        await settle()
        assert not waiter.done()  # the slot is still taken
        gates.end()
        await waiter
        assert task.cancelled()


@pytest.mark.loops("asyncio", "debug", "factory", "uvloop")  # where the first task has a step of its own
async def test_granted_and_cancelled(TaskGroup: Any) -> None:
    """A slot that was granted to a task which is cancelled before it moves is free again."""
    started: list[str] = []

    async def job() -> None:
        started.append("job")

    async def ends_with_a_cancel() -> None:
        asyncio.get_running_loop().call_soon(lambda: task.cancel())

    async with TaskGroup(concurrency_limit=1) as tg:
        gates = Gates(tg)
        await gates.start(1)
        tg.create_task(ends_with_a_cancel())
        task = tg.create_task(job())
        waiter = asyncio.ensure_future(tg.wait_for_slot())
        await settle()
        gates.end()
        await waiter
        assert task.cancelled() and started == [] and tg.statistics()[:2] == (0, 0)


async def test_slot_that_is_held_while_a_cancel_is_handled(TaskGroup: Any) -> None:
    """A slot is free when the task's coroutine has ended, and not before."""
    release = asyncio.Event()

    async def stubborn() -> None:
        try:
            await forever()
        finally:
            await release.wait()

    async with TaskGroup(concurrency_limit=1) as tg:
        task = tg.create_task(stubborn())
        waiter = asyncio.ensure_future(tg.wait_for_slot())
        await settle()
        task.cancel()
        await settle()
        assert not waiter.done()
        release.set()
        await waiter
        assert task.cancelled()


@pytest.mark.loops("asyncio", "uvloop", "eager")
async def test_background_tasks_need_no_slot(TaskGroup: Any) -> None:
    """They neither take one nor give one back."""
    async with full_group(TaskGroup) as (tg, _):
        background = tg.create_background_task(noop())
        waiter = asyncio.ensure_future(tg.wait_for_slot())
        await background
        await settle()
        assert not waiter.done()
        waiter.cancel()


@EAGER_START
@pytest.mark.loops("asyncio", "debug")
async def test_eager_tasks(TaskGroup: Any) -> None:
    """One that ends within create_task() has given its slot back: a thousand of them need no pass of the loop."""
    async with TaskGroup(concurrency_limit=1) as tg:
        for _ in range(1000):
            assert returns_at_once(tg.wait_for_slot())
            assert tg.create_task(noop(), eager_start=True).done()


# ---- what it is for


@pytest.mark.parametrize("limit", [1, 2, 10])
async def test_producer_takes_what_can_be_worked_on(TaskGroup: Any, limit: int) -> None:
    """Of a long source, an item is taken when fewer than the limit are being worked on, and none ever queues."""
    log = Log()
    async with TaskGroup(concurrency_limit=limit) as tg:
        for number in range(1000):
            await tg.wait_for_slot()
            assert log.running < limit
            tg.create_task(log.job(number, number % 3 + 1))
            assert tg.statistics().queued == 0
    assert log.started == list(range(1000)) and log.peak == limit


@pytest.mark.loops("asyncio", "uvloop")
async def test_memory_of_the_limit(TaskGroup: Any) -> None:
    """Ten thousand items through a limit of 100: no more than twice a hundred tasks are alive at any time. [W9]"""
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    most = 0
    async with TaskGroup(concurrency_limit=100) as tg:
        for _ in range(10_000):
            await tg.wait_for_slot()
            alive.add(tg.create_task(asyncio.sleep(0)))
            most = max(most, len(alive))
    assert 100 <= most <= 200


async def test_producer_in_a_background_task(TaskGroup: Any) -> None:
    """A producer may be a background task: it goes on while its tasks run, and ends when nothing is left to serve."""
    log = Log()
    queue: asyncio.Queue[int] = asyncio.Queue()

    async def produce() -> None:
        while True:
            await tg.wait_for_slot()
            tg.create_task(log.job(await queue.get(), 3))

    async with TaskGroup(concurrency_limit=2) as tg:
        producer = tg.create_background_task(produce())
        for number in range(10):
            queue.put_nowait(number)
        await settle(3)
    assert log.started == list(range(10)) and log.peak == 2
    assert producer.cancelled() and producer.cancelling() == 1


@pytest.mark.parametrize("limit", [1, 2])
@pytest.mark.parametrize("fails", [False, True])
async def test_background_producer_goes_before_the_exit(TaskGroup: Any, limit: int, fails: bool) -> None:
    """Woken by the end of the last task, it goes on before the group stops it, so that its next task is not lost."""
    log = Log()

    async def work(number: int) -> None:
        await log.job(number, 2)
        if fails:
            raise ValueError

    async def produce() -> None:
        for number in range(10):
            await tg.wait_for_slot()
            tg.create_task(work(number))

    with pytest.raises(ExceptionGroup) if fails else contextlib.nullcontext():
        async with TaskGroup(concurrency_limit=limit, **({"cancel_on_error": False} if fails else {})) as tg:
            producer = tg.create_background_task(produce())
            tg.create_task(settle(2))
    assert log.started == list(range(10)) and not producer.cancelled()


# ---- many waiters


async def test_reserves_nothing(TaskGroup: Any) -> None:
    """All who wait go on if nobody takes the slot. [W3]"""
    async with full_group(TaskGroup) as (tg, gates):
        waiters = [asyncio.ensure_future(tg.wait_for_slot()) for _ in range(30)]
        await settle()
        gates.end()
        await asyncio.gather(*waiters)
        assert tg.statistics()[:2] == (0, 0)


async def test_in_order_and_in_the_old_place(TaskGroup: Any) -> None:
    """All are woken, in the order in which they came; who is beaten waits on, before those who came later. [W3]"""
    order: list[str] = []

    async def produce(name: str, gates: Gates) -> None:
        await gates.tg.wait_for_slot()
        order.append(name)
        gates.tg.create_task(gates.job())

    async with full_group(TaskGroup) as (_, gates):
        producers = [asyncio.ensure_future(produce(name, gates)) for name in "abc"]
        await settle()
        gates.end()
        await settle()
        assert order == ["a"]
        producers += [asyncio.ensure_future(produce(name, gates)) for name in "de"]
        for expected in ("ab", "abc", "abcd", "abcde"):
            gates.end()
            await settle()
            assert "".join(order) == expected
        await asyncio.gather(*producers)


async def test_producers_take_turns(TaskGroup: Any) -> None:
    """A producer that has had a slot and asks again comes after those who were beaten by it."""
    order: list[str] = []

    async def produce(name: str) -> None:
        for _ in range(3):
            await tg.wait_for_slot()
            order.append(name)
            tg.create_task(settle(2))

    async with TaskGroup(concurrency_limit=1) as tg:
        tg.create_task(settle(3))
        await asyncio.gather(*map(produce, "abc"))
    assert "".join(order) == "abcabcabc"


async def test_newcomer_finds_a_slot(TaskGroup: Any) -> None:
    """Who asks when a slot is free has it at once, although others have been woken for it; those wait on."""
    found: list[bool] = []

    async def first() -> None:
        await tg.wait_for_slot()
        found.append(returns_at_once(tg.wait_for_slot()))  # the second has been woken, and has not moved
        tg.create_task(gates.job())

    async with full_group(TaskGroup) as (tg, gates):
        waiters = [asyncio.ensure_future(first()), asyncio.ensure_future(tg.wait_for_slot())]
        await settle()
        gates.end()
        await settle()
        assert found == [True] and not waiters[1].done()
        gates.end()
        await asyncio.gather(*waiters)


async def test_woken_and_cancelled(TaskGroup: Any) -> None:
    """A waiter that is cancelled between its wake-up and its step takes nobody else's with it. [W3]"""

    async def first() -> None:
        await tg.wait_for_slot()
        waiters[1].cancel("too late")

    async with full_group(TaskGroup) as (tg, gates):
        waiters = [asyncio.ensure_future(wait()) for wait in (first, tg.wait_for_slot, tg.wait_for_slot)]
        await settle()
        gates.end()
        await asyncio.wait(waiters)
        assert [waiter.cancelled() for waiter in waiters] == [False, True, False]


async def test_woken_and_failed(TaskGroup: Any) -> None:
    """A producer that fails before it makes its task takes nobody else's turn with it. [W3]"""

    async def first() -> None:
        await tg.wait_for_slot()
        raise KeyError

    async with full_group(TaskGroup) as (tg, gates):
        waiters = [asyncio.ensure_future(wait()) for wait in (first, tg.wait_for_slot)]
        await settle()
        gates.end()
        await waiters[1]
        assert type(waiters[0].exception()) is KeyError


async def test_cancelled_while_waiting(TaskGroup: Any) -> None:
    """A cancelled waiter leaves at once with the caller's message, wherever it is; the others keep their place. [W6]"""
    order: list[int] = []

    async def produce(number: int) -> None:
        await tg.wait_for_slot()
        order.append(number)
        tg.create_task(gates.job())

    async with full_group(TaskGroup) as (tg, gates):
        producers = [asyncio.ensure_future(produce(number)) for number in range(6)]
        await settle()
        for number in (0, 3, 5):
            producers[number].cancel("enough")
        for number in (0, 3, 5):
            with pytest.raises(asyncio.CancelledError) as caught:
                await producers[number]
            assert caught.value.args == ("enough",)
        for _ in range(3):
            gates.end()
            await settle()
        assert order == [1, 2, 4]


@pytest.mark.loops("asyncio", "uvloop", "eager")
async def test_cancelled_waiters_leave_no_trace(TaskGroup: Any) -> None:
    """Nothing of them is kept, and nothing of a waiter that is closed by hand. [W6]"""

    def count() -> int:
        gc.collect()
        return len(gc.get_objects())

    async with full_group(TaskGroup) as (tg, gates):
        before = count()
        waiters = [asyncio.ensure_future(tg.wait_for_slot()) for _ in range(1000)]
        await settle(3)
        for waiter in waiters:
            waiter.cancel()
        await settle(3)
        assert all(waiter.cancelled() for waiter in waiters)
        del waiter, waiters
        for _ in range(1000):
            assert not returns_at_once(tg.wait_for_slot())
        assert count() < before + 100
        gates.end()
        await tg.wait_for_slot()


async def test_timeout(TaskGroup: Any) -> None:
    """A timeout gets out, and the next call waits anew."""
    async with full_group(TaskGroup) as (tg, gates):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await tg.wait_for_slot()
        gates.end()
        await tg.wait_for_slot()


async def test_waiters_do_not_count(TaskGroup: Any) -> None:
    """They hold no slot, and neither statistics() nor repr() show them. [W7]"""
    async with full_group(TaskGroup) as (tg, gates):
        before = tg.statistics(), repr(tg)
        waiters = [asyncio.ensure_future(tg.wait_for_slot()) for _ in range(3)]
        await settle()
        assert (tg.statistics(), repr(tg)) == before
        gates.end()
        await asyncio.gather(*waiters)
        assert tg.statistics()[:2] == (0, 0)


async def test_member_that_waits_holds_its_slot(TaskGroup: Any) -> None:
    """A foreground task that waits has a slot itself, and waits for another."""
    async with TaskGroup(concurrency_limit=2) as tg:
        gates = Gates(tg)
        await gates.start(1)
        member = tg.create_task(tg.wait_for_slot)
        await settle()
        assert not member.done() and tg.statistics().running == 2
        gates.end()
        await settle()
        assert member.done()


async def test_member_at_a_limit_of_one(TaskGroup: Any) -> None:
    """With a limit of 1 it waits for ever, as one that awaits a queued sibling does; a timeout still gets out. [W8]"""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as scope:
            async with TaskGroup(concurrency_limit=1) as tg:
                member = tg.create_task(settle_and_wait(tg))
                await settle()
                scope.reschedule(asyncio.get_running_loop().time() - 1)
    assert member.cancelled() and member.cancelling() == 1


async def settle_and_wait(tg: Any) -> None:
    await asyncio.sleep(0)
    await tg.wait_for_slot()


# ---- the end of the group


async def abort_by_child(tg: Any) -> None:
    tg.create_background_task(fail(ValueError()))


async def abort_by_cancel(tg: Any) -> None:
    tg.cancel()


@pytest.mark.parametrize("abort", [abort_by_child, abort_by_cancel])
async def test_abort_and_the_body(TaskGroup: Any, abort: Callable[[Any], Awaitable[None]]) -> None:
    """The body that waits sees the group's CancelledError. [W4]"""
    seen: list[type] = []

    async def trigger() -> None:
        await settle(3)
        await abort(tg)

    with pytest.raises(ExceptionGroup) if abort is abort_by_child else contextlib.nullcontext():
        async with TaskGroup(concurrency_limit=1) as tg:
            tg.create_task(forever())
            trigger_task = asyncio.ensure_future(trigger())
            try:
                await tg.wait_for_slot()
            except BaseException as error:
                seen.append(type(error))
                raise
    await trigger_task
    assert seen == [asyncio.CancelledError] and asyncio.current_task().cancelling() == 0


@pytest.mark.parametrize("abort", [abort_by_child, abort_by_cancel])
@pytest.mark.parametrize("background", [False, True])
async def test_abort_and_a_member(TaskGroup: Any, abort: Callable[[Any], Awaitable[None]], background: bool) -> None:
    """A task of the group that waits is cancelled, once, as the others are. [W4]"""
    with pytest.raises(ExceptionGroup) if abort is abort_by_child else contextlib.nullcontext():
        async with TaskGroup(concurrency_limit=1 if background else 2) as tg:
            tg.create_task(forever())
            member = (tg.create_background_task if background else tg.create_task)(settle_and_wait(tg))
            await settle()
            await abort(tg)
            await forever()
    assert member.cancelled() and member.cancelling() == 1


@pytest.mark.parametrize("abort", [abort_by_child, abort_by_cancel])
async def test_abort_and_a_stranger(TaskGroup: Any, abort: Callable[[Any], Awaitable[None]]) -> None:
    """A task that is no member gets the RuntimeError that create_task() raises then, and is not cancelled. [W4]"""
    with pytest.raises(ExceptionGroup) if abort is abort_by_child else contextlib.nullcontext():
        async with TaskGroup(concurrency_limit=1) as tg:
            tg.create_task(forever())
            stranger = asyncio.ensure_future(tg.wait_for_slot())
            await settle(3)
            await abort(tg)
            await forever()
    with pytest.raises(RuntimeError, match=r"^TaskGroup <TaskGroup tasks=\d.* cancelling> is shutting down"):
        await stranger
    assert stranger.cancelling() == 0


async def test_stranger_is_told_at_once(TaskGroup: Any) -> None:
    """Also if the group's tasks take their time to stop."""
    release = asyncio.Event()

    async def slow() -> None:
        try:
            await forever()
        finally:
            await release.wait()

    async with TaskGroup(concurrency_limit=1) as tg:
        task = tg.create_task(slow())
        stranger = asyncio.ensure_future(tg.wait_for_slot())
        await settle()
        tg.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await settle()
        await settle()
        told = stranger.done(), task.done()
        release.set()
    assert told == (True, False) and "is shutting down" in str(stranger.exception())


async def test_outside_cancel(TaskGroup: Any) -> None:
    """A parent that is cancelled while the body waits passes the cancel on; strangers get the RuntimeError."""
    strangers: list[asyncio.Task[None]] = []

    async def parent() -> None:
        async with TaskGroup(concurrency_limit=1) as tg:
            tg.create_task(forever())
            strangers.append(asyncio.ensure_future(tg.wait_for_slot()))
            await tg.wait_for_slot()

    task = asyncio.ensure_future(parent())
    await settle()
    task.cancel("why")
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert caught.value.args == ("why",)
    with pytest.raises(RuntimeError, match="is shutting down"):
        await strangers[0]


async def test_call_while_the_group_shuts_down(TaskGroup: Any) -> None:
    """Whoever asks after the abort, member, body or stranger, gets the RuntimeError at once."""
    seen: list[str] = []

    async def ask() -> None:
        with pytest.raises(RuntimeError) as caught:
            await tg.wait_for_slot()
        seen.append(str(caught.value).split("> ")[-1])

    async def member() -> None:
        try:
            await forever()
        finally:
            await ask()

    async with TaskGroup(concurrency_limit=1) as tg:
        tg.create_task(member())
        tg.create_background_task(member())
        await settle(3)
        tg.cancel()
        try:
            await forever()
        finally:
            await asyncio.ensure_future(ask())
            await ask()
    assert seen == ["is shutting down"] * 4


async def test_clean_up_that_waits(TaskGroup: Any) -> None:
    """A background task that somebody cancelled, and that waits in its clean-up, is not cancelled again on an abort:
    it gets the RuntimeError."""
    seen: list[str] = []

    async def background() -> None:
        try:
            await forever()
        finally:
            with pytest.raises(RuntimeError) as caught:
                await tg.wait_for_slot()
            seen.append(str(caught.value).split("> ")[-1])

    async with TaskGroup(concurrency_limit=1) as tg:
        tg.create_task(forever())
        task = tg.create_background_task(background())
        await settle(3)
        task.cancel()
        await settle(3)
        tg.cancel()
    assert seen == ["is shutting down"] and task.cancelled() and task.cancelling() == 1


async def test_clean_up_while_background_tasks_are_stopped(TaskGroup: Any) -> None:
    """As create_task() still works then, so does this."""
    log = Log()

    async def background() -> None:
        try:
            await forever()
        finally:
            for number in range(3):
                await tg.wait_for_slot()
                tg.create_task(log.job(number, 2))

    async with TaskGroup(concurrency_limit=1) as tg:
        tg.create_background_task(background())
        await settle(3)
    assert log.started == [0, 1, 2]


@pytest.mark.parametrize("queued", [False, True])
async def test_stranger_does_not_keep_the_group_open(TaskGroup: Any, queued: bool) -> None:
    """The group is left when its tasks have ended: a stranger woken by the last of them gets its own task in before
    that, or is told that the group is finished. [W7]"""
    ended: list[str] = []

    async def stranger() -> None:
        try:
            await tg.wait_for_slot()
            tg.create_task(late())
        except RuntimeError as error:
            assert str(error).endswith("is finished")
            ended.append("refused")

    async def late() -> None:
        await settle(3)
        ended.append("late")

    async with TaskGroup(concurrency_limit=1) as tg:
        tg.create_task(settle(5))
        if queued:
            tg.create_task(settle(5))
        other = asyncio.ensure_future(stranger())
        await settle(2)
    ended.append("left")
    await other
    assert sorted(ended) in (["late", "left"], ["left", "refused"])
    assert ended != ["left", "late"]


async def test_before_the_entry_and_after_the_exit(TaskGroup: Any) -> None:
    """The RuntimeErrors of create_task(), when it is awaited; limit or not. [W5]"""
    for limit in (None, 1):
        tg = TaskGroup(concurrency_limit=limit)
        waiting = tg.wait_for_slot()
        with pytest.raises(RuntimeError, match=r"^TaskGroup <TaskGroup> has not been entered"):
            await waiting
        async with tg:
            pass
        with pytest.raises(RuntimeError, match=r"^TaskGroup <TaskGroup entered> is finished"):
            await tg.wait_for_slot()


async def test_refusals_say_what_to_do() -> None:
    """They have a note, as those of create_task() have."""
    tg = quattro.TaskGroup()
    with pytest.raises(RuntimeError) as caught:
        await tg.wait_for_slot()
    assert "async with" in " ".join(caught.value.__notes__)


async def test_exit_that_is_broken_off(TaskGroup: Any) -> None:
    """Waiters are not forgotten when the exit itself is closed while it waits: they go on, or are told."""
    tg = TaskGroup(concurrency_limit=1)
    await tg.__aenter__()
    task = tg.create_task(settle(5))
    stranger = asyncio.ensure_future(tg.wait_for_slot())
    await settle(2)
    leaving = tg.__aexit__(None, None, None)
    leaving.send(None)
    leaving.close()
    await task
    await settle()
    assert stranger.done()
    with contextlib.suppress(RuntimeError):
        stranger.result()


async def test_failure_that_cancels_nothing(TaskGroup: Any) -> None:
    """With cancel_on_error=False a failed task's slot wakes who waits, as any other's does."""
    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup(concurrency_limit=1, cancel_on_error=False) as tg:
            for number in range(5):
                await tg.wait_for_slot()
                tg.create_task(fail(ValueError(number), number % 2))
                assert tg.statistics().queued == 0
    assert [error.args[0] for error in caught.value.exceptions] == [0, 1, 2, 3, 4]


# ---- as an async def


def test_is_a_coroutine_function(TaskGroup: Any) -> None:
    """inspect, and so unittest.mock and others, take it for the async def that it is to its users. [T6]"""
    assert inspect.iscoroutinefunction(TaskGroup.wait_for_slot)
    assert inspect.iscoroutinefunction(TaskGroup().wait_for_slot)


async def test_wherever_a_coroutine_goes(TaskGroup: Any) -> None:
    """It can be made a task, be waited for with a timeout, and be gathered."""
    async with full_group(TaskGroup) as (tg, gates):
        waiting = tg.wait_for_slot()
        assert inspect.isawaitable(waiting) and asyncio.iscoroutine(waiting)
        waiting.close()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(tg.wait_for_slot(), 0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(tg.wait_for_slot(), 1e-6)
        task = asyncio.get_running_loop().create_task(tg.wait_for_slot(), name="waiter")
        background = tg.create_background_task(tg.wait_for_slot)
        gates.end()
        await asyncio.gather(task, background, tg.wait_for_slot())


async def test_never_awaited(TaskGroup: Any) -> None:
    """Who forgets the await is warned, as with any coroutine. [T6]"""
    async with TaskGroup(concurrency_limit=1) as tg:
        with pytest.warns(RuntimeWarning, match=r"TaskGroup\.wait_for_slot' was never awaited"):
            tg.wait_for_slot()
            gc.collect()


async def test_awaited_twice(TaskGroup: Any) -> None:
    """It is awaited once, as any coroutine."""
    async with TaskGroup(concurrency_limit=1) as tg:
        waiting = tg.wait_for_slot()
        await waiting
        with pytest.raises(RuntimeError, match="cannot reuse already awaited"):
            await waiting


async def test_awaited_by_two(TaskGroup: Any) -> None:
    """The second to await it, while the first waits, gets a RuntimeError, as with any coroutine."""

    async def wait(awaitable: Any) -> None:
        await awaitable

    async with full_group(TaskGroup) as (tg, gates):
        waiting = tg.wait_for_slot()
        tasks = [asyncio.ensure_future(wait(waiting)) for _ in range(2)]
        await settle(2)
        with pytest.raises(RuntimeError, match="being awaited already"):
            await tasks[1]
        gates.end()
        await tasks[0]


def test_arguments(TaskGroup: Any) -> None:
    """It takes none."""
    with pytest.raises(TypeError):
        TaskGroup().wait_for_slot(1)
    with pytest.raises(TypeError):
        TaskGroup().wait_for_slot(limit=1)


async def test_error_thrown_in(TaskGroup: Any) -> None:
    """What is thrown into a waiter comes out of it, and leaves no trace."""
    async with full_group(TaskGroup) as (tg, gates):
        iterator = tg.wait_for_slot().__await__()
        assert asyncio.isfuture(next(iterator))
        with pytest.raises(KeyError):
            iterator.throw(KeyError())
        gates.end()
        await tg.wait_for_slot()


@pytest.mark.usefixtures("collected")
async def test_no_reference_cycle(TaskGroup: Any) -> None:
    """Neither who waited nor who was told that the group shuts down is left to the collector."""

    async def stranger(tg: Any) -> None:
        with contextlib.suppress(RuntimeError):
            await tg.wait_for_slot()

    async def main() -> None:
        async with TaskGroup(concurrency_limit=1) as tg:
            tg.create_task(settle(1))
            await tg.wait_for_slot()
            tg.create_task(forever())
            task = asyncio.ensure_future(stranger(tg))
            await settle(3)
            tg.cancel()
        await task

    gc.collect()
    await asyncio.ensure_future(main())
    assert gc.collect() == 0
