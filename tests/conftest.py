"""Every ``async def`` test runs on each kind of loop, in a new one; afterwards nothing may be left over."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from helpers import LOOPS
from reference import ReferenceTaskGroup

import quattro

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background job ignores Ctrl-C, and so would the programs that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionstart() -> None:
    """Colours that are forced, as in the workflow, are for what pytest writes: what the tests start is read by them."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        os.environ.pop(name, None)


def pytest_collection_finish() -> None:
    """What the imports made is there to stay: the collections after each test need not go through it again."""
    gc.collect()
    gc.freeze()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A coroutine function is a test for each kind of loop (those that it names with the mark, if any)."""
    if inspect.iscoroutinefunction(metafunc.function):
        metafunc.fixturenames.append("loop_kind")
        mark = metafunc.definition.get_closest_marker("loops")
        metafunc.parametrize("loop_kind", [kind for kind in (mark.args if mark else LOOPS) if kind in LOOPS])


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine function to its end, with whatever the loop's exception handler was told as an error."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}
    factory, debug = LOOPS[pyfuncitem.callspec.params["loop_kind"]]
    expected = pyfuncitem.get_closest_marker("reports") is not None
    reports: list[dict[str, Any]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.slow_callback_duration = 1e9  # a slow machine is nobody's error
        if not expected:
            loop.set_exception_handler(lambda _, context: reports.append(context))
        await pyfuncitem.obj(**arguments)
        for _ in range(3):
            await asyncio.sleep(0)  # what was scheduled behind our back
        assert asyncio.all_tasks() == {asyncio.current_task()}
        gc.collect()

    with asyncio.Runner(loop_factory=factory, debug=debug) as runner:
        runner.run(main())
    assert reports == []
    return True


class Hooked(quattro.TaskGroup):
    """A subclass with hooks, which takes other ways through the C."""

    def _on_task_done(self, task: asyncio.Task[Any]) -> None:
        super()._on_task_done(task)

    def _abort(self) -> None:
        super()._abort()


@pytest.fixture(params=[quattro.TaskGroup, Hooked, ReferenceTaskGroup], ids=["ours", "hooked", "reference"])
def TaskGroup(request: pytest.FixtureRequest) -> Any:
    """The group that a rule is about: ours, a subclass of ours, and the oracle."""
    return request.param


@pytest.fixture
def collected() -> Iterator[None]:
    """Start from a clean heap and find no garbage that only the collector could free."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(scope="module")
def unfrozen() -> Iterator[None]:
    """For hypothesis, which asks the collector who refers to its random numbers."""
    gc.unfreeze()
    yield
    gc.unfreeze()
    gc.collect()
    gc.freeze()  # as it was
