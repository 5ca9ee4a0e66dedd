"""`python -m quattro`, the facts for a bug report; and what an import brings in."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import sysconfig
from typing import Any

import pytest

import quattro
from quattro.__main__ import facts


def test_command() -> None:
    """It prints a line for each fact, of this interpreter and this build, and nothing else."""
    command = [sys.executable, "-W", "error", "-m", "quattro"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    printed = dict(line.split(":", 1) for line in done.stdout.splitlines())
    assert done.stderr == ""
    assert list(printed) == list(asyncio.run(facts()))
    assert printed["quattro"].strip() == quattro.__version__
    assert printed["extension"].endswith(sysconfig.get_config_var("EXT_SUFFIX"))
    assert sys.version.split()[0] in printed["python"].split()
    assert ("debug build" in printed["python"]) == hasattr(sys, "gettotalrefcount")


async def test_loop(loop_kind: str) -> None:
    """The loop, its factory and its mode are those that the program runs on."""
    found = await facts()
    assert found["loop"].startswith("uvloop." if loop_kind == "uvloop" else "asyncio.")
    assert found["loop"].endswith(", debug mode") == (loop_kind == "debug")
    assert found["create_task"].endswith("Loop.create_task")
    factory = {
        "eager": "create_eager_task_factory.<locals>.factory",
        "factory": "factory_loop.<locals>.factory",
    }
    assert found["task factory"].endswith(factory.get(loop_kind, "none"))
    assert found["task"] == "_asyncio.Task"


@pytest.mark.loops("asyncio")
async def test_patched() -> None:
    """A tool that has patched the loop is seen."""
    loop = asyncio.get_running_loop()

    def create_task(coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
        return type(loop).create_task(loop, coro, **kwargs)

    loop.create_task = create_task  # type: ignore[assignment,method-assign]
    assert (await facts())["create_task"].endswith("test_patched.<locals>.create_task")


def test_import() -> None:
    """Importing the package brings in its own modules, and none of the standard library's that would cost time."""
    code = "import asyncio, sys; before = set(sys.modules); import quattro; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) - {"__future__"} == {
        "quattro",
        "quattro._quattro",
        "quattro._turn",
        "quattro._version",
    }
