"""``asyncio.TaskGroup`` in C, with background tasks and a concurrency limit."""

from __future__ import annotations

import asyncio

from . import _quattro
from ._quattro import TaskGroupStatistics

__all__ = ["TaskGroup", "TaskGroupStatistics"]
from ._version import __version__


class TaskGroup(_quattro.TaskGroup, asyncio.TaskGroup):
    __doc__ = _quattro.TaskGroup.__doc__
    __slots__ = ()
