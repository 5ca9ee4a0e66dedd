"""docs/behaviour.md numbers the rules; a test names those that it proves at the end of its docstring: ``[L3, L4]``."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "behaviour.md").read_text(encoding="utf-8")
RULES = re.findall(r"^\(([A-Z]\d+)\)=$", PAGE, re.MULTILINE)


def named(source: str) -> Iterator[str]:
    """The rules that the tests of a file name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            at_the_end = re.search(r"\[([A-Z]\d+(?:, [A-Z]\d+)*)\]$", ast.get_docstring(node) or "")
            yield from at_the_end[1].split(", ") if at_the_end else ()


PROVED = Counter(rule for path in (ROOT / "tests").rglob("test_*.py") for rule in named(path.read_text("utf-8")))


@pytest.mark.parametrize("rule", RULES)
def test_rule(rule: str) -> None:
    """A test proves it."""
    assert PROVED[rule]


def test_every_rule_that_is_named_is_there() -> None:
    """No test names a rule that the page does not have."""
    assert not PROVED.keys() - set(RULES)


def test_rules_are_numbered_in_order() -> None:
    """Each number is there once, in order, and stands before its sentence."""
    for chapter in sorted({rule[0] for rule in RULES}):
        numbers = [int(rule[1:]) for rule in RULES if rule[0] == chapter]
        assert numbers == sorted(set(numbers))
    assert re.findall(r"^\*\*([A-Z]\d+)\*\* ", PAGE, re.MULTILINE) == RULES


def test_what_a_test_names() -> None:
    """Only the end of a test's docstring counts."""
    source = 'def test_it(): """Begins [A1], ends. [L3, X10]"""\ndef other(): """A helper. [L4]"""\ndef test_no(): ...'
    assert list(named(source)) == ["L3", "X10"]
