"""KeyboardInterrupt, or any error, that arrives while the C asks a loop or a task gets out, and nothing is lost."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest
from helpers import Idle, Selector, fail, forever, noop, settle

from quattro import TaskGroup


def run(loop: Any, main: Any) -> list[BaseException]:
    """Run to the end, whatever comes out of the loop meanwhile, which is returned; Idle if it can't come to an end."""
    out: list[BaseException] = []
    task = loop.create_task(main)
    try:
        while not task.done():
            try:
                loop.run_until_complete(task)
            except KeyboardInterrupt as error:
                out.append(error)
    finally:
        loop.close()
    return out


@pytest.mark.parametrize("when", range(1, 13))
def test_a_debug_loop_that_is_interrupted_as_it_is_asked_for_the_time(when: int) -> None:
    """The step that is being timed is taken all the same, and the interrupt gets out of the loop."""

    class Loop(asyncio.SelectorEventLoop):
        asked = 0

        def time(self) -> float:
            if sys._getframe(1).f_code.co_name == "_run":  # by a callback in C
                self.asked += 1
                if self.asked == when:
                    raise KeyboardInterrupt
            return super().time()

    async def main() -> None:
        async with TaskGroup(concurrency_limit=1) as tg:
            tasks.extend(tg.create_task(noop()) for _ in range(8))

    tasks: list[Any] = []
    loop = Loop(Selector())
    loop.set_debug(True)
    out = run(loop, main())
    assert [type(error) for error in out] == [KeyboardInterrupt]
    assert [task.result() for task in tasks] == [1] * 8


def test_a_task_that_is_cancelled_as_the_loop_refuses_to_schedule() -> None:
    """A turn that is cancelled between grant and start is told, though the loop could not start the next one."""

    class Refusal(Exception):
        pass

    def refuse(*args: Any, **kwargs: Any) -> Any:
        del loop.call_soon
        raise Refusal

    async def cancels() -> None:
        loop.call_soon = refuse
        with pytest.raises(Refusal):
            victim.cancel()

    async def main() -> None:
        nonlocal victim
        async with TaskGroup(concurrency_limit=2) as tg:
            for _ in range(3):
                tg.create_task(noop())
            tg.create_task(cancels())
            victim = tg.create_task(forever())
            last.append(tg.create_task(noop()))

    victim: Any = None
    last: list[Any] = []
    loop: Any = asyncio.SelectorEventLoop(Selector())
    run(loop, main())
    assert victim.cancelled() and last[0].result() == 1


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no eager tasks, so that a queued task does not park at once")
def test_a_task_that_joins_an_aborted_group_as_the_loop_refuses_to_schedule() -> None:
    """The group waits for it, although create_task() has raised, and hears of its end."""

    class Refusal(Exception):
        pass

    def refuse(*args: Any, **kwargs: Any) -> Any:
        del loop.call_soon
        raise Refusal

    class Loop(asyncio.SelectorEventLoop):
        group: Any = None

        def is_running(self) -> bool:
            if self.group is not None:
                loop.group = self.group._abort()
                loop.call_soon = refuse
            return super().is_running()

    async def main() -> None:
        async with TaskGroup(concurrency_limit=1) as tg:
            tg.create_task(forever())
            await settle(2)
            loop.group = tg
            with pytest.raises(Refusal):
                tg.create_task(noop)
            assert len(tg._tasks) == 2

    loop: Any = Loop(Selector())
    run(loop, main())


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("when", [1, 2])
def test_a_waiter_for_a_slot_whose_wake_up_is_interrupted(when: int, background: bool, late: bool) -> None:
    """It waits on, and hears of the next slot; it does no harm if it is woken all the same."""

    class Loop(asyncio.SelectorEventLoop):
        woken = 0

        def call_soon(self, callback: Any, *args: Any, **kwargs: Any) -> asyncio.Handle:
            if getattr(callback, "__self__", None) is producer:
                self.woken += bool(args)  # the future that wakes it
                if self.woken == when:
                    self.woken += 1
                    if late:
                        super().call_soon(callback, *args, **kwargs)
                    raise KeyboardInterrupt
            return super().call_soon(callback, *args, **kwargs)

    async def produce(tg: TaskGroup) -> None:
        nonlocal producer
        producer = asyncio.current_task()
        for number in range(4):
            await tg.wait_for_slot()
            made.append(number)
            tg.create_task(settle(1))

    async def main() -> None:
        async with TaskGroup(concurrency_limit=2) as tg:
            tg.create_task(settle(3))
            tg.create_task(settle(5))
            if background:
                tg.create_background_task(produce(tg))
            else:
                await produce(tg)

    producer: Any = None
    made: list[int] = []
    loop = Loop(Selector())
    out = run(loop, main())
    assert len(out) == 1 and made == [0, 1, 2, 3]


def hostile_task(**methods: Any) -> Any:
    cls = type("HostileTask", (asyncio.Task,), methods)
    return lambda loop, coro, **kwargs: cls(coro, loop=loop, **kwargs)


def test_a_task_that_is_interrupted_as_it_is_asked_whether_it_is_done() -> None:
    """create_task() raises that; the task, which may be running, is the group's, and no slot is lost."""

    def done(self: Any) -> bool:
        if sys._getframe(1).f_code is main.__code__ and interrupts:
            raise interrupts.pop()
        return asyncio.Task.done(self)

    async def main() -> None:
        async with TaskGroup(concurrency_limit=1) as tg:
            loop.set_task_factory(hostile_task(done=done))
            with pytest.raises(KeyboardInterrupt):
                tg.create_task(noop())
            results.append(tg.create_task(noop()))
            assert tg.statistics()[:2] == (1, 1)
            await settle()
            assert tg.statistics()[:2] == (0, 0)

    interrupts = [KeyboardInterrupt()]
    results: list[Any] = []
    loop = asyncio.SelectorEventLoop(Selector())
    run(loop, main())
    assert not interrupts and results[0].result() == 1


def test_the_loop_that_says_so_has_nothing_to_do() -> None:
    """The tests above would end with an error, and not hang, if a task were lost."""
    with pytest.raises(Idle):
        run(asyncio.SelectorEventLoop(Selector()), forever())


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="asyncio's current_task() is in C")
def test_an_interrupt_as_a_callable_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the C asks whether this is the task's own step: the interrupt gets out, as from the task itself."""

    class Current(dict[Any, Any]):
        armed = False

        def get(self, key: Any, default: Any = None) -> Any:
            if self.armed:
                self.armed = False
                raise KeyboardInterrupt
            return known.get(key, default)

    known = asyncio.tasks._current_tasks  # type: ignore[attr-defined]
    current = Current()
    monkeypatch.setattr(asyncio.tasks, "_current_tasks", current)

    async def ends() -> None:
        current.armed = True

    async def main() -> None:
        async with TaskGroup() as tg:
            tg.create_task(ends)

    loop = asyncio.SelectorEventLoop(Selector())
    out = run(loop, main())
    assert [type(error) for error in out] == [KeyboardInterrupt] * 2  # of the task, and of the group, which raises it


def test_an_error_of_a_hook_and_an_exit_of_the_next_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """One task's end brings both: SystemExit leaves the loop, as it would by itself; the other error is reported."""

    class Hooked(TaskGroup):
        def _abort(self) -> None:
            raise ValueError("hook")  # it cancels nothing, so that the slot is passed on

    async def main() -> None:
        async with Hooked(concurrency_limit=1) as tg:
            for error in KeyError(), SystemExit(3):
                tg.create_task(fail(error))

    reported: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: reported.append(unraisable.exc_type))
    loop = asyncio.SelectorEventLoop(Selector())
    with pytest.raises(SystemExit):
        run(loop, main())
    assert reported == [ValueError]


@pytest.mark.parametrize("error", [KeyboardInterrupt, LookupError])
def test_a_stop_that_cannot_be_put_off(error: type[BaseException]) -> None:
    """The loop refuses to look again when who was woken for a slot has moved: the background tasks are stopped now."""

    class Loop(asyncio.SelectorEventLoop):
        armed = True

        def call_soon(self, callback: Any, *args: Any, **kwargs: Any) -> asyncio.Handle:
            if self.armed and getattr(callback, "__name__", "") == "_stop":
                self.armed = False
                raise error
            return super().call_soon(callback, *args, **kwargs)

    async def produce(tg: TaskGroup) -> None:
        await tg.wait_for_slot()
        await forever()

    async def main() -> None:
        async with TaskGroup(concurrency_limit=1) as tg:
            tg.create_task(settle(3))
            producers.append(tg.create_background_task(produce(tg)))
            await settle(1)

    producers: list[Any] = []
    loop = Loop(Selector())
    loop.set_exception_handler(lambda loop, context: None)
    run(loop, main())
    assert not loop.armed and producers[0].cancelled()
