"""No path through a group leaves memory or references behind; `leaks.py` has the paths."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import leaks
import pytest

from quattro import TaskGroup


@pytest.mark.parametrize("name", leaks.PATHS)
def test_no_leak(name: str) -> None:
    """Hundreds of runs of a path, in a process of its own, leave nothing that a single run would have left."""
    script = Path(leaks.__file__)
    done = subprocess.run([sys.executable, str(script), name], capture_output=True, text=True, check=True)
    blocks, references = map(int, done.stdout.split())
    assert blocks < leaks.ROUNDS / 2 and references < leaks.ROUNDS / 2, done.stdout


def test_every_public_method_has_a_path() -> None:
    """A public method or attribute without a path is a path not measured."""
    public = {name for name in vars(TaskGroup.__mro__[1]) if not name.startswith("_")}
    assert public <= leaks.PATHS.keys()
