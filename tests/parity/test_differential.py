"""A program tells the same story with ``quattro.TaskGroup`` as with asyncio's: same events, errors and order, in each mode.

The other side is the interpreter's own group from 3.15 on, and before that, where asyncio's has other faults, the plain
Python one of ``reference.py``. `QUATTRO_PARITY_PROGRAMS` says how many programs, `QUATTRO_PARITY_SEED` the first's number.
"""

from __future__ import annotations

import asyncio
import difflib
import gc
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from programs import Block, Line, Mode, Program, Stage, write
from reference import ReferenceTaskGroup

import quattro

PROGRAMS = int(os.environ.get("QUATTRO_PARITY_PROGRAMS", "4000"))
SEED = int(os.environ.get("QUATTRO_PARITY_SEED", "0"))


class InOrder(dict[Any, None]):
    """A set that remembers the order of joining."""

    def add(self, item: Any) -> None:
        self[item] = None

    def discard(self, item: Any) -> None:
        self.pop(item, None)


class AsyncioTaskGroup(asyncio.TaskGroup):
    """asyncio's own, which cancels its tasks in the order of a set, that is of their addresses; ours by creation."""

    def __init__(self) -> None:
        super().__init__()
        self._tasks: Any = InOrder()


Oracle: Any = AsyncioTaskGroup if sys.version_info >= (3, 15) else ReferenceTaskGroup


def modes() -> Iterator[Mode]:
    loops = ["asyncio"] if sys.platform == "win32" else ["asyncio", "uvloop"]
    for loop in loops:
        yield Mode(loop)
        yield Mode(loop, kept=True)
        yield Mode(loop, limit=True)
        yield Mode(loop, factory="plain", kept=True)
        yield Mode(loop, debug=True)
        if sys.version_info >= ((3, 12) if loop == "asyncio" else (3, 14)):  # what uvloop asks of a factory
            yield Mode(loop, factory="eager")
            yield Mode(loop, factory="eager", limit=True, kept=True)


def ours(mode: Mode) -> Callable[[], Any]:
    return (lambda: quattro.TaskGroup(concurrency_limit=10**6)) if mode.limit else quattro.TaskGroup


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    stage = Stage()
    gc.disable()
    yield stage
    gc.enable()
    stage.close()


def same(stage: Stage, program: Program, mode: Mode) -> bool:
    compiled = stage.compile(program)
    return stage.tell(compiled, Oracle, mode) == stage.tell(compiled, ours(mode), mode)


def smaller(program: Program) -> Iterator[Program]:
    """Each program that has a statement less, or that has what a statement holds instead of it."""

    def variants(statements: list[Line]) -> Iterator[list[Line]]:
        for at, statement in enumerate(statements):
            before, after = statements[:at], statements[at + 1 :]
            yield before + after
            if isinstance(statement, Block):
                for number, (header, below) in enumerate(statement.clauses):
                    yield before + below + after
                    for less in variants(below):
                        clauses = list(statement.clauses)
                        clauses[number] = header, less
                        yield [*before, Block(clauses, statement.after), *after]

    return map(Program, variants(program.statements))


def minimal(program: Program, differs: Callable[[Program], bool]) -> Program:
    """A program of which nothing can be left out."""
    while True:
        for less in smaller(program):
            if differs(less):
                program = less
                break
        else:
            return program


def explain(stage: Stage, number: int, program: Program, mode: Mode) -> str:
    """The smallest program like this one, and the two stories."""

    def differs(program: Program) -> bool:
        try:
            return not same(stage, program, mode)
        except SyntaxError:
            return False

    program = minimal(program, differs)
    compiled = stage.compile(program)
    stories = [stage.tell(compiled, make, mode) for make in (Oracle, ours(mode))]
    lines = [[*map(repr, story.events), *(f"reported: {report}" for report in story.reports)] for story in stories]
    diff = difflib.unified_diff(*lines, "asyncio", "quattro", n=99, lineterm="")
    return "\n".join([f"program {number}, {mode}:\n", program.source, *diff])


def chunks(programs: int, size: int = 500) -> Iterable[tuple[int, int]]:
    return [(first, min(first + size, SEED + programs)) for first in range(SEED, SEED + programs, size)]


@pytest.mark.parametrize(("first", "end"), chunks(PROGRAMS))
def test_a_program_tells_the_same_story(stage: Stage, first: int, end: int) -> None:
    """In each mode, to the last event."""
    for number in range(first, end):
        program = write(number)
        compiled = stage.compile(program)
        for mode in modes():
            if stage.tell(compiled, Oracle, mode) != stage.tell(compiled, ours(mode), mode):
                pytest.fail(explain(stage, number, program, mode), pytrace=False)
    gc.collect()
