"""What the C has in Python: the one native frame of ours that a task may have, and the parts of asyncio that it asks.

The frame is that of a task that had to queue, or was given a callable. It is an ``async def`` function, and not C, so
that every tool can read the stack of such a task: ``asyncio ps`` walks coroutine frames in memory and stops at anything
else.
"""

from __future__ import annotations

from _asyncio import Future as CFuture
from _asyncio import Task as CTask
from asyncio import CancelledError, InvalidStateError, base_events, events, futures, tasks
from collections import deque
from collections.abc import Coroutine
from functools import partial
from types import CodeType, CoroutineType, FunctionType

TYPE_CHECKING = False  # typing's, without the time that importing it takes: asyncio does without it from 3.14 on
if TYPE_CHECKING:
    from asyncio import Task
    from typing import Any

    from ._quattro import _Turn

__all__ = ["CFuture", "CancelledError", "Coroutine", "InvalidStateError", "deque", "events", "partial"]

# Functions that this Python may lack, and asyncio's own of those that tools replace.
add_awaited_by = getattr(futures, "future_add_to_awaited_by", None)
discard_awaited_by = getattr(futures, "future_discard_from_awaited_by", None)
eager_task_factory = getattr(tasks, "eager_task_factory", None)
current_task = tasks.current_task

# What is asked of each task, without the look-up of its name.
task_add_done_callback = CTask.add_done_callback
task_remove_done_callback = CTask.remove_done_callback
task_done = CTask.done
task__callbacks = CTask._callbacks
task__exception = CTask._exception

# The descriptors of coroutines, which the type itself hides behind its own names; and names of keywords.
coroutine_name = CoroutineType.__dict__["__name__"]
coroutine_qualname = CoroutineType.__dict__["__qualname__"]
context_kwname = ("context",)
loop_kwname = ("loop",)


def _stock(function: Any) -> tuple[Any, CodeType | None]:
    """Give asyncio's own BaseEventLoop.create_task and its code, unless somebody patched it before our import.

    Its globals are then its module's, its code says its name, and nothing has been hung on it.
    """
    if isinstance(function, FunctionType) and function.__globals__ is vars(base_events) and not vars(function):
        code = function.__code__
        if code.co_qualname == "BaseEventLoop.create_task":
            return function, code
    return None, None


stock_create_task, stock_code = _stock(base_events.BaseEventLoop.create_task)


def _uncancel_resets() -> bool:
    """Ask whether uncancel() takes a pending cancel back when its count reaches zero (CPython issue 117407).

    Micro releases differ. The Task was never initialised, which takes neither a loop nor a coroutine.
    """
    task: Any = CTask.__new__(CTask)
    task.cancel()
    task.uncancel()
    return not task._must_cancel


uncancel_resets = _uncancel_resets()


async def run_turn(turn: _Turn) -> Any:
    """Wait for the turn, run the coroutine that it hands over, and tell it how that ended."""
    try:
        await turn
        result = await turn.begin()
    except CancelledError:
        turn.end()
        raise
    except BaseException:
        turn.fail()
        raise
    turn.end()
    return result


def rearm(parent: Task[Any]) -> None:
    """Cancel a task again that was cancelled from outside, unless that has been taken back meanwhile."""
    if parent.cancelling():
        parent.uncancel()
        parent.cancel()
