"""What type checkers and editors see: the stubs, held against the package as it is built."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import quattro

HERE = Path(__file__).parent
STUB = Path(quattro.__file__).with_suffix(".pyi")


def run(*command: str) -> None:
    """Run a module of this interpreter; what it says is shown if it does not end well."""
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_types_of_uses() -> None:
    """Task[T] comes from whatever may be a task, and wrong use is an error (tests/typing_examples.py)."""
    run("mypy", "--strict", "--config-file=", str(HERE / "typing_examples.py"))


def test_stubs_tell_what_is_there() -> None:
    """The stubs name everything that the built package has, and nothing else, with the same signatures."""
    run("mypy.stubtest", "quattro")


def public() -> dict[str, Any]:
    """Every public name, and the two special methods that have a docstring of their own."""
    found: dict[str, Any] = {}
    for name in quattro.__all__:
        cls = getattr(quattro, name)
        found[name] = cls
        for member in ("__aenter__", "__aexit__", *vars(cls), *vars(cls.__bases__[0])):
            own = hasattr(cls, member) and getattr(cls, member) is not getattr(tuple, member, None)
            if own and (not member.startswith("_") or member.startswith("__a")) and not member.startswith("n_"):
                found[f"{name}.{member}"] = getattr(cls, member)
    return found


def stubbed() -> dict[str, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """The classes and methods of the stub."""
    found: dict[str, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef] = {}
    for cls in ast.parse(STUB.read_text()).body:
        if isinstance(cls, ast.ClassDef):
            found[cls.name] = cls
            for method in cls.body:
                if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef):
                    found[f"{cls.name}.{method.name}"] = method
    return found


def test_public_names() -> None:
    """The tests below look at these names."""
    methods = ["__aenter__", "__aexit__", "cancel", "concurrency_limit", "create_background_task", "create_task"]
    fields = ["background", "concurrency_limit", "queued", "running"]
    assert sorted(public()) == [
        "TaskGroup",
        *(f"TaskGroup.{name}" for name in (*methods, "statistics")),
        "TaskGroupStatistics",
        *(f"TaskGroupStatistics.{name}" for name in fields),
    ]


@pytest.mark.parametrize("name", sorted(public()))
def test_docstrings(name: str) -> None:
    """Editors take docstrings from the stub, help() from the object: there is one, the same in both."""
    node = stubbed()[name]
    assert inspect.getdoc(public()[name])
    assert ast.get_docstring(node) == inspect.getdoc(public()[name])


@pytest.mark.parametrize("name", [name for name, value in sorted(public().items()) if inspect.isroutine(value)])
def test_signatures(name: str) -> None:
    """help() and inspect.signature() show the parameters that the stub declares."""
    node = stubbed()[name]
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    parameters = inspect.signature(public()[name]).parameters
    positional = [name for name, one in parameters.items() if one.kind is not one.KEYWORD_ONLY and name != "kwargs"]
    keywords = {name: one.default for name, one in parameters.items() if one.kind is one.KEYWORD_ONLY}
    assert positional == [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
    defaults = [ast.literal_eval(default) for default in node.args.kw_defaults if default is not None]
    assert keywords == dict(zip([argument.arg for argument in node.args.kwonlyargs], defaults, strict=True))
