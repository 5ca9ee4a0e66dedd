"""Neighbours, for real: pytest-asyncio and anyio's pytest plugin, in a pytest of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import quattro

SUITE = """
import asyncio
import pytest
from kind import fixture, mark
from quattro import TaskGroup

stopped = []

class Service:
    def __init__(self, tg):
        self.tg = tg
        self.beats = 0
        self.tg.create_background_task(self.heartbeat)

    async def heartbeat(self):
        while True:
            self.beats += 1
            await asyncio.sleep(0)

    async def ask(self, n):
        await asyncio.sleep(0)
        return n

@fixture
async def service():
    try:
        async with TaskGroup(concurrency_limit=2) as tg:
            yield Service(tg)
    finally:
        stopped.append(tg.statistics()[:3])

@mark
async def test_fixture(service):
    tasks = [service.tg.create_task(service.ask(n)) for n in range(5)]
    assert [await task for task in tasks] == [0, 1, 2, 3, 4]
    assert service.beats and not stopped

@mark
async def test_fixture_again(service):
    assert await service.tg.create_task(service.ask(1)) == 1
    assert stopped == [(0, 0, 0)]

@mark
async def test_group_in_a_test():
    async with TaskGroup() as tg:
        task = tg.create_task(asyncio.sleep(0, 1))
        tg.create_background_task(asyncio.Event().wait)
    assert task.result() == 1

@mark
async def test_timeout_in_a_test(service):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            async with TaskGroup() as tg:
                tg.create_task(service.ask(1))
                await asyncio.Event().wait()

@mark
async def test_failure():
    async with TaskGroup() as tg:
        tg.create_background_task(asyncio.Event().wait)
        tg.create_task(asyncio.sleep(0))
        raise AssertionError("in the test")

@mark
async def test_failure_in_a_task():
    async def fail():
        raise ValueError("in a task")
    async with TaskGroup() as tg:
        tg.create_background_task(asyncio.Event().wait)
        tg.create_task(fail)

@mark
async def test_failure_in_the_fixture(service):
    async def fail():
        raise ValueError("in the fixture's group")
    service.tg.create_task(fail)

def test_nothing_is_left():
    assert len(stopped) >= 3 and set(stopped) == {(0, 0, 0)}
"""


def run(folder: Path, ini: str, kind: str, plugin: str) -> str:
    """Run the suite with a plugin, warnings as errors; return what pytest printed."""
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n" + ini)
    (folder / "kind.py").write_text(kind)
    (folder / "test_service.py").write_text(SUITE)
    env = os.environ | {"PYTHONPATH": str(Path(quattro.__file__).parents[1]), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    env.pop("PYTEST_ADDOPTS", None)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", plugin, "-v", "-rA"]
    result = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stderr) == (1, ""), result.stdout + result.stderr
    return result.stdout


def verdicts(printed: str) -> dict[str, str]:
    """How each test ended, by the short summary."""
    return {
        name: verdict for verdict, name in re.findall(r"^(PASSED|FAILED|ERROR) test_service.py::(\w+)", printed, re.M)
    }


# How each test of the suite must end; what went wrong in the fixture's group is told at the end of the fixture.
EXPECTED = {
    "test_fixture": "PASSED",
    "test_fixture_again": "PASSED",
    "test_group_in_a_test": "PASSED",
    "test_timeout_in_a_test": "PASSED",
    "test_failure": "FAILED",
    "test_failure_in_a_task": "FAILED",
    "test_failure_in_the_fixture": "ERROR",
    "test_nothing_is_left": "PASSED",
}


@pytest.mark.parametrize("debug", ["", "1"], ids=["", "debug"])
def test_pytest_asyncio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, debug: str) -> None:
    """A group in a fixture of pytest-asyncio serves the test and ends with it; failures are told, and leave nothing."""
    monkeypatch.setenv("PYTHONASYNCIODEBUG", debug)
    ini = "asyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    kind = "from pytest_asyncio import fixture\ndef mark(test): return test\n"
    printed = run(tmp_path, ini, kind, "pytest_asyncio.plugin")
    assert verdicts(printed) == EXPECTED, printed
    for error in ("AssertionError: in the test", "ValueError: in a task", "ValueError: in the fixture's group"):
        assert error in printed


def test_anyio_plugin(tmp_path: Path) -> None:
    """The same in anyio's plugin, but that an error in a fixture's group would end the task that runs every test."""
    (tmp_path / "conftest.py").write_text("import pytest\n@pytest.fixture\ndef anyio_backend(): return 'asyncio'\n")
    kind = "import pytest\nfrom pytest import fixture\nmark = pytest.mark.anyio\n"
    printed = run(tmp_path, "addopts = -k 'not in_the_fixture'\n", kind, "anyio.pytest_plugin")
    expected = {name: verdict for name, verdict in EXPECTED.items() if "in_the_fixture" not in name}
    assert verdicts(printed) == expected, printed
    for error in ("AssertionError: in the test", "ValueError: in a task"):
        assert error in printed
