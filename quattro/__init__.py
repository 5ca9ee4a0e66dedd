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
from ._version import __version__ as __version__

__all__ = ["TaskGroup", "TaskGroupStatistics"]


class TaskGroup(_quattro.TaskGroup, asyncio.TaskGroup):
    __doc__ = _quattro.TaskGroup.__doc__
    __slots__ = ()
