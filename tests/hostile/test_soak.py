"""What `tools/run soak` does, in seconds: every kind of group and every extreme, scaled down, on each kind of loop."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import soak


@pytest.mark.parametrize("name", soak.KINDS)
async def test_kind(name: str) -> None:
    """Every kind of group does what it promises for its tasks."""
    await soak.KINDS[name](50)


@pytest.mark.parametrize("name", soak.EXTREMES)
@pytest.mark.loops("asyncio", "eager", "uvloop")
async def test_extreme(name: str) -> None:
    """Storms, aborts, nestings: a few hundred instead of a hundred thousand; they count the passes of the loop."""
    function, n = soak.EXTREMES[name]
    await function(n // 200 if n > 1_000 else n // 5)


@pytest.mark.loops("asyncio")
async def test_the_loop_has_no_more_to_do_for_a_task_among_many() -> None:
    """Passes of the loop and handles scheduled grow in proportion to the tasks."""
    for name, function in soak.growth_paths().items():
        counts = [await soak.scheduled(function, n) for n in (200, 400, 800)]
        for one, two, four in zip(*counts, strict=True):
            assert four - two <= 2 * (two - one) + 4, (name, counts)


def test_memory_is_flat() -> None:
    """A hundred thousand tasks of every kind in one process leave no memory behind."""
    command = [sys.executable, soak.__file__, "memory", "--tasks", "100000", "--slices", "20"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr


def test_a_leak_would_be_seen(tmp_path: Path) -> None:
    """The same with something kept of a task in a hundred: it fails."""
    code = (
        "import asyncio, soak, sys\n"
        "kept = []\n"
        "async def leak(n): kept.extend([[i] for i in range(n // 100)])\n"
        "soak.KINDS['leak'] = leak\n"
        "sys.exit(bool(soak.soak(100_000, 20)))\n"
    )
    script = tmp_path / "leaking.py"
    script.write_text(code)
    tools = Path(soak.__file__).parent
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (tools, tools.parent)))}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=env)
    assert (done.returncode, done.stderr) == (1, "")
