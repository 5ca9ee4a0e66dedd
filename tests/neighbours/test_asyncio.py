"""Neighbours, for real: the rest of asyncio and of the standard library around, inside and between groups."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from helpers import Log, fail, forever, noop, settle

import quattro
from quattro import TaskGroup


class Nest:
    """Three groups, one in the body of the other, each with a timeout around it that a test can make expire."""

    def __init__(self, where: str, expiring: tuple[int, ...]) -> None:
        self.where = where
        self.expiring = expiring
        self.log = Log()
        self.timeouts: dict[int, asyncio.Timeout] = {}

    async def run(self, level: int = 0) -> None:
        """Enter the timeout and the group of a level, then those of the next; the innermost makes timeouts expire."""
        try:
            async with asyncio.timeout(None) as self.timeouts[level]:
                async with TaskGroup(concurrency_limit=2) as tg:
                    tg.create_background_task(self.log.waiter(("background", level)))
                    tg.create_task(self.log.waiter(("task", level)))
                    if level < 2:
                        await self.run(level + 1)
                        tg.cancel()
                    elif self.where == "in the body":
                        await settle()
                        await self.expire()
                        await forever()
                    else:
                        tg.create_task(self.expire)
                        tg.create_task(self.log.job(("queued", level)))
        except TimeoutError:
            self.log.events.append(("timeout", level))

    async def expire(self) -> None:
        """Let the time of some levels be up, now."""
        await settle()
        for level in self.expiring:
            self.timeouts[level].reschedule(0)
        await forever()


@pytest.mark.parametrize("where", ["in the body", "at the exit"])
@pytest.mark.parametrize("expiring", [(0,), (1,), (2,), (0, 2), (2, 0), (1, 2)], ids=str)
async def test_timeouts_around_and_between_groups(where: str, expiring: tuple[int, ...]) -> None:
    """A timeout ends the groups inside it and none outside; of several at once the outermost alone is felt."""
    nest = Nest(where, expiring)
    await nest.run()
    await settle()  # a cancellation that leaked would be raised here
    outermost = min(expiring)
    assert [event for event in nest.log.events if event[0] == "timeout"] == [("timeout", outermost)]
    assert [level for level, timeout in nest.timeouts.items() if timeout.expired()] == sorted(expiring)
    ended = [name for what, name in nest.log.events if what == "cancelled"]
    assert sorted(ended) == [(kind, level) for kind in ("background", "task") for level in range(3)]
    before = nest.log.events[: nest.log.events.index(("timeout", outermost))]
    assert {name[1] for what, name in before if what == "cancelled"} == set(range(outermost, 3))
    assert ("start", ("queued", 2)) not in nest.log.events
    assert asyncio.current_task().cancelling() == 0


async def test_timeout_inside_a_task() -> None:
    """A timeout inside a task is the task's own matter: the siblings, the queue and the background tasks go on."""
    log = Log()

    async def hurried(n: int) -> int:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await forever()
        return n

    async with TaskGroup(concurrency_limit=2) as tg:
        background = tg.create_background_task(log.waiter("background"))
        tasks = [tg.create_task(hurried(n)) for n in range(5)]
        tasks.append(tg.create_task(log.job("sibling", 10)))
    assert [task.result() for task in tasks] == [0, 1, 2, 3, 4, "sibling"]
    assert background.cancelled() and all(task.cancelling() == 0 for task in tasks)


async def test_timeout_around_the_waiting_for_a_task() -> None:
    """Who waits for a task of the group with wait_for() cancels that one, queued or running, and nothing else."""
    async with TaskGroup(concurrency_limit=1) as tg:
        running, queued = tg.create_task(forever()), tg.create_task(forever())
        last = tg.create_task(noop())
        await settle()
        for task in (queued, running):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await task
            assert task.cancelled()
    assert last.result() == 1


async def test_timeout_while_background_tasks_are_stopped() -> None:
    """A timeout that comes while a background task cleans up waits for the clean-up, and is raised after it."""
    log = Log()

    async def slow_to_stop() -> None:
        try:
            await forever()
        finally:
            timeout.reschedule(0)
            await log.job("clean-up", 10)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as timeout:
            async with TaskGroup() as tg:
                task = tg.create_background_task(slow_to_stop())
                await settle()
    assert log.events == [("start", "clean-up"), ("end", "clean-up")] and task.cancelling() == 1
    assert asyncio.current_task().cancelling() == 0


async def test_shield_around_a_group() -> None:
    """A group behind asyncio.shield() does not feel that the one who waits for it was cancelled."""
    gate = asyncio.Event()

    async def serve() -> int:
        async with TaskGroup() as tg:
            tg.create_background_task(forever())
            tg.create_task(gate.wait())
        return 1

    service = asyncio.ensure_future(serve())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await asyncio.shield(service)
    gate.set()
    assert await service == 1 and service.cancelling() == 0


async def test_gather_and_wait_over_tasks_of_a_group() -> None:
    """gather(), wait() and as_completed() take tasks of a group, queued ones too, in the body and in another task."""
    log = Log()
    async with TaskGroup(concurrency_limit=2) as tg:
        tasks = [tg.create_task(log.job(n, n + 1)) for n in range(6)]
        collected = tg.create_background_task(asyncio.wait(tasks))
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        assert tasks[0] in done and tasks[5] in pending
        assert await asyncio.gather(*tasks) == [0, 1, 2, 3, 4, 5]
        assert [await task for task in asyncio.as_completed(tasks)]
        await settle()
        assert collected.result() == (set(tasks), set())
    assert log.peak == 2


async def test_gather_of_groups_cancelled() -> None:
    """Groups under gather(): the error of one leaves the others alone; cancelling the gather() ends them all."""
    log = Log()

    async def handler(n: int) -> None:
        async with TaskGroup(concurrency_limit=1) as tg:
            tg.create_background_task(log.waiter(("background", n)))
            tg.create_task(fail(ValueError(n), 3) if n == 0 else log.waiter(("task", n)))
            tg.create_task(log.job(("queued", n)))

    everything = asyncio.gather(*(handler(n) for n in range(3)), return_exceptions=True)
    await settle()
    assert ("cancelled", ("background", 0)) in log.events and ("cancelled", ("background", 1)) not in log.events
    everything.cancel()
    with pytest.raises(asyncio.CancelledError):
        await everything
    ended = [name for what, name in log.events if what == "cancelled"]
    assert sorted(ended) == [("background", 0), ("background", 1), ("background", 2), ("task", 1), ("task", 2)]


async def test_exit_stack_of_groups_and_timeouts() -> None:
    """An AsyncExitStack leaves groups and timeouts in reverse; what fails in the first ends all, and is its error."""
    log = Log()
    with pytest.raises(ExceptionGroup) as caught:
        async with contextlib.AsyncExitStack() as stack:
            groups = []
            for n in range(4):
                stack.callback(log.events.append, ("left", n))
                await stack.enter_async_context(asyncio.timeout(None))
                groups.append(await stack.enter_async_context(TaskGroup()))
                groups[n].create_task(log.waiter(n))
            await settle()
            groups[0].create_task(fail(ValueError("first")))
    assert [repr(error) for error in caught.value.exceptions] == ["ValueError('first')"]
    assert [n for what, n in log.events if what == "left"] == [3, 2, 1, 0]
    assert all(log.events.index(("cancelled", n)) < log.events.index(("left", n)) for n in range(4))


async def test_exit_stack_handed_on() -> None:
    """pop_all() hands an open group on: it goes on after the block that made it, until the stack is closed."""
    log = Log()

    async def open_service() -> tuple[contextlib.AsyncExitStack, TaskGroup]:
        async with contextlib.AsyncExitStack() as stack:
            tg = await stack.enter_async_context(TaskGroup(concurrency_limit=1))
            tg.create_background_task(log.waiter("background"))
            return stack.pop_all(), tg

    service, tg = await open_service()
    tasks = [tg.create_task(log.job(n)) for n in range(3)]
    assert await tasks[0] == 0 and ("cancelled", "background") not in log.events
    await service.aclose()
    assert [task.result() for task in tasks] == [0, 1, 2]
    assert log.events[-1] == ("cancelled", "background") and "finished" not in log.events


async def test_context_manager_made_of_a_group() -> None:
    """@asynccontextmanager over a group: an error in the `with` block ends it, and comes out grouped."""
    log = Log()

    @contextlib.asynccontextmanager
    async def service() -> AsyncIterator[TaskGroup]:
        async with TaskGroup(concurrency_limit=1) as tg:
            tg.create_background_task(log.waiter("background"))
            yield tg

    async with service() as tg:
        task = tg.create_task(noop())
    assert task.result() == 1 and log.events == [("start", "background"), ("cancelled", "background")]
    log.events.clear()
    with pytest.raises(ExceptionGroup) as caught:
        async with service() as tg:
            tasks = [tg.create_task(log.waiter("task")), tg.create_task(log.job("queued"))]
            await settle()
            raise ValueError("in the block")
    assert repr(caught.value.exceptions) == "(ValueError('in the block'),)"
    assert all(task.cancelled() for task in tasks) and log.started == ["background", "task"]


class Source:
    """Async generators with a group each, the one in the loop of the other."""

    def __init__(self) -> None:
        self.log = Log()

    async def inner(self) -> AsyncIterator[int]:
        """Yield what the tasks of a group made, as it comes."""
        queue: asyncio.Queue[int] = asyncio.Queue()
        async with TaskGroup(concurrency_limit=2) as tg:
            tg.create_background_task(self.log.waiter("background"))
            tg.create_task(self.log.waiter("task"))
            for n in range(5):
                tg.create_task(queue.put(n))
            while True:
                yield await queue.get()

    async def outer(self) -> AsyncIterator[int]:
        """Hand on what another one yields, and have a group around it."""
        async with TaskGroup() as tg, contextlib.aclosing(self.inner()) as numbers:
            tg.create_background_task(self.log.waiter("outer"))
            async for number in numbers:
                yield number

    def ended(self) -> list[Any]:
        """The tasks that were cancelled, sorted."""
        return sorted(name for what, name in self.log.events if what == "cancelled")


@pytest.mark.parametrize("number", [0, 1, 4])
async def test_async_generators_closed_early(number: int) -> None:
    """Whoever stops asking an async generator ends its groups, those of the generators that it asks included."""
    source = Source()
    async with contextlib.aclosing(source.outer()) as numbers:
        async for n in numbers:
            await settle()
            if n == number:
                break
        assert source.ended() == []
    assert source.ended() == ["background", "outer", "task"]
    assert asyncio.current_task().cancelling() == 0


async def test_async_generator_that_is_dropped() -> None:
    """An async generator that nobody closes is closed by the loop, in a task of the loop's: its groups end there."""
    source = Source()
    numbers = source.outer()
    assert await anext(numbers) == 0
    await settle()
    del numbers
    gc.collect()
    await settle(40)
    assert source.ended() == ["background", "outer", "task"]
    assert asyncio.current_task().cancelling() == 0


async def test_async_generator_that_is_thrown_into() -> None:
    """An error thrown into an async generator comes out of its groups as theirs, once everything has ended."""
    source = Source()
    numbers: Any = source.outer()
    assert await anext(numbers) == 0
    await settle()
    with pytest.raises(ExceptionGroup) as caught:
        await numbers.athrow(ValueError("thrown"))
    assert repr(caught.value.exceptions) == "(ValueError('thrown'),)"
    assert source.ended() == ["background", "outer", "task"]


async def test_async_generator_in_a_timeout() -> None:
    """A timeout around the loop over an async generator ends what waits inside the generator's group."""
    source = Source()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as timeout, contextlib.aclosing(source.outer()) as numbers:
            async for n in numbers:
                await settle()
                if n == 4:
                    timeout.reschedule(0)  # nothing comes after it: the next number is waited for in vain
    assert source.ended() == ["background", "outer", "task"]
    assert asyncio.current_task().cancelling() == 0


async def test_async_generator_whose_task_fails() -> None:
    """A task that fails while its generator waits to be asked cancels who asks, and is the error of the close."""
    log = Log()

    async def numbers() -> AsyncIterator[int]:
        async with TaskGroup() as tg:
            tg.create_background_task(log.waiter("background"))
            tg.create_task(fail(ValueError("mine"), 3))
            yield 1
            await forever()

    generator: Any = numbers()
    assert await anext(generator) == 1
    with pytest.raises(asyncio.CancelledError):
        await settle()
    with pytest.raises(BaseExceptionGroup) as caught:
        await generator.aclose()
    assert repr(caught.value.exceptions) == "(ValueError('mine'), GeneratorExit())"  # as from asyncio.TaskGroup
    assert log.events == [("start", "background"), ("cancelled", "background")]
    assert asyncio.current_task().cancelling() == 0


async def test_threads_and_executors() -> None:
    """to_thread() in tasks under a limit: never more threads at once than slots, and the context goes with them."""
    log = Log()

    def work(n: int) -> int:
        log.running += 1
        log.peak = max(log.peak, log.running)
        log.running -= 1
        return n

    async with TaskGroup(concurrency_limit=1) as tg:
        tasks = [tg.create_task(asyncio.to_thread(work, n)) for n in range(10)]
    assert [task.result() for task in tasks] == list(range(10)) and log.peak == 1


async def test_thread_that_hands_in_work() -> None:
    """A thread hands work to a group through run_coroutine_threadsafe() or call_soon_threadsafe(), and gets results."""
    loop = asyncio.get_running_loop()

    def work(tg: TaskGroup) -> int:
        async def hand_in() -> int:
            return await tg.create_task(noop())

        loop.call_soon_threadsafe(tg.create_task, noop())
        return asyncio.run_coroutine_threadsafe(hand_in(), loop).result(60)

    async with TaskGroup(concurrency_limit=2) as tg:
        task = tg.create_task(asyncio.to_thread(work, tg))
    assert task.result() == 1


@pytest.mark.loops("asyncio", "uvloop")
@pytest.mark.skipif(sys.platform == "win32", reason="the child process is told to stop by closing its input there, too")
async def test_subprocesses_and_streams() -> None:
    """A child process in a task, its output pumped by a background task, ends with the group that is cancelled."""
    script = "import sys; print('ready', flush=True); sys.stdin.read()"

    async def child() -> int:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdin is not None and process.stdout is not None
        try:
            assert await process.stdout.readline() == b"ready\n"
            started.release()
            return await process.wait()
        finally:
            process.stdin.close()
            ended.append(await process.wait())
            await process.stdout.read()

    started, ended = asyncio.Semaphore(0), []  # type: asyncio.Semaphore, list[int]
    async with TaskGroup(concurrency_limit=2) as tg:
        for _ in range(3):
            tg.create_task(child())
        for _ in range(2):
            await started.acquire()
        tg.cancel()
    assert ended == [0, 0]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_development_mode_has_nothing_to_say(loop: str) -> None:
    """A program of every kind of group runs in Python's development mode, warnings as errors, without a word. [G19]"""
    if loop == "uvloop" and sys.platform == "win32":
        pytest.skip("uvloop does not run on Windows")
    script = textwrap.dedent(f"""
        import asyncio, {loop} as chosen
        from quattro import TaskGroup

        async def job(n):
            for _ in range(n % 3):
                await asyncio.sleep(0)
            return n

        async def forever():
            await asyncio.Event().wait()

        async def fail():
            await asyncio.sleep(0)
            raise ValueError

        async def main():
            loop = asyncio.get_running_loop()
            loop.slow_callback_duration = 1e9  # a slow machine is nobody's error
            assert loop.get_debug() and chosen.__name__.split(".")[0] in type(loop).__module__
            async with TaskGroup() as plain:
                tasks = [plain.create_task(job(n)) for n in range(100)]
                plain.create_background_task(forever)
            assert [task.result() for task in tasks] == list(range(100))
            async with TaskGroup(concurrency_limit=3) as limited:
                tasks = [limited.create_task(job(n)) for n in range(100)]
                limited.create_background_task(forever())
                tasks[50].cancel()
            assert sum(task.cancelled() for task in tasks) == 1
            try:
                async with TaskGroup(concurrency_limit=3) as failing:
                    for _ in range(10):
                        failing.create_task(forever())
                        failing.create_task(fail)
            except* ValueError:
                pass
            try:
                async with asyncio.timeout(0):
                    async with TaskGroup(concurrency_limit=3) as late:
                        for _ in range(10):
                            late.create_task(forever())
            except TimeoutError:
                pass
            async with TaskGroup() as left:
                left.create_task(forever())
                left.cancel()
            tg = TaskGroup()
            try:
                tg.create_task(forever())
            except RuntimeError:
                pass

        chosen.run(main())
    """)
    env = os.environ | {"PYTHONPATH": str(Path(quattro.__file__).parents[1])}
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", script]
    run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
