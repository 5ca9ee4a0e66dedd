"""What a type checker must say about code that uses the group: checked by mypy and pyright, never run.

A line that must be an error says so with `type: ignore`: both checkers report a comment that silences nothing.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from typing import Any, Generic, Self, TypeVar, assert_type

import quattro
from quattro import TaskGroup, TaskGroupStatistics

T = TypeVar("T")


async def job(x: int = 0) -> str:
    return str(x)


async def needs_an_argument(x: int) -> str:
    return str(x)


async def numbers() -> AsyncIterator[int]:
    yield 1


def generator() -> Generator[None, None, str]:
    yield
    return ""


def not_async() -> str:
    return ""


class Client(Generic[T]):
    def __init__(self, answer: T) -> None:
        self.answer = answer

    async def fetch(self) -> T:
        return self.answer

    async def __call__(self) -> list[T]:
        return [self.answer]


async def results() -> None:
    async with TaskGroup(concurrency_limit=10) as tg:
        assert_type(tg, TaskGroup)
        assert_type(tg.create_task(job(1), name="n", context=contextvars.copy_context()), asyncio.Task[str])
        assert_type(tg.create_task(job(1), eager_start=True), asyncio.Task[str])
        assert_type(tg.create_task(job), asyncio.Task[str])
        assert_type(tg.create_task(functools.partial(needs_an_argument, 3)), asyncio.Task[str])
        assert_type(tg.create_task(lambda: job(2)), asyncio.Task[str])
        assert_type(tg.create_task(Client(b"").fetch), asyncio.Task[bytes])
        assert_type(tg.create_task(Client(1)), asyncio.Task[list[int]])
        assert_type(tg.create_task(asyncio.sleep(1)), asyncio.Task[None])
        assert_type(tg.create_background_task(job(1), name="n"), asyncio.Task[str])
        assert_type(tg.create_background_task(job, eager_start=False), asyncio.Task[str])
        assert_type(tg.create_background_task(lambda: job(2)), asyncio.Task[str])
        assert_type(await tg.create_task(job), str)
        assert_type([task.result() for task in [tg.create_task(job(n)) for n in range(3)]], list[str])
        assert_type(tg.concurrency_limit, int | None)
        assert_type(tg.cancel_on_error, bool)
        assert_type(await tg.wait_for_slot(), None)
        assert_type(tg.create_task(tg.wait_for_slot), asyncio.Task[None])
        tg.cancel()


async def maps(tg: TaskGroup, client: Client[T], either: list[int] | AsyncIterator[int]) -> list[T]:
    assert_type(tg.map(needs_an_argument, [1, 2]), AsyncIterator[str])
    assert_type(tg.map(needs_an_argument, numbers(), ordered=False, buffersize=10), AsyncIterator[str])
    assert_type(tg.map(needs_an_argument, either), AsyncIterator[str])
    assert_type(tg.map(job, {1: "one"}), AsyncIterator[str])
    assert_type(tg.map(lambda n: job(n + 1), range(3)), AsyncIterator[str])
    assert_type(tg.map(functools.partial(answer, client), "text"), AsyncIterator[T])
    assert_type(tg.map(answer_to_all, (client, client)), AsyncIterator[list[object]])
    assert_type(tg.map(job, tg.map(length, tg.map(needs_an_argument, numbers()))), AsyncIterator[str])
    async for text in tg.map(needs_an_argument, numbers()):
        assert_type(text, str)
    return [result async for result in tg.map(functools.partial(answer, client), ["text"])]


async def length(text: str) -> int:
    return len(text)


async def answer(client: Client[T], question: str) -> T:
    return await client.fetch()


async def answer_to_all(client: Client[Any]) -> list[object]:
    return [await client.fetch()]


async def all_of(calls: list[Callable[[], Coroutine[Any, Any, T]]]) -> list[T]:
    async with TaskGroup(concurrency_limit=None) as tg:
        tasks = [tg.create_task(call) for call in calls]
    return [task.result() for task in tasks]


async def a_return_in_the_body_is_a_return() -> int:
    async with TaskGroup():
        return 1


def statistics(tg: TaskGroup) -> int:
    statistics = tg.statistics()
    assert_type(statistics, TaskGroupStatistics)
    assert_type(statistics.running, int)
    assert_type(statistics.queued, int)
    assert_type(statistics.background, int)
    assert_type(statistics.concurrency_limit, int | None)
    running, queued, background, limit = statistics
    assert_type((running, queued, background, limit), tuple[int, int, int, int | None])
    match statistics:
        case TaskGroupStatistics(queued=waiting):
            return waiting
    return 0


class Subclass(TaskGroup):
    def create(self) -> Self:
        self.create_task(job)
        return self


async def a_group_is_an_asyncio_group(tg: asyncio.TaskGroup) -> None:
    tg.create_task(job())


async def drop_in() -> None:
    async with Subclass() as tg:
        assert_type(tg.create(), Subclass)
        await a_group_is_an_asyncio_group(tg)
    assert_type(quattro.__version__, str)


async def errors(tg: TaskGroup) -> None:
    tg.create_task(42)  # type: ignore
    tg.create_task(asyncio.Future[int]())  # type: ignore
    tg.create_task(numbers())  # type: ignore
    tg.create_task(numbers)  # type: ignore
    tg.create_task(generator())  # type: ignore
    tg.create_task(not_async)  # type: ignore
    tg.create_task(needs_an_argument)  # type: ignore
    tg.create_task(job, 3)  # type: ignore
    tg.create_task(job, title="unknown")  # type: ignore
    tg.create_task(job, name=3)  # type: ignore
    tg.create_background_task(42)  # type: ignore
    tg.create_background_task(needs_an_argument)  # type: ignore
    tg.create_background_task(job, title="unknown")  # type: ignore
    tg.map(42, [1])  # type: ignore
    tg.map(not_async, [1])  # type: ignore
    tg.map(needs_an_argument, 42)  # type: ignore
    tg.map(needs_an_argument, ["1"])  # type: ignore
    tg.map(needs_an_argument, numbers)  # type: ignore
    tg.map(length, numbers())  # type: ignore
    tg.map([1], needs_an_argument)  # type: ignore
    tg.map(needs_an_argument, [1], [2])  # type: ignore
    tg.map(needs_an_argument, [1], buffersize="3")  # type: ignore
    tg.map(f=needs_an_argument, items=[1])  # type: ignore
    tg.concurrency_limit = 3  # type: ignore
    tg.cancel_on_error = False  # type: ignore
    await tg.wait_for_slot(10)  # type: ignore
    print(tg.statistics().waiting)  # type: ignore
    TaskGroup(10)  # type: ignore
    TaskGroup(None, False)  # type: ignore
    TaskGroup(concurrency_limit=1.5)  # type: ignore
    TaskGroup(concurrency_limit="10")  # type: ignore
    TaskGroup(limit=10)  # type: ignore
