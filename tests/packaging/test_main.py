"""`python -m quattro`, the facts for a bug report; and what an import brings in."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

import quattro
from quattro.__main__ import facts

PACKAGE = Path(quattro.__file__).parent


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run this interpreter with a folder on its path, before all others."""
    env = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=env, capture_output=True, text=True)


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


@pytest.mark.parametrize(
    ("argument", "status", "says"),
    [("--version", 0, f"quattro-c {quattro.__version__}\n"), ("--help", 0, "usage: python -m quattro"), ("xyz", 2, "")],
)
def test_arguments(argument: str, status: int, says: str) -> None:
    """--version and --help say so; anything else is an error."""
    done = run("-m", "quattro", argument, folder=PACKAGE.parent)
    assert done.returncode == status and done.stdout.startswith(says)
    assert ("xyz" in done.stderr) == (status == 2)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGPIPE")
@pytest.mark.parametrize("arguments", [(), ("--help",)])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_nobody_reads(arguments: tuple[str, ...], unbuffered: str) -> None:
    """`python -m quattro | true` ends quietly, as any tool does."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "quattro", *arguments]
    env = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(command, env=env, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, b"")


@pytest.mark.parametrize("command", [("-c", "import quattro"), ("-m", "quattro")], ids=" ".join)
def test_not_built(command: tuple[str, str], tmp_path: Path) -> None:
    """A source tree that is not built says that it is not, and what to do."""
    folder = tmp_path / "quattro"
    shutil.copytree(PACKAGE, folder, ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__"))
    done = run("-S", *command, folder=tmp_path)  # without what an editable installation of another tree would find
    error = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and done.stderr.count("Traceback") == 1
    assert error.startswith(f"ImportError: the C of quattro is not built for this Python in {folder}.")
    assert "`make run`" in error and "leave the folder" in error


def test_another_import_error_is_not_hidden(tmp_path: Path) -> None:
    """What fails while the C is imported is shown as it is."""
    shutil.copytree(PACKAGE, tmp_path / "quattro", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "quattro" / "_turn.py").write_text("import no_such_module")
    done = run("-c", "import quattro", folder=tmp_path)
    assert done.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'no_such_module'"


@pytest.mark.parametrize("last", ["ours", "theirs"])
def test_two_projects_in_one_folder(last: str, tmp_path: Path) -> None:
    """The other quattro of the index, installed over ours or under it, is named, with what to do; the status is 1."""
    shutil.copytree(PACKAGE, tmp_path / "quattro", ignore=shutil.ignore_patterns("__pycache__"))
    other = tmp_path / "quattro-26.1.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.4\nName: quattro\nVersion: 26.1.0\n")
    if last == "theirs":
        (tmp_path / "quattro" / "__init__.py").write_text("from asyncio import TaskGroup")
    done = run("-m", "quattro", folder=tmp_path)
    assert done.returncode == 1 and "quattro 26.1.0" in done.stdout
    assert done.stderr.startswith("quattro 26.1.0, another project's, is installed in the same folder")
    assert ("gives you this one" in done.stderr, "gives you that one" in done.stderr) == (
        last == "ours",
        last != "ours",
    )
    assert "python -m pip uninstall quattro quattro-c" in done.stderr


def test_import() -> None:
    """Importing the package brings in its own modules, and none of the standard library's that would cost time."""
    code = "import asyncio, sys; before = set(sys.modules); import quattro; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) - {"__future__"} == {
        "quattro",
        "quattro._errors",
        "quattro._map",
        "quattro._quattro",
        "quattro._turn",
        "quattro._version",
    }
