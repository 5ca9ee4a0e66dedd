"""What a contributor types: every command is listed, says what it cannot do, and installs what it needs."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUN = ROOT / "tools" / "run"
PYTHONS = ROOT / "tools" / "pythons"
STEP = ROOT / "tools" / "step"

needs_bash = pytest.mark.skipif(sys.platform == "win32", reason="the tools are scripts for bash")


def test_forced_colours() -> None:
    """Where colours are forced, as in the workflow, tests that read what a program writes pass all the same."""
    test = f"{Path(__file__).with_name('test_main.py')}::test_another_import_error_is_not_hidden"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", test]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"FORCE_COLOR": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_long_run_is_listed() -> None:
    """`tools/run` alone names each of its commands."""
    text = RUN.read_text()
    listed = set(re.findall(r"^#   ([\w-]+) ", text, re.MULTILINE))
    cases = re.findall(r"^    ([\w |-]+)\)", text, re.MULTILINE)
    assert listed == {name for case in cases for name in case.split(" | ")}


@needs_bash
@pytest.mark.parametrize("script", [RUN, PYTHONS], ids=lambda path: path.name)
@pytest.mark.parametrize(("arguments", "status"), [([], 0), (["no-such-thing"], 2)])
def test_usage(script: Path, arguments: list[str], status: int) -> None:
    """Without a command, or with one that is not there, a script says what there is."""
    done = subprocess.run([str(script), *arguments], capture_output=True, text=True)
    assert done.returncode == status
    assert "\n  " in done.stdout and "set -e" not in done.stdout


@needs_bash
def test_pythons_that_cannot_be_had(tmp_path: Path) -> None:
    """Without what it needs, tools/pythons says so in a line, and nothing is left half done."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in ("bash", "env", "id", "mkdir", "flock"):
        (commands / name).symlink_to(shutil.which(name) or "missing")
    env = {"PATH": str(commands), "QUATTRO_PYTHONS": str(tmp_path / "pythons")}
    done = subprocess.run([str(PYTHONS), "setup"], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert re.match("pythons: (only root|there is no debootstrap)", done.stderr)
    assert not (tmp_path / "pythons" / "root").exists()


def imported(script: Path) -> set[str]:
    """The distributions that a script imports, and those that the scripts do which it imports."""
    providers, found = metadata.packages_distributions(), set()
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"quattro"}:
            other = script.with_name(f"{name}.py")
            found |= imported(other) if other.exists() else {one.lower() for one in providers[name]}
    return found


def test_make_run_installs_what_it_runs() -> None:
    """Its group has what linkcheck.py imports, and no more; that of the examples adds what the others import."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    examples = ROOT / "examples"
    assert groups["examples"].pop() == {"include-group": "run"}
    assert imported(examples / "linkcheck.py") == set(groups["run"])
    assert set().union(*map(imported, examples.glob("*.py"))) == {*groups["run"], *groups["examples"]}


def test_make_lists_its_commands() -> None:
    """`make help` names each target that one may type."""
    if os.name != "posix" or shutil.which("make") is None:
        pytest.skip("make is not installed")
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    (phony,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    listed = set(re.findall(r"^  make (\w+) ", done.stdout, re.MULTILINE))
    assert listed == set(phony.split()) - {"help", "tools", "bench-tools"}


@needs_bash
def test_step_counts_seconds_on_a_terminal() -> None:
    """What takes long counts its seconds where somebody looks, and its exit status is kept."""
    terminal, stderr = os.openpty()
    printed = b""
    with subprocess.Popen(
        [STEP, "waiting", "sh", "-c", "read line; exit 3"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr
    ) as step:
        os.close(stderr)
        while b"-- waiting: 1 s\r" not in printed:
            printed += os.read(terminal, 1000)
        out, _ = step.communicate(b"\n")
    os.close(terminal)
    assert printed.startswith(b"-- waiting: 0 s\r") and (step.returncode, out) == (3, b"")


@needs_bash
def test_step_without_a_terminal() -> None:
    """Elsewhere it is one line."""
    done = subprocess.run([STEP, "waiting", "sh", "-c", "exit 3"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, "-- waiting\n", "")
