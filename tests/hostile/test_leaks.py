"""No path through a group leaves memory or references behind; `leaks.py` has the paths.

`tools/run leaks` sets QUATTRO_LEAK_ROUNDS, and runs them longer and on every kind of loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import subprocess
import sys
from types import CodeType

import leaks
import pytest
from helpers import LOOPS, fail, forever, noop, settle

from quattro import TaskGroup, _quattro

ROUNDS = int(os.environ.get("QUATTRO_LEAK_ROUNDS", "0"))
TYPES = [value for value in vars(_quattro).values() if isinstance(value, type)]


@pytest.mark.parametrize("kind", LOOPS if ROUNDS else ["asyncio"])
@pytest.mark.parametrize("name", leaks.PATHS)
def test_no_leak(name: str, kind: str) -> None:
    """A path in a process of its own, again and again: blocks, references and resident memory stay what they were.

    Nothing is left to the collector either, so that no exception that was raised is part of a reference cycle. [G20]
    """
    rounds = (ROUNDS if kind == "asyncio" else ROUNDS // 10) or 100
    command = [sys.executable, "-W", "error", leaks.__file__, name, kind, str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    numbers, garbage = done.stdout.splitlines()
    blocks, references, resident = map(int, numbers.split())
    assert blocks < 50 and references < 50 and resident < 1_000_000
    assert garbage == "[]" or name in leaks.CYCLIC


def names_in(code: CodeType) -> set[str]:
    inner = (names_in(const) for const in code.co_consts if isinstance(const, CodeType))
    return {*code.co_names}.union(*inner)


@pytest.mark.parametrize("about", [*TYPES, TaskGroup], ids=lambda about: about.__name__)
def test_every_type_and_method_has_a_path(about: type) -> None:
    """Each type of the extension has a path, and each public method and attribute is named in one."""
    named = set().union(*(names_in(path.__code__) for path in leaks.PATHS.values()))  # type: ignore[attr-defined]
    public = {name for name in vars(about) if not name.startswith(("_", "n_"))}
    assert public <= named
    assert any(issubclass(that, about) for that in leaks.TYPES.values())


def held(op: object) -> set[int]:
    """What the collector is told that an object refers to."""
    return set(map(id, gc.get_referents(op)))


@pytest.mark.loops("asyncio", "uvloop")
async def test_the_collector_sees_what_a_group_holds() -> None:
    """All that a group refers to is visited: what is not could never be freed as part of a cycle."""
    tg = _quattro.TaskGroup(concurrency_limit=1)
    assert id(type(tg)) in held(tg)
    await tg.__aenter__()
    running = tg.create_task(coro := forever())
    assert id(coro) in held(tg)  # the newest to get a slot, until it has moved
    queued = tg.create_task(noop())
    background = tg.create_background_task(fail(ValueError(), passes=3))
    await settle(2)
    turn = queued.get_coro().cr_await  # type: ignore[union-attr]
    assert id(turn) in held(tg)  # in the queue
    leaving = tg.__aexit__(SystemExit, error := SystemExit(), None)
    waiter = leaving.send(None)
    assert id(turn) in held(tg)  # on the wake list
    known = [vars(tg), tg._loop, tg._parent_task, tg._errors, error, waiter, running, queued, background]
    assert set(map(id, known)) <= held(tg)
    others = [op for op in gc.get_referents(tg) if id(op) not in map(id, known)]
    assert {"_on_task_done", "_start"} <= {getattr(op, "__name__", "") for op in others}
    assert {"loop": tg._loop} in others
    assert {"loop": tg._loop, "eager_start": True} in others or sys.version_info < (3, 12)
    leaving.close()
    await settle()
    async with TaskGroup() as unlimited:
        unlimited.create_task(noop())
        held_now = gc.get_referents(unlimited)
        on_uvloop = not isinstance(tg._loop, asyncio.BaseEventLoop)
        assert (type(tg._loop).create_task in held_now) == on_uvloop
        if sys.version_info >= (3, 12):
            ended = unlimited.create_task(noop(), eager_start=True)
            held_now = gc.get_referents(unlimited)
            assert [ended] in held_now
            assert "Handle" in {type(op).__name__ for op in held_now}
    async with TaskGroup(concurrency_limit=1) as limited:
        limited.create_task(settle(2))
        await limited.create_task(noop())
        assert [op for op in gc.get_referents(limited) if type(op) is asyncio.Future]  # what wakes those in the queue


@pytest.mark.loops("asyncio", "uvloop")
async def test_the_collector_sees_what_a_turn_holds() -> None:
    """The same for the turn of a queued task."""
    async with TaskGroup(concurrency_limit=1) as tg:
        tg.create_task(settle(4))
        queued = tg.create_task(coro := noop())
        await settle(2)
        turn = queued.get_coro().cr_await  # type: ignore[union-attr]
        assert {id(type(turn)), id(tg), id(coro), id(queued)} <= held(turn)
        assert [op for op in gc.get_referents(turn) if isinstance(op, contextvars.Context)]
        queued.cancel(message := "said by the caller")
        assert id(message) in held(turn)

    class Hooked(TaskGroup):
        def _on_task_done(self, task: asyncio.Task[None]) -> None:
            super()._on_task_done(task)

    async with Hooked(concurrency_limit=1) as tg:
        tg.create_task(settle(4))
        queued = tg.create_task(noop())
        await settle(2)
        turn = queued.get_coro().cr_await  # type: ignore[union-attr]
        assert tg._on_task_done in gc.get_referents(turn)
    async with TaskGroup() as tg:
        running = tg.create_task(settle)
        await settle(2)
        turn = running.get_coro().cr_frame.f_locals["turn"]  # type: ignore[union-attr]
        assert [op for op in gc.get_referents(turn) if isinstance(op, contextvars.Context)]


@pytest.mark.loops("asyncio", "uvloop")
async def test_the_collector_sees_what_an_exit_holds() -> None:
    """The same for what __aexit__() returns."""
    tg = TaskGroup()
    await tg.__aenter__()
    tg.create_task(forever())
    first, second = asyncio.CancelledError(), asyncio.CancelledError()
    # 3.11 calls the Python function, whose coroutine stands between.
    leaving = _quattro.TaskGroup.__aexit__(tg, None, None, None)
    leaving.send(None)
    leaving.throw(first)  # goes on after the exit
    leaving.throw(second)  # the last that came
    assert {id(type(leaving)), id(tg), id(first), id(second)} <= held(leaving)
    leaving.close()
    other = _quattro.TaskGroup.__aexit__(tg, KeyError, error := KeyError(), None)
    assert id(error) in held(other)
    other.close()
    await settle()
