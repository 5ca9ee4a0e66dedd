"""What instructions.py counts: run by it, under callgrind, with --dump-before=getppid.

Each call of os.getppid() ends one part of callgrind's output; the parts of a count are its warm-up (with everything
since the count before), SMALL tasks, LARGE tasks.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import sys
from collections.abc import Awaitable, Callable

from bodies import (
    Nothing,
    abort,
    abort_queued,
    background,
    bare,
    bare_cancelled,
    bare_eager,
    cancel_queued,
    empty,
    flat,
    flat_callables,
    flat_eager,
    limited,
    limited_callables,
    noop,
    sleep0,
)

from quattro import TaskGroup

SMALL, LARGE = 600, 2400

Run = Callable[[int], Awaitable[object]]

# Ours, and the same work without a group.
COUNTS: dict[str, tuple[Run, Run]] = {
    "one group": (lambda n: flat(TaskGroup, noop, n), lambda n: bare(noop, n)),
    "groups of 100": (lambda n: flat(TaskGroup, noop, 100, n // 100), lambda n: bare(noop, 100, n // 100)),
    "groups of 3": (lambda n: flat(TaskGroup, noop, 3, n // 3), lambda n: bare(noop, 3, n // 3)),
    "groups of 3, sleep(0)": (lambda n: flat(TaskGroup, sleep0, 3, n // 3), lambda n: bare(sleep0, 3, n // 3)),
    "empty groups": (lambda n: empty(TaskGroup, n), lambda n: empty(Nothing, n)),
    "eager": (lambda n: flat_eager(TaskGroup, noop, n), lambda n: bare_eager(noop, n)),
    "callables": (lambda n: flat_callables(TaskGroup, noop, n), lambda n: bare(noop, n)),
    "limit 10": (lambda n: limited(TaskGroup, noop, n, 10), lambda n: bare(noop, n)),
    "limit 10, sleep(0)": (lambda n: limited(TaskGroup, sleep0, n, 10), lambda n: bare(sleep0, n)),
    "limit 10, callables": (lambda n: limited_callables(TaskGroup, noop, n, 10), lambda n: bare(noop, n)),
    "background": (lambda n: background(TaskGroup, n), bare_cancelled),
    "abort": (lambda n: abort(TaskGroup, n), bare_cancelled),
    "abort, queued": (lambda n: abort_queued(TaskGroup, n, 10), bare_cancelled),
    "cancel, queued": (lambda n: cancel_queued(TaskGroup, n, 10), bare_cancelled),
}


# --- The steps of the budget: what asyncio itself asks for a task


async def coroutines(n: int) -> None:
    """A coroutine, made and run by hand."""
    for _ in range(n):
        try:
            noop().send(None)
        except StopIteration:
            pass


async def tasks(n: int) -> None:
    """Tasks that nobody awaits: made, run and dropped."""
    loop = asyncio.get_running_loop()
    made = [loop.create_task(noop()) for _ in range(n)]
    await asyncio.sleep(0)
    del made


async def direct_tasks(n: int) -> None:
    """The same without loop.create_task(), a Python function."""
    loop = asyncio.get_running_loop()
    made = [asyncio.Task(noop(), loop=loop) for _ in range(n)]
    await asyncio.sleep(0)
    del made


async def with_callback(n: int) -> None:
    """Tasks that tell a C function when they are done, in a context that they share: what a group cannot do without."""
    loop = asyncio.get_running_loop()
    context = contextvars.copy_context()
    made = [asyncio.Task(noop(), loop=loop) for _ in range(n)]
    for task in made:
        task.add_done_callback(id, context=context)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del made, task


STEPS: dict[str, Run] = {
    "coroutine": coroutines,
    "task": tasks,
    "direct": direct_tasks,
    "callback": with_callback,
    "quattro": COUNTS["one group"][0],
    "asyncio": lambda n: flat(asyncio.TaskGroup, noop, n),
}


async def main(runs: list[Run]) -> None:
    """Count all of them; the collector is off, for when it runs depends on everything."""
    gc.collect()
    gc.disable()
    for run in runs:
        await run(LARGE)
        await run(SMALL)
        os.getppid()
        await run(SMALL)
        os.getppid()
        await run(LARGE)
        os.getppid()


if __name__ == "__main__":
    asyncio.run(
        main(list(STEPS.values()) if "--steps" in sys.argv else [run for pair in COUNTS.values() for run in pair])
    )
