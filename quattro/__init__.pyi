import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable
from contextvars import Context
from types import TracebackType
from typing import Any, NamedTuple, Self, SupportsIndex, TypeVar, overload

__all__ = ["TaskGroup", "TaskGroupStatistics"]
__version__: str

_T = TypeVar("_T")
_Item = TypeVar("_Item")

# The docstrings are those of the built package (a test compares them): editors read them here, and cannot read the C's.
# create_task() passes any other keyword on to loop.create_task(). That is left out, as it is for asyncio's: what a
# checker sees there is a misspelt name far more often than an argument of a task factory.

class TaskGroup(asyncio.TaskGroup):
    """asyncio.TaskGroup with background tasks and a concurrency limit.

    An asynchronous context manager for a group of tasks. Its exit waits for all of them; if one fails, the others are
    cancelled, and the errors are raised as an ExceptionGroup. The rules are those of asyncio.TaskGroup of CPython 3.15,
    on every CPython from 3.11. A group is used once, by one event loop in one thread.

    Args:
        concurrency_limit (int | None): How many foreground tasks may run at once, at least 1; the rest queue, first
            in, first out. None for no limit.
        cancel_on_error (bool): Whether the error of a foreground task cancels the others and the body, as in asyncio.
            If not, errors are kept and raised together at the exit (CPython issue 101581); but the body's own error, an
            error of a background task, and what is no Exception abort the group as usual.

    Raises:
        ValueError: The limit is less than 1.
        TypeError: The limit is not an integer, or is not passed by name.

    Example:
        >>> async with TaskGroup(concurrency_limit=10) as tg:
        ...     tg.create_background_task(show_progress)
        ...     for item in items:
        ...         tg.create_task(process(item))
    """

    def __init__(self, *, concurrency_limit: SupportsIndex | None = None, cancel_on_error: object = True) -> None: ...
    @property
    def concurrency_limit(self) -> int | None:
        """How many foreground tasks may run at once, an int; None without a limit."""

    @property
    def cancel_on_error(self) -> bool:
        """Whether the error of a foreground task cancels the others and the body, a bool."""

    async def __aenter__(self) -> Self:
        """Enter the group: the task that runs this becomes its parent.

        Returns:
            TaskGroup: The group.

        Raises:
            RuntimeError: The group has been entered before, no event loop is running, or no task is (for example in a
                callback of the loop).
        """

    async def __aexit__(  # type: ignore[override]
        self, et: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None, /
    ) -> bool | None:
        """Wait for the foreground tasks, then cancel the background tasks and wait for them.

        Args:
            et (type[BaseException] | None): The type of the body's exception.
            exc (BaseException | None): The body's exception. Any one aborts the group: everything is cancelled at once.
            tb (types.TracebackType | None): Its traceback; not used.

        Returns:
            bool | None: True if the body's exception is swallowed.

        Raises:
            ExceptionGroup: The errors of tasks and body, but for CancelledError, in the order in which they came (a
                BaseExceptionGroup if one of them is no Exception).
            asyncio.CancelledError: The parent task was cancelled from outside, and there was no other error.
            SystemExit, KeyboardInterrupt: As they are, from a task or the body. Other errors are then reported through
                loop.call_exception_handler().
            RuntimeError: The group has not been entered, or is being left already.
        """

    def create_task(  # type: ignore[override, unused-ignore]  # on 3.11 asyncio's takes generators
        self,
        coro: Coroutine[Any, Any, _T] | Callable[[], Coroutine[Any, Any, _T]],
        *,
        name: str | None = None,
        context: Context | None = None,
        eager_start: bool | None = None,
    ) -> asyncio.Task[_T]:
        """Start a foreground task in the group: the group waits for it.

        At the group's concurrency limit the task is queued, first in, first out, and starts when a slot is free. The call
        returns at once in any case.

        Args:
            coro (Coroutine | Callable): A coroutine, or a callable without required arguments that returns one (a coroutine
                function, a functools.partial, a lambda). A callable is called inside the task, when the task starts.
            name (str | None): The name of the task.
            context (contextvars.Context | None): What the task runs in; by default a copy of the current context, made
                now, even if the task starts later.
            eager_start (bool | None): Run the task within this call until it first waits, if a slot is free. None leaves
                that to the loop's task factory. CPython 3.12 or newer.
            **kwargs: Passed on to loop.create_task().

        Returns:
            asyncio.Task: The task. Cancelling one that is queued takes it out of the queue: none of its code runs.

        Raises:
            RuntimeError: The group has not been entered, is shutting down (its tasks are being cancelled), or is finished.
            TypeError: Neither a coroutine nor a callable, or a keyword that the loop does not know.

        A coroutine that is refused is closed (CPython issue 115957), so that no warning says that it was never awaited.

        Example:
            >>> async with TaskGroup(concurrency_limit=10) as tg:
            ...     tasks = [tg.create_task(fetch(url), name=url) for url in urls]
            >>> pages = [task.result() for task in tasks]
        """

    def create_background_task(
        self,
        coro: Coroutine[Any, Any, _T] | Callable[[], Coroutine[Any, Any, _T]],
        *,
        name: str | None = None,
        context: Context | None = None,
        eager_start: bool | None = None,
    ) -> asyncio.Task[_T]:
        """Start a background task in the group: one that lives as long as the work it serves.

        When the body and the last foreground task (queued ones included) have ended, it is cancelled, once, and awaited.
        It ends last, as Trio's and curio's designs of daemon tasks have it; to end it earlier, call the task's cancel().
        An error in it aborts the group, as in any other task. It takes no slot of the concurrency limit.

        Args:
            coro (Coroutine | Callable): As for create_task().
            name (str | None): As for create_task().
            context (contextvars.Context | None): As for create_task().
            eager_start (bool | None): As for create_task(), but that no slot is needed.
            **kwargs: Passed on to loop.create_task().

        Returns:
            asyncio.Task: The task.

        Raises:
            RuntimeError: The group has not been entered, is shutting down (its tasks, or its background tasks, are being
                cancelled), or is finished.
            TypeError: As for create_task().

        Example:
            >>> async with TaskGroup() as tg:
            ...     heart = tg.create_background_task(heartbeat)
            ...     tg.create_task(serve(connection))
            >>> heart.cancelled()
            True
        """

    @overload
    def map(
        self,
        f: Callable[[_Item], Coroutine[Any, Any, _T]],
        items: AsyncIterable[_Item],
        /,
        *,
        ordered: bool = True,
        buffersize: SupportsIndex | None = None,
    ) -> AsyncIterator[_T]: ...
    @overload
    def map(
        self,
        f: Callable[[_Item], Coroutine[Any, Any, _T]],
        items: Iterable[_Item],
        /,
        *,
        ordered: bool = True,
        buffersize: SupportsIndex | None = None,
    ) -> AsyncIterator[_T]:
        """Call a function with each item of a source, in tasks of the group, and iterate over the results.

        For each item a foreground task is made, in which f(item) is called; the concurrency limit holds for it as for
        any other. At most buffersize items are taken and not yet yielded, so that neither the items nor the results
        need fit into memory, and the source need not end. Nothing is taken before the first result is asked for.

        Args:
            f (Callable): A coroutine function, or another callable with one argument that returns a coroutine.
            items (Iterable | AsyncIterable): The source. A synchronous one is drawn while the caller asks for a result,
                in the caller's task, and its errors are raised there, at the async for. An asynchronous one (or one
                that is both) is read by a background task, whose error aborts the group; if it is an asynchronous
                generator, that task closes it in the end.
            ordered (bool): Whether the results come in the order of the items; if not, they come as they are ready.
            buffersize (int | None): How many items may be running, queued or ready to be yielded, at least 1 (the name
                is that of CPython 3.14's Executor.map()). None for the concurrency limit; without one it has to be
                given.

        Returns:
            AsyncIterator: Yields the results. Items whose task fails or is cancelled are left out; an error aborts
            the group, or is raised at its exit. It is no generator, and need not be closed (PEP 789): after a break
            nothing more is taken, and the group's exit waits for what runs.

        Raises:
            TypeError: At the call: f is not callable, items is no source, or buffersize is missing or no integer.
            ValueError: At the call: buffersize is less than 1.
            RuntimeError: At the async for: the group has not been entered, is shutting down or is finished, another
                task waits for the next result, or the task that reads the source was cancelled.

        A foreground task that asks for results holds a slot itself: at a limit of 1 it waits for ever.

        Example:
            >>> async with TaskGroup(concurrency_limit=10) as tg:
            ...     async for page in tg.map(fetch, urls):
            ...         print(page)
            <a>
            <b>
            <c>
        """

    async def wait_for_slot(self) -> None:
        """Wait until a foreground task that is created now starts without queueing.

        That is so when a slot of the concurrency limit is free, nothing is queued, and every task that was granted a
        slot has started. Then, or without a limit, it returns at once. So a producer takes its next item only when it
        can be worked on. Nothing is reserved: all tasks that wait here are woken, in order of arrival, and one that
        finds the slot taken keeps its place. A foreground task of the group that waits holds a slot itself: with a
        limit of 1 it waits for ever.

        Returns:
            None

        Raises:
            RuntimeError: The group has not been entered, is shutting down (the body and the group's tasks that wait get
                their own CancelledError instead), or is finished.

        Example:
            >>> async with TaskGroup(concurrency_limit=10) as tg:
            ...     for url in urls:            # or messages of a queue, without end
            ...         await tg.wait_for_slot()
            ...         tg.create_task(fetch(url))
        """

    def cancel(self) -> None:
        """Leave the group early: cancel its tasks and its body, and swallow that cancellation at the exit.

        The task that the group is in goes on after the group's block. Errors of tasks are raised there as usual. Before the
        group is entered, this takes effect on entry; after the exit, and a second time, it does nothing. It is
        asyncio.TaskGroup.cancel() of CPython 3.15 (issue 108951), on every CPython from 3.11.

        Example:
            >>> async with TaskGroup() as tg:
            ...     for url in urls:
            ...         tg.create_task(first_answer(url, then=tg.cancel))
        """

    def statistics(self) -> TaskGroupStatistics:
        """Say what the group is doing now.

        Returns:
            TaskGroupStatistics: A named tuple of running (foreground tasks that hold a slot; all of them without a
            limit), queued (foreground tasks that wait for a slot), background (background tasks) and concurrency_limit
            (an int, or None). The names are those that Trio and anyio use.

        Example:
            >>> async with TaskGroup(concurrency_limit=2) as tg:
            ...     for url in urls:
            ...         tg.create_task(fetch(url))
            ...     print(tg.statistics())
            TaskGroupStatistics(running=2, queued=1, background=0, concurrency_limit=2)
        """

class TaskGroupStatistics(NamedTuple):
    """What TaskGroup.statistics() returns: how many tasks the group has, of which kind."""

    running: int
    """foreground tasks that hold a slot; all of them without a limit"""
    queued: int
    """foreground tasks that wait for a slot"""
    background: int
    """background tasks"""
    concurrency_limit: int | None
    """how many foreground tasks may run at once, None without a limit"""
