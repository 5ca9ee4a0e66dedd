"""Frozen applications (PyInstaller, cx_Freeze and the like) are collected by following import statements."""

from __future__ import annotations

import modulefinder
import sys
import warnings
from pathlib import Path

import pytest

import quattro

PACKAGE = Path(quattro.__file__).parent


def collected(tmp_path: Path, program: str) -> modulefinder.ModuleFinder:
    """What the standard library's modulefinder finds of a program, asyncio's own modules left out."""
    script = tmp_path / "program.py"
    script.write_text(program, encoding="utf-8")
    finder = modulefinder.ModuleFinder([str(PACKAGE.parent)], excludes=["asyncio", "contextvars", "typing"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sources that it reads and does not run
        finder.run_script(str(script))
    return finder


@pytest.mark.parametrize("program", ["import quattro", "from quattro import TaskGroup"])
def test_all_that_an_import_brings_is_found(program: str, tmp_path: Path) -> None:
    """Every module of the package that an import brings is named by a statement, those that the C imports too."""
    found = collected(tmp_path, program).modules
    loaded = {name for name in sys.modules if name.split(".")[0] == "quattro"} - {"quattro.__main__"}
    assert {"quattro", "quattro._quattro", "quattro._turn"} <= loaded <= found.keys()


def test_nothing_of_the_package_is_missing(tmp_path: Path) -> None:
    """No import of the package leads nowhere."""
    finder = collected(tmp_path, "import quattro")
    assert [name for name in finder.badmodules if name.startswith("quattro")] == []
