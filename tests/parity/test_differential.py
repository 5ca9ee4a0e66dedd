"""A program tells the same story with ``quattro.TaskGroup`` as with asyncio's, to the last event, in each mode.

The other side is the interpreter's own group from 3.15 on. Before that, where asyncio's lacks what was mended later, it
is the plain Python one of ``reference.py``; so it is where SystemExit and KeyboardInterrupt are raised, for which the
group promises more than asyncio's does.

`QUATTRO_PARITY_PROGRAMS` is how many programs are run, `QUATTRO_PARITY_SEED` the number of the first.
"""

from __future__ import annotations

import asyncio
import difflib
import functools
import gc
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from programs import Program, minimal, write
from reference import ReferenceTaskGroup
from stage import Mode, Script, Stage, look

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
    """asyncio's own, but for the order of cancels, which is that of a set, by address. Ours is that of creation."""

    def __init__(self) -> None:
        super().__init__()
        self._tasks: Any = InOrder()


class Hooks:
    """A subclass that sees what the group does."""

    def __init__(self, log: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.log = log

    def _abort(self) -> None:
        self.log("_abort", look(self))
        super()._abort()  # type: ignore[misc]

    def _on_task_done(self, task: Any) -> None:
        self.log("_on_task_done", task)
        super()._on_task_done(task)  # type: ignore[misc]


class HookedAsyncio(Hooks, AsyncioTaskGroup):
    pass


class HookedReference(Hooks, ReferenceTaskGroup):
    pass


class HookedQuattro(Hooks, quattro.TaskGroup):
    pass


def ours(mode: Mode, log: Any) -> Callable[[], Any]:
    options = {"concurrency_limit": 10**6} if mode.limit else {}
    return functools.partial(HookedQuattro, log, **options) if mode.hooked else lambda: quattro.TaskGroup(**options)


def asyncios(mode: Mode, log: Any) -> Callable[[], Any]:
    return functools.partial(HookedAsyncio, log) if mode.hooked else AsyncioTaskGroup


def references(mode: Mode, log: Any) -> Callable[[], Any]:
    return functools.partial(HookedReference, log) if mode.hooked else ReferenceTaskGroup


def model(program: Program) -> Any:
    """The group that is right."""
    base_errors = any(f"raise {error}(" in program.source for error in ("SystemExit", "KeyboardInterrupt"))
    return references if base_errors or sys.version_info < (3, 15) else asyncios


def modes() -> Iterator[Mode]:
    yield Mode("subclass")
    yield Mode(factory="subclass")
    yield Mode(hooked=True)
    yield Mode(hooked=True, limit=True, kept=True)
    for loop in ["asyncio"] if sys.platform == "win32" else ["asyncio", "uvloop"]:
        yield Mode(loop)
        yield Mode(loop, kept=True)
        yield Mode(loop, limit=True)
        yield Mode(loop, factory="plain", kept=True)
        yield Mode(loop, debug=True)
        if sys.version_info >= ((3, 12) if loop == "asyncio" else (3, 14)):  # uvloop's gives it more arguments
            yield Mode(loop, factory="eager")
            yield Mode(loop, factory="eager", limit=True, kept=True)


MODES = tuple(modes())


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    stage = Stage()
    gc.disable()
    yield stage
    gc.enable()
    stage.close()


def story(stage: Stage, script: Script, group: Any, mode: Mode) -> Any:
    return stage.tell(script, functools.partial(group, mode), mode)


def compare(stage: Stage, number: int, one: Any, other: Any, mode: Mode) -> None:
    """Fail with the smallest program of its kind if they differ."""

    def differs(program: Program) -> bool:
        script = Script(program)
        return story(stage, script, one, mode) != story(stage, script, other, mode)

    program = minimal(write(number), differs)
    left, right = ([*map(repr, story(stage, Script(program), group, mode))] for group in (one, other))
    diff = difflib.unified_diff(left, right, one.__name__, other.__name__, n=99, lineterm="")
    pytest.fail("\n".join([f"Program {number}, {mode}:\n", program.source, *diff]), pytrace=False)


@pytest.mark.parametrize("first", range(SEED, SEED + PROGRAMS, 500))
def test_a_program_tells_the_same_story(stage: Stage, first: int) -> None:
    """In each mode, to the last event."""
    for number in range(first, min(first + 500, SEED + PROGRAMS)):
        program = write(number)
        script = Script(program)
        right = model(program)
        for mode in MODES:
            if story(stage, script, right, mode) != story(stage, script, ours, mode):
                compare(stage, number, right, ours, mode)
        if number % 50 == 0:
            gc.collect()


@pytest.mark.skipif(sys.version_info < (3, 15), reason="asyncio's own has other rules before")
def test_the_reference_is_asyncios(stage: Stage) -> None:
    """The plain Python group, which says what is right on older versions, tells asyncio's stories, too."""
    for number in range(SEED, SEED + PROGRAMS // 10):
        program = write(number)
        if model(program) is asyncios:
            script = Script(program)
            for mode in MODES:
                if story(stage, script, asyncios, mode) != story(stage, script, references, mode):
                    compare(stage, number, asyncios, references, mode)
