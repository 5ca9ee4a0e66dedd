"""The code in README.md and docs/ runs, block by block, as Sybil finds it.

A ``python`` block that begins with an import is a program of its own; any other goes on where the page has got to, and
may await at its top level, as in ``python -m asyncio``. An ``output`` block is what the block before it has printed. A
block whose caption is ``test_....py`` is run by pytest. Warnings are errors, and so is whatever asyncio logs.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import gc
import inspect
import io
import logging
import os
import subprocess
import sys
import tempfile
import traceback
import unittest
from pathlib import Path

from sybil import Example, Sybil
from sybil.evaluators.python import pad
from sybil.parsers.myst import CodeBlockParser, SkipParser

if hasattr(sys, "gettotalrefcount"):
    # aiohttp's multidict 7.2.1 in C crashes in debug builds of CPython, without quattro too.
    os.environ["MULTIDICT_NO_EXTENSIONS"] = "1"


def run_python(example: Example) -> str | None:
    """Run a block, and keep what it prints for the block of output that may follow; return what went wrong."""
    caption = example.region.lexemes.get("options", {}).get("caption", "")
    if caption.startswith("test_"):
        return run_pytest(caption, example.parsed)
    names = example.namespace
    if example.parsed.startswith(("import ", "from ")):
        names.clear()
    names["__name__"] = "__main__"
    unraisable: list[str] = []
    hook, sys.unraisablehook = sys.unraisablehook, lambda error: unraisable.append(repr(error.exc_value))
    try:
        source = pad(example.parsed, example.line + example.parsed.line_offset)
        code = compile(source, example.path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        with (
            contextlib.redirect_stdout(io.StringIO()) as printed,
            unittest.TestCase().assertNoLogs("asyncio", logging.WARNING),
        ):
            waiting = eval(code, names)
            if inspect.iscoroutine(waiting):
                asyncio.run(waiting)
            waiting = None
            gc.collect()
    except (Exception, SystemExit):
        return traceback.format_exc()
    finally:
        sys.unraisablehook = hook
    names["__printed__"] = printed.getvalue()
    return "\n".join(unraisable) or None


def run_pytest(name: str, source: str) -> str | None:
    """Run a block as the file of tests that it is; return what went wrong."""
    options = ["-W", "error", "-p", "no:cacheprovider", "-o", "asyncio_default_fixture_loop_scope=function"]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, name).write_text(source, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, name],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
        )
    return done.stdout + done.stderr if done.returncode else None


def check_output(example: Example) -> None:
    """A block of output is what was printed, to the letter."""
    assert example.namespace["__printed__"] == example.parsed


pytest_collect_file = Sybil(
    parsers=[CodeBlockParser("python", run_python), CodeBlockParser("output", check_output), SkipParser()],
    patterns=["README.md", "docs/*.md", "docs/**/*.md"],
).pytest()
