"""What the C has in Python: the one native frame of ours that a task may have, and what is seldom called.

The frame is that of a task that had to queue, or was given a callable. It is an ``async def`` function, and not C, so
that every tool can read the stack of such a task: ``asyncio ps`` walks coroutine frames in memory and stops at anything
else.
"""

from __future__ import annotations

from asyncio import CancelledError

TYPE_CHECKING = False  # typing's, without the time that importing it takes: asyncio does without it from 3.14 on
if TYPE_CHECKING:
    from asyncio import Task
    from typing import Any

    from ._quattro import _Turn


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
