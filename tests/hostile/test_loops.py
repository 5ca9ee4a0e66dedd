"""Loops that are closed, call back at once, or are interrupted as they are asked something."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import sys
import types
from typing import Any

import pytest
from helpers import LOOPS, Idle, Selector, fail, forever, noop, settle

from quattro import TaskGroup


@pytest.mark.parametrize("kind", LOOPS)
@pytest.mark.parametrize("callable_", [False, True], ids=["coroutine", "callable"])
@pytest.mark.parametrize("limit", [None, 1, 2])
def test_a_closed_loop_refuses_tasks(kind: str, callable_: bool, limit: int | None) -> None:
    """create_task() says so, at the limit too; the coroutine is closed, and no task is "destroyed but pending"."""
    factory, debug = LOOPS[kind]
    loop: Any = factory()
    loop.set_debug(debug)
    told: list[str] = []
    loop.set_exception_handler(lambda _, context: told.append(context["message"]))

    async def main() -> None:
        nonlocal group
        group = await TaskGroup(concurrency_limit=limit).__aenter__()
        group.create_task(noop())

    group: Any = None
    loop.run_until_complete(main())
    loop.close()
    for make in (group.create_task, group.create_background_task):
        for _ in range(2):
            coro = forever()
            with pytest.raises(RuntimeError, match="closed"):
                make(forever if callable_ else coro)
            coro.close()  # of the callable's way
            assert coro.cr_frame is None
    gc.collect()
    assert told == []


class AtOnceAndRaises(asyncio.SelectorEventLoop):
    """Tells the group of a task's end right away, and then raises: once, at the call of this number."""

    when = 0
    calls = 0

    def call_soon(self, callback: Any, *args: Any, **kwargs: Any) -> asyncio.Handle:
        if getattr(callback, "__name__", "") == "_on_task_done":
            self.calls += 1
            if self.calls == self.when:
                callback(*args)
                raise LookupError("at once")
        return super().call_soon(callback, *args, **kwargs)


@pytest.mark.parametrize("callables", [False, True], ids=["coroutines", "callables"])
@pytest.mark.parametrize("limit", [None, 1, 2])
@pytest.mark.parametrize("when", range(1, 8))
def test_a_loop_that_calls_back_at_once_and_then_raises(when: int, limit: int | None, callables: bool) -> None:
    """The error is told once, the counts of the group stay right, and the group ends."""

    async def main() -> None:
        try:
            async with TaskGroup(concurrency_limit=limit) as tg:
                background = tg.create_background_task(forever())
                for number in range(6):
                    job = functools.partial(settle, number % 3)
                    tasks.append(tg.create_task(job if callables else job()))
        except ExceptionGroup as group:
            errors.extend(group.exceptions)
        assert tg.statistics() == (0, 0, 0, limit) and tg._tasks == frozenset() and background.cancelled()

    errors: list[BaseException] = []
    tasks: list[Any] = []
    loop = AtOnceAndRaises(Selector())
    loop.when = when
    loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()
    assert all(task.done() for task in tasks)
    assert [str(error) for error in errors] == ["at once"] * (loop.calls >= when)


@pytest.mark.reports
async def test_the_exception_handler_runs_in_the_context_of_the_creation() -> None:
    """What one call of the exception handler sets, the next does not see: each has a copy of the creator's context."""
    variable = contextvars.ContextVar[Any]("variable")
    seen: list[Any] = []

    def handler(_: Any, context: dict[str, Any]) -> None:
        seen.append((variable.get(), str(context["exception"])))
        variable.set("handler")

    async def enter() -> None:
        group = await TaskGroup().__aenter__()
        for number in range(3):
            variable.set(number)
            group.create_task(fail(ValueError(number), 3))

    asyncio.get_running_loop().set_exception_handler(handler)
    await asyncio.create_task(enter())
    await settle()
    assert seen == [(0, "0"), (1, "1"), (2, "2")]


def asked_by_asyncio(frame: types.FrameType) -> bool:
    """Is that asyncio's Python, and not something in C that a handle or a task runs?"""
    return frame.f_globals["__name__"].startswith("asyncio.") and frame.f_code.co_name != "_run"


class Interrupted(asyncio.SelectorEventLoop):
    """KeyboardInterrupt arrives in a method that nobody but C has called, once."""

    name = ""
    when = 0
    calls = 0

    def strike(self, name: str) -> None:
        if name == self.name and not asked_by_asyncio(sys._getframe(2)):
            self.calls += 1
            if self.calls == self.when:
                raise KeyboardInterrupt

    def get_debug(self) -> bool:
        self.strike("get_debug")
        return super().get_debug()

    def is_running(self) -> bool:
        self.strike("is_running")
        return super().is_running()


@pytest.mark.parametrize("limit", [None, 1])
@pytest.mark.parametrize("when", range(1, 11))
@pytest.mark.parametrize("name", ["get_debug", "is_running"])
def test_an_interrupt_gets_out(name: str, when: int, limit: int | None) -> None:
    """KeyboardInterrupt in a question to the loop comes out of create_task(), of the group or of the loop."""

    async def main() -> None:
        async with TaskGroup(concurrency_limit=limit) as tg:
            tg.create_background_task(forever())
            for number in range(4):
                tg.create_task(settle(number))
                tg.create_task(noop)
            await settle(2)
            try:
                tg.cancel()
            except KeyboardInterrupt as error:
                out.append(error)
                raise

    loop = Interrupted(Selector())
    loop.name, loop.when = name, when
    out: list[BaseException] = []
    task = loop.create_task(main())
    for _ in range(3):
        try:
            loop.run_until_complete(task)
        except KeyboardInterrupt as error:
            out.append(error)
        except Idle:
            break  # where a wake-up was lost that a future of asyncio's own has scheduled once
    for pending in asyncio.all_tasks(loop):
        pending._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
    assert bool(out) is (0 < when <= loop.calls)
