"""Run every test many times in one process, and name those that leave references, memory or files behind each time.

`python refleaks.py [PYTEST ARGUMENTS]`, meant for a debug build of CPython, after `python -m test -R`. Two runs warm
up. A test that was flat once is done; one that is not runs on, a thousand times at most: a leak grows each time, while
the interpreter's caches fill up over a few hundred runs. Tests that start processes or keep books of their own
(hypothesis) are left out. uvloop, and wrapt below OpenTelemetry, count references of their own wrongly in a debug build
(those grow, the blocks do not): with them the blocks alone count.
"""

from __future__ import annotations

import gc
import os
import sys
from array import array
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

WARM_UP, COUNTED = 2, 1000
LEFT_OUT = [
    "tests/hostile/test_leaks.py",
    "tests/hostile/test_shutdown.py",
    "tests/hostile/test_soak.py",
    "tests/hostile/test_stress.py",
    "tests/neighbours/test_pytest.py",
    "tests/neighbours/test_servers.py",
    "tests/packaging",
    "tests/parity/test_model.py",
]
FILES = Path("/proc/self/fd")
BLOCKS_ALONE = "uvloop", "opentelemetry", "test_all_of_them_at_once"  # in the name of a test


def count(into: array[int]) -> None:
    """Blocks of memory, references (in a debug build), open files; nothing is allocated that stays."""
    gc.collect()
    into[0] = sys.getallocatedblocks()
    into[1] = getattr(sys, "gettotalrefcount", int)()
    into[2] = sum(1 for _ in FILES.iterdir()) if FILES.exists() else 0


class Hunt:
    def __init__(self) -> None:
        self.leaks: list[str] = []
        self.tests = 0

    def run(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool:
        """Once, without a word about it; did it pass (or skip itself)?"""
        item._initrequest()  # type: ignore[attr-defined]
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        return not any(report.failed for report in reports)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool:
        if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            return True
        gc.collect()
        gc.freeze()  # so that the collections from here on are quick
        flat = [False, any(name in item.nodeid for name in BLOCKS_ALONE), False]
        before, after = array("q", [0, 0, 0]), array("q", [0, 0, 0])
        growth = array("q", bytes(8 * 3 * COUNTED))  # made before anything is counted
        good, left = True, WARM_UP + COUNTED
        while good and left > 0 and not all(flat):
            left -= 1
            good = self.run(item, None) and good
            count(after)
            if left < COUNTED:
                for i in range(3):
                    growth[3 * left + i] = after[i] - before[i]
                    flat[i] |= after[i] <= before[i]
            before, after = after, before
        gc.unfreeze()
        self.run(item, nextitem)
        self.tests += 1
        if not good or not all(flat):
            self.leaks.append(item.nodeid)
            last = [list(growth[i : i + 3]) for i in range(3 * left, 3 * min(left + 10, COUNTED), 3)]
            print(
                f"{item.nodeid}: {'' if good else 'failed; '}blocks, references, files: ..., {last[::-1]}", flush=True
            )
        return True


def main(arguments: list[str]) -> int:
    os.chdir(Path(__file__).parent.parent)
    hunt = Hunt()
    out = [f"--ignore={path}" for path in LEFT_OUT]
    plugins: list[Any] = [hunt]
    status = pytest.main(["-q", "-p", "no:cacheprovider", *out, *(arguments or ["tests"])], plugins=plugins)
    print(f"{hunt.tests} tests, {len(hunt.leaks)} of them leak or fail")
    return int(status) or (1 if hunt.leaks or not hunt.tests else 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
