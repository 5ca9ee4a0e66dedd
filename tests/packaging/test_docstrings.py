"""The docstrings, as help() and editors show them: signatures, what is raised, and examples that run."""

from __future__ import annotations

import ast
import asyncio
import doctest
import inspect
import io
from contextlib import redirect_stdout
from typing import Any

import pytest
from helpers import forever

from quattro import TaskGroup, TaskGroupStatistics

SIGNATURES = {
    "__init__": "(*, concurrency_limit=None, cancel_on_error=True)",
    "__aenter__": "(self) -> 'Self'",
    "__aexit__": "(self, et: 'type[BaseException] | None', exc: 'BaseException | None', tb: 'TracebackType | None', /)"
    " -> 'bool | None'",
    "create_task": "(self, /, coro, *, name=None, context=None, eager_start=None, **kwargs)",
    "create_background_task": "(self, /, coro, *, name=None, context=None, eager_start=None, **kwargs)",
    "map": "(self, f, items, /, *, ordered=True, buffersize=None)",
    "wait_for_slot": "(self) -> 'None'",
    "cancel": "(self, /)",
    "statistics": "(self) -> 'TaskGroupStatistics'",
}


async def job(argument: Any) -> str:
    """Take a moment and answer."""
    await asyncio.sleep(0)
    return f"<{argument}>"


async def first_answer(url: str, then: Any) -> None:
    """The first one cancels the others."""
    then()
    await forever()


# What the examples call by these names.
NAMES = {
    "TaskGroup": TaskGroup,
    "urls": ["a", "b", "c"],
    "items": [1, 2, 3],
    "connection": object(),
    "fetch": job,
    "process": job,
    "serve": job,
    "heartbeat": forever,
    "show_progress": forever,
    "first_answer": first_answer,
}


def test_every_public_name_has_its_signature() -> None:
    """inspect.signature() knows every public method, and the class itself, which has __init__'s."""
    public = {name for name in TaskGroup.__dict__ | TaskGroup.__base__.__dict__ if not name.startswith("_")}
    assert public - {"concurrency_limit", "cancel_on_error"} == {
        name for name in SIGNATURES if not name.startswith("_")
    }
    for name, signature in SIGNATURES.items():
        assert str(inspect.signature(TaskGroup if name == "__init__" else getattr(TaskGroup, name))) == signature
    assert inspect.getdoc(TaskGroup.concurrency_limit) and inspect.getdoc(TaskGroup.cancel_on_error)
    assert inspect.getdoc(TaskGroupStatistics.queued)


@pytest.mark.parametrize("name", SIGNATURES)
def test_every_parameter_is_described(name: str) -> None:
    """Each parameter has its line, with its type; what is returned and raised is said where there is something."""
    op = TaskGroup if name == "__init__" else getattr(TaskGroup, name)
    text = inspect.getdoc(op) or ""
    for parameter in inspect.signature(op).parameters.values():
        if parameter.name == "kwargs":
            assert "    **kwargs: " in text
        elif parameter.name != "self":
            assert f"    {parameter.name} (" in text
    assert name in ("__init__", "cancel") or "Returns:" in text
    assert name in ("cancel", "statistics") or "Raises:" in text


@pytest.mark.parametrize(
    "name", ["__init__", "create_task", "create_background_task", "map", "wait_for_slot", "cancel", "statistics"]
)
def test_examples_run(name: str) -> None:
    """The example, as one would type it into ``python -m asyncio``, runs and shows what it says."""
    examples = doctest.DocTestParser().get_examples(
        inspect.getdoc(TaskGroup if name == "__init__" else getattr(TaskGroup, name)) or ""
    )
    assert examples

    async def run() -> None:
        names = dict(NAMES)
        for example in examples:
            mode = "exec" if "\n" in example.source.rstrip() else "single"  # a block echoes no tasks that it makes
            code = compile(example.source, name, mode, flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            with redirect_stdout(io.StringIO()) as shown:
                result = eval(code, names)
                if inspect.iscoroutine(result):
                    await result
            assert shown.getvalue() == example.want

    asyncio.run(run())
