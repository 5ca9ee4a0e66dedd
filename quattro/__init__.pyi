import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from types import TracebackType
from typing import Any, Final, Self, SupportsIndex, TypeVar, final

from _typeshed import structseq

__all__ = ["TaskGroup", "TaskGroupStatistics"]
__version__: str

_T = TypeVar("_T")

# The docstrings are those of the C (a test compares them): editors read them here, and cannot read them there.
# create_task() passes any other keyword on to loop.create_task(). That is left out, as it is for asyncio's: what a
# checker sees there is a misspelt name far more often than an argument of a task factory.

class TaskGroup(asyncio.TaskGroup):
    """asyncio.TaskGroup with background tasks and a concurrency limit.

    An asynchronous context manager for a group of tasks. Its exit waits for all of them; if one fails, the others are
    cancelled, and the errors are raised as an ExceptionGroup. It behaves as asyncio.TaskGroup of CPython 3.15 does.

    Args:
        concurrency_limit (int | None): How many foreground tasks may run at once, at least 1; the rest queue, first
            in, first out. None for no limit.

    Raises:
        ValueError: The limit is less than 1.
        TypeError: The limit is not an integer.

    Example:
        >>> async with TaskGroup(concurrency_limit=10) as tg:
        ...     tg.create_background_task(show_progress)
        ...     for item in items:
        ...         tg.create_task(process(item))
    """

    def __init__(self, *, concurrency_limit: SupportsIndex | None = None) -> None: ...
    @property
    def concurrency_limit(self) -> int | None:
        """How many foreground tasks may run at once, an int; None without a limit."""

    async def __aenter__(self) -> Self:
        """Enter the group: the task that runs this becomes its parent.

        Returns:
            An awaitable whose result is the group.

        Raises:
            RuntimeError: The group has been entered before, or no task is running.
        """

    async def __aexit__(  # type: ignore[override]
        self, et: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None, /
    ) -> bool | None:
        """Wait for the foreground tasks, then cancel the background tasks and wait for them.

        Returns:
            An awaitable whose result is true if it deals with the body's exception.

        Raises:
            BaseExceptionGroup: The errors of tasks and body, but for CancelledError.
            asyncio.CancelledError: The parent task was cancelled from outside.
            SystemExit, KeyboardInterrupt: As they are, from a task or the body; other errors are reported through
                loop.call_exception_handler().
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

        At a group's concurrency limit the task is queued, first in, first out, and starts when a slot is free.

        Args:
            coro: A coroutine, or a callable without required arguments that returns one. A callable is called
                inside the task, when the task starts.
            name (str | None): The task's name.
            context (contextvars.Context | None): What the task runs in; a copy of the current one by default.
            eager_start (bool | None): Run the task within this call until it first waits (CPython 3.12+), if
                a slot is free.
            **kwargs: Passed on to loop.create_task().

        Returns:
            asyncio.Task: The task, at once.

        Raises:
            RuntimeError: The group has not been entered, is finished, or is shutting down.
            TypeError: Neither a coroutine nor a callable, or a keyword that the loop does not know.
            A coroutine for which no task is made is closed.

        Example:
            >>> async with TaskGroup(concurrency_limit=10) as tg:
            ...     tasks = [tg.create_task(fetch(url)) for url in urls]
        """

    def create_background_task(
        self,
        coro: Coroutine[Any, Any, _T] | Callable[[], Coroutine[Any, Any, _T]],
        *,
        name: str | None = None,
        context: Context | None = None,
        eager_start: bool | None = None,
    ) -> asyncio.Task[_T]:
        """Start a task that lives as long as the work it serves.

        It is cancelled, once, when the body and the last foreground task have ended, and awaited. It takes no slot of
        the concurrency limit. An error in it aborts the group, like an error in any other task. To end it earlier,
        call task.cancel(). Trio's and curio's designs of daemon tasks end them last, too.

        Args:
            coro: A coroutine, or a callable without required arguments that returns one.
            name, context, eager_start, **kwargs: As for create_task().

        Returns:
            asyncio.Task: The task, at once.

        Raises:
            RuntimeError: The group has not been entered, is finished, or is shutting down (its background tasks are
                being cancelled already).
            TypeError: As for create_task().

        Example:
            >>> async with TaskGroup() as tg:
            ...     tg.create_background_task(heartbeat)
            ...     tg.create_task(serve(connection))
        """

    def cancel(self) -> None:
        """Leave the group early: cancel its tasks and its body, and swallow that cancellation at the exit.

        Before the group is entered, this takes effect on entry; after the exit, and a second time, it does nothing.
        It is asyncio.TaskGroup.cancel() of CPython 3.15.

        Example:
            >>> async with TaskGroup() as tg:
            ...     tg.create_task(first_answer(tg.cancel))
        """

    def statistics(self) -> TaskGroupStatistics:
        """What the group is doing now.

        Returns:
            TaskGroupStatistics: A named tuple of running (foreground tasks that hold a slot; all of them without a
                limit), queued, background (tasks, each an int) and concurrency_limit (int or None).

        Example:
            >>> tg.statistics().queued
            90
        """

@final
class TaskGroupStatistics(structseq[int | None], tuple[int, int, int, int | None]):
    """What TaskGroup.statistics() returns: how many tasks the group has, of which kind."""

    __match_args__: Final = ("running", "queued", "background", "concurrency_limit")

    @property
    def running(self) -> int:
        """foreground tasks that hold a slot; all of them without a limit"""

    @property
    def queued(self) -> int:
        """foreground tasks that wait for a slot"""

    @property
    def background(self) -> int:
        """background tasks"""

    @property
    def concurrency_limit(self) -> int | None:
        """how many foreground tasks may run at once, None without a limit"""
