"""An interpreter that ends with groups alive: it says nothing that it would not say of asyncio.TaskGroup, and lives."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from collections import Counter

import pytest

KINDS = {
    "never entered": "pass",
    "running": "create(2)",
    "running and stepped": "create(2); await asyncio.sleep(0)",
    "queued": "create(5)",
    "queued and stepped": "create(5); await asyncio.sleep(0)",
    "callables queued": "create(5, callables=True); await asyncio.sleep(0)",
    "started late": "create(2, quick); create(2)" + "; await asyncio.sleep(0)" * 3,
    "background": "create(1); background(); await asyncio.sleep(0)",
    "in the exit": "create(5); background(); await leave()",
    "background in the exit": "background(); await leave()",
    "aborted in the exit": "create(5, stubborn); background(); group._abort(); await leave()",
    "failing": "create(1, fails); create(5); background(); await asyncio.sleep(0)",
}
KEPT = {
    "by a global": "kept = group, loop",
    "by a thread's loop": "kept = loop",
    "by a cycle": "cycle = [group, loop]; cycle.append(cycle); gc.disable(); del cycle",
    "by its tasks": "kept = tasks",
    "by nobody": "pass",
    "by nobody, and the loop is closed": "loop.close()",
}

SCRIPT = """
    import asyncio, gc, sys, threading
    from quattro import TaskGroup
    ours = {ours!r}
    tasks = []

    async def forever():
        await asyncio.get_running_loop().create_future()

    async def quick():
        pass

    async def stubborn():
        while True:
            try:
                await forever()
            except asyncio.CancelledError:
                pass

    async def fails():
        raise ValueError("fails")

    async def live():
        global group
        group = TaskGroup(concurrency_limit=2) if ours else asyncio.TaskGroup()

        def create(count, job=forever, callables=False):
            for _ in range(count):
                tasks.append(group.create_task(job if callables and ours else job()))

        def background():
            tasks.append((group.create_background_task if ours else group.create_task)(forever()))

        async def leave():
            exiting = asyncio.ensure_future(group.__aexit__(None, None, None)) if not ours else None
            step = group.__aexit__(None, None, None).send(None) if ours else await asyncio.sleep(0)
            tasks.append((exiting, step))

        if {kind!r} != "never entered":
            await group.__aenter__()
        {life}

    def run():
        global loop, group
        loop = asyncio.new_event_loop()
        loop.run_until_complete(live())

    if {keep!r} == "kept = loop":
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    else:
        run()
    {keep}
    del group, loop
    if {keep!r} != "kept = tasks":
        del tasks
"""


def last_words(ours: bool, kind: str, keep: str) -> Counter[str]:
    """What the interpreter says at its end, and how often."""
    script = SCRIPT.format(ours=ours, kind=kind, life=KINDS[kind], keep=KEPT[keep])
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "", done.stderr
    details = r"task: <.*|future: <.*|^\S+:\d+: (?=Runtime)|.*Enable tracemalloc.*"
    lines = [re.sub(details, "", line) for line in done.stderr.splitlines()]
    return Counter(re.sub(r"'\w+'|<.*", "...", line) for line in lines if line)


@pytest.mark.parametrize("keep", KEPT)
@pytest.mark.parametrize("kind", KINDS)
def test_interpreter_ends_with_a_live_group(kind: str, keep: str) -> None:
    """Whatever a group is doing, and whoever holds it, no line is said that asyncio's group has not."""
    ours = last_words(True, kind, keep)
    if "create(5" in KINDS[kind] and keep not in ("by a global", "by its tasks"):
        # A coroutine in the queue that the collector comes to before what would close it.
        del ours["RuntimeWarning: coroutine ... was never awaited"]
    theirs = last_words(False, kind, keep)
    if kind == "failing" and ours["unhandled error in a TaskGroup that was never left"] == 1:
        # asyncio's group takes the errors of its tasks with it when it is dropped (anyio issue 902).
        theirs += Counter(dict.fromkeys(ours, 1))
    assert ours <= theirs
