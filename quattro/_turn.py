"""What the C has in Python: the one native frame of ours that a task may have, and the parts of asyncio that it asks.

The frame is that of a task that had to queue, or was given a callable. It is an ``async def`` function, and not C, so
that every tool can read the stack of such a task: ``asyncio ps`` walks coroutine frames in memory and stops at anything
else.
"""

from __future__ import annotations

import sys
from _asyncio import Future as CFuture
from _asyncio import Task as CTask
from asyncio import CancelledError, InvalidStateError, base_events, events, futures, tasks
from collections import deque
from collections.abc import Coroutine
from functools import partial
from types import CodeType, CoroutineType, FunctionType

from ._errors import (
    given_exception,
    low_limit,
    not_a_coroutine,
    note_callable,
    refusal,
    report_displaced,
    report_late,
    report_lost,
)

TYPE_CHECKING = False  # typing's, without the time that importing it takes: asyncio does without it from 3.14 on
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future, Task
    from collections.abc import Callable
    from typing import Any

    from ._quattro import _Turn

__all__ = [
    "CFuture",
    "CancelledError",
    "Coroutine",
    "InvalidStateError",
    "deque",
    "events",
    "given_exception",
    "low_limit",
    "not_a_coroutine",
    "note_callable",
    "partial",
    "refusal",
    "report_displaced",
    "report_late",
    "report_lost",
]

# Functions that this Python may lack, and asyncio's own of those that tools replace.
add_awaited_by = getattr(futures, "future_add_to_awaited_by", None)
discard_awaited_by = getattr(futures, "future_discard_from_awaited_by", None)
eager_task_factory: Any = getattr(tasks, "eager_task_factory", None)
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


class _NoLoop:
    """All that a future asks of its loop if nobody waits for it."""

    def get_debug(self) -> bool:
        return False


def new_done_future(loop: Any) -> Future[None]:
    """Make a future that tasks are woken with: asyncio's own kind is the one asked quickest."""
    future: Future[None] = CFuture(loop=loop)
    future.set_result(None)
    return future


# All groups share one, unless threads run at once: a task's step holds the lock of the future that wakes it.
done_future = new_done_future(_NoLoop()) if getattr(sys, "_is_gil_enabled", lambda: True)() else None


def need_done_future(loop: AbstractEventLoop) -> Future[None]:
    """Give a group the future that the tasks of its granted turns are woken with."""
    return done_future or new_done_future(loop)


def create_by_name(create: Callable[..., Task[Any]], group: Any, /, *args: Any, **kwargs: Any) -> Task[Any]:
    """Make the call that create_task(coro=...) stands for, or say what is wrong with the arguments."""
    name = create.__name__
    if not args and "coro" in kwargs:
        return create(group, kwargs.pop("coro"), **kwargs)
    if len(args) > 1:
        raise TypeError(
            f"{name}() takes one coroutine or callable ({len(args)} arguments given): call the function with its "
            "arguments and pass what it returns; name, context and eager_start are keyword-only"
        )
    if args:
        raise TypeError(f"{name}() got multiple values for argument 'coro'")
    raise TypeError(f"{name}() missing 1 required positional argument: 'coro'")


def create_eagerly(loop: AbstractEventLoop, coro: Coroutine[Any, Any, Any], **kwargs: Any) -> Task[Any]:
    """Create a task as a loop with the eager factory does, but named before its first step, as from 3.14 on."""
    loop._check_closed()  # type: ignore[attr-defined]
    # No name for the task here: its error leads to this frame, which would make a cycle.
    return eager_task_factory(loop, coro, **kwargs)  # type: ignore[no-any-return]


def forget_task(loop: AbstractEventLoop, task: Task[Any]) -> None:
    """Have nobody hear that a task which a closed loop has refused "was destroyed but it is pending".

    asyncio's create_task() asks whether the loop is closed before there is a task.
    """
    if loop.is_closed():
        task._log_destroy_pending = False  # type: ignore[attr-defined]


def timer_is_due(loop: Any) -> bool:
    """Ask whether asyncio's loop, which has timers, will find that one of them is due in its next iteration."""
    return bool(loop._scheduled[0]._when <= loop.time() + loop._clock_resolution)


def rearm(loop: AbstractEventLoop, parent: Task[Any], at_once: bool = uncancel_resets) -> None:
    """Cancel a task that was cancelled from outside again, so that its next await sees that in spite of an error.

    Where uncancel() does not reset a pending cancel, a timeout around the group could not take this one back: it is
    done from the loop then, if it is still wanted.
    """
    if getattr(parent, "cancelling", int)() > 0:
        if at_once:
            parent.uncancel()
            parent.cancel()
        else:
            loop.call_soon(rearm, loop, parent, True)


def cancel_unless_ending(task: Task[Any], delay: float = 0) -> None:
    """Cancel a task, but if somebody else has, leave it to its clean-up, and cancel it only if it goes on after that.

    A timeout takes its cancel back, and then nobody has cancelled the task. No one is told of that, so this looks
    again: when the task has taken its next step, and then less and less often.
    """
    if not task.done():
        if task.cancelling():
            task.get_loop().call_later(delay, cancel_unless_ending, task, min(2 * delay + 0.001, 0.05))
        else:
            task.cancel()
