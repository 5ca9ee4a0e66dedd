"""``asyncio.TaskGroup`` in C, with background tasks and a concurrency limit."""

from __future__ import annotations

import asyncio

from . import _quattro
from ._quattro import TaskGroupStatistics
from ._version import __version__ as __version__

__all__ = ["TaskGroup", "TaskGroupStatistics"]


class TaskGroup(_quattro.TaskGroup, asyncio.TaskGroup):
    __doc__ = _quattro.TaskGroup.__doc__
    __slots__ = ()
