"""The standard library's test tools ask inspect whether __aenter__() and __aexit__() are ``async def``: they are."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import unittest
import unittest.mock
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from helpers import fail, forever, noop

from quattro import TaskGroup


class Subclass(TaskGroup):
    """What users make of it."""


@pytest.mark.parametrize("cls", [TaskGroup, Subclass])
@pytest.mark.parametrize("name", ["__aenter__", "__aexit__"])
def test_they_are_coroutine_functions(cls: type[TaskGroup], name: str) -> None:
    """inspect.iscoroutinefunction() is true of the class's and of an instance's, as of asyncio's group."""
    assert inspect.iscoroutinefunction(getattr(cls, name)) and inspect.iscoroutinefunction(getattr(cls(), name))
    assert inspect.iscoroutinefunction(getattr(asyncio.TaskGroup, name))


def run_case(test: Callable[[Any], Awaitable[None]]) -> unittest.TestResult:
    """Run a coroutine as a test of an IsolatedAsyncioTestCase."""

    class Case(unittest.IsolatedAsyncioTestCase):
        async def test(self) -> None:
            await test(self)

    result = unittest.TestResult()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Case("test").run(result)
        gc.collect()
    return result


def test_enter_async_context() -> None:
    """enterAsyncContext() gives the group; its exit is awaited after the test: background tasks are stopped."""
    ended: list[Any] = []

    async def test(case: unittest.IsolatedAsyncioTestCase) -> None:
        group = await case.enterAsyncContext(TaskGroup(concurrency_limit=1))
        ended.extend([group, group.create_background_task(forever())])
        ended.extend([group.create_task(noop()), group.create_task(noop())])

    result = run_case(test)
    assert result.wasSuccessful() and result.testsRun == 1, result.errors
    group, background, first, second = ended
    assert background.cancelled() and first.result() == second.result() == 1 and group._exiting


def test_enter_async_context_of_a_group_whose_task_fails() -> None:
    """A task that fails after the test's last line makes the test fail."""

    async def test(case: unittest.IsolatedAsyncioTestCase) -> None:
        group = await case.enterAsyncContext(TaskGroup())
        group.create_task(fail(ValueError("of the task"), 2))

    result = run_case(test)
    assert len(result.errors) == 1 and "ValueError: of the task" in result.errors[0][1]


async def test_exit_stack_and_nullcontext() -> None:
    """AsyncExitStack awaits what it entered, by whichever way the group was pushed."""
    async with contextlib.AsyncExitStack() as stack:
        group = await stack.enter_async_context(TaskGroup())
        other = await TaskGroup().__aenter__()
        stack.push_async_exit(other)
        third = await TaskGroup().__aenter__()
        stack.push_async_exit(third.__aexit__)
        tasks = [tg.create_task(noop()) for tg in (group, other, third)]
        background = [tg.create_background_task(forever()) for tg in (group, other, third)]
    assert all(task.result() == 1 for task in tasks) and all(task.cancelled() for task in background)


@pytest.mark.parametrize("make", [unittest.mock.AsyncMock, unittest.mock.MagicMock])
async def test_a_mock_with_the_group_as_its_spec(make: Any) -> None:
    """``AsyncMock(spec=TaskGroup)`` can stand for a group in an ``async with``, and says how it was used."""
    mock = make(spec=TaskGroup)
    mock.__aexit__.return_value = None
    async with mock:
        mock.create_task("job")
    mock.__aenter__.assert_awaited_once_with()
    mock.__aexit__.assert_awaited_once_with(None, None, None)
    with pytest.raises(AttributeError):
        mock.create_tusk


async def test_an_autospec() -> None:
    """``create_autospec(TaskGroup)`` knows that the two are awaited."""
    mock = unittest.mock.create_autospec(TaskGroup, instance=True)
    assert inspect.iscoroutinefunction(mock.__aexit__)
    await mock.__aexit__(None, None, None)


@pytest.mark.parametrize("cls", [asyncio.TaskGroup, TaskGroup, Subclass])
@pytest.mark.parametrize("name", ["__aenter__", "__aexit__"])
async def test_one_that_is_forgotten_says_so(cls: Any, name: str) -> None:
    """``tg.__aexit__(...)`` without ``await`` warns "was never awaited", and does nothing, as asyncio's coroutine."""
    group = cls()
    arguments = () if name == "__aenter__" else (None, None, None)
    with pytest.warns(RuntimeWarning, match=rf"^coroutine 'TaskGroup.{name}' was never awaited") as caught:
        getattr(group, name)(*arguments)
        gc.collect()
    assert len(caught) == 1 and not group._entered and not group._exiting


@pytest.mark.parametrize("name", ["__aenter__", "__aexit__"])
async def test_one_that_is_closed_says_nothing(name: str) -> None:
    """close() says that it is not forgotten, as for a coroutine."""
    getattr(TaskGroup(), name)(*(() if name == "__aenter__" else (None, None, None))).close()
    gc.collect()


async def test_a_spy_on_the_instance() -> None:
    """``patch.object(tg, "create_task", wraps=tg.create_task)`` sees each call, as the page about testing has it."""
    async with TaskGroup() as tg:
        with unittest.mock.patch.object(tg, "create_task", wraps=tg.create_task) as spy:
            task = tg.create_task(noop(), name="seen")
    assert task.result() == 1 and spy.call_args.kwargs == {"name": "seen"} and spy.call_count == 1
