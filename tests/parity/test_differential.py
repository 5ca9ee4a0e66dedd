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
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from programs import Program, minimal, write
from reference import ReferenceTaskGroup
from stage import COUNTED, ENDED, OUT_OF_THE_LOOP, Mode, Runner, Script, Stage, Story, look

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

    def __init__(self, runner: Runner, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.runner = runner

    def _abort(self) -> None:
        self.runner.hooked("_abort", look(self))
        super()._abort()  # type: ignore[misc]

    def _on_task_done(self, task: Any) -> None:
        self.runner.log("_on_task_done", task)
        super()._on_task_done(task)  # type: ignore[misc]
        self.runner.hooked("done", look(self))


class HookedAsyncio(Hooks, AsyncioTaskGroup):
    pass


class HookedReference(Hooks, ReferenceTaskGroup):
    pass


class HookedQuattro(Hooks, quattro.TaskGroup):
    pass


@dataclass(frozen=True)
class Side:
    """A kind of group, and its subclass that has hooks."""

    name: str
    group: Any
    hooked: Any

    def story(self, stage: Stage, script: Script, mode: Mode) -> Story:
        options = {"concurrency_limit": 10**6} if mode.limit and self is not ASYNCIO else {}

        def make_group(runner: Runner) -> Any:
            return functools.partial(self.hooked, runner, **options) if mode.hooked else lambda: self.group(**options)

        return stage.tell(script, make_group, mode)


ASYNCIO = Side("asyncio", AsyncioTaskGroup, HookedAsyncio)
REFERENCE = Side("reference", ReferenceTaskGroup, HookedReference)
QUATTRO = Side("quattro", quattro.TaskGroup, HookedQuattro)


# What asyncio's group says of a task that fails when its exit has been broken off, instead of the task's error.
FAULT = "'NoneType' object has no attribute 'append'"


def model(program: Program) -> Side:
    """The one that is right."""
    base_errors = any(f"raise {error}(" in program.source for error in ("SystemExit", "KeyboardInterrupt"))
    return REFERENCE if base_errors or sys.version_info < (3, 15) else ASYNCIO


def modes() -> Iterator[Mode]:
    yield Mode("subclass")
    yield Mode("subclass", debug=True)
    yield Mode(factory="subclass")
    for loop in ["asyncio"] if sys.platform == "win32" else ["asyncio", "uvloop"]:
        eager = "eager" if loop == "asyncio" else "own eager"
        yield Mode(loop)
        yield Mode(loop, kept=True)
        yield Mode(loop, limit=True)
        yield Mode(loop, factory="plain", kept=True)
        yield Mode(loop, debug=True)
        yield Mode(loop, hooked=True)
        yield Mode(loop, hooked=True, limit=True, kept=True)
        yield Mode(loop, callables=True)
        yield Mode(loop, callables=True, limit=True, kept=True)
        if sys.version_info >= (3, 12):
            yield Mode(loop, factory=eager)
            yield Mode(loop, factory=eager, limit=True, kept=True)
            yield Mode(loop, factory=eager, hooked=True)


MODES = tuple(modes())


def simplest(mode: Mode) -> Mode:
    """The mode in which a program tells what it tells in this one.

    Loops differ in the context that an exception handler is called in, and what comes out of run_forever().
    """
    loop = "uvloop" if mode.loop == "uvloop" else "asyncio"
    return Mode(loop, factory=mode.factory if "eager" in mode.factory else "", hooked=mode.hooked)


def as_seen_in(mode: Mode, story: Story) -> Story:
    """What others tell in this mode.

    When SystemExit is to leave uvloop, what is ready runs first, and a parent that is stepped directly is part of that.
    If it ends with such an error, too, only one of them is seen.
    """
    story = [event for event in story if mode.loop != "uvloop" or event[0] != OUT_OF_THE_LOOP]
    return [without_counts(event) for event in story] if mode.callables else story


def without_counts(event: Any) -> Any:
    """A callable's task leaves the group as it ends, and not when the group's callback is called."""
    if isinstance(event, str):
        return re.sub(r" tasks=\d+", "", event)
    if not isinstance(event, (list, tuple)):
        return event
    event = [*event]
    for word in (COUNTED, ENDED):
        if word in event:
            del event[event.index(word) + 1]
    return [without_counts(part) for part in event]


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    stage = Stage()
    gc.disable()
    yield stage
    gc.enable()
    stage.close()


def told(stage: Stage, program: Program, right: Side, other: Side, modes: Iterable[Mode]) -> Iterator[Any]:
    """Each mode, with what is right and with what the other side tells."""
    script = Script(program)
    known: dict[Mode, Story] = {}
    for mode in modes:
        plain = simplest(mode)
        if plain not in known:
            known[plain] = right.story(stage, script, plain)
            if FAULT in repr(known[plain]):
                known[plain] = REFERENCE.story(stage, script, plain)
        yield mode, as_seen_in(mode, known[plain]), as_seen_in(mode, other.story(stage, script, mode))


def check(stage: Stage, number: int, program: Program, right: Side, other: Side) -> None:
    """Fail, with the smallest program of its kind, if the two sides differ in a mode."""
    for mode, expected, seen in told(stage, program, right, other, MODES):
        if expected != seen:
            pytest.fail(f"Program {number}, {mode}:\n\n{explain(stage, program, right, other, mode)}", pytrace=False)


def explain(stage: Stage, program: Program, right: Side, other: Side, mode: Mode) -> str:
    def differs(program: Program) -> bool:
        return any(expected != seen for _, expected, seen in told(stage, program, right, other, [mode]))

    program = minimal(program, differs)
    ((_, *stories),) = told(stage, program, right, other, [mode])
    expected, seen = ([*map(repr, story)] for story in stories)
    diff = difflib.unified_diff(expected, seen, right.name, other.name, n=len(expected), lineterm="")
    return "\n".join([program.source, *diff])


@pytest.mark.parametrize("first", range(SEED, SEED + PROGRAMS, 500))
def test_a_program_tells_one_story(stage: Stage, first: int) -> None:
    """The one that it tells with asyncio's group, whatever the mode."""
    for number in range(first, min(first + 500, SEED + PROGRAMS)):
        program = write(number)
        check(stage, number, program, model(program), QUATTRO)
        if number % 50 == 0:
            gc.collect()


@pytest.mark.skipif(sys.version_info < (3, 15), reason="asyncio's own has other rules before")
def test_the_others_do_as_well(stage: Stage) -> None:
    """asyncio's group does in each mode, and so does the plain Python one, which is the model on older versions."""
    for number in range(SEED, SEED + PROGRAMS // 10):
        program = write(number)
        if model(program) is ASYNCIO:
            check(stage, number, program, ASYNCIO, ASYNCIO)
            check(stage, number, program, ASYNCIO, REFERENCE)
