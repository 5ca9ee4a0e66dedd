"""A hostile object at the other end of each call of the C: it raises, re-enters the group, finishes it, deletes it, or
returns nonsense.

ROWS has a row for each such thing; a rule at the end finds what the C asks of an object and no row stands for.
"""

from __future__ import annotations

import asyncio
import collections.abc
import contextlib
import contextvars
import functools
import gc
import inspect
import itertools
import re
import sys
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import includes
import pytest
from helpers import Idle, Selector, fail, forever, noop, settle

from quattro import TaskGroup

Row = Callable[["World"], None]
Deed = Callable[["World", Any], Any]
TASK: Any = asyncio.Task
LOOP: Any = asyncio.SelectorEventLoop


class World:
    """A loop, a group with jobs of all kinds, and a hostile object, which does its deed to them when it is called."""

    def __init__(self, deed: Deed, when: int | None, limit: int | None, ending: str) -> None:
        self.deed, self.when, self.limit, self.ending = deed, when, limit, ending
        self.calls = 0
        self.struck = False
        self.busy = False  # in its deed, or not yet or no longer hostile
        self.group: Any = None
        self.alive: weakref.ref[Any] | None = None
        self.errors: list[BaseException] = []  # that came out anywhere
        self.given: list[Any] = []  # coroutines that the group was given
        # What a row may replace.
        self.group_class: type[TaskGroup] = TaskGroup
        self.loop_class: Any = LOOP
        self.parent_class: Any = TASK
        self.handler: Any = lambda loop, context: self.note(context.get("exception"))
        self.factory: Any = None  # for the group's tasks
        self.patches: list[tuple[Any, str, Any]] = []
        self.jobs: list[Callable[[Any], Any]] = []  # called with the group
        self.exits = True  # the group is left in the end
        self.ends = True  # and that by itself, because nobody breaks its exit off

    def strike(self, result: Any = None) -> Any:
        """The hostile object is called; `result` is what it should return."""
        if self.busy:
            return result
        self.calls += 1
        if self.calls > 30 or (self.when is not None and self.calls != self.when):
            return result  # what it does may be what it is called for
        self.struck = self.busy = True
        try:
            return self.deed(self, result)
        finally:
            self.busy = False

    def spoilt(self, function: Callable[..., Any]) -> Any:
        """A function that does what it should and then strikes, unless asyncio itself has called it.

        (Whoever raises without having cancelled, say, is no task that a group could end.)
        """

        def method(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            return result if asked_by_asyncio() else self.strike(result)

        return method

    def coro(self, coro: Any) -> Any:
        """A coroutine that is about to be given to the group."""
        self.given.append(coro)
        return coro

    def note(self, error: Any) -> None:
        if isinstance(error, BaseException):
            self.errors.append(error)


def asked_by_asyncio() -> bool:
    """Is the caller of a method asyncio's Python, or its all_tasks() in C, and not our C?"""
    frame = sys._getframe(2)
    module, function = frame.f_globals.get("__name__", ""), frame.f_code.co_name
    return (module.startswith("asyncio.") and function != "_run") or frame.f_code is run.__code__


# --- What a hostile object does ---------------------------------------------------------------------------------------


def raises(error: type[BaseException]) -> Deed:
    def deed(world: World, result: Any) -> Any:
        raise error("hostile")

    return deed


def returns(nonsense: Any) -> Deed:
    return lambda world, result: nonsense


def harmless(world: World, *functions: Callable[[], Any]) -> None:
    """Call these, whatever they say."""
    for function in functions:
        try:
            function()
        except (Exception, asyncio.CancelledError) as error:
            world.note(error)


def re_enter(world: World, result: Any) -> Any:
    """Use the group, from within."""
    group = world.group
    if group is not None:
        harmless(
            world,
            lambda: group.create_task(world.coro(noop()), name="again"),
            lambda: group.create_task(noop),
            lambda: group.create_background_task(world.coro(forever())),
            lambda: [task.cancel() for task in group._tasks if task.get_name() == "victim"],
            lambda: (repr(group), group.statistics(), group._errors),
            lambda: next(iter(group.__aenter__())),
        )
    return result


def finish(world: World, result: Any) -> Any:
    """Leave the group, at once."""

    def leave() -> None:
        leaving = group.__aexit__(None, None, None)
        leaving.send(None)
        leaving.close()

    group, world.ends = world.group, False
    if group is not None:
        with contextlib.suppress(StopIteration):
            harmless(world, leave)
    return result


def cancel(world: World, result: Any) -> Any:
    if world.group is not None:
        harmless(world, world.group.cancel)
    return result


def delete(world: World, result: Any) -> Any:
    world.group, world.ends = None, False
    gc.collect()
    return result


class Untrue:
    """Neither true nor a number."""

    def __bool__(self) -> bool:
        raise LookupError("untrue")

    def __index__(self) -> int:
        raise LookupError("no number")


DEEDS: dict[str, list[Deed]] = {
    "raises": [raises(LookupError), raises(asyncio.CancelledError)],
    "raises a base error": [raises(KeyboardInterrupt), raises(SystemExit)],
    "re-enters": [re_enter],
    "finishes": [finish],
    "cancels": [cancel],
    "deletes": [delete],
    "nonsense": [returns(nonsense) for nonsense in (None, "many", 1.5, -1, 10**100, Untrue())],
}


# --- The life of a group, and what has to hold after it ---------------------------------------------------------------


async def live(world: World) -> None:
    """Enter a group that calls all that it ever calls, give it jobs, and leave it."""
    loop = asyncio.get_running_loop()
    group = world.group = world.group_class(concurrency_limit=world.limit)
    world.alive = weakref.ref(group)
    world.busy = False
    await group.__aenter__()
    del group
    raised = None
    try:
        await body(world, loop)
    except BaseException as error:
        raised = error
    finally:
        loop.set_task_factory(None)
    if world.group is not None and world.exits:
        await world.group.__aexit__(type(raised) if raised else None, raised, None)


async def body(world: World, loop: Any) -> None:
    loop.set_task_factory(world.factory)
    jobs: list[Callable[[Any], Any]] = [
        lambda group: group.create_background_task(world.coro(forever())),
        lambda group: group.create_task(world.coro(noop())),
        *world.jobs,
        lambda group: group.create_task(noop),
        lambda group: group.create_task(functools.partial(settle, 2)),
        lambda group: group.create_task(world.coro(settle(4)), name="victim"),
        lambda group: group.create_task(world.coro(noop()), no_such_keyword=1),
        lambda group: group.create_background_task(world.coro(forever())),
    ]
    if world.ending == "error":
        jobs.append(lambda group: group.create_task(world.coro(fail(ValueError("mine"), 3))))
    for number, job in enumerate(jobs):
        if world.group is not None:
            harmless(world, functools.partial(job, world.group))
        if world.group is not None and world.limit is not None:
            assert world.group.statistics().running <= world.limit
        await settle(number % 3 == 2)
    await settle(1)
    if world.group is not None:
        repr(world.group), world.group.statistics(), world.group._tasks
    if world.ending == "error":
        await settle(4)


def drive(world: World, loop: Any) -> None:
    """Run until nothing is left to do, whatever comes out of the loop meanwhile."""
    for _ in range(100):
        try:
            if isinstance(loop, LOOP):
                loop.run_forever()
            else:  # uvloop: so many passes
                for _ in range(60):
                    type(loop).__base__.call_soon(loop, loop.stop)
                    loop.run_forever()
                return
        except (KeyboardInterrupt, SystemExit, LookupError, asyncio.CancelledError) as error:
            world.note(error)
        except Idle:
            return
    raise AssertionError("the loop never comes to rest")


async def bystander() -> str:
    """A task of the same loop that has nothing to do with the group."""
    await settle(6)
    return "unharmed"


def run(row: Row, *args: Any) -> World:
    """The group's life beside a hostile object: an error or success, and it ends by itself.

    Only if somebody breaks its exit off or deletes it, its tasks and its parent end when they are cancelled.
    """
    world = World(*args)
    world.busy = True
    row(world)
    loop = world.loop_class(Selector()) if issubclass(world.loop_class, LOOP) else world.loop_class()
    loop.set_exception_handler(world.handler)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "unraisablehook", lambda unraisable: world.note(unraisable.exc_value))
        for where, name, value in world.patches:
            patch.setattr(where, name, value)
        other = asyncio.Task(bystander(), loop=loop)
        task = world.parent_class(live(world), loop=loop)
        drive(world, loop)
        assert not world.ends or asyncio.all_tasks(loop) == set(), "does not end by itself"
        world.busy = True
        for _ in range(3):
            for left in asyncio.all_tasks(loop):
                TASK.cancel(left)
            drive(world, loop)
        left = asyncio.all_tasks(loop)
        assert left == set()
        if not task.cancelled():
            world.note(task.exception())
        if world.group is not None:
            assert world.group._tasks == set(), world.group
            if world.group._exiting:
                assert world.group.statistics()[:3] == (0, 0, 0)
                cycles = [op for op in gc.get_referents(world.group) if getattr(op, "__self__", None) is world.group]
                assert cycles == []
        world.group = None
        loop.close()
    assert other.result() == "unharmed"
    assert [coro for coro in world.given if not is_closed(coro)] == []
    assert [error for error in leaves(world.errors) if isinstance(error, (SystemError, AssertionError))] == []
    return world


def is_closed(coro: Any) -> bool:
    if isinstance(coro, types.CoroutineType):
        return inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED
    return bool(coro.over or coro.lied)


def leaves(errors: list[BaseException]) -> Iterator[BaseException]:
    """Errors, and those that they group."""
    for error in errors:
        yield error
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(list(error.exceptions))


# --- The rows: what the C calls ---------------------------------------------------------------------------------------

ROWS: dict[str, Row] = {}


def members(kind: str, *names: str) -> Callable[[Callable[[World, str], None]], Callable[[World, str], None]]:
    """A row for each of these members of a kind of object."""

    def add(make: Callable[[World, str], None]) -> Callable[[World, str], None]:
        for name in names:
            ROWS[f"{kind}.{name}"] = functools.partial(make, name=name)
        return make

    return add


def spoil(world: World, base: Any, name: str) -> Any:
    """A class with one hostile method or attribute."""
    own = getattr(base, name, None)
    if callable(own):
        return type("Hostile", (base,), {name: world.spoilt(own)})
    read = own.__get__ if hasattr(own, "__get__") else lambda self: self.__dict__.get(name)

    def write(self: Any, value: Any) -> None:
        self.__dict__[name] = value

    return type("Hostile", (base,), {name: property(world.spoilt(read), write)})


@members(
    "task",
    "add_done_callback",
    "cancel",
    "cancelling",
    "cancelled",
    "exception",
    "done",
    "_must_cancel",
    "__repr__",
    "__hash__",
)
def task_member(world: World, name: str) -> None:
    cls = spoil(world, TASK, name)
    world.factory = lambda loop, coro, **kwargs: cls(coro, loop=loop, **kwargs)

    if name == "__repr__":
        known: list[Any] = []

        def factory(loop: Any, coro: Any, **kwargs: Any) -> Any:
            if len(known) % 2 == 0 or known[-1].done():
                known.append(cls(coro, loop=loop, **kwargs))
            return known[-1]

        world.factory = factory


@members("parent", "cancel", "cancelling", "uncancel", "done", "_must_cancel", "__repr__")
def parent_member(world: World, name: str) -> None:
    world.parent_class = spoil(world, TASK, name)
    if name == "__repr__":  # of one that is done before its group
        world.exits = world.ends = False


@members("loop", "call_soon", "create_task", "call_exception_handler", "get_debug", "_task_factory", "_debug", "_ready")
@members("loop", "_scheduled")
def loop_member(world: World, name: str) -> None:
    world.loop_class = spoil(world, LOOP, name)
    displace(world)


def displace(world: World) -> None:
    """Errors that the group has to report to its loop."""

    def fails(group: Any) -> None:
        for error in (LookupError("displaced"), SystemExit("displacing")):
            group.create_background_task(world.coro(fail(error, 1)))

    if world.ending == "error":
        world.jobs.append(fails)


if sys.platform != "win32":

    @members("uvloop", "call_soon", "create_task", "get_debug")
    def uvloop_member(world: World, name: str) -> None:
        import uvloop

        world.loop_class = spoil(world, uvloop.Loop, name)


@members("loop", "task factory", "exception handler")
def loop_hook(world: World, name: str) -> None:
    if name == "task factory":
        world.factory = lambda loop, coro, **kwargs: world.strike(TASK(coro, loop=loop, **kwargs))
    else:
        displace(world)
        world.handler = lambda loop, context: world.strike(world.note(context.get("exception")))


@members("asyncio", "get_running_loop", "current_task", "Task")
def module_member(world: World, name: str) -> None:
    module: Any = asyncio.events if name == "get_running_loop" else asyncio.tasks
    made = world.spoilt(getattr(module, name))
    if name == "Task":
        made = lambda coro, **kwargs: world.strike(TASK(coro, **kwargs))  # noqa: E731
    world.patches.append((module, name, made))


class Stranger:
    """A callable, or a coroutine of another kind, with one hostile member."""

    over = False
    lied = False  # about whether it runs, or what it is

    def __init__(self, world: World, member: str) -> None:
        self.world, self.member = world, member
        self.__name__ = self.__qualname__ = "strange"

    def __getattribute__(self, name: str) -> Any:
        get = object.__getattribute__
        value = get(self, name)
        if name != get(self, "member") or name in ("send", "throw"):
            return value
        world = get(self, "world")
        if callable(value) and name != "__class__":
            return world.spoilt(value)
        if asked_by_asyncio():
            return value
        said = None
        try:
            said = world.strike(value)
        finally:
            self.lied |= said is not value
        return said

    def __call__(self) -> Any:
        said = self.world.strike(self) if self.member == "__call__" else self
        return self.world.coro(noop()) if said is self else said

    def __repr__(self) -> str:
        return str(self.world.strike("<stranger>")) if self.member == "__repr__" else "<stranger>"

    def __del__(self) -> None:
        if self.member == "__del__":
            self.world.strike()


class StrangeCoroutine(Stranger, collections.abc.Coroutine[Any, Any, Any]):
    """As Cython makes them."""

    steps = 0
    cr_running = False
    cr_await = None

    @property
    def cr_frame(self) -> Any:
        return None if self.over else self

    def send(self, value: Any) -> Any:
        self.steps += 1
        self.over = self.steps == 9
        if self.over:
            raise StopIteration("stranger")
        if self.member == "send":
            self.over = True
            said = self.world.strike()
            self.over = False
            return said

    def throw(self, *args: Any) -> Any:
        self.over = True
        if self.member == "throw":
            self.world.strike()
        raise args[0]

    def close(self) -> None:
        self.over = True

    def __await__(self) -> Any:
        return self

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return self.send(None)


class StrangeFunction(Stranger):
    pass


@members(
    "coroutine",
    "send",
    "throw",
    "close",
    "cr_running",
    "cr_await",
    "cr_frame",
    "__class__",
    "__name__",
    "__qualname__",
    "__del__",
)
def coroutine_member(world: World, name: str) -> None:
    def stranger() -> Any:
        coro = StrangeCoroutine(world, name)
        return coro if name == "__del__" else world.coro(coro)

    world.jobs += [
        lambda group: group.create_task(stranger()),
        lambda group: group.create_task(stranger(), no_such_keyword=1),
        lambda group: group.create_task(stranger(), name="victim"),
        lambda group: group.create_background_task(stranger()),
        lambda group: group.create_task(stranger),
        lambda group: group.create_task(stranger(), "too", "many"),
        lambda group: TaskGroup().create_task(stranger()),
    ]


@members("callable", "__call__", "__class__", "__name__", "__qualname__", "__repr__", "__del__")
def callable_member(world: World, name: str) -> None:
    def stranger() -> Any:
        return StrangeFunction(world, name)

    world.jobs += [
        lambda group: group.create_task(stranger()),
        lambda group: group.create_task(functools.partial(functools.partial(stranger()))),
        lambda group: group.create_task(stranger(), name="victim"),
        lambda group: group.create_background_task(stranger()),
        lambda group: group.create_task(functools.partial(stranger)),
    ]


class Text(str):
    """A name that is asked for its text, its hash, or whether it equals another."""

    world: World
    member: str

    def __str__(self) -> str:
        return self.world.strike("text") if self.member == "__str__" else "text"  # type: ignore[no-any-return]

    def __hash__(self) -> int:
        return self.world.strike(hash("name")) if self.member == "__hash__" else hash("name")  # type: ignore[no-any-return]

    def __eq__(self, other: object) -> bool:
        return self.world.strike(other == "name") if self.member == "__eq__" else other == "name"  # type: ignore[no-any-return]


class Flag:
    def __init__(self, world: World) -> None:
        self.world = world

    def __bool__(self) -> bool:
        return self.world.strike(True)  # type: ignore[no-any-return]


class Dying:
    """Strikes when the last reference to it goes."""

    def __init__(self, world: World) -> None:
        self.world = world

    def __del__(self) -> None:
        self.world.strike()


class Duck:
    """Not a Context, but it runs things."""

    def __init__(self, world: World) -> None:
        self.world = world

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        return self.world.strike(function(*args))


@members("name", "__str__")
@members("keyword", "__hash__", "__eq__")
def text_member(world: World, name: str) -> None:
    text = Text("name")
    text.world, text.member = world, name
    keywords = {"name": text} if name == "__str__" else {text: "name"}
    world.jobs += [
        lambda group: group.create_task(world.coro(noop()), **keywords),
        lambda group: group.create_background_task(world.coro(forever()), **keywords),
        lambda group: group.create_task(world.coro(forever()), **keywords).cancel(),
    ]


# From 3.15 on asyncio's Task takes a Context only, before 3.12 none is eager.
KEYWORDS = ["eager_start"] * (sys.version_info >= (3, 12)) + ["context"] * (sys.version_info < (3, 15))


@members("keyword", *KEYWORDS)
def keyword_value(world: World, name: str) -> None:
    # (With a context that can't run anything, asyncio's Task never steps, in any group.)
    def keywords() -> dict[str, Any]:
        return {name: Duck(world) if name == "context" else Flag(world)}

    world.jobs += [
        lambda group: group.create_task(world.coro(noop()), **keywords()),
        lambda group: group.create_background_task(world.coro(forever()), **keywords()),
        lambda group: group.create_task(world.coro(settle(2)), **keywords()),
        lambda group: group.create_task(noop, **keywords()),
        lambda group: group.create_task(world.coro(forever()), **keywords()).cancel(),
    ]


@members("last reference", "message", "result", "handle", "context variable")
def last_reference(world: World, name: str) -> None:
    async def dies() -> Any:
        return Dying(world)

    if name == "message":
        world.jobs += [lambda group: group.create_task(world.coro(forever())).cancel(Dying(world))] * 2
    elif name == "handle":
        world.loop_class = type("Hostile", (LOOP,), {"call_soon": returning(world, LOOP.call_soon)})
    elif name == "context variable":

        def create(group: Any) -> None:
            context = contextvars.copy_context()
            context.run(contextvars.ContextVar[Any]("variable").set, Dying(world))
            group.create_task(world.coro(noop()), context=context)

        world.jobs += [create] * 2
    else:
        world.jobs += [lambda group: group.create_task(world.coro(dies()))] * 2


def returning(world: World, function: Callable[..., Any]) -> Any:
    """A method that returns, to all but asyncio, what strikes when it goes."""

    def method(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        return result if asked_by_asyncio() else Dying(world)

    return method


@members("subclass", "_abort", "_on_task_done", "cancel", "create_task")
def hook(world: World, name: str) -> None:
    world.group_class = type("Hooked", (TaskGroup,), {name: world.spoilt(getattr(TaskGroup, name))})
    world.jobs.append(lambda group: group.create_task(world.coro(canceller(world))))


@members("subclass property", "_abort", "_on_task_done", "cancel")
def looked_up_hook(world: World, name: str) -> None:
    own = getattr(TaskGroup, name)
    world.group_class = type("Hooked", (TaskGroup,), {name: property(world.spoilt(own.__get__))})
    world.jobs.append(lambda group: group.create_task(world.coro(canceller(world))))


async def canceller(world: World) -> None:
    await settle(3)
    if world.group is not None:
        world.group.cancel()


@members("sys", "unraisablehook")
def reported_error(world: World, name: str) -> None:
    def hook(unraisable: object) -> None:
        del unraisable  # CPython's collector does not know these: a cycle by way of a frame that has one stays for ever
        if not asked_by_asyncio():
            world.strike()

    world.patches.append((sys, name, hook))

    class Unclosable(StrangeCoroutine):
        def close(self) -> None:
            self.over = True
            raise LookupError("close")

    world.jobs += [
        lambda group: group.create_task(world.coro(Unclosable(world, "")), no_such_keyword=1),
        lambda group: group.create_task(world.coro(Unclosable(world, ""))).cancel(),
        lambda group: group.create_task(world.coro(Unclosable(world, "")), name="victim"),
    ]


@members("exception", "__init__")
def exception_class(world: World, name: str) -> None:
    cls = type("Hostile", (Exception,), {name: lambda self: world.strike()})
    world.jobs += [
        lambda group: group.__aexit__(cls, None, None),
        lambda group: group.__aexit__(None, None, None).throw(cls),
    ]


# --- The tests --------------------------------------------------------------------------------------------------------

LIMITS = [None, 1, 2]
# Here asyncio's group never hears that a task has ended, or does not abort, either.
DEAF = {
    ("subclass property._on_task_done", "nonsense"),
    ("task.done", "nonsense"),
    *(("subclass property._abort", deed) for deed in ("raises", "raises a base error", "nonsense")),
}


@pytest.mark.parametrize(("row", "deed"), [pair for pair in itertools.product(ROWS, DEEDS) if pair not in DEAF])
def test_hostile(row: str, deed: str) -> None:
    """It raises, re-enters and so on, each time or once: an error or success, and nothing is lost or harmed. [X7]"""
    struck = False
    for limit, ending, each, when in itertools.product(LIMITS, ("error", "end"), DEEDS[deed], (None, 1, 2, 4)):
        world = run(ROWS[row], each, when, limit, ending)
        struck |= world.struck
        alive = world.alive
        del world
    gc.collect()
    assert alive is not None and alive() is None
    assert struck, "nobody called it"


# What the C asks for by name, or calls, and no row stands for: why there is nobody to be hostile.
OWN = "asyncio's own, taken at import"
KEYWORD = "a keyword, or the key of a dict of ours"
NOT_ROWS = {
    "func": "of functools.partial itself",
    **dict.fromkeys(["coro", "loop", "msg", "name"], KEYWORD),
    **dict.fromkeys(["get_task_factory", "get_factory"], "uvloop's own, which cannot be replaced"),
    "reader": "the same",
    "eager_start": "from 3.12 on",
    "context": "before 3.15",
    "PyExc_BaseExceptionGroup": "CPython's own",
    "state->task_add_done_callback": OWN,
    "state->task_remove_done_callback": OWN,
    "state->task_done": OWN,
    "self->state->current_task": OWN,
    "PyExc_StopIteration": "CPython's own",
    "time": "in debug mode, where asyncio's loop has just asked it",
    "copy": "a function of ours",
    **dict.fromkeys(["state->partial", "by_name", "state->run_turn", "self->state->need_done_future"], "ours"),
    **dict.fromkeys(["state->low_limit", "self->state->refusal", "self->state->forget_task"], "ours"),
    "self->state->timer_is_due": "ours, and asks the loop for _scheduled, a row above, and its time",
    "group->state->rearm": "ours, and asks the parent: task.cancelling and others, rows above",
    "state->cancel_unless_ending": "ours, and asks the task: task.cancelling and others, rows above",
    **dict.fromkeys(["create_task", "create_background_task"], "of our own type"),
    **dict.fromkeys(
        ["group->state->report_displaced", "self->state->report_late", "self->state->report_lost"],
        "ours, and ask for loop.call_exception_handler, a row above",
    ),
    "state->given_exception": "ours, and calls exception.__init__, a row above",
    **dict.fromkeys(["state->not_a_coroutine", "state->note_callable"], "ours, and ask the victim: test_misuse.py"),
    "waker": "the Task's that waits; in a stranger's hands: test_internals.py",
}
# The rows of what is called under another name in the C.
ROWS_OF = {
    "self->hook": "subclass._on_task_done",
    "args[0]": "exception.__init__",
    "type": "exception.__init__",
    "callable": "loop.create_task",
    "callback": "subclass._on_task_done",
    "coro": "callable.__call__",
    "function": "asyncio.current_task",
    "method": "task.cancelling",
}


def calls_without_a_row(text: str) -> set[str]:
    """What the C asks for by name, interned or literal, and what it calls, as it is written there."""
    text = re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.S)
    asked = set(re.findall(r"\bstr_(\w+)", text))
    asked |= set(re.findall(r'PyObject_(?:CallMethod|GetAttrString)\([^";]*"(\w+)"', text))
    called = set(re.findall(r"PyObject_(?:CallNoArgs|CallOneArg|CallFunction(?:ObjArgs)?|Vectorcall)\(([^,()]+)", text))
    known = {row.rpartition(".")[2] for row in ROWS} | NOT_ROWS.keys()
    return (asked - known) | {one for one in called - NOT_ROWS.keys() if ROWS_OF.get(one) not in ROWS}


def test_every_call_of_the_c_has_a_row() -> None:
    """What the C asks of a foreign object, or calls, has a row above, or a reason to have none."""
    text = "".join(includes.read().values())
    if not text:
        pytest.skip("the source of the extension is not here")
    assert calls_without_a_row(text) == set()
    for new in (
        "call_method(task, state->str_get_name)",
        'PyObject_CallMethod(task, "get_name", NULL)',
        "PyObject_CallNoArgs(hook)",
    ):
        assert len(calls_without_a_row(text + new)) == 1
