"""``asyncio.TaskGroup`` in C, with background tasks and a concurrency limit."""

from __future__ import annotations

import asyncio
from collections import namedtuple

try:
    from ._quattro import TaskGroup as _Core
    from ._quattro import _shorten
except ModuleNotFoundError as error:
    if error.name != "quattro._quattro":
        raise
    raise ImportError(
        f"the C of quattro is not built for this Python in {__path__[0]}. If that is its source tree, build it with "
        "`make run`, or leave the folder to import the quattro that is installed; else install quattro-c again.",
        name=error.name,
    ) from None
from . import _turn as _turn  # imported by the C: said here for whoever collects what a program needs
from ._map import Map as _Map
from ._version import __version__ as __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import NoReturn, Self

__all__ = ["TaskGroup", "TaskGroupStatistics"]

# Not asyncio.TaskGroup, which may be ours by now.
_Stock = next(cls for cls in asyncio.TaskGroup.__mro__ if cls.__module__ == "asyncio.taskgroups")


TaskGroupStatistics = namedtuple("TaskGroupStatistics", ["running", "queued", "background", "concurrency_limit"])
TaskGroupStatistics.__doc__ = "What TaskGroup.statistics() returns: how many tasks the group has, of which kind."
TaskGroupStatistics.running.__doc__ = "foreground tasks that hold a slot; all of them without a limit"
TaskGroupStatistics.queued.__doc__ = "foreground tasks that wait for a slot"
TaskGroupStatistics.background.__doc__ = "background tasks"
TaskGroupStatistics.concurrency_limit.__doc__ = "how many foreground tasks may run at once, None without a limit"


class TaskGroup(_Core, _Stock):
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

    __slots__ = ()

    async def __aenter__(self) -> Self:
        """Enter the group: the task that runs this becomes its parent.

        Returns:
            TaskGroup: The group.

        Raises:
            RuntimeError: The group has been entered before, no event loop is running, or no task is (for example in a
                callback of the loop).
        """
        return await _Core.__aenter__(self)

    async def __aexit__(
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
        return await _Core.__aexit__(self, et, exc, tb)

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
        return await _Core.wait_for_slot(self)

    def map(self, f, items, /, *, ordered=True, buffersize=None):
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
        return _Map(self, f, items, ordered, buffersize)

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
        _, background, queued, _, running = _Core._counts(self)  # a subclass may have something else of this name
        return TaskGroupStatistics(running, queued, background, self.concurrency_limit)

    def __repr__(self) -> str:
        words = "<TaskGroup"
        for name, count in zip(("tasks", "background", "queued", "errors"), _Core._counts(self), strict=False):
            if count:
                words += f" {name}={count}"
        return words + (" cancelling>" if self._aborting else " entered>" if self._entered else ">")

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"cannot pickle or copy a {type(self).__name__!r} object")


_shorten(TaskGroup.__aenter__, TaskGroup.__aexit__, TaskGroup.wait_for_slot)
