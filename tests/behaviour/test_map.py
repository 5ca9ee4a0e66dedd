"""A bounded map: rules M of docs/behaviour.md."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import gc
import inspect
import itertools
import sys
import threading
import traceback
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from helpers import fail, forever, noop, settle

import quattro

# The map is Python: debug mode and a task factory are the group's, whose own tests have them.
pytestmark = pytest.mark.loops("asyncio", "uvloop", "eager")


@pytest.fixture
def TaskGroup() -> Any:
    """The group that a rule is about."""
    return quattro.TaskGroup


class Items:
    """A source that counts what is taken from it."""

    def __init__(self, items: Any) -> None:
        self.items = iter(items)
        self.taken = 0
        self.opened = 0
        self.tasks: set[Any] = set()  # those that have drawn

    def take(self) -> Any:
        self.tasks.add(asyncio.current_task())
        item = next(self.items)
        self.taken += 1
        return item


class Sync(Items):
    def __iter__(self) -> Iterator[Any]:
        self.opened += 1
        return self

    def __next__(self) -> Any:
        return self.take()


class Async(Items):
    """Waits now and then."""

    def __aiter__(self) -> AsyncIterator[Any]:
        self.opened += 1
        return self

    async def __anext__(self) -> Any:
        if self.taken % 3 == 0:
            await asyncio.sleep(0)
        try:
            return self.take()
        except StopIteration:
            raise StopAsyncIteration from None


SOURCES = pytest.mark.parametrize("source", [Sync, Async], ids=["sync", "async"])
ORDERED = pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "unordered"])


async def double(number: int) -> int:
    """The least that a function can do."""
    return 2 * number


async def slow_double(number: int) -> int:
    """One that waits a few passes of the loop, not all of them the same."""
    await settle(number % 4)
    return 2 * number


async def collect(iterator: AsyncIterator[Any]) -> list[Any]:
    return [result async for result in iterator]


async def to_be_cancelled() -> None:
    """Wait for the cancel of an abort, and do not hang if none comes."""
    await settle(100)
    raise AssertionError("the group has not been aborted")


# ---- results


@SOURCES
@ORDERED
@pytest.mark.parametrize("f", [double, slow_double])
@pytest.mark.parametrize("limit", [1, 3, 100])
async def test_results(TaskGroup: Any, source: Any, ordered: bool, f: Any, limit: int) -> None:
    """Each item's result, once; from both kinds of sources, at every limit."""
    async with TaskGroup(concurrency_limit=limit) as tg:
        results = await collect(tg.map(f, source(range(50)), ordered=ordered))
    assert (results if ordered else sorted(results)) == [2 * number for number in range(50)]


@SOURCES
@ORDERED
async def test_empty_source(TaskGroup: Any, source: Any, ordered: bool) -> None:
    """Nothing comes of nothing."""
    async with TaskGroup(concurrency_limit=3) as tg:
        assert await collect(tg.map(double, source(()), ordered=ordered)) == []


@SOURCES
@pytest.mark.parametrize("ordered", [True, False, 1, "", None])
async def test_order(TaskGroup: Any, source: Any, ordered: Any) -> None:
    """With a true `ordered`, which is the default, in the order of the items; else as they come. [M5]"""
    gates = [asyncio.Event() for _ in range(4)]

    async def f(number: int) -> int:
        await gates[number].wait()
        return number

    async def open_gates() -> None:
        for number in (2, 0, 3, 1):
            await settle()
            gates[number].set()

    async with TaskGroup(concurrency_limit=4) as tg:
        tg.create_background_task(open_gates())
        results = await collect(tg.map(f, source(range(4)), ordered=ordered))
    assert results == ([0, 1, 2, 3] if ordered else [2, 0, 3, 1])
    assert inspect.signature(quattro.TaskGroup.map).parameters["ordered"].default is True


async def test_is_an_asynchronous_iterator(TaskGroup: Any) -> None:
    """anext() works, with a default as well; its end stays its end."""
    async with TaskGroup(concurrency_limit=2) as tg:
        results = tg.map(double, [1, 2])
        assert aiter(results) is results
        assert isinstance(results, AsyncIterator) and not inspect.isasyncgen(results)
        assert [await anext(results), await anext(results)] == [2, 4]
        for _ in range(3):
            assert await anext(results, "end") == "end"
            with pytest.raises(StopAsyncIteration):
                await anext(results)


# ---- arguments


@pytest.mark.parametrize("f", [42, None, "double", [double]])
def test_function_that_is_none(TaskGroup: Any, f: Any) -> None:
    """What cannot be called is a TypeError at the call."""
    with pytest.raises(TypeError) as caught:
        TaskGroup(concurrency_limit=1).map(f, [1])
    assert str(caught.value) == f"a callable was expected, got {f!r}"


@pytest.mark.parametrize("items", [42, None, object(), double])
def test_items_that_are_none(TaskGroup: Any, items: Any) -> None:
    """What is neither an Iterable nor an AsyncIterable is a TypeError at the call. [M3]"""
    with pytest.raises(TypeError) as caught:
        TaskGroup(concurrency_limit=1).map(double, items)
    assert str(caught.value) == f"an iterable or an asynchronous iterable was expected, got {items!r}"


def test_coroutines_as_arguments(TaskGroup: Any) -> None:
    """So is a coroutine, where its function or its result was meant; it is closed."""
    coros = double(1), noop()
    with pytest.raises(TypeError, match="a callable was expected, got <coroutine"):
        TaskGroup(concurrency_limit=1).map(coros[0], [1])
    with pytest.raises(TypeError, match="iterable was expected, got <coroutine"):
        TaskGroup(concurrency_limit=1).map(double, coros[1])
    assert [coro.cr_frame for coro in coros] == [None, None]


def test_names_of_the_arguments(TaskGroup: Any) -> None:
    """The function and the items are given by position, the options by name."""
    group = TaskGroup(concurrency_limit=1)
    for args, kwargs in [((double,), {}), ((), {"f": double, "items": []}), ((double, [], True), {})]:
        with pytest.raises(TypeError):
            group.map(*args, **kwargs)
    with pytest.raises(TypeError, match="limit"):
        group.map(double, [], limit=3)


class Index:
    """An integer that is none."""

    def __index__(self) -> int:
        return 2


@pytest.mark.parametrize("size", [1, 2, Index(), True, 10**30])
async def test_buffersize(TaskGroup: Any, size: Any) -> None:
    """Anything with __index__ from 1 on; it needs no limit."""
    async with TaskGroup() as tg:
        assert await collect(tg.map(double, range(5), buffersize=size)) == [0, 2, 4, 6, 8]


def test_buffersizes_that_are_refused(TaskGroup: Any) -> None:
    """Less than 1 is a ValueError, another type a TypeError that names it; so is none, without a limit. [M3]"""
    group = TaskGroup()
    for size in (0, -1, -(10**30), False):
        with pytest.raises(ValueError, match=r"^buffersize must be >= 1$"):
            group.map(double, [], buffersize=size)
    for size in (1.5, float("inf"), "3", [], object()):
        with pytest.raises(TypeError, match=type(size).__name__):
            group.map(double, [], buffersize=size)
    for kwargs in ({}, {"buffersize": None}):
        with pytest.raises(TypeError) as caught:
            group.map(double, [], **kwargs)
        assert str(caught.value) == "map() needs buffersize= in a group without a concurrency limit"


# ---- how much is taken


@SOURCES
async def test_nothing_is_taken_before_the_first_result_is_asked_for(TaskGroup: Any, source: Any) -> None:
    """Not even an iterator; and no task is there. [M4]"""
    items = source(range(5))
    async with TaskGroup(concurrency_limit=3) as tg:
        results = tg.map(double, items)
        waiting = anext(results)
        await settle()
        assert items.opened == items.taken == 0 and not tg._tasks
        assert await waiting == 0 and items.opened == 1


@SOURCES
@ORDERED
@pytest.mark.parametrize(("limit", "size"), [(3, None), (1, None), (2, 5), (5, 2), (None, 4), (3, 1)])
async def test_at_most_buffersize(TaskGroup: Any, source: Any, ordered: bool, limit: Any, size: Any) -> None:
    """Never more items are taken and not yet yielded (by default the limit); and as many, if the source has. [M2]"""
    items = source(range(40))
    yielded = most = 0

    async def f(number: int) -> int:
        nonlocal most
        most = max(most, items.taken - yielded)
        await settle(number % 3)
        most = max(most, items.taken - yielded)
        return number

    async with TaskGroup(concurrency_limit=limit) as tg:
        async for _ in tg.map(f, items, ordered=ordered, buffersize=size):
            yielded += 1
            most = max(most, items.taken - yielded)
            if yielded % 4 == 0:
                await settle()
                assert items.taken - yielded <= (size or limit)
    assert (yielded, most) == (40, size or limit)


@ORDERED
async def test_drawn_inside_anext_only(TaskGroup: Any, ordered: bool) -> None:
    """A synchronous source is drawn in the consumer's task, while it asks for a result; filled up each time. [M6]"""
    items = Sync(range(20))
    async with TaskGroup(concurrency_limit=4) as tg:
        results = tg.map(double, items, ordered=ordered)
        for taken in range(4, 20):
            await anext(results)
            assert items.taken == taken
            await settle()
            assert items.taken == taken
    assert items.tasks == {asyncio.current_task()}


@SOURCES
@ORDERED
async def test_infinite_source(TaskGroup: Any, source: Any, ordered: bool) -> None:
    """A source need not end."""
    got = []
    async with TaskGroup(concurrency_limit=3) as tg:
        async for number in tg.map(double, source(itertools.count()), ordered=ordered):
            got.append(number)
            if len(got) == 100:
                break
    assert sorted(got) == got and len(got) == 100


@pytest.mark.loops("asyncio", "uvloop")
@SOURCES
@ORDERED
async def test_memory_of_the_buffer(TaskGroup: Any, source: Any, ordered: bool) -> None:
    """Of ten thousand items and results, no more are alive than the buffer has, and those in hand."""

    class Thing:
        alive = most = 0

        def __init__(self, _: object = None) -> None:
            Thing.alive += 1
            Thing.most = max(Thing.most, Thing.alive)

        def __del__(self) -> None:
            Thing.alive -= 1

    async def f(thing: Thing) -> Thing:
        return Thing()

    async with TaskGroup(concurrency_limit=10) as tg:
        async for _ in tg.map(f, source(map(Thing, range(10_000))), ordered=ordered):
            pass
        del _
    await settle()  # the last callbacks
    assert Thing.alive == 0 and Thing.most <= 25


# ---- the tasks


@SOURCES
@ORDERED
async def test_function_is_called_inside_its_task(TaskGroup: Any, source: Any, ordered: bool) -> None:
    """f(item) runs in the task of the item, one of the group's foreground tasks, in a context of its own. [M1]"""
    variable = contextvars.ContextVar("variable", default=0)
    seen: list[Any] = []

    def f(number: int) -> Any:
        seen.append((variable.get(), type(asyncio.current_task())))
        variable.set(-1)
        return count(asyncio.current_task())

    async def count(task: Any) -> None:
        await asyncio.sleep(0)
        assert asyncio.current_task() is task and task in tg._tasks
        assert 1 <= tg.statistics().running <= 2

    async with TaskGroup(concurrency_limit=2) as tg:
        variable.set(7)
        await collect(tg.map(f, source(range(10)), ordered=ordered))
    assert seen == [(7, asyncio.Task)] * 10 and variable.get() == 7


async def test_kinds_of_functions(TaskGroup: Any) -> None:
    """A coroutine function, a partial, a lambda, a method, an object with an asynchronous __call__."""

    class Scale:
        async def __call__(self, number: int) -> int:
            return 3 * number

    async def add(number: int, other: int) -> int:
        return number + other

    async with TaskGroup(concurrency_limit=2) as tg:
        for f, expected in (
            (double, 8), (functools.partial(add, 1), 5), (lambda number: add(number, 2), 6), (Scale(), 12),
            (Scale().__call__, 12),
        ):  # fmt: skip
            assert await collect(tg.map(f, [4])) == [expected]


@ORDERED
async def test_limit(TaskGroup: Any, ordered: bool) -> None:
    """Items beyond the group's limit queue, first in, first out; several maps and other tasks share it. [M12]"""
    running = peak = 0
    started: list[Any] = []

    async def f(item: Any) -> Any:
        nonlocal running, peak
        started.append(item)
        running += 1
        peak = max(peak, running)
        await settle(2)
        running -= 1
        return item

    async def consume(name: str) -> list[Any]:
        return await collect(tg.map(f, [name + str(i) for i in range(10)], ordered=ordered, buffersize=5))

    async with TaskGroup(concurrency_limit=3) as tg:
        maps = [tg.create_background_task(consume(name)) for name in "ab"]
        for _ in range(5):
            tg.create_task(f("other"))
        await asyncio.wait(maps)
    assert peak == 3
    for name, task in zip("ab", maps, strict=True):
        names = [name + str(i) for i in range(10)]
        assert sorted(task.result()) == names
        assert [item for item in started if item[0] == name] == names


async def test_names_in_reports() -> None:
    """A task shows the function's name; the traceback of its error is whole. That of a function that is no `async def`
    has one frame of ours, which calls it."""
    seen: list[str] = []

    async def fetch(number: int) -> None:
        await asyncio.sleep(0)
        seen.append(repr(asyncio.current_task()))
        raise ValueError

    class Odd:
        def __init__(self) -> None:
            self.__qualname__ = 42

        async def __call__(self, number: int) -> int:
            return number

    for f, names in (fetch, ["fetch"]), (functools.wraps(fetch)(lambda number: fetch(number)), ["_call", "fetch"]):
        with pytest.raises(ExceptionGroup) as caught:
            async with quattro.TaskGroup(concurrency_limit=2) as tg:
                assert await collect(tg.map(Odd(), [1])) == [1]
                await collect(tg.map(f, [1]))
        assert "fetch() running at" in seen.pop()
        frames = traceback.extract_tb(caught.value.exceptions[0].__traceback__)
        assert [frame.name for frame in frames] == names


async def test_coroutine_of_the_caller(TaskGroup: Any) -> None:
    """The task of an `async def` function or method runs its coroutine itself."""
    coros: list[Any] = []

    class Scale:
        async def scale(self, number: int) -> int:
            coros.append(asyncio.current_task().get_coro())
            return 3 * number

    async with TaskGroup(concurrency_limit=2) as tg:
        for f in (Scale().scale, functools.partial(Scale.scale, Scale())):
            assert await collect(tg.map(f, [4])) == [12]
    assert [coro.cr_code is Scale.scale.__code__ for coro in coros] == [True, False]


async def test_subclass_makes_the_tasks() -> None:
    """A subclass's create_task() is used."""
    names: list[str] = []

    class Named(quattro.TaskGroup):
        def create_task(self, coro: Any, **kwargs: Any) -> Any:
            task = super().create_task(coro, name=f"mine {len(names)}", **kwargs)
            names.append(task.get_name())
            return task

    async with Named(concurrency_limit=2) as tg:
        assert await collect(tg.map(double, range(3))) == [0, 2, 4]
    assert names == ["mine 0", "mine 1", "mine 2"]


# ---- errors of items


@SOURCES
@ORDERED
async def test_error_of_an_item(TaskGroup: Any, source: Any, ordered: bool) -> None:
    """It goes the group's way: the consumer in the body sees its CancelledError, and the group raises it, once. [M8]"""
    seen: list[Any] = []

    async def f(number: int) -> int:
        if number == 3:
            raise ValueError(number)
        return await slow_double(number)

    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup(concurrency_limit=2) as tg:
            try:
                async for result in tg.map(f, source(range(100)), ordered=ordered):
                    seen.append(result)
            except BaseException as error:
                seen.append(type(error))
                raise
    assert [error.args for error in caught.value.exceptions] == [(3,)]
    assert seen[-1] is asyncio.CancelledError and len(seen) < 10
    assert asyncio.current_task().cancelling() == 0


@SOURCES
@ORDERED
async def test_errors_that_cancel_nothing(TaskGroup: Any, source: Any, ordered: bool) -> None:
    """With cancel_on_error=False failed items are left out, and their errors come out together at the exit. [M8]"""

    async def f(number: int) -> int:
        await settle(number % 3)
        if number % 3 == 1:
            raise ValueError(number)
        return number

    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup(concurrency_limit=3, cancel_on_error=False) as tg:
            results = await collect(tg.map(f, source(range(20)), ordered=ordered))
    assert sorted(results) == [number for number in range(20) if number % 3 != 1]
    assert not ordered or sorted(results) == results
    assert sorted(error.args[0] for error in caught.value.exceptions) == list(range(1, 20, 3))


@ORDERED
async def test_all_items_fail(TaskGroup: Any, ordered: bool) -> None:
    """Then there is no result, and the source is read to its end."""
    items = Sync(range(10))
    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup(concurrency_limit=3, cancel_on_error=False) as tg:
            assert await collect(tg.map(lambda number: fail(ValueError(number)), items, ordered=ordered)) == []
    assert len(caught.value.exceptions) == items.taken == 10


@pytest.mark.parametrize(
    "f", [lambda _: 1 / 0, lambda _: 42, noop, lambda: 42], ids=["raises", "no coroutine", "no item", "nor this"]
)
async def test_function_that_fails(TaskGroup: Any, f: Any) -> None:
    """What f raises at its call, or returns instead of a coroutine, is an error of the item's task; that it does not
    take one item is, too."""
    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup(concurrency_limit=3) as tg:
            async for _ in tg.map(f, [1]):
                pass
            await to_be_cancelled()
    assert type(caught.value.exceptions[0]) in (ZeroDivisionError, TypeError) and len(caught.value.exceptions) == 1
    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup(concurrency_limit=3, cancel_on_error=False) as tg:
            assert await collect(tg.map(f, [1, 2])) == []
    assert len(caught.value.exceptions) == 2


@pytest.mark.parametrize("error", [StopIteration, StopAsyncIteration, GeneratorExit])
async def test_errors_that_mean_something_to_loops(TaskGroup: Any, error: type[BaseException]) -> None:
    """An item's StopAsyncIteration ends no loop but its own: it is an error like any other."""

    def f(_: int) -> Any:
        raise error

    with pytest.raises(BaseExceptionGroup):
        async with TaskGroup(concurrency_limit=1) as tg:
            await collect(tg.map(f, [1, 2]))
            await to_be_cancelled()


@SOURCES
@ORDERED
async def test_cancelled_items(TaskGroup: Any, source: Any, ordered: bool) -> None:
    """Tasks that somebody cancels, running or queued, and those that raise CancelledError, are left out. [M8]"""
    tasks: dict[int, Any] = {}
    items = source(range(8))

    async def f(number: int) -> int:
        tasks[number] = asyncio.current_task()
        if number == 1:
            raise asyncio.CancelledError
        if number == 3:
            await forever()
        if number == 4:
            tasks[3].cancel()
            for task in set(tg._tasks) - set(tasks.values()) - items.tasks:
                task.cancel()  # the queued ones
        await settle(3)
        return number

    async with TaskGroup(concurrency_limit=2) as tg:
        results = await collect(tg.map(f, items, ordered=ordered, buffersize=5))
    assert {0, 2, 4} <= set(results) and not {1, 3} & set(results)
    assert len(results) == len(tasks) - 2


# ---- a synchronous source


@ORDERED
async def test_error_of_a_synchronous_source(TaskGroup: Any, ordered: bool) -> None:
    """It comes out at the `async for`, as an error of the consumer's; what went before is not lost. [M6]"""

    class Source(Sync):
        def __next__(self) -> Any:
            if self.taken == 3:
                self.taken += 1
                raise KeyError("source")
            return self.take()

    async with TaskGroup(concurrency_limit=5) as tg:
        results = tg.map(double, Source(range(6)), ordered=ordered)
        with pytest.raises(KeyError, match="source") as caught:
            await anext(results)
        assert caught.value.__context__ is None
        assert sorted(await collect(results)) == [0, 2, 4, 6, 8, 10]


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError, GeneratorExit, RuntimeError])
async def test_errors_of_a_generator(TaskGroup: Any, error: type[BaseException]) -> None:
    """Any error is as it is; a generator that has failed has ended."""

    def source() -> Iterator[int]:
        yield 1
        raise error

    async with TaskGroup(concurrency_limit=5) as tg:
        results = tg.map(double, source())
        with pytest.raises(error):
            await anext(results)
        assert await collect(results) == [2]


async def test_source_that_raises_stop_async_iteration(TaskGroup: Any) -> None:
    """It would end the loop as if nothing had happened, and is made a RuntimeError instead."""

    class Source(Sync):
        def __next__(self) -> Any:
            raise StopAsyncIteration

    async with TaskGroup(concurrency_limit=5) as tg:
        with pytest.raises(RuntimeError, match="the items of a map raised StopAsyncIteration"):
            await anext(tg.map(double, Source(())))


async def test_source_that_goes_on_after_its_end(TaskGroup: Any) -> None:
    """Once it has raised StopIteration it is not asked again."""

    class Source(Sync):
        def __next__(self) -> Any:
            self.taken += 1
            if self.taken == 3:
                raise StopIteration
            return self.taken

    async with TaskGroup(concurrency_limit=5) as tg:
        results = tg.map(double, Source(()))
        assert [await collect(results) for _ in range(2)] == [[2, 4], []]


async def test_source_that_cannot_be_opened(TaskGroup: Any) -> None:
    """The error of __iter__ comes out at the `async for` as well, each time."""

    class Source:
        def __iter__(self) -> Iterator[int]:
            raise KeyError("open")

    async with TaskGroup(concurrency_limit=5) as tg:
        results = tg.map(double, Source())
        for _ in range(2):
            with pytest.raises(KeyError, match="open"):
                await anext(results)


async def test_source_that_asks_for_results(TaskGroup: Any) -> None:
    """A source that iterates over its own map is a second consumer."""

    class Source(Sync):
        def __next__(self) -> Any:
            anext(results).send(None)

    async with TaskGroup(concurrency_limit=5) as tg:
        results = tg.map(double, Source(()))
        with pytest.raises(RuntimeError, match="has a consumer already"):
            await anext(results)


@ORDERED
@pytest.mark.parametrize("error", [MemoryError, RuntimeError])
async def test_task_that_cannot_be_made(TaskGroup: Any, ordered: bool, error: type[Exception]) -> None:
    """The error of a loop that makes no task comes out at the `async for`; the others go on."""
    loop = asyncio.get_running_loop()
    factory = loop.get_task_factory()

    def broken(*args: Any, **kwargs: Any) -> Any:
        loop.set_task_factory(factory)
        raise error

    async with TaskGroup(concurrency_limit=2) as tg:
        results = tg.map(double, range(5), ordered=ordered)
        assert await anext(results) == 0
        loop.set_task_factory(broken)
        with pytest.raises(error):
            await anext(results)
        assert await collect(results) == [2, 6, 8]
    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup(concurrency_limit=2) as tg:
            async for number in tg.map(double, Async(range(20)), ordered=ordered):
                if number == 0:
                    loop.set_task_factory(broken)
    assert [type(one) for one in caught.value.exceptions] == [error]


# ---- an asynchronous source


@ORDERED
async def test_asynchronous_source_is_read_by_one_background_task(TaskGroup: Any, ordered: bool) -> None:
    """It is there from the first result that is asked for to the source's end, in the context of that moment. [M7]"""
    variable = contextvars.ContextVar("variable", default=0)
    contexts: set[int] = set()

    class Source(Async):
        def take(self) -> Any:
            contexts.add(variable.get())
            return super().take()

    items = Source(range(10))
    async with TaskGroup(concurrency_limit=2) as tg:
        results = tg.map(double, items, ordered=ordered)
        assert tg.statistics().background == 0
        variable.set(1)
        waiting = anext(results)
        variable.set(2)
        assert await waiting == 0 and tg.statistics().background == 1
        await collect(results)
        await settle()
        assert tg.statistics().background == 0
    assert len(items.tasks) == 1 and asyncio.current_task() not in items.tasks and contexts == {2}


@ORDERED
@pytest.mark.parametrize("options", [{}, {"cancel_on_error": False}])
@pytest.mark.parametrize("at", [0, 1, 5])
async def test_error_of_an_asynchronous_source(TaskGroup: Any, ordered: bool, options: Any, at: int) -> None:
    """It aborts the group, as any background task's does; the consumer in the body sees its CancelledError. [M7]"""
    seen: list[Any] = []

    async def source() -> AsyncIterator[int]:
        for number in range(at):
            yield number
        raise KeyError("source")

    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup(concurrency_limit=2, **options) as tg:
            try:
                await collect(tg.map(double, source(), ordered=ordered))
            except BaseException as error:
                seen.append(type(error))
                raise
    assert seen == [asyncio.CancelledError]
    assert [error.args for error in caught.value.exceptions] == [("source",)]
    assert asyncio.current_task().cancelling() == 0


class Unopenable:
    def __aiter__(self) -> AsyncIterator[int]:
        raise KeyError


class Wrong:
    def __aiter__(self) -> Any:
        return iter([1])


@pytest.mark.parametrize(("source", "error"), [(Unopenable, KeyError), (Wrong, TypeError)])
async def test_asynchronous_source_that_cannot_be_opened(TaskGroup: Any, source: Any, error: Any) -> None:
    """The errors of __aiter__ and of what it returns go the same way."""
    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup(concurrency_limit=2) as tg:
            await collect(tg.map(double, source()))
    assert [type(one) for one in caught.value.exceptions] == [error]


async def test_anext_that_raises_at_its_call(TaskGroup: Any) -> None:
    """An __anext__ that is no coroutine function may raise StopAsyncIteration at its call."""

    class Source:
        count = 0

        def __aiter__(self) -> Any:
            return self

        def __anext__(self) -> Awaitable[int]:
            self.count += 1
            if self.count > 3:
                raise StopAsyncIteration
            return double(self.count)

    async with TaskGroup(concurrency_limit=2) as tg:
        assert await collect(tg.map(double, Source())) == [4, 8, 12]


async def test_source_of_both_kinds(TaskGroup: Any) -> None:
    """It is read asynchronously."""

    class Both(Async):
        def __iter__(self) -> Iterator[int]:
            raise AssertionError

    async with TaskGroup(concurrency_limit=2) as tg:
        assert await collect(tg.map(double, Both(range(3)))) == [0, 2, 4]


@pytest.mark.parametrize("closes", [False, True])
async def test_source_never_holds_the_group_open(TaskGroup: Any, closes: bool) -> None:
    """With body and foreground tasks ended, a source that waits is cancelled, and the generator is closed. [M7]"""
    seen: list[Any] = []

    async def source() -> AsyncIterator[int]:
        try:
            yield 1
            await forever()
        finally:
            await settle(3)
            seen.append(asyncio.current_task())

    async with TaskGroup(concurrency_limit=1 if closes else 2) as tg:
        results = tg.map(double, source())
        assert await anext(results) == 2
    assert len(seen) == 1 and seen[0] is not asyncio.current_task()
    with pytest.raises(RuntimeError, match="is finished"):
        await anext(results)


@pytest.mark.parametrize("how", ["raised", "cancelled"])
@ORDERED
async def test_source_that_is_cancelled(TaskGroup: Any, ordered: bool, how: str) -> None:
    """A source that raises CancelledError, or whose task somebody cancels, has not come to its end: after the results
    of what was taken, the consumer is told, by a RuntimeError, each time; the group goes on."""

    async def source() -> AsyncIterator[int]:
        readers.append(asyncio.current_task())
        yield 1
        yield 2
        if how == "raised":
            raise asyncio.CancelledError
        await forever()

    readers: list[Any] = []
    async with TaskGroup(concurrency_limit=4) as tg:
        results = tg.map(slow_double, source(), ordered=ordered)
        assert await anext(results) == 2
        readers[0].cancel()
        assert await anext(results) == 4
        for _ in range(2):
            with pytest.raises(RuntimeError, match="no longer read"):
                await anext(results)
        assert await tg.create_task(noop()) == 1


async def test_generator_is_closed_by_the_task_that_ran_it(TaskGroup: Any) -> None:
    """Also if it was not being waited for; in the task that read it, and before the group is left."""
    seen: list[Any] = []

    async def source() -> AsyncIterator[int]:
        seen.append(asyncio.current_task())
        try:
            while True:
                yield 1
        finally:
            await settle(3)
            seen.append(asyncio.current_task())

    generator = source()
    async with TaskGroup(concurrency_limit=3) as tg:
        async for _ in tg.map(double, generator):
            break
    assert len(seen) == 2 and seen[0] is seen[1] is not asyncio.current_task()
    assert await anext(generator, "end") == "end"


@pytest.mark.parametrize("how", ["error", "cancel", "end"])
@ORDERED
async def test_generator_that_takes_its_time_to_close(TaskGroup: Any, ordered: bool, how: str) -> None:
    """A group that has cancelled it leaves it to its clean-up; that its consumer goes as well does not disturb it."""
    closed: list[int] = []

    async def source() -> AsyncIterator[int]:
        try:
            for number in range(20):
                await asyncio.sleep(0)
                yield number
            await forever()
        finally:
            await settle(10)
            closed.append(asyncio.current_task().cancelling())  # type: ignore[union-attr]

    async def f(number: int) -> None:
        await asyncio.sleep(0)
        if number == 9 and how == "error":
            raise KeyError

    async def consume() -> None:
        seen = itertools.count()
        async for _ in tg.map(f, source(), ordered=ordered):
            if next(seen) == 9 and how == "cancel":
                tg.cancel()

    with pytest.raises(ExceptionGroup) if how == "error" else contextlib.nullcontext():
        async with TaskGroup(concurrency_limit=3) as tg:
            tg.create_background_task(consume)
            await settle(100)
    assert closed == [1]


async def test_generator_that_fails_to_close(TaskGroup: Any) -> None:
    """Its error is one of the task that reads it, and comes out of the group."""

    async def source() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            raise KeyError("close")

    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup(concurrency_limit=3) as tg:
            async for _ in tg.map(double, source()):
                break
    assert [error.args for error in caught.value.exceptions] == [("close",)]


async def test_other_sources_are_not_closed(TaskGroup: Any) -> None:
    """What is no generator may be read on by others."""

    class Stream(Async):
        async def aclose(self) -> None:
            raise AssertionError

    stream = Stream(range(100))
    async with TaskGroup(concurrency_limit=3) as tg:
        async for _ in tg.map(double, stream):
            break
        await settle()
        taken = stream.taken
    assert taken == stream.taken < 10
    assert await anext(stream) == taken


# ---- break


@SOURCES
@ORDERED
async def test_break(TaskGroup: Any, source: Any, ordered: bool) -> None:
    """Nothing more is taken, and what runs is waited for at the exit. [M9]"""
    ended: list[int] = []

    async def f(number: int) -> int:
        await settle(number % 4)
        ended.append(number)
        return number

    items = source(itertools.count())
    async with TaskGroup(concurrency_limit=4) as tg:
        async for _ in tg.map(f, items, ordered=ordered):
            break
        taken = items.taken
        assert taken <= 4
        await settle()
        assert items.taken == taken
    assert items.taken == taken and sorted(ended) == list(range(taken))


@ORDERED
async def test_break_while_the_source_waits(TaskGroup: Any, ordered: bool) -> None:
    """What comes later stays in the source."""
    queue: asyncio.Queue[int] = asyncio.Queue()

    async def source() -> AsyncIterator[int]:
        while True:
            yield await queue.get()

    queue.put_nowait(1)
    async with TaskGroup(concurrency_limit=4) as tg:
        async for _ in tg.map(double, source(), ordered=ordered):
            break
        queue.put_nowait(2)  # at once: the source has been woken, and is told to stop before it moves
        await settle()
        assert tg.statistics().background == 0 and queue.qsize() == 1


@SOURCES
@ORDERED
async def test_iterator_that_is_kept(TaskGroup: Any, source: Any, ordered: bool) -> None:
    """After a break, the next loop over it goes on: nothing is lost; meanwhile it fills its buffer at most."""
    items = source(range(20))
    got: list[int] = []
    async with TaskGroup(concurrency_limit=3) as tg:
        results = tg.map(slow_double, items, ordered=ordered)
        for _ in range(5):
            async for result in results:
                got.append(result)
                if len(got) % 3 == 0:
                    break
            await settle()
            assert items.taken <= len(got) + 3
        got += await collect(results)
    assert sorted(got) == [2 * number for number in range(20)]


async def test_dropped_by_another_thread(TaskGroup: Any) -> None:
    """The collector of another thread may be the one that drops an iterator; the source is told all the same."""
    loop = asyncio.get_running_loop()
    stopped = loop.create_future()

    async def source() -> AsyncIterator[int]:
        try:
            yield 1
            await forever()
        finally:
            stopped.set_result(threading.current_thread())

    async with TaskGroup(concurrency_limit=4) as tg:
        results = [tg.map(double, source())]
        assert await anext(results[0]) == 2
        await settle()
        await loop.run_in_executor(None, results.pop)
        while not stopped.done():
            await asyncio.sleep(0)
    assert stopped.result() is threading.current_thread()
    await loop.shutdown_default_executor()


@pytest.mark.parametrize("closed", [False, True])
def test_dropped_when_the_loop_has_stopped(closed: bool) -> None:
    """No error comes of an iterator that outlives the loop, or the running of it."""
    kept: list[Any] = []

    async def source() -> AsyncIterator[int]:
        yield 1
        await forever()

    async def main() -> None:
        group = await quattro.TaskGroup(concurrency_limit=2).__aenter__()
        kept.append(group.map(double, source()))
        assert await anext(kept[0]) == 2
        await settle()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    tasks = asyncio.all_tasks(loop)
    assert len(tasks) == 1
    if closed:
        loop.close()
        kept.clear()
        for task in tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            with contextlib.suppress(RuntimeError):
                task.get_coro().close()  # type: ignore[union-attr]
    else:
        kept.clear()
        loop.run_until_complete(asyncio.wait(tasks))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
    gc.collect()


# ---- the consumer


@SOURCES
@ORDERED
async def test_consumer_that_is_cancelled(TaskGroup: Any, source: Any, ordered: bool) -> None:
    """Cancelling a consumer while it waits loses nothing: the next one goes on."""
    gate = asyncio.Event()

    async def f(number: int) -> int:
        await gate.wait()
        return number

    async with TaskGroup(concurrency_limit=3) as tg:
        results = tg.map(f, source(range(6)), ordered=ordered)
        for _ in range(5):
            consumer = asyncio.ensure_future(anext(results))  # type: ignore[arg-type]
            await settle()
            consumer.cancel("enough")
            with pytest.raises(asyncio.CancelledError, match="enough"):
                await consumer
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(results), 1e-6)  # type: ignore[arg-type]
        gate.set()
        assert sorted(await collect(results)) == list(range(6))


async def test_cancelled_consumer_keeps_its_context(TaskGroup: Any) -> None:
    """Whoever cancels it."""
    variable = contextvars.ContextVar("variable", default=0)
    seen: list[int] = []

    async def consume() -> None:
        variable.set(7)
        try:
            await anext(results)
        finally:
            seen.append(variable.get())

    async with TaskGroup(concurrency_limit=1) as tg:
        results = tg.map(lambda _: forever(), [1])
        consumer = asyncio.ensure_future(consume())
        await settle()
        consumer.cancel()
        await asyncio.wait([consumer])
        tg.cancel()
    assert seen == [7]


@pytest.mark.parametrize("python", [False, True])
async def test_cancelled_as_the_result_comes(TaskGroup: Any, python: bool) -> None:
    """A consumer that is cancelled in the pass in which its result is ready sees that, and the result is not lost."""
    gate = asyncio.get_running_loop().create_future()
    order: list[str] = []

    async def f(number: int) -> int:
        if number == 0:
            await gate
            asyncio.get_running_loop().call_soon(order.append, "between")
            asyncio.get_running_loop().call_soon(consumer.cancel, "now")
        return number

    make: Any = asyncio.tasks._PyTask if python else asyncio.Task  # type: ignore[attr-defined]
    async with TaskGroup(concurrency_limit=3) as tg:
        results = tg.map(f, range(4))
        consumer = make(anext(results), loop=asyncio.get_running_loop())
        await settle()
        gate.set_result(None)
        with pytest.raises(asyncio.CancelledError, match="now"):
            await consumer
        assert order == ["between"] and await collect(results) == [0, 1, 2, 3]


async def test_cancelled_before_it_waits(TaskGroup: Any) -> None:
    """So does one whose cancellation is pending already."""

    async def consume() -> None:
        asyncio.current_task().cancel("before")
        await anext(results)

    async with TaskGroup(concurrency_limit=3) as tg:
        results = tg.map(slow_double, range(1, 4))
        with pytest.raises(asyncio.CancelledError, match="before"):
            await asyncio.ensure_future(consume())
        assert await collect(results) == [2, 4, 6]


@SOURCES
@ORDERED
@pytest.mark.parametrize("python", [False, True])
@pytest.mark.loops("asyncio", "debug", "uvloop")
async def test_context_of_the_consumer(TaskGroup: Any, source: Any, ordered: bool, python: bool) -> None:
    """Each of its steps runs in its own context; it may be a task of another kind."""
    variable = contextvars.ContextVar("variable", default=0)

    async def consume() -> list[int]:
        got: list[int] = []
        async for result in tg.map(slow_double, source(range(20)), ordered=ordered):
            assert variable.get() == len(got)
            got.append(result)
            variable.set(len(got))
        return sorted(got)

    make: Any = asyncio.tasks._PyTask if python else asyncio.Task  # type: ignore[attr-defined]
    async with TaskGroup(concurrency_limit=3) as tg:
        assert await make(consume(), loop=asyncio.get_running_loop()) == [2 * number for number in range(20)]


async def test_waiting_leaves_nothing_on_a_task(TaskGroup: Any) -> None:
    """However often a consumer is cancelled, the task that it waited for has no more done callbacks than before."""
    async with TaskGroup(concurrency_limit=1) as tg:
        results = tg.map(lambda _: forever(), [1])
        counts = []
        for _ in range(3):
            consumer = asyncio.ensure_future(anext(results))  # type: ignore[arg-type]
            await settle()
            consumer.cancel()
            await settle()
            (task,) = tg._tasks
            counts.append(len(task._callbacks or ()))
        tg.cancel()
    assert len(set(counts)) == 1


async def test_one_consumer_at_a_time(TaskGroup: Any) -> None:
    """A second one gets a RuntimeError, and the first is not disturbed; one after the other is fine. [M11]"""
    async with TaskGroup(concurrency_limit=3) as tg:
        results = tg.map(slow_double, range(1, 6))
        first = asyncio.ensure_future(anext(results))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        assert not first.done()
        with pytest.raises(RuntimeError, match="has a consumer already"):
            await anext(results)
        assert await first == 2
        assert await asyncio.ensure_future(anext(results)) == 4  # type: ignore[arg-type]
        assert await collect(results) == [6, 8, 10]


async def test_consumer_that_closes_its_wait(TaskGroup: Any) -> None:
    """Who drives anext() by hand may drop it half-way."""
    async with TaskGroup(concurrency_limit=3) as tg:
        results = tg.map(slow_double, range(1, 4))
        waiting = anext(results)
        waiting.send(None)  # type: ignore[attr-defined]
        waiting.close()  # type: ignore[attr-defined]
        assert await collect(results) == [2, 4, 6]


async def test_foreground_task_as_consumer(TaskGroup: Any) -> None:
    """It holds a slot itself: at a limit of 1 it waits for ever, and a timeout still gets out."""
    async with TaskGroup(concurrency_limit=2) as tg:
        task = tg.create_task(collect(tg.map(double, range(10))))
    assert task.result() == [2 * number for number in range(10)]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as scope:
            async with TaskGroup(concurrency_limit=1) as tg:
                task = tg.create_task(collect(tg.map(double, range(10))))
                await settle()
                scope.reschedule(asyncio.get_running_loop().time() - 1)
    assert task.cancelled()


async def test_background_task_as_consumer(TaskGroup: Any) -> None:
    """It ends with the group, and a map of its clean-up still works while the group stops it."""
    got: list[Any] = []

    async def consume() -> None:
        try:
            async for _ in tg.map(double, itertools.count()):
                await asyncio.sleep(0)
        finally:
            got.extend(await collect(tg.map(double, range(3))))

    async with TaskGroup(concurrency_limit=2) as tg:
        task = tg.create_background_task(consume())
        await settle()
        task.cancel()
    assert task.cancelled() and got == [0, 2, 4]


@SOURCES
async def test_maps_of_maps(TaskGroup: Any, source: Any) -> None:
    """A map is an asynchronous source itself."""
    async with TaskGroup(concurrency_limit=3) as tg:
        results = tg.map(double, tg.map(double, tg.map(slow_double, source(range(20)))))
        assert await collect(results) == [8 * number for number in range(20)]


# ---- the group


@SOURCES
async def test_group_that_has_not_been_entered(TaskGroup: Any, source: Any) -> None:
    """The RuntimeError of create_task(), when a result is asked for; nothing is taken, so that it can go on later."""
    items = source(range(3))
    tg = TaskGroup(concurrency_limit=3)
    results = tg.map(double, items)
    with pytest.raises(RuntimeError, match=r"^TaskGroup <TaskGroup> has not been entered"):
        await anext(results)
    assert items.opened == items.taken == 0
    async with tg:
        assert await collect(results) == [0, 2, 4]


@SOURCES
@ORDERED
async def test_group_that_is_finished(TaskGroup: Any, source: Any, ordered: bool) -> None:
    """An iterator that is kept longer than its group says so, and takes nothing more."""
    items = source(range(10))
    async with TaskGroup(concurrency_limit=3) as tg:
        results = tg.map(double, items, ordered=ordered)
        await anext(results)
    taken = items.taken
    for late in (results, tg.map(double, items), tg.map(double, [])):
        with pytest.raises(RuntimeError, match=r"^TaskGroup <TaskGroup entered> is finished"):
            await anext(late)
    assert items.taken == taken


async def abort_by_error(tg: Any) -> None:
    tg.create_background_task(fail(ValueError()))
    await settle(3)


async def abort_by_cancel(tg: Any) -> None:
    tg.cancel()


ABORTS = pytest.mark.parametrize("abort", [abort_by_error, abort_by_cancel])


def raises(abort: Callable[..., Any]) -> Any:
    return pytest.raises(ExceptionGroup) if abort is abort_by_error else contextlib.nullcontext()


@SOURCES
@ORDERED
@ABORTS
@pytest.mark.parametrize("member", ["foreground", "background"])
async def test_abort_and_a_member(TaskGroup: Any, source: Any, ordered: bool, abort: Any, member: str) -> None:
    """A consumer that is a task of the group is cancelled with it, once. [M10]"""

    async def consume() -> None:
        await asyncio.sleep(0)
        async for _ in tg.map(lambda _: forever(), items, ordered=ordered):
            pass

    items = source(itertools.count())
    with raises(abort):
        async with TaskGroup(concurrency_limit=3) as tg:
            task = (tg.create_task if member == "foreground" else tg.create_background_task)(consume())
            await settle()
            await abort(tg)
            await to_be_cancelled()
    assert task.cancelled() and task.cancelling() == 1


@SOURCES
@ORDERED
@ABORTS
async def test_abort_and_a_stranger(TaskGroup: Any, source: Any, ordered: bool, abort: Any) -> None:
    """A consumer that is no member gets the RuntimeError of create_task(). [M10]"""
    with raises(abort):
        async with TaskGroup(concurrency_limit=3) as tg:
            results = tg.map(lambda _: forever(), source(itertools.count()), ordered=ordered)
            stranger = asyncio.ensure_future(collect(results))
            await settle()
            await abort(tg)
            await to_be_cancelled()
    with pytest.raises(RuntimeError, match=r"^TaskGroup <TaskGroup .*cancelling> is (shutting down|finished)"):
        await stranger
    assert stranger.cancelling() == 0


@SOURCES
@ORDERED
@pytest.mark.parametrize("busy", [False, True])
async def test_cancel_in_the_loop(TaskGroup: Any, source: Any, ordered: bool, busy: bool) -> None:
    """The body that calls cancel() sees its CancelledError where it asks for the next result, ready or not."""
    seen: list[Any] = []
    async with TaskGroup(concurrency_limit=3) as tg:
        try:
            async for result in tg.map(double, source(range(10)), ordered=ordered):
                seen.append(result)
                if busy:
                    await settle()  # the other results are ready
                tg.cancel()
        except BaseException as error:
            seen.append(type(error))
            raise
    assert seen == [0, asyncio.CancelledError]
    assert asyncio.current_task().cancelling() == 0


@SOURCES
@ORDERED
@pytest.mark.parametrize("size", [1, 3])
async def test_first_result_cancels_the_group(
    TaskGroup: Any, source: Any, ordered: bool, size: int, loop_kind: str
) -> None:
    """A task that cancels the group leaves the consumer with its CancelledError; if it is eager, it is the last."""
    items = source(range(10))

    async def f(number: int) -> None:
        tg.cancel()

    async with TaskGroup(concurrency_limit=3) as tg:
        async for _ in tg.map(f, items, ordered=ordered, buffersize=size):
            raise AssertionError
        await to_be_cancelled()
    assert items.taken == (1 if loop_kind == "eager" else size)


@SOURCES
async def test_source_that_cancels_the_group(TaskGroup: Any, source: Any) -> None:
    """The same if it is the source."""

    class Source(source):  # type: ignore[misc]
        def take(self) -> Any:
            if self.taken == 2:
                tg.cancel()
            return super().take()

    async with TaskGroup(concurrency_limit=5) as tg:
        await collect(tg.map(double, Source(range(10))))
        await to_be_cancelled()


async def test_clean_up_after_an_abort(TaskGroup: Any) -> None:
    """A member that goes on after its CancelledError is told as a stranger is."""
    seen: list[str] = []

    async def member() -> None:
        try:
            await forever()
        finally:
            with pytest.raises(RuntimeError, match="is shutting down"):
                await collect(tg.map(double, range(3)))
            seen.append("told")

    async with TaskGroup(concurrency_limit=3) as tg:
        tg.create_task(member())
        await settle()
        tg.cancel()
    assert seen == ["told"]


@SOURCES
@ORDERED
async def test_outside_cancel(TaskGroup: Any, source: Any, ordered: bool) -> None:
    """A parent that is cancelled while it waits for a result ends everything, and goes on with the message."""
    items = source(itertools.count())

    async def parent() -> None:
        async with TaskGroup(concurrency_limit=3) as tg:
            await collect(tg.map(lambda _: forever(), items, ordered=ordered))

    task = asyncio.ensure_future(parent())
    await settle()
    task.cancel("why")
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert caught.value.args == ("why",) and items.taken == 3


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no eager tasks")
@pytest.mark.loops("eager")
@SOURCES
@ORDERED
@pytest.mark.parametrize("cancel_on_error", [True, False])
async def test_items_that_fail_eagerly(TaskGroup: Any, source: Any, ordered: bool, cancel_on_error: bool) -> None:
    """The group acts on the error of each before the next one is taken, although no limit slows them down. [M8]"""

    async def f(number: int) -> int:
        if number % 2:
            raise ValueError(number)
        return number

    items = source(range(1, 10))
    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup(cancel_on_error=cancel_on_error) as tg:
            results = await collect(tg.map(f, items, ordered=ordered, buffersize=3))
            if cancel_on_error:
                await to_be_cancelled()
    errors = [error.args[0] for error in caught.value.exceptions]
    assert (items.taken, errors) == ((1, [1]) if cancel_on_error else (9, [1, 3, 5, 7, 9]))
    assert cancel_on_error or results == [2, 4, 6, 8]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no eager tasks")
@pytest.mark.loops("eager")
@ORDERED
async def test_source_that_fails_eagerly(TaskGroup: Any, ordered: bool) -> None:
    """The error of a source that fails as it is opened is the group's first: a stranger hears of the abort."""

    async def source() -> AsyncIterator[int]:
        raise KeyError
        yield 1

    with pytest.raises(ExceptionGroup):
        async with TaskGroup(concurrency_limit=3) as tg:
            stranger = asyncio.ensure_future(collect(tg.map(double, source(), ordered=ordered)))
            await to_be_cancelled()
    with pytest.raises(RuntimeError, match=r"is (shutting down|finished)"):
        await stranger


@ORDERED
async def test_group_that_does_not_abort(ordered: bool) -> None:
    """In a subclass whose _abort() does nothing, an error of the source is no end of it: the consumer is told."""

    class Forgiving(quattro.TaskGroup):
        def _abort(self) -> None:
            pass

    async def source() -> AsyncIterator[int]:
        yield 1
        raise KeyError("source")

    async def stranger() -> None:
        results = tg.map(double, source(), ordered=ordered)
        assert await anext(results) == 2
        with pytest.raises(RuntimeError, match="no longer read"):
            await anext(results)

    with pytest.raises(ExceptionGroup):
        async with Forgiving(concurrency_limit=2) as tg:
            other = asyncio.ensure_future(stranger())
            await to_be_cancelled()
    await other


# ---- what is left


@SOURCES
@ORDERED
@pytest.mark.parametrize("end", ["end", "break", "item", "item at once", "source", "cancel"])
@pytest.mark.usefixtures("collected")
async def test_nothing_is_left(TaskGroup: Any, source: Any, ordered: bool, end: str) -> None:
    """However it ends, iterator, tasks, items and errors go with their last reference; the collector finds nothing."""

    class Source(source):  # type: ignore[misc]
        def take(self) -> Any:
            self.taken += 1
            if end == "source" and self.taken == 5:
                raise ValueError
            return next(self.items)  # the task that draws is not kept here

    async def f(number: int) -> int:
        await settle(number % 2)
        if (end, number) in (("item", 5), ("item at once", 4)):
            raise ValueError
        return number

    async def main() -> weakref.ref[Any]:
        with contextlib.suppress(ExceptionGroup):
            async with TaskGroup(concurrency_limit=3) as tg:
                results = tg.map(f, Source(range(20)), ordered=ordered)
                dropped = weakref.ref(results)
                async for number in results:
                    if number == 5 and end == "break":
                        break
                    if number == 5 and end == "cancel":
                        tg.cancel()
        return dropped

    gc.collect()
    dropped = await asyncio.ensure_future(main())
    assert dropped() is None
    assert gc.collect() == 0


@SOURCES
@ORDERED
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.usefixtures("collected")
async def test_nothing_is_left_of_a_consumer(TaskGroup: Any, source: Any, ordered: bool, late: bool) -> None:
    """One that was cancelled, while it waited or when its result was ready, goes with its last reference as well."""

    class Source(source):  # type: ignore[misc]
        def take(self) -> Any:
            return next(self.items)  # the task that draws is not kept here

    async def main() -> None:
        loop = asyncio.get_running_loop()
        gate = loop.create_future()
        consumers: list[Any] = []

        async def f(number: int) -> None:
            await gate
            if late:
                loop.call_soon(consumers[0].cancel)

        async with TaskGroup(concurrency_limit=1) as tg:
            consumers.append(asyncio.ensure_future(collect(tg.map(f, Source(range(1)), ordered=ordered))))
            await settle()
            if late:
                gate.set_result(None)
            else:
                consumers[0].cancel()
            await asyncio.wait(consumers)
            assert consumers.pop().cancelled()
            tg.cancel()

    gc.collect()
    await asyncio.ensure_future(main())
    assert gc.collect() == 0
