"""The docstrings of the stub are those of the built package: editors read them there, and cannot read them in C.

python tools/stubs.py    writes them into the stub, after a docstring has changed
"""

from __future__ import annotations

import ast
import inspect
from itertools import pairwise
from pathlib import Path
from typing import Any

import quattro

STUB = Path(quattro.__file__).with_suffix(".pyi")

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.Expr


def definitions(source: str) -> dict[str, Definition]:
    """The classes of a stub, their methods, and what stands below their fields; no __init__, which is its class's."""
    found: dict[str, Definition] = {}
    for cls in ast.parse(source).body:
        if isinstance(cls, ast.ClassDef):
            found[cls.name] = cls
            for node in cls.body:
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name != "__init__":
                    found[f"{cls.name}.{node.name}"] = node
            for field, text in pairwise(cls.body):
                if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                    found[f"{cls.name}.{ast.unparse(field.target)}"] = text
    return found


def built(name: str) -> Any:
    """What a dotted name stands for in the built package."""
    value: Any = quattro
    for part in name.split("."):
        value = getattr(value, part)
    return value


def with_docstrings(source: str) -> str:
    """The stub with the docstrings of the built package."""
    lines = source.splitlines()
    for name, node in reversed(definitions(source).items()):
        old = node if isinstance(node, ast.Expr) else node.body[0]
        assert isinstance(old, ast.Expr), f"{name} has no docstring in the stub"
        first, *rest = (inspect.getdoc(built(name)) or "").splitlines()
        indent = " " * old.col_offset
        new = [f'{indent}"""{first}', *(indent + line if line else "" for line in rest)]
        new = [*new, indent + '"""'] if rest else [new[0] + '"""']
        lines[old.lineno - 1 : old.end_lineno] = new
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    STUB.write_text(with_docstrings(STUB.read_text()))
