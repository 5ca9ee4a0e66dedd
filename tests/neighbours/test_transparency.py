"""Seen from outside: rules T of docs/behaviour.md. Every hook is used, every stack is seen."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import io
import re
import subprocess
import sys
import textwrap
import traceback
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from helpers import fail, forever, noop, settle

from quattro import TaskGroup

SEES_AWAITED_BY = pytest.mark.skipif(sys.version_info < (3, 14), reason="asyncio has the call graph from 3.14 on")


async def test_get_coro_is_the_callers() -> None:
    """Without a limit, and with one while slots are free, task.get_coro() is the caller's coroutine. [T2]"""
    for limit in (None, 2):
        async with TaskGroup(concurrency_limit=limit) as tg:
            coro = forever()
            task = tg.create_task(coro)
            assert task.get_coro() is coro
            background_coro = forever()
            background = tg.create_background_task(background_coro)
            assert background.get_coro() is background_coro
            await settle()
            task.cancel()


async def test_stack_of_a_task_that_had_queued() -> None:
    """A task that had to queue sits behind one native frame, which bears the name of its coroutine. [T2]"""

    async def outer() -> None:
        await forever()

    async with TaskGroup(concurrency_limit=1) as tg:
        tg.create_task(asyncio.sleep(0))
        task = tg.create_task(outer())
        await settle()
        coro: Any = task.get_coro()
        assert asyncio.iscoroutine(coro) and coro.__qualname__ == outer.__qualname__
        assert coro.cr_await.cr_code is outer.__code__
        assert task.get_stack() and f"{outer.__qualname__}()" in repr(task)
        task.cancel()


async def test_names_of_callables() -> None:
    """A callable's task bears the name of the function behind it. [T2]"""

    async def job(_: int = 0) -> None:
        await forever()

    async with TaskGroup() as tg:
        for callable_ in (job, functools.partial(job, 1), functools.partial(functools.partial(job), 2)):
            task = tg.create_task(callable_)
            await settle()
            assert f"{job.__qualname__}()" in repr(task)
            task.cancel()


@SEES_AWAITED_BY
async def test_awaited_by_edges() -> None:
    """The parent is seen to await a child while it runs, and not after; background and queued ones too. [T3]"""
    parent = asyncio.current_task()
    async with TaskGroup(concurrency_limit=1) as tg:
        tasks = [tg.create_task(forever()), tg.create_task(noop()), tg.create_background_task(forever())]
        tasks += [tg.create_task(noop()), tg.create_task(forever())]
        await settle()
        assert [task._asyncio_awaited_by for task in tasks] == [{parent}] * 5  # type: ignore[attr-defined]
        tasks[0].cancel()
        await settle()
        edges = [task._asyncio_awaited_by for task in tasks]  # type: ignore[attr-defined]
        assert edges == [None, None, {parent}, None, {parent}]
        tasks[4].cancel()
    assert all(task._asyncio_awaited_by is None for task in tasks)  # type: ignore[attr-defined]


@SEES_AWAITED_BY
async def test_print_call_graph() -> None:
    """asyncio.print_call_graph() shows the parent above a child, also above one that had queued. [T1]"""
    shown: list[str] = []

    async def child() -> None:
        await asyncio.sleep(0)
        out = io.StringIO()
        asyncio.print_call_graph(file=out)  # type: ignore[attr-defined]
        shown.append(out.getvalue())

    async with TaskGroup(concurrency_limit=1) as tg:
        tg.create_task(child(), name="direct")
        tg.create_task(child(), name="queued")
    for text, name in zip(shown, ("direct", "queued"), strict=True):
        assert f"name='{name}'" in text and "child()" in text
        assert "Awaited by" in text and "test_print_call_graph" in text


@pytest.mark.skipif(sys.version_info < (3, 14), reason="python -m asyncio pstree came with 3.14")
def test_pstree_from_outside(tmp_path: Any) -> None:
    """`python -m asyncio pstree PID` shows the frames of running, queued-then-running and background tasks. [T1]"""
    script = tmp_path / "server.py"
    script.write_text(
        textwrap.dedent("""
            import asyncio
            from quattro import TaskGroup

            async def innermost():
                print("ready", flush=True)
                await asyncio.Event().wait()

            async def running_job(): await innermost()
            async def queued_job(): await innermost()
            async def background_job(): await innermost()
            async def first(): pass

            async def main():
                async with TaskGroup(concurrency_limit=2) as tg:
                    tg.create_task(first())
                    tg.create_task(running_job())
                    tg.create_task(queued_job())
                    tg.create_background_task(background_job)

            asyncio.run(main())
        """)
    )
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            assert [server.stdout.readline() for _ in range(3)] == ["ready\n"] * 3
            tree = subprocess.run(
                [sys.executable, "-m", "asyncio", "pstree", str(server.pid)], capture_output=True, text=True
            )
        finally:
            server.kill()
    if tree.returncode and re.search("ptrace|permission", said := tree.stdout + tree.stderr, re.IGNORECASE):
        pytest.skip(f"reading another process's memory is not allowed here: {said.strip()}")
    assert tree.returncode == 0, tree.stderr
    for name in ("running_job", "queued_job", "background_job", "main"):
        assert name in tree.stdout, tree.stdout
    assert tree.stdout.count("innermost") == 3, tree.stdout


async def test_traceback_holds_no_frame_of_ours() -> None:
    """A child's traceback starts in its own code; a task that had queued shows one frame of ours before it. [T5]"""
    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup(concurrency_limit=1) as tg:
            tg.create_task(fail(ValueError()))
    assert [f.name for f in traceback.extract_tb(caught.value.exceptions[0].__traceback__)] == ["fail"]
    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup(concurrency_limit=1) as tg:
            tg.create_task(asyncio.sleep(0))
            tg.create_task(fail(ValueError()))
    frames = [f.name for f in traceback.extract_tb(caught.value.exceptions[0].__traceback__)]
    assert frames == ["run_turn", "fail"]


@contextmanager
def patched(owner: Any, seen: list[Any]) -> Iterator[None]:
    """Replace owner.create_task, as tracing tools do, by a wrapper that notes what goes through it."""
    original = owner.create_task

    @functools.wraps(original)
    def create_task(*args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs)
        return original(*args, **kwargs)

    had = "create_task" in vars(owner)
    owner.create_task = create_task
    try:
        yield
    finally:
        if had:
            owner.create_task = original
        else:
            del owner.create_task


@pytest.mark.parametrize("limit", [None, 1])
async def test_patched_class(limit: int | None) -> None:
    """A create_task() patched on the loop's class sees every task, with the keywords that the caller gave. [T4]"""
    seen: list[Any] = []
    loop = asyncio.get_running_loop()
    async with TaskGroup(concurrency_limit=limit) as tg:
        tg.create_task(noop())
        with patched(type(loop), seen):
            tg.create_task(noop())
            tg.create_task(noop(), name="named")
            tg.create_background_task(noop)
        tg.create_task(noop())
    assert seen == [{}, {"name": "named"}, {}]


async def test_patched_base_class() -> None:
    """The same for asyncio's base class."""
    if not isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop):
        return
    seen: list[Any] = []
    with patched(asyncio.BaseEventLoop, seen):
        async with TaskGroup(concurrency_limit=1) as tg:
            for _ in range(3):
                tg.create_task(noop())
    assert len(seen) == 3


@pytest.mark.parametrize("limit", [None, 1])
async def test_patched_instance(limit: int | None) -> None:
    """A create_task() patched on the loop itself sees every task. [T4]"""
    seen: list[Any] = []
    async with TaskGroup(concurrency_limit=limit) as tg:
        with patched(asyncio.get_running_loop(), seen):
            for _ in range(3):
                tg.create_task(noop())
    assert len(seen) == 3


@pytest.mark.loops("asyncio")
async def test_stock_method_of_another_object() -> None:
    """asyncio's own create_task(), but bound to a proxy of the loop, asks the proxy for the factory."""
    loop = asyncio.get_running_loop()
    seen: list[Any] = []

    class Proxy:
        def __getattr__(self, name: str) -> Any:
            return getattr(loop, name)

        def _task_factory(self, loop: Any, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
            seen.append(coro)
            return asyncio.Task(coro, loop=self._loop, **kwargs)

        _loop = loop

    loop.create_task = types.MethodType(asyncio.BaseEventLoop.create_task, Proxy())  # type: ignore[method-assign]
    try:
        async with TaskGroup(concurrency_limit=1) as tg:
            for _ in range(3):
                tg.create_task(noop())
    finally:
        del loop.create_task
    assert len(seen) == 3


@pytest.mark.loops("asyncio")
async def test_copied_function() -> None:
    """A copy of asyncio's create_task() that sees another module of tasks is not taken for the original."""
    seen: list[Any] = []

    def make_task(coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
        seen.append(coro)
        return asyncio.Task(coro, **kwargs)

    stock = asyncio.BaseEventLoop.create_task
    tasks = types.SimpleNamespace(**{**vars(asyncio.tasks), "Task": make_task})
    copy = types.FunctionType(stock.__code__, {**stock.__globals__, "tasks": tasks})
    copy.__kwdefaults__ = stock.__kwdefaults__
    loop_class = type(asyncio.get_running_loop())
    loop_class.create_task = copy  # type: ignore[method-assign]
    try:
        async with TaskGroup(concurrency_limit=1) as tg:
            for _ in range(3):
                tg.create_task(noop())
    finally:
        del loop_class.create_task
    assert len(seen) == 3


async def test_patched_code() -> None:
    """A tool that swaps the code of asyncio's create_task() in place is seen, too."""
    function = asyncio.BaseEventLoop.create_task
    original = function.__code__
    seen: list[Any] = []
    if not isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop):
        return

    def create_task(self: Any, coro: Any, **kwargs: Any) -> Any:
        hook.append(coro)  # type: ignore[name-defined]  # noqa: F821
        task = tasks.Task(coro, loop=self, **kwargs)  # type: ignore[name-defined]  # noqa: F821
        return task

    function.__globals__["hook"] = seen
    kwdefaults = function.__kwdefaults__
    try:
        function.__code__ = create_task.__code__
        function.__kwdefaults__ = None
        async with TaskGroup() as tg:
            tg.create_task(noop())
    finally:
        function.__code__ = original
        function.__kwdefaults__ = kwdefaults
        del function.__globals__["hook"]
    assert len(seen) == 1


@pytest.mark.parametrize("how", ["a function", "code"])
def test_patched_before_the_import(how: str) -> None:
    """A create_task() that was patched before quattro was imported is not taken for asyncio's own."""
    script = textwrap.dedent("""
        import asyncio, functools, sys
        seen = []
        original = asyncio.BaseEventLoop.create_task
        if sys.argv[1] == "a function":
            @functools.wraps(original)
            def create_task(self, coro, **kwargs):
                seen.append(coro)
                return original(self, coro, **kwargs)
            asyncio.BaseEventLoop.create_task = create_task
        else:
            def create_task(self, coro, **kwargs):
                hook.append(coro)
                return tasks.Task(coro, loop=self, **kwargs)
            original.__globals__["hook"] = seen
            original.__code__, original.__kwdefaults__ = create_task.__code__, None
        from quattro import TaskGroup

        async def main():
            async def noop(): pass
            async with TaskGroup() as tg:
                tg.create_task(noop())
        asyncio.run(main())
        assert [coro.__name__ for coro in seen].count("noop") == 1, seen
    """)
    subprocess.run([sys.executable, "-c", script, how], check=True)


async def test_task_factory_sees_every_task() -> None:
    """A task factory that is set while the group runs makes the tasks from then on. [T4]"""
    loop = asyncio.get_running_loop()
    previous = loop.get_task_factory()
    made: list[Any] = []

    class Traced(asyncio.Task):  # type: ignore[type-arg]
        pass

    def factory(loop: Any, coro: Any, **kwargs: Any) -> Any:
        made.append(kwargs)
        return Traced(coro, loop=loop, **kwargs)

    async with TaskGroup(concurrency_limit=1) as tg:
        loop.set_task_factory(factory)
        tasks = [tg.create_task(noop()) for _ in range(3)]
        loop.set_task_factory(previous)
    assert len(made) == 3 and all(type(task) is Traced for task in tasks)


async def test_factory_that_wraps_the_coroutine() -> None:
    """A factory that runs the coroutine inside one of its own (as tracers do) works, in the queue as well."""
    loop = asyncio.get_running_loop()
    previous = loop.get_task_factory()
    spans: list[str] = []

    async def traced(coro: Any) -> Any:
        spans.append("begin")
        try:
            return await coro
        finally:
            spans.append("end")

    def factory(loop: Any, coro: Any, **kwargs: Any) -> Any:
        return asyncio.Task(traced(coro), loop=loop, **kwargs)

    loop.set_task_factory(factory)
    try:
        async with TaskGroup(concurrency_limit=1) as tg:
            tasks = [tg.create_task(noop()) for _ in range(3)]
    finally:
        loop.set_task_factory(previous)
    assert [task.result() for task in tasks] == [1, 1, 1]
    assert sorted(spans) == ["begin"] * 3 + ["end"] * 3


async def test_debug_mode_knows_where_a_task_was_created() -> None:
    """In debug mode a task's repr() says where create_task() was called."""
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    try:
        async with TaskGroup(concurrency_limit=1) as tg:
            tasks = [tg.create_task(forever()), tg.create_task(noop())]
            if type(tasks[0]) is asyncio.Task and loop.get_task_factory() is None:
                assert all(f"created at {__file__}" in repr(task) or "uvloop" in repr(loop) for task in tasks)
            tasks[0].cancel()
    finally:
        loop.set_debug(False)


@pytest.mark.loops("asyncio")
@pytest.mark.parametrize("limit", [None, 1])
async def test_the_loop_keeps_its_shape(limit: int | None) -> None:
    """Nobody makes a dict of the loop's attributes: asyncio's own code would no longer be specialised for it."""
    async with TaskGroup(concurrency_limit=limit) as tg:
        tg.create_task(noop())
        tg.create_task(noop())
    assert not any(isinstance(op, dict) and "_ready" in op for op in gc.get_referents(asyncio.get_running_loop()))


@pytest.mark.loops("debug")
@pytest.mark.parametrize("limit", [None, 1])
async def test_debug_mode_shows_where_a_task_was_made(limit: int | None) -> None:
    """In debug mode a task's source traceback ends where create_task() was called, as with loop.create_task(). [T4]"""
    async with TaskGroup(concurrency_limit=limit) as tg:
        tasks: list[Any] = [tg.create_task(noop()), tg.create_task(noop), tg.create_task(noop())]
    for task in tasks:
        assert task._source_traceback[-1].name == "test_debug_mode_shows_where_a_task_was_made"


async def test_python_task_class() -> None:
    """A pure-Python Task class in asyncio's place is used, with everything else."""
    tasks_module = sys.modules["asyncio.tasks"]
    original = tasks_module.Task  # type: ignore[attr-defined]

    class Replaced(original):  # type: ignore[misc,valid-type]
        pass

    if not isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop):
        return
    if asyncio.get_running_loop().get_task_factory() is not None:
        return
    tasks_module.Task = Replaced  # type: ignore[attr-defined]
    try:
        async with TaskGroup(concurrency_limit=1) as tg:
            tasks = [tg.create_task(noop()) for _ in range(3)]
    finally:
        tasks_module.Task = original  # type: ignore[attr-defined]
    assert all(type(task) is Replaced and task.result() == 1 for task in tasks)


async def test_what_is_async_def_is_seen_to_be() -> None:
    """inspect takes them for coroutine functions, as unittest does, and what is not awaited warns. [T6]"""
    for function in (TaskGroup.__aenter__, TaskGroup.__aexit__, TaskGroup.wait_for_slot, TaskGroup().__aenter__):
        assert inspect.iscoroutinefunction(function)
    with pytest.warns(RuntimeWarning, match=r"__aenter__' was never awaited"):
        TaskGroup().__aenter__()


def test_help_and_signatures() -> None:
    """help() and inspect show parameters and text."""
    import inspect

    parameters = inspect.signature(TaskGroup.create_task).parameters
    assert list(parameters) == ["self", "coro", "name", "context", "eager_start", "kwargs"]
    assert list(inspect.signature(TaskGroup.create_background_task).parameters) == list(parameters)
    for method in ("create_task", "create_background_task", "cancel", "statistics", "__aenter__", "__aexit__"):
        assert len(getattr(TaskGroup, method).__doc__ or "") > 80, method
    assert "concurrency_limit" in (TaskGroup.__doc__ or "")
    assert TaskGroup.__module__ == "quattro"
