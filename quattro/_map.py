"""``TaskGroup.map()``: the results of many tasks, of which only a few are there at a time.

``Map`` is the iterator, and all that the caller has. What outlives a step of the caller, the tasks' callbacks and the
task that reads an asynchronous source, refers to its ``_Buffer`` instead: so the iterator goes when the caller drops
it, as the end of an ``async for`` does, and that is how a ``break`` is seen.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from functools import partial
from inspect import CO_COROUTINE
from operator import index
from types import FunctionType, MethodType

from ._turn import cancel_unless_ending

TYPE_CHECKING = False  # typing's, without the time that importing it takes: asyncio does without it from 3.14 on
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Iterator
    from contextvars import Context
    from typing import Any, SupportsIndex


async def _call(f: Callable[[Any], Coroutine[Any, Any, Any]], item: Any) -> Any:
    """Call the function inside the item's task; this costs a task less than a callable does."""
    return await f(item)


def _wrap(f: Callable[[Any], Coroutine[Any, Any, Any]], name: str, item: Any) -> Any:
    """What the task of an item runs if a line of the function may run at its call."""
    coro: Any = _call(f, item)
    coro.__qualname__ = name  # as it is shown in the task's repr()
    return coro


def _is_native(f: Any) -> bool:
    """Whether it is an async def function, or a method that is one: a call runs none of its lines."""
    function = f.__func__ if type(f) is MethodType else f
    return type(function) is FunctionType and bool(function.__code__.co_flags & CO_COROUTINE)


async def _nothing() -> None:
    """What a group that takes no more tasks is asked to run, so that it says why."""


class _End:
    """The end of a task, as a future that the consumer waits for.

    Awaiting the task itself would raise its errors in the consumer, and cancel it with the consumer. A future that a
    done callback wakes would take the loop one more iteration.
    """

    __slots__ = ("_asyncio_future_blocking", "_callbacks", "_cancelled", "_context", "_task")

    # So that isinstance() says so: anyio asks that of what a task waits on, before it asks for more.
    if not TYPE_CHECKING:
        __class__ = asyncio.Future

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        self._cancelled: tuple[Any, ...] | None = None  # the arguments of the CancelledError

    def __await__(self) -> Generator[_End]:
        self._asyncio_future_blocking = True  # so says a future that is awaited
        yield self

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._task.get_loop()

    def add_done_callback(self, callback: Callable[[_End], object], *, context: Context) -> None:
        self._callbacks = [callback]  # it is taken out for its call: an error's frames must not lead to the consumer
        self._context = context
        self._task.add_done_callback(self._done, context=context)

    def _done(self, _: object) -> None:
        self._callbacks.pop()(self)

    def cancel(self, msg: Any = None) -> bool:
        if not self._task.remove_done_callback(self._done):
            return False  # the callback is on its way already, and the consumer sees its cancellation then
        self._cancelled = () if msg is None else (msg,)
        self.get_loop().call_soon(self._callbacks.pop(), self, context=self._context)
        return True

    def done(self) -> bool:
        return self._cancelled is not None or self._task.done()

    def cancelled(self) -> bool:
        return self._cancelled is not None

    def result(self) -> None:
        if self._cancelled is not None:
            raise asyncio.CancelledError(*self._cancelled)


class _Buffer:
    """The items that have been taken from the source and not yet yielded, as tasks."""

    __slots__ = ("group", "make", "ordered", "room", "size", "taken", "tasks", "waiter", "wrap")

    def __init__(self, group: Any, f: Callable[[Any], Coroutine[Any, Any, Any]], size: int, ordered: bool) -> None:
        self.group = group  # any, because checkers do not know its private attributes
        self.wrap = partial(_wrap, f, str(getattr(f, "__qualname__", type(f).__qualname__)))
        self.make = f if _is_native(f) else self.wrap
        self.size = size
        self.ordered = ordered
        self.taken = 0
        self.tasks: deque[asyncio.Task[Any]] = deque()  # all of them; if not ordered, those that have ended
        self.waiter: asyncio.Future[None] | None = None  # the consumer's, if it waits for no task in particular
        self.room: asyncio.Future[None] | None = None  # the reader's, if it waits

    def start(self, item: Any) -> bool:
        """Make the task of an item; return false if it has run eagerly, to an end without a result."""
        try:
            coro = self.make(item)
        except TypeError:  # it does not take one item, as its task will say
            coro = self.wrap(item)
        task = self.group.create_task(coro)
        if task.done() and (task.cancelled() or task.exception() is not None):
            del task  # which its error, whose frames lead to this one, would make a cycle
            return False
        self.taken += 1
        if self.ordered or task.done():
            self.tasks.append(task)
        else:
            task.add_done_callback(self.end)
        return True

    def end(self, task: asyncio.Task[Any]) -> None:
        """Take note of a task that has ended, if the results are wanted as they come."""
        self.tasks.append(task)
        self.wake()

    def wake(self, _: object = None) -> None:
        """Have the consumer look again."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    async def read(self, items: AsyncIterable[Any]) -> None:
        """Read an asynchronous source, as far as there is room; this is a background task."""
        source = aiter(items)
        try:
            while not self.group._aborting:
                while self.taken >= self.size:
                    self.room = asyncio.get_running_loop().create_future()
                    await self.room
                try:
                    item = await anext(source)
                except StopAsyncIteration:
                    return
                if self.group._aborting:
                    return
                if not self.start(item):
                    await asyncio.sleep(0)  # the group acts on an error first
                elif len(self.tasks) == 1:
                    self.wake()
        finally:
            if isinstance(source, AsyncGenerator):
                await source.aclose()  # here, where it has run, and not by the collector in a task of its own


def _wrong(value: Any, expected: str) -> TypeError:
    """What is said of a wrong argument; a coroutine is closed, so that no warning says that it was never awaited."""
    if asyncio.iscoroutine(value):
        value.close()
    return TypeError(f"{expected} was expected, got {value!r}")


class Map:
    """An asynchronous iterator of the results."""

    __slots__ = ("__weakref__", "_buffer", "_busy", "_items", "_reader", "_source")

    def __init__(
        self,
        group: Any,
        f: Callable[[Any], Coroutine[Any, Any, Any]],
        items: Iterable[Any] | AsyncIterable[Any],
        ordered: bool,
        buffersize: SupportsIndex | None,
    ) -> None:
        self._reader: asyncio.Task[None] | None = None  # the task that reads an asynchronous source
        if not callable(f):
            raise _wrong(f, "a callable")
        if not isinstance(items, (Iterable, AsyncIterable)):
            raise _wrong(items, "an iterable or an asynchronous iterable")
        if buffersize is None:
            buffersize = group.concurrency_limit
            if buffersize is None:
                raise TypeError("map() needs buffersize= in a group without a concurrency limit")
        if not hasattr(buffersize, "__index__"):
            raise TypeError(f"buffersize must be an int or None, not {type(buffersize).__name__}")
        size = index(buffersize)
        if size < 1:
            raise ValueError("buffersize must be >= 1")
        self._items: Iterable[Any] | AsyncIterable[Any] | None = items  # until it is opened
        self._source: Iterator[Any] | None = None  # a synchronous one, until its end
        self._buffer = _Buffer(group, f, size, bool(ordered))
        self._busy = False

    def __aiter__(self) -> Map:
        return self

    async def __anext__(self) -> Any:
        if self._busy:
            raise RuntimeError("this map has a consumer already: another task waits for its next result")
        self._busy = True
        buffer = self._buffer
        group, tasks = buffer.group, buffer.tasks
        try:
            while True:
                if group._aborting or group._parent_task is None:
                    await self._refuse()
                if self._items is not None:
                    self._open(self._items)
                if self._source is not None and buffer.taken < buffer.size:
                    if not self._draw(self._source):
                        await asyncio.sleep(0)  # the group acts on an error first
                        continue
                    if buffer.taken < buffer.size:
                        continue
                if tasks:
                    task = tasks[0]
                    if not task.done():
                        await _End(task)
                        continue
                    tasks.popleft()
                    buffer.taken -= 1
                    if buffer.room is not None and not buffer.room.done():
                        buffer.room.set_result(None)
                    if not task.cancelled() and task.exception() is None:
                        return task.result()
                elif buffer.taken or (self._reader is not None and not self._reader.done()):
                    buffer.waiter = asyncio.get_running_loop().create_future()
                    await buffer.waiter
                else:
                    await self._end()
        finally:
            self._busy = False

    def _open(self, items: Iterable[Any] | AsyncIterable[Any]) -> None:
        """Begin with the source; one that is of both kinds is read asynchronously."""
        buffer = self._buffer
        if isinstance(items, AsyncIterable):
            reader: asyncio.Task[None] = buffer.group.create_background_task(buffer.read(items))
            reader.add_done_callback(buffer.wake)
            self._reader = reader
        else:
            self._source = iter(items)
        self._items = None

    def _draw(self, source: Iterator[Any]) -> bool:
        """Take an item from a synchronous source; return false if the group may be aborting."""
        try:
            item = next(source)
        except StopIteration:
            self._source = None
            return True
        except StopAsyncIteration as error:  # which would end the caller's loop as if nothing had happened
            raise RuntimeError("the items of a map raised StopAsyncIteration") from error
        group = self._buffer.group
        try:
            return self._buffer.start(item) and not group._aborting
        except RuntimeError:
            if not group._aborting:
                raise
            return False

    async def _end(self) -> None:
        """Raise what ends the caller's loop."""
        if self._reader is not None and (self._reader.cancelled() or self._reader.exception() is not None):
            await asyncio.sleep(0)  # the group acts on an error first
            if self._buffer.group._aborting:
                return
            raise RuntimeError("the items of a map are no longer read: the task that did so has not come to their end")
        raise StopAsyncIteration

    async def _refuse(self) -> None:
        """Raise what a consumer gets when the group takes no more tasks."""
        await asyncio.sleep(0)  # the body and the group's tasks have been cancelled, and find out here
        self._buffer.group.create_task(_nothing)  # which raises what it says to anybody else

    def __del__(self) -> None:
        """The caller has left its loop: nothing more is taken."""
        if self._reader is not None and not self._reader.done():
            loop = self._reader.get_loop()
            if asyncio._get_running_loop() is loop:
                cancel_unless_ending(self._reader)  # the group may have cancelled it before
            elif not loop.is_closed():
                loop.call_soon_threadsafe(cancel_unless_ending, self._reader)
