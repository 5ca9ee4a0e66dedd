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

    __aenter__.__doc__ = _quattro.TaskGroup.__aenter__.__doc__
    __aexit__.__doc__ = _quattro.TaskGroup.__aexit__.__doc__


_quattro._shorten(TaskGroup.__aenter__, TaskGroup.__aexit__)
