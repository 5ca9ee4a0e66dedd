"""The one native frame of ours that a task may have: that of a task that had to queue, or was given a callable.

It is an ``async def`` function, and not C, so that every tool can read the stack of such a task: ``asyncio ps`` walks
coroutine frames in memory and stops at anything else.
"""

from __future__ import annotations

from asyncio import CancelledError
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._quattro import _Turn


async def run_turn(turn: _Turn) -> Any:
    """Wait for the turn, run the coroutine that it hands over, and tell it how that ended."""
    try:
        result = await (await turn)
    except CancelledError:
        turn.end()
        raise
    except BaseException:
        turn.fail()
        raise
    turn.end()
    return result
