"""Interpreters with a GIL of their own: import, use, end, a thousand times, then in several threads at once.

Memory is judged against the same without quattro, in a process of its own: what CPython itself leaves behind when an
interpreter that used asyncio ends is not ours.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import common

if sys.version_info < (3, 12):
    common.not_applicable("interpreters with their own GIL came with 3.12")

USE = """
    async def noop(): return 1
    async def child(): await asyncio.sleep(0)
    async def main():
        async with TaskGroup(LIMIT) as tg:
            tasks = [tg.create_task(noop()) for _ in range(5)]
            tg.create_task(child())
        assert [task.result() for task in tasks] == [1] * 5
        try:
            async with TaskGroup(LIMIT) as tg:
                tg.create_task(child())
                tg.create_task(asyncio.sleep(9))
                raise KeyError
        except ExceptionGroup:
            pass
    asyncio.run(main())
"""
STOCK = "import asyncio\nfrom asyncio import TaskGroup" + textwrap.dedent(USE.replace("LIMIT", ""))
OURS = "import asyncio\nfrom quattro import TaskGroup" + textwrap.dedent(USE.replace("LIMIT", "concurrency_limit=2"))

# What a process does: so many interpreters, one after the other or in so many threads at once; it prints its memory
# after the first tenth and at the end.
PROCESS = """
import gc, sys
from pathlib import Path
from concurrent.futures import ThreadPoolExecutor
code, count, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if sys.version_info >= (3, 14):
    from concurrent import interpreters

    def one():
        interpreter = interpreters.create()
        interpreter.exec(code)
        interpreter.close()
else:
    try:
        import _interpreters
    except ImportError:
        import _xxsubinterpreters as _interpreters

    def one():
        interpreter = _interpreters.create()
        error = _interpreters.run_string(interpreter, code)
        assert error is None, error
        _interpreters.destroy(interpreter)

def resident():
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * 4096 if statm.exists() else 0

def many(count):
    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(one) for _ in range(count)]:
            future.result()
    gc.collect()

many(max(3, count // 10))
print(sys.getallocatedblocks(), resident())
many(count)
print(sys.getallocatedblocks(), resident())
"""


def run(code: str, count: int, threads: int) -> tuple[float, float]:
    """By how many blocks, and how many bytes of resident memory, an interpreter made the process grow."""
    command = [sys.executable, "-c", PROCESS, code, str(count), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0 or done.stderr:
        raise SystemExit(f"status {done.returncode}\n{done.stderr}")
    before, after = ([int(number) for number in line.split()] for line in done.stdout.splitlines())
    return (after[0] - before[0]) / count, (after[1] - before[1]) / count


def asyncio_works_there() -> bool:
    """CPython 3.12.1 aborts when an interpreter with its own GIL imports asyncio, without quattro."""
    return (
        subprocess.run([sys.executable, "-c", PROCESS, "import asyncio", "1", "1"], capture_output=True).returncode == 0
    )


if not asyncio_works_there():
    common.not_applicable("this CPython fails to import asyncio in another interpreter, without quattro (3.12.1 does)")
os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])
count = common.rounds(1_000)
if run(STOCK, 3, 1)[1] > 2**20:
    count = min(count, 100)  # CPython 3.13.0 leaves six megabytes behind each time: a thousand would fill the machine
stock = run(STOCK, max(count // 5, 10), 1)
print(f"asyncio.TaskGroup: {stock[0]:.1f} blocks and {stock[1] / 1024:.1f} KiB an interpreter")
if not common.OPTIONS.stock:
    ours = run(OURS, count, 1)
    print(f"quattro.TaskGroup: {ours[0]:.1f} blocks and {ours[1] / 1024:.1f} KiB an interpreter")
    for threads in (2, 8):
        run(OURS, count // 20 + 2, threads)
    # On a CPython that leaves nothing behind itself, an object of ours would show; on others, only a heap of them. (One
    # that gives back what it had before leaves less than nothing, as free-threaded ones do.)
    blocks, resident = max(stock[0], 0), max(stock[1], 0)
    assert ours[0] < blocks * 1.05 + 0.5, "an interpreter leaves more blocks behind than without"
    # Where CPython leaves the whole heap behind, bytes tell how large that was, and blocks what was not given back.
    lost = count < 100 or resident > 2**20
    assert lost or ours[1] < resident * 1.05 + 2048, "an interpreter leaves more bytes behind than without"
