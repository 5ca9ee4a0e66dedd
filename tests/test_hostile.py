"""A hostile object in place of each callable that the C calls: it raises, re-enters the group, or returns nonsense."""

from __future__ import annotations

import asyncio
import functools
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

import pytest
from helpers import Idle, Selector, fail, forever, noop, settle

from quattro import TaskGroup


def task_class(**methods: Any) -> Any:
    """A task factory that makes tasks with these methods."""
    cls = type("HostileTask", (asyncio.Task,), methods)
    return lambda loop, coro, **kwargs: cls(coro, loop=loop, **kwargs)


def raising(error: BaseException) -> Any:
    """A function that raises."""

    def function(*args: Any, **kwargs: Any) -> Any:
        raise error

    return function


async def test_background_task_that_does_not_say_how_often_it_was_cancelled() -> None:
    """A background task whose cancelling() raises is cancelled all the same, and the group ends."""
    loop = asyncio.get_running_loop()
    previous = loop.get_task_factory()
    reports: list[Any] = []
    loop.set_exception_handler(lambda _, context: reports.append(context["exception"]))
    error = LookupError("cancelling")
    async with TaskGroup() as tg:
        loop.set_task_factory(task_class(cancelling=raising(error)))
        background = tg.create_background_task(forever())
        loop.set_task_factory(previous)
        tg.create_task(settle(2))
    assert background.cancelled() and reports == [error]


ERRORS = pytest.mark.parametrize("error", [LookupError, asyncio.CancelledError, KeyboardInterrupt, SystemExit])
LIMITS = pytest.mark.parametrize("limit", [None, 1])


def drive(loop: asyncio.AbstractEventLoop) -> None:
    """Run until nothing is left to do, whatever comes out of the loop meanwhile."""
    for _ in range(50):
        try:
            loop.run_forever()
        except (KeyboardInterrupt, SystemExit, LookupError, asyncio.CancelledError):
            pass
        except Idle:
            return
    raise AssertionError("the loop never comes to rest")


def outlive(
    main: Callable[[], Any],
    factory: Any = None,
    loop_class: type[asyncio.SelectorEventLoop] = asyncio.SelectorEventLoop,
) -> None:
    """Run a group that is not left in peace: it ends by itself, or else when its tasks and its parent are cancelled."""
    loop = loop_class(Selector())
    loop.set_exception_handler(lambda *_: None)
    loop.set_task_factory(factory)
    task = loop.create_task(main())
    loop.set_task_factory(None)
    drive(loop)
    for _ in range(3):
        for other in asyncio.all_tasks(loop):
            asyncio.Task.cancel(other)
        drive(loop)
    assert asyncio.all_tasks(loop) == set()
    task.cancelled() or task.exception()
    loop.close()


async def eventful(limit: int | None, make: Callable[[], Any] = lambda: None) -> None:
    """A group that calls all that it ever calls, with tasks that end, wait and fail; `make` comes after its entry."""
    async with TaskGroup(concurrency_limit=limit) as tg:
        make()
        tg.create_background_task(forever())
        for job in (noop(), noop, functools.partial(settle, 2), fail(ValueError(), 3), forever(), noop()):
            tg.create_task(job)
        await settle(1)
        repr(tg), tg.statistics()
        await forever()


# What the C calls of a task.  Each does what it should, and raises then: whoever raises without cancelling, say, is
# no task that a group could end.
TASK_METHODS = [
    "add_done_callback",
    "cancel",
    "cancelling",
    "uncancel",
    "cancelled",
    "exception",
    "done",
    "_must_cancel",
]


def asked_by_asyncio() -> bool:
    """Is the caller of a method asyncio's Python, or its all_tasks() in C, and not our C?"""
    frame = sys._getframe(2)
    return (
        frame.f_globals.get("__name__") in ("asyncio.base_events", "asyncio.tasks") or frame.f_code is outlive.__code__
    )


def spoilt(name: str, error: type[BaseException]) -> Any:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = getattr(asyncio.Task, name)(self, *args, **kwargs)
        if asked_by_asyncio():
            return result
        raise error("hostile")

    return property(raising(error("hostile"))) if name == "_must_cancel" else method


@ERRORS
@LIMITS
@pytest.mark.parametrize("name", TASK_METHODS)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_child_that_raises(name: str, limit: int | None, error: type[BaseException]) -> None:
    """Any method of a child may raise: the group still ends."""
    factory = task_class(**{name: spoilt(name, error)})
    outlive(lambda: eventful(limit, lambda: asyncio.get_running_loop().set_task_factory(factory)))


@ERRORS
@LIMITS
@pytest.mark.parametrize("name", ["cancel", "cancelling", "uncancel", "done", "_must_cancel"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_parent_that_raises(name: str, limit: int | None, error: type[BaseException]) -> None:
    """Any method of the parent may raise: the group still ends."""

    async def parent() -> None:
        cls = type("HostileTask", (asyncio.Task,), {name: spoilt(name, error)})
        await asyncio.wait([cls(eventful(limit), loop=asyncio.get_running_loop())])

    outlive(parent)


LOOP_METHODS = ["call_soon", "create_task", "call_exception_handler", "get_debug", "get_task_factory"]


@ERRORS
@LIMITS
@pytest.mark.parametrize("nth", [0, 1, 4])
@pytest.mark.parametrize("name", LOOP_METHODS)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_loop_that_raises(name: str, nth: int, limit: int | None, error: type[BaseException]) -> None:
    """The n-th call of a method of the loop that comes from us raises; what it had to do has been done."""
    calls: int | None = None

    def arm() -> None:
        nonlocal calls
        calls = 0

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        result = getattr(asyncio.SelectorEventLoop, name)(self, *args, **kwargs)
        if calls is not None and not asked_by_asyncio():
            calls += 1
            if calls == nth + 1:
                if name == "create_task":
                    result.cancel()
                raise error("hostile")
        return result

    loop_class = type("HostileLoop", (asyncio.SelectorEventLoop,), {name: method})
    outlive(lambda: eventful(limit, arm), loop_class=loop_class)


class Moody:
    """A callable, or a coroutine function's stand-in, whose attributes raise."""

    def __init__(self, name: str, error: BaseException) -> None:
        self.moody = name, error

    def __call__(self) -> Any:
        return noop()

    def __getattribute__(self, name: str) -> Any:
        moody, error = object.__getattribute__(self, "moody")
        if name == moody:
            raise error
        return object.__getattribute__(self, name)


@ERRORS
@LIMITS
@pytest.mark.parametrize("name", ["__name__", "__qualname__", "__class__"])
def test_callable_that_raises_when_looked_at(name: str, limit: int | None, error: type[BaseException]) -> None:
    """What a callable is called, and what it is, may raise: that goes to who calls create_task(), or to the task."""

    async def main() -> None:
        async with TaskGroup(concurrency_limit=limit) as tg:
            tg.create_task(settle(2))
            tg.create_task(Moody(name, error("hostile")))

    outlive(main)


@ERRORS
@pytest.mark.parametrize("name", ["_abort", "_on_task_done"])
@pytest.mark.parametrize("how", ["looked up", "called"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_hook_that_raises(name: str, how: str, error: type[BaseException]) -> None:
    """A subclass's hook may raise when it is looked up, or when it has done its work."""

    class Hooked(TaskGroup):
        pass

    def hook(self: Any, *args: Any) -> None:
        getattr(TaskGroup, name)(self, *args)
        raise error("hostile")

    setattr(Hooked, name, hook if how == "called" else property(raising(error("hostile"))))

    async def main() -> None:
        async with Hooked(concurrency_limit=1) as tg:
            for job in (noop(), settle(2), fail(ValueError(), 1), forever()):
                tg.create_task(job)

    outlive(main)


@ERRORS
def test_limit_that_raises(error: type[BaseException]) -> None:
    """__index__ of a limit may raise."""
    number = type("Number", (), {"__index__": raising(error("hostile"))})()
    with pytest.raises(error, match="hostile"):
        TaskGroup(concurrency_limit=number)


@pytest.mark.parametrize("nonsense", [None, "many", 1.5, -1, 10**100])
@pytest.mark.parametrize("name", ["cancelling", "uncancel", "cancelled", "exception", "done", "cancel"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_task_that_returns_nonsense(name: str, nonsense: Any) -> None:
    """A task's method may return what it should not."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = getattr(asyncio.Task, name)(self, *args, **kwargs)
        return result if asked_by_asyncio() else nonsense

    factory = task_class(**{name: method})
    outlive(lambda: eventful(2, lambda: asyncio.get_running_loop().set_task_factory(factory)))
    outlive(lambda: eventful(2), factory)


@ERRORS
@pytest.mark.parametrize(
    "place", ["body", "child", "callable", "background", "clean-up", "handler", "callback", "exit"]
)
def test_error_from_every_place(place: str, error: type[BaseException]) -> None:
    """An error may come from wherever somebody's code runs, base errors too: every task that began has ended."""
    script = textwrap.dedent(f"""
        import asyncio
        from quattro import TaskGroup

        place, error = {place!r}, {error.__module__}.{error.__qualname__}("here")
        began, ended = [], []

        def strike(where):
            if where == place:
                raise error

        async def sibling(i):
            began.append(i)
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(i)

        async def cleaner():
            try:
                await asyncio.Event().wait()
            finally:
                strike("clean-up")

        async def child():
            await asyncio.sleep(0)
            strike("child")

        async def background():
            await asyncio.sleep(0)
            strike("background")
            await asyncio.Event().wait()

        def make():
            strike("callable")
            return child()

        async def main():
            asyncio.get_running_loop().set_exception_handler(lambda *args: strike("handler"))
            async with TaskGroup(concurrency_limit=3) as tg:
                if place == "exit":
                    asyncio.get_running_loop().call_later(0.01, lambda: strike("exit"))
                tg.create_background_task(sibling(0))
                tg.create_background_task(background())
                tg.create_task(child()).add_done_callback(lambda task: strike("callback"))
                tg.create_background_task(cleaner())
                tg.create_task(make)
                tg.create_task(sibling(1))
                await asyncio.sleep(0)
                strike("body")
                await asyncio.sleep(0.02)
                asyncio.get_running_loop().call_soon(tg.cancel)

        try:
            asyncio.run(main())
        except BaseException as caught:
            pass
        assert began and sorted(began) == sorted(ended), (began, ended)
    """)
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", "import builtins, asyncio.exceptions\n" + script],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "never awaited" not in done.stderr, done.stderr


@pytest.mark.loops("asyncio")
@pytest.mark.parametrize("limit", [None, 1, 2])
@pytest.mark.parametrize("name", ["done", "cancel"])
async def test_task_that_joins_an_aborted_group_and_raises(name: str, limit: int | None) -> None:
    """A task made while its group is aborted is cancelled once, awaited, and has one slot, whatever it raises."""
    loop = asyncio.get_running_loop()
    make = task_class(**{name: spoilt(name, LookupError)})
    made: list[asyncio.Task[Any]] = []

    def factory(loop: Any, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
        made.append(make(loop, coro, **kwargs))
        tg._abort()
        return made[0]

    async with TaskGroup(concurrency_limit=limit) as tg:
        tg.create_task(forever())
        loop.set_task_factory(factory)
        with pytest.raises(LookupError, match="hostile"):
            tg.create_task(settle(3))
        loop.set_task_factory(None)
        assert made[0] in tg._tasks
    assert made[0].cancelled() and asyncio.Task.cancelling(made[0]) == 1
    assert tg.statistics() == (0, 0, 0, limit)


@pytest.mark.loops("asyncio", "debug", "factory")
@pytest.mark.parametrize("end", ["granted", "cancelled"])
async def test_queued_task_whose_context_somebody_is_in(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A queued task can't step while its context is entered, where its turn is made to come: it does so later."""
    loop, call_soon, context = asyncio.get_running_loop(), asyncio.get_running_loop().call_soon, copy_context()
    within: list[str] = []

    def call_soon_within(callback: Any, *args: Any, **kwargs: Any) -> asyncio.Handle:
        if getattr(callback, "__name__", "") != "_wake":
            return call_soon(callback, *args, **kwargs)
        within.append(end)
        return call_soon(callback, context=context)

    async with TaskGroup(concurrency_limit=1) as tg:
        monkeypatch.setattr(loop, "call_soon", call_soon_within)
        before = [tg.create_task(settle(2)) for _ in range(2)]
        task = tg.create_task(noop(), context=context)
        await settle(1)
        if end == "cancelled":
            task.cancel()
        else:
            before[1].cancel()
    assert end in within and (task.cancelled() if end == "cancelled" else task.result() == 1)
