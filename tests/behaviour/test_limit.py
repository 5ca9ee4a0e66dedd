"""The concurrency limit: rules L of docs/behaviour.md."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import itertools
import sys
import weakref
from typing import Any

import pytest
from helpers import Log, fail, forever, noop, settle

from quattro import TaskGroup

EAGER_START = pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio.Task starts eagerly from 3.12 on")


class Index:
    """An integer that is none."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


def test_limits_that_are_taken() -> None:
    """None, or anything with __index__ from 1 on; a huge one clamps. [L1]"""
    assert TaskGroup(concurrency_limit=None).concurrency_limit is None
    assert TaskGroup(concurrency_limit=1).concurrency_limit == 1
    assert TaskGroup(concurrency_limit=Index(7)).concurrency_limit == 7
    assert TaskGroup(concurrency_limit=True).concurrency_limit == 1
    assert TaskGroup(concurrency_limit=10**30).concurrency_limit == sys.maxsize


@pytest.mark.parametrize("limit", [0, -1, -(10**30), Index(0), False])
def test_limits_below_one(limit: Any) -> None:
    """Less than 1 is a ValueError, with a note that says how to have none. [L1]"""
    with pytest.raises(ValueError, match=r"^concurrency_limit must be >= 1\nNone means no limit\.$"):
        TaskGroup(concurrency_limit=limit)


@pytest.mark.parametrize("limit", [1.5, float("nan"), float("inf"), "3", b"3", [], object()])
def test_limits_of_another_type(limit: Any) -> None:
    """A float, a str: a TypeError that names the type. [L1]"""
    with pytest.raises(TypeError, match=type(limit).__name__):
        TaskGroup(concurrency_limit=limit)


def test_limit_whose_index_raises() -> None:
    """The error of __index__ goes on."""

    class Broken:
        def __index__(self) -> int:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        TaskGroup(concurrency_limit=Broken())


def test_limit_is_read_only_and_keyword_only() -> None:
    """TaskGroup(10) is a TypeError that says how to write it, other names are refused, and the limit stays. [L2, X3]"""
    with pytest.raises(TypeError, match="concurrency_limit="):
        TaskGroup(10)  # type: ignore[misc,call-arg,unused-ignore]
    with pytest.raises(TypeError, match="'limit'"):
        TaskGroup(concurrency_limit=3, limit=10)  # type: ignore[call-arg,unused-ignore]
    with pytest.raises(AttributeError):
        TaskGroup().concurrency_limit = 3  # type: ignore[misc]


@pytest.mark.parametrize("limit", [1, 2, 3, 10, 100])
async def test_order_and_bound(limit: int) -> None:
    """First in, first out, by order of create_task(); the limit is never exceeded, and always used up. [L3, L4]"""
    log = Log()
    async with TaskGroup(concurrency_limit=limit) as tg:
        tasks = [tg.create_task(log.job(i, i % 5)) for i in range(50)]
    assert log.started == list(range(50))
    assert log.peak <= limit and log.peak >= min(limit, 2)
    assert [task.result() for task in tasks] == list(range(50))


async def test_never_fewer_while_something_is_queued() -> None:
    """Between the passes of the loop, all slots are taken while anything is queued. [L5]"""
    gates = [asyncio.Event() for _ in range(12)]
    log = Log()

    async def job(i: int) -> None:
        log.events.append(("start", i))
        await gates[i].wait()

    async with TaskGroup(concurrency_limit=3) as tg:
        for i in range(12):
            tg.create_task(job(i))
        for i in (2, 0, 1, 5, 4, 3, 8, 7, 6, 11, 10, 9):
            await settle()
            statistics = tg.statistics()
            assert statistics.running == min(3, 12 - sum(gate.is_set() for gate in gates))
            assert statistics.queued == max(0, 9 - sum(gate.is_set() for gate in gates))
            gates[i].set()
    assert log.started == list(range(12))


async def test_hand_over_takes_one_pass() -> None:
    """The head of the queue takes its first step in the pass after the one in which the slot came free. [L9]"""
    passes = 0
    at: list[int] = []

    async def count() -> None:
        nonlocal passes
        while True:
            await asyncio.sleep(0)
            passes += 1

    async def job() -> None:
        at.append(passes)
        await asyncio.sleep(0)
        at.append(passes)

    async with TaskGroup(concurrency_limit=1) as tg:
        tg.create_background_task(count)
        await settle(3)
        for _ in range(6):
            tg.create_task(job())
    steps = [after - before for before, after in itertools.pairwise(at)]
    assert max(steps) == 1, at


async def test_create_task_returns_a_task_at_once() -> None:
    """A queued task is a real asyncio.Task with its name, under the name of the caller's coroutine. [L6]"""
    async with TaskGroup(concurrency_limit=1) as tg:
        tg.create_task(asyncio.sleep(0))
        task = tg.create_task(noop(), name="mine")
        other = tg.create_task(noop)
        assert type(task) is asyncio.Task and task.get_name() == "mine" and not task.done()
        coro: Any = task.get_coro()
        assert (coro.__name__, coro.__qualname__) == ("noop", "noop")
        assert "noop" in repr(task) and "noop" in repr(other)
    assert task.result() == 1


async def test_context_is_fixed_at_the_call() -> None:
    """A queued task sees the context variables as they were at create_task(), or the context that it was given. [L6]"""
    variable = contextvars.ContextVar("variable", default=0)
    seen: list[int] = []

    async def job() -> None:
        seen.append(variable.get())
        variable.set(-1)

    given = contextvars.copy_context()
    given.run(variable.set, 77)
    async with TaskGroup(concurrency_limit=1) as tg:
        tg.create_task(settle(3))
        for i in range(3):
            variable.set(i)
            tg.create_task(job())
        tg.create_task(job(), context=given)
        variable.set(99)
    assert seen == [0, 1, 2, 77] and variable.get() == 99 and given[variable] == -1


@pytest.mark.loops("asyncio", "debug", "factory", "uvloop")  # an eager task refuses, in any group
@pytest.mark.parametrize("limit", [None, 1])
async def test_tasks_that_share_the_context_of_the_body(limit: int | None) -> None:
    """Tasks may be given the context that the body runs in; queued ones, too, see what the others set in it."""
    context, variable = contextvars.copy_context(), contextvars.ContextVar("variable", default=0)

    async def child() -> int:
        variable.set(variable.get() + 1)
        await asyncio.sleep(0)
        return variable.get()

    async def body() -> None:
        task = asyncio.current_task()
        async with TaskGroup(concurrency_limit=limit) as tg:
            tasks = [tg.create_task(child(), context=context) for _ in range(3)]
            assert asyncio.current_task() is task
        assert [task.result() for task in tasks] == ([3, 3, 3] if limit is None else [1, 2, 3])
        assert variable.get() == 3

    await asyncio.get_running_loop().create_task(body(), context=context)


async def test_cancel_in_the_queue() -> None:
    """A cancelled queued task leaves at once with the caller's message, runs no line, and takes no slot. [L7]"""
    log = Log()
    release = asyncio.Event()
    coros = [log.job(i) for i in range(4)]

    async def first() -> None:
        await release.wait()

    async with TaskGroup(concurrency_limit=1) as tg:
        tg.create_task(first())
        tasks = [tg.create_task(coro) for coro in coros]
        await settle()
        assert tasks[1].cancel("not needed")
        assert tg.statistics()[:2] == (1, 3)
        assert coros[1].cr_frame is None  # closed
        await settle()
        assert tasks[1].cancelled()
        assert tg._tasks == {*tg._tasks} - {tasks[1]}
        release.set()
    assert log.started == [0, 2, 3]
    with pytest.raises(asyncio.CancelledError) as caught:
        tasks[1].result()
    assert caught.value.args == ("not needed",)
    assert tasks[1].cancelling() == 1


async def test_cancel_in_the_queue_before_the_first_pass() -> None:
    """The same when the loop has not passed yet: no line is run, and the siblings go on."""
    log = Log()
    async with TaskGroup(concurrency_limit=1) as tg:
        tasks = [tg.create_task(log.job(i, 3)) for i in range(6)]
        for i in (1, 3, 5):
            tasks[i].cancel()
    assert log.started == [0, 2, 4]
    assert [task.cancelled() for task in tasks] == [False, True] * 3


async def test_cancelled_between_grant_and_first_step() -> None:
    """A slot that was granted to a task which is cancelled before it moves goes to the next one. [L7]"""
    log = Log()
    release = asyncio.Event()
    tasks: list[asyncio.Task[Any]] = []
    counts: list[Any] = []

    async def first() -> None:
        await release.wait()

    async def second() -> None:
        log.events.append(("start", "second"))
        # The slot of this one is granted when it ends, to tasks[2]; the callback runs before that moves.
        asyncio.get_running_loop().call_soon(cancel_third)

    def cancel_third() -> None:
        counts.append(tg.statistics()[:2])
        tasks[2].cancel()
        counts.append(tg.statistics()[:2])

    async with TaskGroup(concurrency_limit=1) as tg:
        tasks += [tg.create_task(first()), tg.create_task(second()), tg.create_task(log.job("third"))]
        tasks += [tg.create_task(log.job("fourth"))]
        await settle()
        release.set()
    assert log.started == ["second", "fourth"]
    assert tasks[3].result() == "fourth" and tasks[2].cancelled()
    assert counts == [(1, 1), (1, 0)]  # granted to the third; then at once to the fourth


async def test_cancelled_before_it_was_in_its_place() -> None:
    """A slot is not lent to a queued task that was cancelled before its first step, not even for a pass of the loop."""
    log = Log()
    release = asyncio.Event()
    counts: list[Any] = []

    async def first() -> None:
        await release.wait()
        asyncio.get_running_loop().call_soon(lambda: counts.append(tg.statistics()[:2]))

    async with TaskGroup(concurrency_limit=1) as tg:
        tg.create_task(settle(1))
        tg.create_task(first())
        await settle()
        release.set()
        tasks = [tg.create_task(log.job("second")), tg.create_task(log.job("third"))]
        tasks[0].cancel()
    assert tasks[0].cancelled() and log.started == ["third"]
    assert counts == [(1, 0)]


async def test_slot_is_held_while_a_cancel_is_handled() -> None:
    """A cancelled task gives its slot back when its coroutine has ended, not before. [L8]"""
    log = Log()
    entered = asyncio.Event()
    release = asyncio.Event()

    async def stubborn() -> None:
        try:
            await forever()
        finally:
            entered.set()
            await release.wait()

    async with TaskGroup(concurrency_limit=1) as tg:
        task = tg.create_task(stubborn())
        tg.create_task(log.job("next"))
        await settle()
        task.cancel()
        await entered.wait()
        await settle()
        assert log.started == [] and tg.statistics()[:2] == (1, 1)
        release.set()
    assert log.started == ["next"]


async def test_failure_passes_nothing_on() -> None:
    """A task that failed aborts the group before the head of the queue runs a line. [L11]"""
    log = Log()
    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup(concurrency_limit=2) as tg:
            tg.create_task(fail(ValueError(), 5))
            tg.create_task(forever())
            tasks = [tg.create_task(log.job(i)) for i in range(5)]
    assert log.events == [] and len(caught.value.exceptions) == 1
    assert all(task.cancelled() and task.cancelling() == 1 for task in tasks)


async def test_failure_of_a_task_that_was_queued() -> None:
    """The same when the one that fails had queued itself."""
    log = Log()
    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup(concurrency_limit=1) as tg:
            tg.create_task(noop())
            tg.create_task(fail(ValueError(), 2))
            for i in range(5):
                tg.create_task(log.job(i))
    assert log.events == [] and len(caught.value.exceptions) == 1


async def test_failure_goes_on_where_abort_is_overridden() -> None:
    """Where a subclass keeps the group from aborting, a task that failed passes its slot on. [L11]"""

    class Tolerant(TaskGroup):
        def _abort(self) -> None:
            pass

    log = Log()
    with pytest.raises(ExceptionGroup) as caught:
        async with Tolerant(concurrency_limit=1) as tg:
            tg.create_task(fail(ValueError(1)))
            tg.create_task(fail(ValueError(2)))
            tg.create_task(log.job("last"))
    assert log.started == ["last"] and len(caught.value.exceptions) == 2


async def test_newcomer_does_not_overtake() -> None:
    """A task created when a slot is free waits for those who were granted theirs and have not moved yet. [L3]"""
    log = Log()
    kwargs = {"eager_start": True} if sys.version_info >= (3, 14) else {}

    async def last_words(tg: TaskGroup) -> None:
        await asyncio.sleep(0)
        asyncio.current_task().add_done_callback(lambda _: tg.create_task(log.job("newcomer", 1), **kwargs))

    async with TaskGroup(concurrency_limit=2) as tg:
        tg.create_task(last_words(tg))
        tg.create_task(log.job("b", 1))
        for i in range(3):
            tg.create_task(log.job(i, 1))
    assert log.started == ["b", 0, 1, 2, "newcomer"]
    assert log.peak <= 2


@EAGER_START
@pytest.mark.loops("asyncio")
async def test_eager_newcomer_does_not_overtake_the_granted() -> None:
    """With a slot free and nobody queued, an eager newcomer waits for who was granted a slot and has not moved. [L3]"""
    loop = asyncio.get_running_loop()
    order: list[str] = []
    ends: dict[str, asyncio.Future[None]] = {}

    async def job(name: str) -> None:
        order.append(name)
        ends[name] = loop.create_future()
        await ends[name]

    def newcomer() -> None:
        order.append(f"running {tg.statistics().running}")
        tg.create_task(job("E"), eager_start=True)

    async with TaskGroup(concurrency_limit=2) as tg:
        for name in "ABDF":
            tg.create_task(job(name))
        await settle()
        for name in "AB":
            ends[name].set_result(None)
        await settle()  # D and F run, which both had queued
        tg.create_task(job("C"))
        for name in "DF":
            ends[name].set_result(None)
        loop.call_soon(newcomer)  # runs after the last steps of D and F, in the same pass: C is granted, a slot is free
        await settle()
        for end in ends.values():
            if not end.done():
                end.set_result(None)
    assert order == ["A", "B", "D", "F", "running 1", "C", "E"]


async def test_lazy_newcomer_and_the_head_of_the_queue() -> None:
    """A task that got a slot without queueing starts before one that was created after it and queued."""
    log = Log()
    async with TaskGroup(concurrency_limit=2) as tg:

        async def ends() -> None:
            # When this task is done and its callback has yet to run, "direct" takes the free slot, "queued" queues.
            asyncio.get_running_loop().call_soon(create)

        def create() -> None:
            tg.create_task(log.job("direct", 3))
            tg.create_task(log.job("queued", 3))

        tg.create_task(ends())
        await settle()
    assert log.started == ["direct", "queued"]


async def test_ten_thousand_aborted() -> None:
    """Ten thousand queued tasks end with the abort, and none of them runs a line. [L10]"""
    log = Log()
    with pytest.raises(ExceptionGroup):
        async with TaskGroup(concurrency_limit=1) as tg:
            tg.create_task(fail(ValueError(), 3))
            tasks = [tg.create_task(log.job(i)) for i in range(10_000)]
    assert log.events == [] and all(task.cancelled() for task in tasks)


async def test_queued_callables_hold_no_coroutine() -> None:
    """A queue of callables holds no coroutines: each is called when its task starts. [L13]"""
    alive = 0
    peak = 0

    async def job() -> None:
        nonlocal alive
        await asyncio.sleep(0)
        alive -= 1

    def make() -> Any:
        nonlocal alive, peak
        alive += 1
        peak = max(peak, alive)
        return job()

    async with TaskGroup(concurrency_limit=2) as tg:
        for _ in range(20):
            tg.create_task(make)
    assert peak <= 2


async def test_callable_that_fails_in_the_queue() -> None:
    """What a queued callable raises, or returns instead of a coroutine, is its task's error."""
    for broken, kind in ((lambda: 1 / 0, ZeroDivisionError), (lambda: 42, TypeError)):
        with pytest.raises(ExceptionGroup) as caught:
            async with TaskGroup(concurrency_limit=1) as tg:
                tg.create_task(noop())
                task = tg.create_task(broken)  # type: ignore[arg-type]
                never = tg.create_task(noop)
        assert type(task.exception()) is kind and caught.value.exceptions == (task.exception(),)
        assert never.cancelled()


async def test_callable_that_raises_cancelled_error_in_the_queue() -> None:
    """A queued callable that raises CancelledError cancels its task alone. [G5]"""

    def cancelled() -> Any:
        raise asyncio.CancelledError("by itself")

    async with TaskGroup(concurrency_limit=1) as tg:
        tg.create_task(noop())
        task = tg.create_task(cancelled)
        last = tg.create_task(noop)
    assert task.cancelled() and last.result() == 1


async def test_child_awaiting_a_sibling_deadlocks_but_a_timeout_gets_out() -> None:
    """A child that awaits a queued sibling can't go on; a timeout around the group ends it. [L14]"""

    async def parent(tg: TaskGroup) -> None:
        await tg.create_task(noop())

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            async with TaskGroup(concurrency_limit=1) as tg:
                tg.create_task(parent(tg))


async def test_slot_of_a_task_cancelled_before_its_first_step() -> None:
    """A task that has a slot and is cancelled before it moves gives it back."""
    log = Log()
    async with TaskGroup(concurrency_limit=1) as tg:
        task = tg.create_task(log.job("first"))
        tg.create_task(log.job("second"))
        if not task.done():
            task.cancel()
    assert log.started[-1] == "second"


async def test_done_callbacks_run_before_the_parent_goes_on() -> None:
    """A task's own done callbacks have run when the group's exit returns, also those of tasks that queued. [G10]"""
    seen: list[int] = []
    async with TaskGroup(concurrency_limit=1) as tg:
        for i in range(5):
            tg.create_task(noop()).add_done_callback(lambda _, i=i: seen.append(i))  # type: ignore[misc]
    assert seen == [0, 1, 2, 3, 4]


@EAGER_START
@pytest.mark.loops("asyncio", "debug", "eager")
async def test_eager_tasks_pass_a_limit_of_one_in_one_pass() -> None:
    """A thousand eager tasks that finish at once pass limit 1 within create_task(). [L12]"""
    kwargs = {"eager_start": True}
    if asyncio.get_running_loop().get_task_factory() is not None and sys.version_info < (3, 14):
        kwargs = {}  # the factory is eager by itself, and the loop refuses the keyword
    log = Log()
    async with TaskGroup(concurrency_limit=1) as tg:
        tasks = [tg.create_task(log.job(i, 0), **kwargs) for i in range(1000)]  # type: ignore[arg-type]
        assert all(task.done() for task in tasks)
        assert tg.statistics()[:2] == (0, 0)
        first = tg.create_task(log.job("first", 1), **kwargs)  # type: ignore[arg-type]
        second = tg.create_task(log.job("second", 0), **kwargs)  # type: ignore[arg-type]
        assert log.started[-1] == "first" and not second.done() and not first.done()
        assert tg.statistics()[:2] == (1, 1)
    assert log.peak == 1 and second.done()


@EAGER_START
@pytest.mark.loops("eager")
async def test_eager_children_nested_in_create_task() -> None:
    """An eager task that creates others while it runs holds its slot meanwhile. [L12]"""
    log = Log()

    async def parent(tg: TaskGroup) -> None:
        log.events.append(("start", "parent"))
        for i in range(3):
            tg.create_task(log.job(i, 0))
        assert tg.statistics()[:2] == (1, 3)

    async with TaskGroup(concurrency_limit=1) as tg:
        tg.create_task(parent(tg))
    assert log.started == ["parent", 0, 1, 2] and log.peak == 1


@EAGER_START
@pytest.mark.loops("eager")
async def test_eager_failure_keeps_its_slot_until_the_abort() -> None:
    """An eager task that fails at once lets nobody start in its place."""
    log = Log()
    with pytest.raises(ExceptionGroup):
        async with TaskGroup(concurrency_limit=1) as tg:
            tg.create_task(fail(ValueError()))
            tg.create_task(log.job("never"))
    assert log.events == []


@pytest.mark.loops("asyncio", "debug", "factory")
async def test_loop_that_refuses_to_schedule() -> None:
    """When call_soon() raises where a slot is handed over, that error is the task's, and the group still ends."""
    loop: Any = asyncio.get_running_loop()
    log = Log()

    def call_soon(callback: Any, *args: Any, **kwargs: Any) -> Any:
        if getattr(callback, "__name__", "") == "_start":
            del loop.call_soon
            raise LookupError("not now")
        return original(callback, *args, **kwargs)

    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup(concurrency_limit=1) as tg:
            for i in range(3):
                tg.create_task(log.job(i))
            original, loop.call_soon = loop.call_soon, call_soon
    assert log.started == [0, 1]
    assert [type(error) for error in caught.value.exceptions] == [LookupError]


async def test_dropped_group_closes_what_is_queued() -> None:
    """A group that is dropped while tasks are queued leaves no coroutine unclosed."""
    group = TaskGroup(concurrency_limit=1)
    await group.__aenter__()
    coros = [forever() for _ in range(3)]
    tasks = [group.create_task(coro) for coro in coros]
    await settle()
    ref = weakref.ref(group)
    for task in tasks:
        task.cancel()
    await settle()
    assert all(coro.cr_frame is None for coro in coros)
    del group, task, tasks, coros
    gc.collect()
    assert ref() is None


async def test_nested_groups_with_limits() -> None:
    """Groups inside tasks of a limited group have limits of their own."""
    log = Log()

    async def inner(name: str) -> None:
        async with TaskGroup(concurrency_limit=2) as tg:
            for i in range(4):
                tg.create_task(log.job((name, i), 2))

    async with TaskGroup(concurrency_limit=2) as tg:
        for name in "abc":
            tg.create_task(inner(name))
    assert len(log.started) == 12 and log.peak <= 4
