"""The pictures of the guides show what groups do: they are drawn again, and compared."""

from __future__ import annotations

import runpy
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs" / "drawings"


def test_drawings() -> None:
    """Each picture is what its program does today (if not: python docs/drawings/draw.py, and look)."""
    drawn = runpy.run_path(str(FOLDER / "draw.py"))["drawings"]()
    assert drawn == {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.svg")}
