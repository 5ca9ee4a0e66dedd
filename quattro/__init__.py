"""``asyncio.TaskGroup`` in C, with background tasks and a concurrency limit."""

from __future__ import annotations

import asyncio

try:
    from ._quattro import TaskGroupStatistics
except ModuleNotFoundError as error:
    if error.name != "quattro._quattro":
        raise
    raise ImportError(
        f"the C of quattro is not built for this Python in {__path__[0]}. If that is its source tree, build it with "
        "`make run`, or leave the folder to import the quattro that is installed; else install quattro-c again.",
        name=error.name,
    ) from None
from . import _quattro
from . import _turn as _turn  # imported by the C: said here for whoever collects what a program needs
from ._map import Map as _Map
from ._version import __version__ as __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["TaskGroup", "TaskGroupStatistics"]

# Not asyncio.TaskGroup, which may be ours by now.
_Stock = next(cls for cls in asyncio.TaskGroup.__mro__ if cls.__module__ == "asyncio.taskgroups")


class TaskGroup(_quattro.TaskGroup, _Stock):  # type: ignore[misc, valid-type]
    __doc__ = _quattro.TaskGroup.__doc__
    __slots__ = ()

    async def __aenter__(self) -> Self:
        return await _quattro.TaskGroup.__aenter__(self)

    async def __aexit__(
        self, et: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None, /
    ) -> bool | None:
        return await _quattro.TaskGroup.__aexit__(self, et, exc, tb)

    async def wait_for_slot(self) -> None:
        return await _quattro.TaskGroup.wait_for_slot(self)

    __aenter__.__doc__ = _quattro.TaskGroup.__aenter__.__doc__
    __aexit__.__doc__ = _quattro.TaskGroup.__aexit__.__doc__
    wait_for_slot.__doc__ = _quattro.TaskGroup.wait_for_slot.__doc__

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


_quattro._shorten(TaskGroup.__aenter__, TaskGroup.__aexit__, TaskGroup.wait_for_slot)
