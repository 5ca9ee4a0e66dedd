"""What type checkers and editors see: the stubs, held against the package as it is built."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from stubs import STUB, built, definitions, with_docstrings

import quattro

HERE = Path(__file__).parent
STUBBED = definitions(STUB.read_text())


def run(*command: str) -> None:
    """Run a module of this interpreter; what it says is shown if it does not end well."""
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_types_of_uses() -> None:
    """Task[T] comes from whatever may be a task, and wrong use is an error (typing_examples.py)."""
    run("mypy", "--strict", "--config-file=", str(HERE / "typing_examples.py"))


def test_stubs_tell_what_is_there() -> None:
    """The stubs name everything that the built package has, and nothing else, with the same signatures."""
    run("mypy.stubtest", "quattro")


def test_public_names() -> None:
    """The surface: these classes with these members, and no others."""
    methods = ["__aenter__", "__aexit__", "cancel", "cancel_on_error", "concurrency_limit", "create_background_task"]
    methods += ["create_task", "wait_for_slot"]
    python = ["map", "statistics"]  # those that are not C
    fields = ["background", "concurrency_limit", "queued", "running"]
    assert sorted(STUBBED) == [
        "TaskGroup",
        *(f"TaskGroup.{name}" for name in sorted([*methods, *python])),
        "TaskGroupStatistics",
        *(f"TaskGroupStatistics.{name}" for name in fields),
    ]
    own = vars(quattro.TaskGroup.__bases__[0])
    assert sorted(name for name in own if not name.startswith("_")) == sorted(methods[2:])


def test_docstrings() -> None:
    """help() and editors show the same docstrings (if not: python tools/stubs.py)."""
    assert all(inspect.getdoc(built(name)) for name in STUBBED)
    assert STUB.read_text() == with_docstrings(STUB.read_text())


@pytest.mark.parametrize("name", [name for name in STUBBED if inspect.isroutine(built(name))])
def test_signatures(name: str) -> None:
    """help() and inspect.signature() show the parameters that the stub declares."""
    node = STUBBED[name]
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    parameters = inspect.signature(built(name)).parameters
    positional = [name for name, one in parameters.items() if one.kind is not one.KEYWORD_ONLY and name != "kwargs"]
    keywords = {name: one.default for name, one in parameters.items() if one.kind is one.KEYWORD_ONLY}
    assert positional == [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
    defaults = [ast.literal_eval(default) for default in node.args.kw_defaults if default is not None]
    assert keywords == dict(zip([argument.arg for argument in node.args.kwonlyargs], defaults, strict=True))
