"""A hostile object in place of each callable that the C calls: it raises, re-enters the group, or returns nonsense."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import subprocess
import sys
import textwrap
import threading
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


PLACES = [
    "enter",
    "body",
    "child",
    "queued",
    "callable",
    "background",
    "clean-up",
    "handler",
    "callback",
    "exit",
    "leave",
]


@ERRORS
@pytest.mark.parametrize("place", PLACES + ["eager"] * (sys.version_info >= (3, 12)))
def test_error_from_every_place(place: str, error: type[BaseException]) -> None:
    """An error may come from wherever somebody's code runs, base errors too: every task that began has ended."""
    script = textwrap.dedent(f"""
        import asyncio
        from quattro import TaskGroup

        place, error = {place!r}, {error.__module__}.{error.__qualname__}("here")
        began, ended, struck = [], [], []

        def strike(where):
            if where == place:
                struck.append(where)
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

        async def at_once(where):
            strike(where)

        async def fails(error):
            raise error

        class Group(TaskGroup):
            async def __aenter__(self):
                await super().__aenter__()
                strike("enter")
                return self

            async def __aexit__(self, *exc):
                await super().__aexit__(*exc)
                strike("leave")

        def make():
            strike("callable")
            return child()

        async def main():
            asyncio.get_running_loop().set_exception_handler(lambda *args: strike("handler"))
            async with Group(concurrency_limit=3) as tg:
                if place == "exit":
                    asyncio.get_running_loop().call_later(0.01, lambda: strike("exit"))
                tg.create_background_task(sibling(0))
                tg.create_background_task(background())
                tg.create_task(child()).add_done_callback(lambda task: strike("callback"))
                tg.create_background_task(cleaner())
                tg.create_task(make)
                tg.create_task(sibling(1))
                tg.create_task(at_once("queued"))
                await asyncio.sleep(0)
                if place == "eager":
                    tg.create_background_task(at_once("eager"), eager_start=True)
                if place == "handler":  # which hears of what a base error displaces
                    for displaced in (ValueError(), SystemExit()):
                        tg.create_background_task(fails(displaced))
                strike("body")
                await asyncio.sleep(0.02)
                asyncio.get_running_loop().call_soon(tg.cancel)

        try:
            asyncio.run(main())
        except BaseException as caught:
            pass
        assert (began or place == "enter") and sorted(began) == sorted(ended), (began, ended)
        assert struck, "never came there"
    """)
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", "import builtins, asyncio.exceptions\n" + script],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "never awaited" not in done.stderr, done.stderr


@pytest.mark.loops("asyncio")
@pytest.mark.parametrize("limit", [None, 1, 2])
@pytest.mark.parametrize(("name", "announced"), [("done", False), ("cancel", False), ("cancel", True)])
async def test_task_that_joins_an_aborted_group_and_raises(
    name: str, announced: bool, limit: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task made while its group is aborted is cancelled once, awaited, and has one slot, whatever it raises.

    If it calls _on_task_done() there, it is the group's no more, and its slot has come back once.
    """
    loop = asyncio.get_running_loop()
    made: list[asyncio.Task[Any]] = []
    # What it raises again, when it is asked again, is reported.
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: reports.append(str(unraisable.exc_value)))
    reports: list[str] = []

    def method(self: Any, *args: Any) -> Any:
        result = getattr(asyncio.Task, name)(self, *args)
        if not asked_by_asyncio():
            if announced:
                with contextlib.suppress(asyncio.InvalidStateError):
                    tg._on_task_done(self)
            raise LookupError("hostile")
        return result

    def factory(loop: Any, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
        made.append(task_class(**{name: method})(loop, coro, **kwargs))
        tg._abort()
        return made[0]

    async with TaskGroup(concurrency_limit=limit) as tg:
        tg.create_task(forever())
        loop.set_task_factory(factory)
        with pytest.raises(LookupError, match="hostile"):
            tg.create_task(settle(3))
        loop.set_task_factory(None)
        assert (made[0] in tg._tasks) is not announced
        assert tg.statistics().running == (1 if announced else 2 if limit is None else limit)
    await settle(1)
    assert made[0].cancelled() and asyncio.Task.cancelling(made[0]) == 1
    assert tg.statistics() == (0, 0, 0, limit)
    assert reports == (["hostile"] if (name, limit) == ("done", 2) else [])


@pytest.mark.loops("asyncio", "debug", "factory")
@pytest.mark.parametrize("end", ["granted", "cancelled"])
async def test_queued_task_whose_context_somebody_is_in(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A queued task can't step while its context is entered, where its turn is made to come: it does so later."""
    loop, call_soon, context = asyncio.get_running_loop(), asyncio.get_running_loop().call_soon, copy_context()
    within: list[str] = []

    def call_soon_within(callback: Any, *args: Any, **kwargs: Any) -> asyncio.Handle:
        if getattr(callback, "__name__", "") != "_start":
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


def refuse_to_wake(loop: Any, monkeypatch: pytest.MonkeyPatch, times: int) -> list[str]:
    """Have call_soon() refuse to wake queued tasks so many times; what it was asked for."""
    call_soon, asked = loop.call_soon, []

    def refusing(callback: Any, *args: Any, **kwargs: Any) -> Any:
        if getattr(callback, "__name__", "") == "_start":
            asked.append("wake")
            if len(asked) <= times:
                raise LookupError("not now")
        return call_soon(callback, *args, **kwargs)

    monkeypatch.setattr(loop, "call_soon", refusing)
    return asked


@pytest.mark.loops("asyncio", "debug")
async def test_loop_that_refuses_to_wake_in_an_abort(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queued task that refuses its cancel, too, runs no line and ends when the loop can be asked again."""
    loop = asyncio.get_running_loop()
    async with TaskGroup(concurrency_limit=1) as tg:
        tg.create_task(forever())
        loop.set_task_factory(task_class(cancel=lambda self, msg=None: False))
        coro = noop()
        queued = tg.create_task(coro)
        loop.set_task_factory(None)
        await settle(2)
        asked = refuse_to_wake(loop, monkeypatch, 1)
        with pytest.raises(LookupError, match="not now"):
            tg.cancel()
        assert coro.cr_frame is None
    assert len(asked) == 2 and queued.cancelled()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no eager tasks")
@pytest.mark.loops("asyncio", "debug")
@pytest.mark.reports
@pytest.mark.parametrize("how", ["queued", "eager"])
async def test_loop_that_refuses_to_wake_in_create_task(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """create_task() says that the loop refused to wake another task; no slot and no task is lost."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)
    done: list[int] = []

    async def job() -> None:
        done.append(1)

    async with TaskGroup(concurrency_limit=2) as tg:
        tg.create_task(settle(8))
        running = tg.create_task(forever())
        queued = tg.create_task(noop())
        await settle(2)
        asked = refuse_to_wake(loop, monkeypatch, 2 if how == "queued" else 3)
        with pytest.raises(LookupError):
            queued.cancel()
        if how == "queued":
            with pytest.raises(LookupError):
                tg.create_task(job())
            assert tg.statistics() == (2, 1, 0, 2)
            running.cancel()
        else:
            running.cancel()
            await settle(2)  # its slot came back, and the loop refused again
            with pytest.raises(LookupError):
                tg.create_task(job(), eager_start=True)
            assert done == [1] and tg.statistics() == (1, 0, 0, 2)
    assert len(asked) >= 2 and queued.cancelled() and done == [1]


@pytest.mark.loops("asyncio")
async def test_task_that_is_granted_a_slot_and_hides_its_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queued task that has not run, and does not say whether it is going to, keeps the slot that it is granted."""
    loop, reports = asyncio.get_running_loop(), []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: reports.append(str(unraisable.exc_value)))
    async with TaskGroup(concurrency_limit=1) as tg:
        tg.create_task(noop())
        await settle(1)  # it has ended, and its slot comes back in the next pass
        loop.set_task_factory(task_class(_must_cancel=property(raising(LookupError("hidden")))))
        task = tg.create_task(noop())
        loop.set_task_factory(None)
        assert tg.statistics() == (1, 1, 0, 1)
    assert task.result() == 1 and set(reports) == {"hidden"}


@pytest.mark.loops("asyncio", "debug", "uvloop")
async def test_other_thread_that_gives_a_slot_back() -> None:
    """A slot that comes back in another thread is handed over by the loop, in its own."""
    threads: list[int] = []

    async def job() -> None:
        threads.append(threading.get_ident())

    async with TaskGroup(concurrency_limit=1) as tg:
        running = tg.create_task(forever())
        queued = tg.create_task(job())
        await settle(2)
        asyncio.get_running_loop().set_debug(False)  # which forbids what follows
        thread = threading.Thread(target=tg._on_task_done, args=(running,))
        thread.start()
        thread.join()
        assert threads == [] and not queued.done()
        await queued
        running.cancel()
    assert threads == [threading.get_ident()]


@pytest.mark.parametrize("name", ["call_soon", "_debug", "_ready"])
def test_loop_that_does_not_say_what_is_ready(name: str) -> None:
    """A loop that raises when it is asked whether the parent may step at once wakes it in the next pass."""
    armed = False
    raised: list[str] = []

    class Moody(asyncio.SelectorEventLoop):
        def __getattribute__(self, attr: str) -> Any:
            nonlocal armed
            if armed and attr == name and sys._getframe(1).f_code.co_name == "_run":
                armed = False
                raised.append(attr)
                raise LookupError("moody")
            return super().__getattribute__(attr)

    async def child() -> None:
        def arm() -> None:
            nonlocal armed
            armed = True

        asyncio.get_running_loop().call_soon(arm)

    async def main() -> int:
        async with TaskGroup() as tg:
            tg.create_task(child())
        return 1

    with asyncio.Runner(loop_factory=Moody) as runner:
        assert runner.run(main()) == 1
    assert raised == [name]


@pytest.mark.loops("asyncio", "debug")
@LIMITS
@pytest.mark.parametrize("name", ["_task_factory", "_debug"])
async def test_loop_that_does_not_say_how_it_makes_tasks(name: str, limit: int | None) -> None:
    """What the loop raises when it is asked goes to create_task(); the coroutine is closed, and no slot is lost."""
    loop: Any = asyncio.get_running_loop()
    cls, kept = type(loop), getattr(loop, name)
    coro = noop()
    async with TaskGroup(concurrency_limit=limit) as tg:
        loop.__class__ = type("Moody", (cls,), {name: property(raising(LookupError("moody")))})
        try:
            with pytest.raises(LookupError, match="moody"):
                tg.create_task(coro)
        finally:
            loop.__class__ = cls
        assert coro.cr_frame is None and tg.statistics()[:3] == (0, 0, 0) and getattr(loop, name) is kept


@pytest.mark.loops("asyncio", "debug")
async def test_loop_that_lacks_what_makes_its_tasks() -> None:
    """A loop without the attribute that its own create_task() reads: that method's error."""
    loop: Any = asyncio.get_running_loop()
    coro = noop()
    async with TaskGroup() as tg:
        del loop._task_factory
        try:
            with pytest.raises(AttributeError, match="_task_factory"):
                tg.create_task(coro)
        finally:
            loop._task_factory = None
        assert coro.cr_frame is None


@pytest.mark.skipif(sys.platform == "win32", reason="uvloop is not for Windows")
@pytest.mark.parametrize("name", ["get_debug", "get_task_factory"])
def test_uvloop_whose_methods_are_overridden(name: str) -> None:
    """A method of uvloop's that raises in a subclass: its own create_task() does not ask it, but asyncio.Task may."""
    import uvloop

    armed = False

    def method(self: Any) -> Any:
        if armed:
            raise LookupError("moody")
        return getattr(uvloop.Loop, name)(self)

    async def main() -> None:
        nonlocal armed
        async with TaskGroup(concurrency_limit=1) as tg:
            for create_task in (asyncio.get_running_loop().create_task, tg.create_task):
                coro = noop()
                armed = True
                try:
                    task = create_task(coro)
                except LookupError:
                    assert name == "get_debug"
                    assert create_task != tg.create_task or coro.cr_frame is None
                    coro.close()
                else:
                    assert name == "get_task_factory"
                    await task
                finally:
                    armed = False
                assert tg.statistics().running == 0
            tg.create_task(noop())

    with asyncio.Runner(loop_factory=type("Moody", (uvloop.Loop,), {name: method})) as runner:
        runner.run(main())


class Word(str):
    """A keyword that raises when a dictionary asks for more than its name."""

    asked = ""

    def __hash__(self) -> int:
        if self.asked == "hash":
            raise LookupError("hash")
        return hash(str(self))

    def __eq__(self, other: object) -> bool:
        raise LookupError("eq")


@pytest.mark.loops("asyncio", "uvloop")
async def test_keywords_that_raise() -> None:
    """A keyword that has no hash, or can't be compared: that error, and the coroutine is closed."""
    limit, name = Word("concurrency_limit"), Word("name")
    with pytest.raises(LookupError, match="eq"):
        TaskGroup(**{limit: 1})  # type: ignore[arg-type]
    coro, keywords = noop(), {name: "named"}
    name.asked = "hash"
    async with TaskGroup() as tg:
        with pytest.raises(LookupError, match="hash"):
            tg.create_task(coro, **keywords)  # type: ignore[arg-type]
        assert coro.cr_frame is None and tg._tasks == set()


def run_script(script: str) -> None:
    """In a process of its own, which it may spoil."""
    script = textwrap.dedent(script)
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_namespace_that_raises() -> None:
    """A key in asyncio's namespace that raises when it is compared with "Task": that error, from create_task()."""
    run_script("""
        import asyncio, asyncio.tasks
        from quattro import TaskGroup

        class Key:
            armed = False

            def __hash__(self):
                return hash("Task")

            def __eq__(self, other):
                if self.armed:
                    raise LookupError("compared")
                return False

        async def noop():
            pass

        async def main():
            namespace, key, coro = vars(asyncio.tasks), Key(), noop()
            async with TaskGroup(concurrency_limit=1) as tg:
                del namespace["Task"]
                namespace[key] = None
                namespace["Task"] = asyncio.Task
                key.armed = True
                try:
                    tg.create_task(coro)
                except LookupError as error:
                    assert str(error) == "compared"
                else:
                    raise AssertionError("not raised")
                key.armed = False
                assert coro.cr_frame is None and tg.statistics().running == 0

        asyncio.run(main())
    """)


def test_partial_in_python_that_was_never_initialised() -> None:
    """Where functools has no C part, a partial without a function is an AttributeError of create_task()."""
    run_script("""
        import sys
        sys.modules["_functools"] = None
        for name in ("functools", "enum", "re"):
            sys.modules.pop(name, None)
        import functools, asyncio
        from quattro import TaskGroup

        async def noop():
            return 1

        async def main():
            async with TaskGroup() as tg:
                try:
                    tg.create_task(object.__new__(functools.partial))
                except AttributeError as error:
                    assert "func" in str(error)
                else:
                    raise AssertionError("not raised")
                assert await tg.create_task(functools.partial(noop)) == 1

        assert functools.partial.__module__ == "functools" and functools.partial.__flags__ & 1 << 9
        asyncio.run(main())
    """)


def test_class_that_hides_its_base() -> None:
    """A subclass whose mro() leaves the group's own type out can't be called."""

    class Hiding(type):
        def mro(cls) -> list[type]:
            return [cls, object]

    with pytest.raises(TypeError):
        Hiding("Hidden", (TaskGroup,), {})()


def test_asyncio_without_what_the_import_asks_for() -> None:
    """Where somebody has taken a part out of asyncio, the import says so."""
    run_script("""
        import asyncio.base_events
        del asyncio.base_events.BaseEventLoop
        try:
            import quattro
        except AttributeError as error:
            assert "BaseEventLoop" in str(error)
        else:
            raise AssertionError("imported")
    """)


async def test_parent_that_refuses_its_cancel() -> None:
    """cancel() of a group whose parent raises then: that error, when the tasks have been cancelled."""
    loop = asyncio.get_running_loop()
    seen: list[Any] = []

    class Refusing(asyncio.Task[Any]):
        def cancel(self, msg: Any = None) -> bool:
            raise LookupError("refused")

    async def main() -> None:
        async with TaskGroup() as tg:
            task = tg.create_task(forever())
            with pytest.raises(LookupError, match="refused"):
                tg.cancel()
            await settle(3)
            seen.append(task.cancelled())

    await Refusing(main(), loop=loop)
    assert seen == [True]


@pytest.mark.loops("asyncio", "uvloop")
async def test_background_task_that_refuses_its_cancel() -> None:
    """At the exit, that error comes out of the group; the task ends, and the group has let go of it."""
    loop = asyncio.get_running_loop()

    def cancel(self: Any, msg: Any = None) -> bool:
        asyncio.Task.cancel(self, msg)
        raise LookupError("but cancelled")

    with pytest.raises(LookupError, match="but cancelled"):
        async with TaskGroup() as tg:
            loop.set_task_factory(task_class(cancel=cancel))
            task = tg.create_background_task(forever())
            loop.set_task_factory(None)
    await settle(3)
    assert task.cancelled() and tg._tasks == set() and tg._parent_task is None


BEFORE_3_13 = pytest.mark.skipif(sys.version_info >= (3, 13), reason="uncancel() leaves no cancellation pending there")


@BEFORE_3_13
@pytest.mark.loops("asyncio", "debug", "uvloop")
@pytest.mark.reports
@pytest.mark.parametrize("name", ["cancelling", "uncancel", "cancel"])
async def test_parent_that_raises_when_its_cancel_is_given_back(name: str) -> None:
    """The loop is told when an outside cancel can't be given back; the errors come out of the group all the same."""
    loop, reports = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: reports.append(str(context["exception"])))
    armed = False

    def method(self: Any, *args: Any) -> Any:
        if armed:
            raise LookupError("hostile")
        return getattr(asyncio.Task, name)(self, *args)

    async def child() -> None:
        try:
            await forever()
        finally:
            raise ValueError

    async def main() -> str:
        nonlocal armed
        with pytest.raises(ExceptionGroup):
            async with TaskGroup() as tg:
                tg.create_task(child())
                await settle(1)
                loop.call_soon(parent.cancel)
                await forever()
        armed = True
        await settle(3)
        armed = False
        return "goes on"

    parent = task_class(**{name: method})(loop, main())
    assert await parent == "goes on" and reports == ["hostile"]


@BEFORE_3_13
async def test_parent_that_does_not_say_whether_it_is_cancelled() -> None:
    """Nor, on its way out, whether a cancellation is its own: that error comes out, and the group is finished."""

    async def main() -> TaskGroup:
        with pytest.raises(LookupError, match="hostile"):
            async with TaskGroup() as tg:
                tg.cancel()
        return tg

    parent = task_class(cancelling=raising(LookupError("hostile")))(asyncio.get_running_loop(), main())
    group = await parent
    assert group._parent_task is None


@pytest.mark.skipif(sys.version_info < (3, 14), reason="a task does not know who awaits it")
@pytest.mark.loops("asyncio", "uvloop")
@pytest.mark.parametrize("when", ["joins", "joins, and the group is finished", "is left behind"])
async def test_parent_whose_hash_raises(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that somebody awaits already keeps its awaiters in a set, where the parent's hash may raise or re-enter.

    While a task joins, create_task() fails and the task is cancelled; when the exit is broken off, it is reported.
    """
    loop: Any = asyncio.get_running_loop()
    reports: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: reports.append(str(unraisable.exc_value)))
    other = loop.create_future()
    made: list[asyncio.Task[Any]] = []
    armed = False

    def factory(loop: Any, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
        made.append(asyncio.Task(coro, loop=loop, **kwargs))
        asyncio.future_add_to_awaited_by(made[0], other)  # type: ignore[attr-defined]
        return made[0]

    def break_off(tg: TaskGroup) -> None:
        leaving: Any = tg.__aexit__(None, None, None)
        leaving.send(None)
        leaving.close()

    class Parent(asyncio.Task[Any]):
        def __hash__(self) -> int:
            nonlocal armed
            if armed:
                armed = False
                if "finished" not in when:
                    raise LookupError("hash")
                break_off(tg)
                tg._on_task_done(made[0])
            return id(self)

    async def main() -> None:
        nonlocal armed
        await tg.__aenter__()
        loop.set_task_factory(factory)
        if when == "is left behind":
            tg.create_task(forever())
            armed = True
            break_off(tg)
            assert reports == ["hash"]
            made[0].cancel()
        else:
            armed = True
            with pytest.raises(RuntimeError if "finished" in when else LookupError, match=r"is finished|hash"):
                tg.create_task(forever())
            assert reports == [] and tg.statistics() == (0, 0, 0, 1)
        assert not armed
        loop.set_task_factory(None)

    tg = TaskGroup(concurrency_limit=1)
    await Parent(main(), loop=loop)
    await settle(2)
    assert made[0].cancelled() and tg._tasks == set()
    asyncio.future_discard_from_awaited_by(made[0], other)  # type: ignore[attr-defined]
