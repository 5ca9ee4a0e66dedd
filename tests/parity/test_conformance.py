"""CPython's own TaskGroup tests, run against our class in asyncio.TaskGroup's place.

They are loaded from the interpreter's installed ``test`` package, or from the newer file that the environment variable
QUATTRO_TASKGROUP_TESTS names (3.15.2's, in this project's CI), and run lazily and with the eager task factory.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
import types
import unittest
from asyncio import taskgroups
from collections.abc import Iterator
from typing import Any

import pytest

from quattro import TaskGroup

NATIVE_FRAMES = (
    "before 3.14 coroutines do not report their locals to the collector (gh-124392): there the file's no_other_refs() "
    "looks for frames that gc.get_referrers() cannot find for any C class; replaced by what those Pythons' own tests "
    "expect, no referrer at all"
)


def load() -> types.ModuleType | None:
    """The test file as a module, with what older interpreters lack for running it."""
    try:
        from test.test_asyncio import utils
    except ImportError:
        return None
    path = os.environ.get("QUATTRO_TASKGROUP_TESTS")
    if path is None:
        spec = importlib.util.find_spec("test.test_asyncio.test_taskgroups")
    else:
        spec = importlib.util.spec_from_file_location("cpython_test_taskgroups", path)
    assert spec is not None and spec.loader is not None
    if not hasattr(utils, "await_without_task"):  # came with 3.13
        utils.await_without_task = await_without_task
    if not hasattr(asyncio, "EventLoop"):  # the same
        asyncio.EventLoop = asyncio.SelectorEventLoop  # type: ignore[attr-defined,misc]
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if sys.version_info < (3, 14):
        module.no_other_refs = lambda: []  # type: ignore[attr-defined]  # see NATIVE_FRAMES
    return module


async def await_without_task(coro: Any) -> None:
    """Await from a callback, where no task is current."""
    errors: list[BaseException] = []

    def callback() -> None:
        try:
            for _ in coro.__await__():
                pass
        except BaseException as error:
            errors.append(error)

    asyncio.get_running_loop().call_soon(callback)
    await asyncio.sleep(0)
    if errors:
        raise errors[0]


# Not ours to pass, with the reason.
CHANGED_SINCE = dict.fromkeys(
    (
        "test_taskgroup_finished",
        "test_taskgroup_no_create_task_after_failure",
        "test_taskgroup_not_entered",
        "test_taskgroup_without_parent_task",
    ),
    "3.11's and 3.12's own file awaits the coroutine that the group refused; it is closed now (gh-115957)",
)


def cases(suite: types.ModuleType | None) -> list[Any]:
    """Each test of the file, as an argument for pytest."""
    found = []
    for name in ("TestTaskGroup", "TestEagerTaskTaskGroup"):
        cls = getattr(suite, name, None)
        if cls is None or (name.startswith("TestEager") and sys.version_info < (3, 12)):
            continue
        for method in unittest.defaultTestLoader.getTestCaseNames(cls):
            marks = []
            if sys.version_info < (3, 13) and "QUATTRO_TASKGROUP_TESTS" not in os.environ and method in CHANGED_SINCE:
                marks.append(pytest.mark.skip(reason=CHANGED_SINCE[method]))
            found.append(pytest.param(cls, method, id=f"{name}-{method}", marks=marks))
    return found


SUITE = load()
CASES = cases(SUITE)


@pytest.fixture
def in_asyncios_place(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """asyncio.TaskGroup is ours."""
    monkeypatch.setattr(asyncio, "TaskGroup", TaskGroup)
    monkeypatch.setattr(taskgroups, "TaskGroup", TaskGroup)
    yield


@pytest.mark.skipif(SUITE is None, reason="this Python was installed without its test package")
@pytest.mark.usefixtures("in_asyncios_place")
@pytest.mark.parametrize(("cls", "method"), CASES)
def test_cpython(cls: type[unittest.TestCase], method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One test of CPython's. [G1]"""
    case = cls(method)
    loop_factory = vars(cls).get("loop_factory")
    if loop_factory is not None and sys.version_info < (3, 13):
        # unittest knows loop_factory from 3.13 on.
        factory = loop_factory.__func__ if isinstance(loop_factory, staticmethod) else loop_factory
        monkeypatch.setattr(case, "_asyncioRunner", None)

        def set_up_runner() -> None:
            case._asyncioRunner = asyncio.Runner(debug=True, loop_factory=factory)  # type: ignore[attr-defined]

        monkeypatch.setattr(case, "_setupAsyncioRunner", set_up_runner)
    result = unittest.TestResult()
    case.run(result)
    if result.skipped:
        pytest.skip(result.skipped[0][1])
    assert [text for _, text in result.failures + result.errors] == []
    assert result.testsRun == 1


def test_suite_is_whole() -> None:
    """The whole file has been found: 65 tests of 3.15.2, lazily and eagerly."""
    if "QUATTRO_TASKGROUP_TESTS" in os.environ:
        assert len(CASES) == (65 if sys.version_info < (3, 12) else 130)
    elif SUITE is not None:
        assert len(CASES) >= 35  # 3.11.7's
