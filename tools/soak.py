"""Millions of tasks through groups of every kind in one process, and the extremes: memory flat, work linear.

Run as a script it prints a report, and ends with a status that is not 0 if anything is wrong:

    python soak.py                   ten million tasks in one process, in slices; then the extremes
    python soak.py memory            without the extremes; `python soak.py extremes` for these alone
    python soak.py growth            count the machine instructions of each path at three sizes, under valgrind
    python soak.py growth abort      of one path

Nothing here is judged by time. Memory is judged by blocks (and references in a debug build) and resident pages; work by
what can be counted: passes of the loop, handles scheduled, instructions.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import re
import shutil
import subprocess
import sys
import time
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from helpers import LOOPS, fail, forever, noop, settle

from quattro import TaskGroup

Kind = Callable[[int], Awaitable[None]]
KINDS: dict[str, Kind] = {}
EXTREMES: dict[str, tuple[Kind, int]] = {}


def kind(function: Kind) -> Kind:
    """A way to use groups: it makes n tasks, and asserts what became of them."""
    KINDS[function.__name__] = function
    return function


def extreme(n: int) -> Callable[[Kind], Kind]:
    """Something that is done n times in one group, or n groups deep."""

    def register(function: Kind) -> Kind:
        EXTREMES[function.__name__] = function, n
        return function

    return register


class Count:
    """What ran, how often, and how many at once."""

    def __init__(self) -> None:
        self.started = self.ended = self.running = self.peak = 0

    async def job(self, passes: int = 1) -> int:
        self.started += 1
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            for _ in range(passes):
                await asyncio.sleep(0)
        finally:
            self.running -= 1
            self.ended += 1
        return 1

    async def waiter(self) -> None:
        self.started += 1
        try:
            await forever()
        finally:
            self.ended += 1


class Passes:
    """Counts the passes of the running loop while it is entered."""

    count = 0

    def __enter__(self) -> Passes:
        self.handle = asyncio.get_running_loop().call_soon(self.tick)
        return self

    def tick(self) -> None:
        self.count += 1
        self.handle = asyncio.get_running_loop().call_soon(self.tick)

    def __exit__(self, *args: object) -> None:
        self.handle.cancel()


# --- The kinds -------------------------------------------------------------------------------------------------------


@kind
async def plain(n: int) -> None:
    async with TaskGroup() as tg:
        tasks = [tg.create_task(noop()) for _ in range(n)]
    assert sum(task.result() for task in tasks) == n


@kind
async def small_groups(n: int) -> None:
    for _ in range(n // 3 + 1):
        async with TaskGroup() as tg:
            tasks = [tg.create_task(noop()) for _ in range(3)]
        assert all(task.done() for task in tasks)


@kind
async def limited(n: int) -> None:
    count = Count()
    async with TaskGroup(concurrency_limit=10) as tg:
        for _ in range(n):
            tg.create_task(count.job())
    assert (count.ended, count.peak) == (n, min(n, 10))


@kind
async def limited_to_one(n: int) -> None:
    count = Count()
    async with TaskGroup(concurrency_limit=1) as tg:
        for _ in range(n):
            tg.create_task(count.job())
    assert (count.ended, count.peak) == (n, 1)


@kind
async def callables(n: int) -> None:
    count = Count()
    async with TaskGroup(concurrency_limit=10) as tg:
        for _ in range(n):
            tg.create_task(count.job)
    assert (count.ended, count.peak) == (n, min(n, 10))


@kind
async def slots(n: int) -> None:
    count = Count()
    async with TaskGroup(concurrency_limit=10) as tg:
        for _ in range(n):
            await tg.wait_for_slot()
            assert tg.statistics().queued == 0
            tg.create_task(count.job())
    assert (count.ended, count.peak) == (n, min(n, 10))


@kind
async def mapped(n: int) -> None:
    count = Count()

    async def job(item: int) -> int:
        return item + await count.job()

    async def source() -> AsyncIterator[int]:
        for item in range(n // 2):
            yield item

    async with TaskGroup(concurrency_limit=10) as tg:
        results = [result async for result in tg.map(job, range(n // 2))]
        results += [result async for result in tg.map(lambda item: job(item), source(), ordered=False)]
    assert results == [*range(1, n // 2 + 1)] * 2
    assert (count.ended, count.peak) == (n // 2 * 2, min(n // 2, 10))


@kind
async def errors_that_cancel_nothing(n: int) -> None:
    count = Count()
    try:
        async with TaskGroup(concurrency_limit=10, cancel_on_error=False) as tg:
            for i in range(n):
                tg.create_task(fail(ValueError(i)) if i % 10 == 0 else count.job())
    except* ValueError as group:
        assert [error.args for error in group.exceptions] == [(i,) for i in range(0, n, 10)]
    assert count.ended == n - (n + 9) // 10


@kind
async def background(n: int) -> None:
    count = Count()
    async with TaskGroup(concurrency_limit=1) as tg:
        for _ in range(n // 2):
            tg.create_background_task(count.waiter())
            tg.create_task(count.job())
    assert count.started == count.ended == n // 2 * 2


@kind
async def eager(n: int) -> None:
    count = Count()
    factory = asyncio.get_running_loop().get_task_factory()
    # Before 3.14 a loop with a task factory does not know the keyword.
    known = sys.version_info >= (3, 14) or (sys.version_info >= (3, 12) and factory is None)
    keywords: Any = {"eager_start": True} if known else {}
    async with TaskGroup(concurrency_limit=10) as tg:
        for i in range(n):
            tg.create_task(count.job(i % 2), **keywords)
    assert count.ended == n and count.peak <= 10


@kind
async def made_by_children(n: int) -> None:
    count = Count()

    async def parent() -> None:
        tg.create_task(count.job())

    async with TaskGroup(concurrency_limit=5) as tg:
        for _ in range(n // 2):
            tg.create_task(parent())
    assert count.ended == n // 2


@kind
async def nested(n: int) -> None:
    async def inner() -> None:
        async with TaskGroup(concurrency_limit=2) as tg:
            for _ in range(9):
                tg.create_task(noop())

    async with TaskGroup(concurrency_limit=3) as outer:
        for _ in range(n // 10 + 1):
            outer.create_task(inner())


@kind
async def failing(n: int) -> None:
    for _ in range(n // 10 + 1):
        count = Count()
        try:
            async with TaskGroup(concurrency_limit=5) as tg:
                for _ in range(9):
                    tg.create_task(count.waiter())
                await asyncio.sleep(0)
                tg.create_background_task(fail(KeyError()))
        except ExceptionGroup as group:
            assert [type(error) for error in group.exceptions] == [KeyError]
            del group
        assert count.started == count.ended == 5


@kind
async def body_fails(n: int) -> None:
    with suppress(ExceptionGroup):
        async with TaskGroup(concurrency_limit=10) as tg:
            tasks = [tg.create_task(forever()) for _ in range(n)]
            raise KeyError
    assert all(task.cancelled() for task in tasks)


@kind
async def cancelled_in_the_queue(n: int) -> None:
    count = Count()
    async with TaskGroup(concurrency_limit=1) as tg:
        tg.create_task(count.job(2))
        tasks = [tg.create_task(count.job()) for _ in range(n - 1)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
    assert count.started == 1 and all(task.cancelled() for task in tasks)


@kind
async def left_early(n: int) -> None:
    count = Count()
    async with TaskGroup(concurrency_limit=10) as tg:
        for i in range(n):
            tg.create_task(count.waiter if i % 2 else count.waiter())
        await asyncio.sleep(0)
        tg.cancel()
        await forever()
    assert count.started == count.ended == min(n, 10)


@kind
async def cancelled_outside(n: int) -> None:
    async def parent() -> None:
        async with TaskGroup() as tg:
            for _ in range(n):
                tg.create_task(count.waiter())

    count = Count()
    task = asyncio.create_task(parent())
    await settle(3)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() and count.ended == n


class Subclass(TaskGroup):
    def _on_task_done(self, task: asyncio.Task[object]) -> None:
        super()._on_task_done(task)


@kind
async def subclass(n: int) -> None:
    count = Count()
    async with Subclass(concurrency_limit=10) as tg:
        for _ in range(n):
            tg.create_task(count.job())
    assert (count.ended, count.peak) == (n, min(n, 10))


# --- The extremes ----------------------------------------------------------------------------------------------------


async def aborted(n: int, coro: Callable[[Count], Any]) -> None:
    """None of n queued tasks runs a line, and how many they are does not show in the passes that it takes."""
    count = Count()
    with Passes() as passes:
        with suppress(ExceptionGroup):
            async with TaskGroup(concurrency_limit=1) as tg:
                tg.create_task(count.waiter())
                tasks = [tg.create_task(coro(count)) for _ in range(n)]
                await asyncio.sleep(0)
                tg.create_background_task(fail(KeyError()))
                await forever()
    assert count.started == count.ended == 1
    assert all(task.cancelled() for task in tasks)
    assert passes.count < 12


@extreme(100_000)
async def queued_and_aborted(n: int) -> None:
    await aborted(n, Count.waiter)


@extreme(100_000)
async def queued_callables_aborted(n: int) -> None:
    await aborted(n, lambda count: count.waiter)


@extreme(100_000)
async def running_and_aborted(n: int) -> None:
    count = Count()
    with Passes() as passes:
        with suppress(ExceptionGroup):
            async with TaskGroup() as tg:
                for _ in range(n):
                    tg.create_task(count.waiter())
                await asyncio.sleep(0)
                tg.create_task(fail(KeyError()))
    assert count.started == count.ended == n
    assert passes.count < 12


async def storm(n: int, order: Callable[[list[asyncio.Task[Any]]], Iterator[asyncio.Task[Any]]]) -> None:
    """Every queued task is cancelled in this order, then again; those that run end as if nothing had been."""
    count = Count()
    with Passes() as passes:
        async with TaskGroup(concurrency_limit=1) as tg:
            first = tg.create_task(count.job(3))
            tasks = [tg.create_task(count.waiter()) for _ in range(n)]
            last = tg.create_task(count.job())
            await asyncio.sleep(0)
            for task in order(tasks):
                task.cancel()
            assert tg.statistics().queued == 1
            for task in order(tasks):
                task.cancel()
    assert first.result() == last.result() == 1
    assert count.started == 2 and all(task.cancelled() for task in tasks)
    assert passes.count < 15


def shuffled(tasks: list[asyncio.Task[Any]]) -> Iterator[asyncio.Task[Any]]:
    return iter(random.Random(1).sample(tasks, len(tasks)))


@extreme(100_000)
async def cancel_storm_from_the_front(n: int) -> None:
    await storm(n, iter)


@extreme(100_000)
async def cancel_storm_from_the_back(n: int) -> None:
    await storm(n, reversed)


@extreme(100_000)
async def cancel_storm_in_any_order(n: int) -> None:
    await storm(n, shuffled)


@extreme(100_000)
async def running_cancelled_in_any_order(n: int) -> None:
    count = Count()
    async with TaskGroup() as tg:
        tasks: list[asyncio.Task[Any]] = [tg.create_task(count.waiter()) for _ in range(n)]
        await asyncio.sleep(0)
        for task in shuffled(tasks):
            task.cancel()
    assert count.started == count.ended == n and all(task.cancelled() for task in tasks)


@extreme(100_000)
async def the_group_cancelled_again_and_again(n: int) -> None:
    """cancel(), _abort() and an outside cancel a hundred thousand times: every task is cancelled once."""
    counts = []

    async def stubborn() -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            await settle(5)
            task = asyncio.current_task()
            assert task is not None
            counts.append(task.cancelling())
            raise

    async def parent() -> None:
        async with TaskGroup(concurrency_limit=10) as tg:
            for _ in range(20):
                tg.create_task(stubborn())
            tg.create_background_task(stubborn())
            await asyncio.sleep(0)
            for _ in range(n):
                tg.cancel()
                tg._abort()

    task = asyncio.create_task(parent())
    await settle(3)
    for _ in range(n):
        task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() and counts == [1] * 11


@extreme(1_000)
async def nested_in_tasks(n: int) -> None:
    """A group in a task of a group in a task ...: to the end; with an error at the bottom; cancelled from outside."""

    async def level(depth: int, bottom: Coroutine[Any, Any, Any]) -> None:
        nonlocal entered
        await asyncio.sleep(0)  # eager tasks would nest on the interpreter's stack
        async with TaskGroup(concurrency_limit=1) as tg:
            entered += 1
            tg.create_task(level(depth - 1, bottom) if depth > 1 else bottom)
        nonlocal left
        left += 1

    entered = left = 0
    await level(n, noop())
    assert entered == left == n

    entered = left = 0
    task = asyncio.create_task(level(n, fail(KeyError())))
    await asyncio.wait([task])
    error = task.exception()
    depth = 0
    while isinstance(error, ExceptionGroup):
        assert len(error.exceptions) == 1
        error = error.exceptions[0]
        depth += 1
    assert (depth, type(error), entered, left) == (n, KeyError, n, 0)

    entered = left = 0
    task = asyncio.create_task(level(n, forever()))
    while entered < n:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() and left == 0


@extreme(1_000)
async def nested_in_one_task(n: int) -> None:
    """A thousand groups entered by one task, left in reverse; a child of the outermost fails when all are entered."""
    count = Count()

    async def parent(error: bool) -> None:
        async with AsyncExitStack() as stack:
            groups = [await stack.enter_async_context(TaskGroup()) for _ in range(n)]
            for tg in groups:
                tg.create_task(count.waiter() if error else count.job())
            if error:
                groups[0].create_task(fail(KeyError()))
                await forever()

    await parent(False)
    assert count.ended == n
    with suppress(ExceptionGroup):
        await parent(True)
    assert count.started == count.ended == 2 * n


@extreme(100_000)
async def limit_of_one(n: int) -> None:
    with Passes() as passes:
        await limited_to_one(n)
    assert passes.count <= 2 * n + 5


@extreme(100_000)
async def limit_of_a_hundred_thousand(n: int) -> None:
    count = Count()
    with Passes() as passes:
        async with TaskGroup(concurrency_limit=n) as tg:
            for _ in range(2 * n):
                tg.create_task(count.job())
            assert tg.statistics()[:2] == (n, n)
    assert (count.ended, count.peak) == (2 * n, n)
    assert passes.count < 12


# --- Memory ----------------------------------------------------------------------------------------------------------


def resident() -> int:
    """Bytes of memory in use by the process; 0 where the system does not tell."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0


# The interpreter's cache of attributes, of 4,096 entries, keeps the string that each was looked up by. Who has a name
# as a C string makes one anew each time (CPython's own C does, for `except*` say), and so does reprlib: over many runs
# the cache fills with them.
clear_caches: Callable[[], None] = getattr(sys, "_clear_internal_caches", None) or sys._clear_type_cache


def loops() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    names = ["asyncio", "eager", "uvloop"]
    if hasattr(sys, "gettotalrefcount"):
        names.remove("uvloop")  # it counts references of its own wrongly in a debug build
    return {name: LOOPS[name][0] for name in names if name in LOOPS}


async def every_kind(tasks: int, at_once: int) -> int:
    made = 0
    while made < tasks:
        for function in KINDS.values():
            await function(at_once)
            made += at_once
    return made


def soak(tasks: int, slices: int) -> list[str]:
    """Run that many tasks in slices, an equal part on each kind of loop; what was wrong with the memory afterwards."""
    count_references = getattr(sys, "gettotalrefcount", lambda: 0)
    made = 0
    blocks, references, size = (array("q", [0]) * slices for _ in range(3))  # an int object each would be growth
    for i in range(slices):
        for factory in loops().values():
            with asyncio.Runner(loop_factory=factory) as runner:
                made += runner.run(every_kind(tasks // slices // len(loops()), min(1_000, tasks // slices // 50)))
        clear_caches()
        gc.collect()
        blocks[i], references[i], size[i] = sys.getallocatedblocks(), count_references(), resident()
        if i % (slices // 10) == 0 or i == slices - 1:
            print(f"{made:>12,} tasks {blocks[i]:>9,} blocks {references[i]:>9,} references {size[i] / 2**20:>8.2f} MiB"
                  f"{time.process_time():>8.1f} s CPU", flush=True)  # fmt: skip
    assert not gc.garbage
    # What is held once, by a cache say, is there after the first tenth.
    first, last = slices // 10, slices - 1
    wrong = []
    rooms = ("blocks", blocks, BLOCKS_ROOM), ("references", references, BLOCKS_ROOM), ("bytes", size, BYTES_ROOM)
    for name, values, room in rooms:
        if values[last] - values[first] > room:
            wrong.append(f"{name} grew from {values[first]:,} to {values[last]:,} over {last - first} slices")
    return wrong


BLOCKS_ROOM = 50  # free lists fill up at any time; what every thousandth task left would be nearly ten thousand
BYTES_ROOM = 2 * 2**20  # pages come and go with the allocator's arenas; a byte a task is 9 MiB in nine million


def run_extremes() -> None:
    for name, (function, n) in EXTREMES.items():
        for loop, factory in loops().items():
            before = time.process_time()
            with asyncio.Runner(loop_factory=factory) as runner:
                runner.run(function(n))
            print(f"{name:<40} n = {n:>7,} {loop:<8} {time.process_time() - before:>6.2f} s CPU", flush=True)


# --- Growth ----------------------------------------------------------------------------------------------------------

SIZES = 1_000, 4_000, 16_000


def growth_paths() -> dict[str, Kind]:
    """What is counted: all that is done n times, but for the nested groups, whose errors are n deep."""
    paths = {name: function for name, function in KINDS.items() if name not in ("small_groups", "nested", "failing")}
    paths |= {name: function for name, (function, _) in EXTREMES.items() if not name.startswith("nested")}
    return paths


async def scheduled(function: Kind, n: int) -> tuple[int, int]:
    """The passes of the loop, and the handles scheduled on it, that a path takes with n tasks."""
    loop = asyncio.get_running_loop()
    call_soon = loop.call_soon
    handles = 0

    def counting(*args: Any, **kwargs: Any) -> asyncio.Handle:
        nonlocal handles
        handles += 1
        return call_soon(*args, **kwargs)

    loop.call_soon = counting  # type: ignore[method-assign]
    try:
        with Passes() as passes:
            await function(n)
    finally:
        del loop.call_soon
    return passes.count, handles


@contextmanager
def without_collector() -> Iterator[None]:
    """The collector's own work grows with the heap, not with ours."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def run_once(name: str, n: int) -> None:
    function = growth_paths()[name]
    with without_collector(), asyncio.Runner() as runner:
        runner.run(function(n))


def instructions(name: str, n: int) -> int:
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable, __file__, "once", name]
    env = os.environ | {"PYTHONHASHSEED": "0", "PYTHONMALLOC": "pymalloc"}
    done = subprocess.run([*command, "--tasks", str(n)], capture_output=True, text=True, env=env)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or found is None:
        raise SystemExit(f"{name} failed under valgrind:\n{done.stderr}")
    return int(found[1])


def growth(names: list[str]) -> list[str]:
    """Instructions a task, between the sizes: the same if the work is linear."""
    wrong = []
    for name in names or growth_paths():
        small, middle, large = (instructions(name, n) for n in SIZES)
        first = (middle - small) / (SIZES[1] - SIZES[0])
        second = (large - middle) / (SIZES[2] - SIZES[1])
        print(f"{name:<40} {first:>9,.0f} instructions a task, then {second:>9,.0f}", flush=True)
        if second > first * 1.1:
            wrong.append(f"{name}: a task costs {second / first:.2f} times as many instructions among more of them")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["all", "memory", "extremes", "growth", "once"], default="all")
    parser.add_argument("paths", nargs="*")
    parser.add_argument("--tasks", type=int, default=10_000_000)
    parser.add_argument("--slices", type=int, default=100)
    options = parser.parse_args()
    if options.what == "once":
        run_once(options.paths[0], options.tasks)
        return
    if options.what == "growth":
        if shutil.which("valgrind") is None:
            raise SystemExit("valgrind, which counts the instructions, is not installed")
        wrong = growth(options.paths)
    else:
        wrong = soak(options.tasks, options.slices) if options.what != "extremes" else []
        if options.what != "memory":
            run_extremes()
    raise SystemExit("\n".join(wrong) or 0)


if __name__ == "__main__":
    main()
