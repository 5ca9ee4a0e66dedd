"""Memory runs out in every place; `tools/faults.py` says what that means, `tools/run faults` tries every allocation."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from helpers import Selector, settle

import quattro
from quattro import _quattro

_testcapi = pytest.importorskip("_testcapi", reason="this CPython was installed without its test modules")

WHOLE_LIFE = pytest.mark.skipif(sys.version_info < (3, 14), reason="older CPythons crash without memory, by themselves")
FAULTS = Path(__file__).parents[2] / "tools" / "faults.py"
STRIDE = os.environ.get("QUATTRO_FAULTS")


def python(*args: str) -> subprocess.CompletedProcess[str]:
    """What becomes of a child process."""
    return subprocess.run([sys.executable, "-X", "faulthandler", *args], capture_output=True, text=True)


def faults(*args: str) -> subprocess.CompletedProcess[str]:
    """Run faults.py: its output says what went wrong; on a crash, that of errors says where it was."""
    return python(str(FAULTS), *args)


def setdefault_is_broken() -> bool:
    """CPython 3.13.0's dict.setdefault() ignores that memory ran out, and leaves a corrupt dict."""
    probe = textwrap.dedent("""
        import _testcapi
        for size in range(20):
            victim = dict.fromkeys(range(size))
            _testcapi.set_nomemory(0, 0)
            try:
                victim.setdefault(size)
            except MemoryError:
                pass
            finally:
                _testcapi.remove_mem_hooks()
    """)
    return python("-c", probe).returncode != 0


@pytest.mark.skipif(setdefault_is_broken(), reason="this CPython corrupts its own dicts when memory runs out")
def test_import() -> None:
    """Memory runs out while the C is imported: MemoryError, and nothing of the attempt stays."""
    done = faults("import", "1")
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


@pytest.mark.skipif(setdefault_is_broken(), reason="this CPython corrupts asyncio's own dicts when memory runs out")
def test_calls() -> None:
    """Memory runs out in our calls: an error or success, and every group and task still ends. [X10]"""
    done = faults("calls", STRIDE or "9")
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


@pytest.mark.skipif(
    sys.version_info < (3, 14), reason="older CPythons crash by themselves when memory runs out in them"
)
def test_life() -> None:
    """Memory runs out anywhere while a group lives: nothing is lost but what asyncio loses, no leak or crash. [X10]"""
    done = faults("life", STRIDE or "20")
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


@pytest.mark.skipif(
    sys.version_info < (3, 14), reason="older CPythons crash by themselves when memory runs out in them"
)
def test_what_is_excused() -> None:
    """asyncio.TaskGroup waits for ever in the same places."""
    assert faults("stock", "1", "create_task", "child_error").stdout.count("waits (excused)") == 2


@pytest.mark.parametrize("waits", ["exit", "slot"])
@pytest.mark.parametrize("first", range(3))
def test_who_waits_is_woken_without_memory(waits: str, first: int) -> None:
    """Once call_soon() runs it has what it needs: whoever waits for a slot, or for the last task, goes on."""

    class Loop(asyncio.SelectorEventLoop):
        armed = False

        def call_soon(self, callback: Any, one: Any = None, *, context: Any = None) -> asyncio.Handle:  # type: ignore[override]
            _testcapi.remove_mem_hooks()  # the call itself has taken no memory
            if self.armed and isinstance(callback, _quattro._Callback):
                self.armed = False
                callback = functools.partial(without_memory, callback)
            return super().call_soon(callback, *[one] * (one is not None), context=context)

    def without_memory(function: Any, argument: Any) -> None:
        loop.call_soon(int)  # so that the parent goes on by way of the loop
        gc.collect()  # empties CPython's free lists
        _testcapi.set_nomemory(first, first + 1)
        try:
            function(argument)
        finally:
            _testcapi.remove_mem_hooks()

    async def main() -> None:
        async with quattro.TaskGroup(concurrency_limit=1) as tg:
            tg.create_task(settle(2))
            await settle(1)
            loop.armed = True
            if waits == "slot":
                await tg.wait_for_slot()

    loop = Loop(Selector())
    loop.set_exception_handler(lambda loop, context: None)
    loop.run_until_complete(main())
    loop.close()
    assert not loop.armed
