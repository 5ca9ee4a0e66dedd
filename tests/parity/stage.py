"""Where programs run: loops that are kept, the modes they run in, and the story that is told of each run.

The story is what a program could see: its events in order, each with the number of cancellations of the task that it
happened in and the value of a context variable; and, in their places, what the loop's exception handler was told.
Whoever waits for what never comes is freed: first the futures and events are set, then every task is cancelled.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import re
import selectors
import socket
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import aclosing, suppress
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from programs import EVENTS, FUTURES, Program

import quattro

Story = list[Any]
OUT_OF_THE_LOOP = "out of the loop"
# What comes after these says whether the group has noted the end of a task, which a callable tells a little earlier.
COUNTED, ENDED = "counted", "ended"


@dataclass(frozen=True)
class Mode:
    """How a program is run."""

    loop: str = "asyncio"  # or subclass, uvloop
    debug: bool = False
    factory: str = ""  # or plain, subclass, eager, own eager
    limit: bool = False  # does the group have a limit, which is never reached?
    kept: bool = False  # does somebody keep every task, or only those that the program goes back to?
    hooked: bool = False  # is the group of a subclass?
    callables: bool = False  # is ours given callables, where asyncio's is given coroutines?

    def __str__(self) -> str:
        flags = ("debug", "limit", "kept", "hooked", "callables")
        words = [self.loop, *(flag for flag in flags if getattr(self, flag))]
        return " ".join([*words, f"{self.factory} factory"] if self.factory else words)


# ---- loops that say when they have nothing to do


class IdleSelector(selectors.SelectSelector):
    """For asyncio's loop, which sleeps no longer than until something is ready."""

    def __init__(self, on_idle: Callable[[], None]) -> None:
        super().__init__()
        self.on_idle = on_idle

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            self.on_idle()
        return super().select(0)


class SubclassedLoop(asyncio.SelectorEventLoop):
    """As tracing tools make them."""

    def create_task(self, coro: Any, **kwargs: Any) -> Any:
        return super().create_task(coro, **kwargs)

    def call_soon(self, *args: Any, **kwargs: Any) -> Any:
        return super().call_soon(*args, **kwargs)


def asyncio_loop(on_idle: Callable[[], None]) -> Any:
    return asyncio.SelectorEventLoop(IdleSelector(on_idle))


def subclassed_loop(on_idle: Callable[[], None]) -> Any:
    return SubclassedLoop(IdleSelector(on_idle))


def uvloop_loop(on_idle: Callable[[], None]) -> Any:
    """A socket that is always ready to be written to is seen once in each iteration, after what was ready has run."""
    import uvloop

    loop = uvloop.new_event_loop()
    (ready,) = (held for held in gc.get_referents(loop) if type(held) is deque)
    ours, theirs = socket.socketpair()
    loop.parity_sockets = ours, theirs
    loop.add_writer(ours, lambda: None if ready else on_idle())
    return loop


LOOPS = {"asyncio": asyncio_loop, "subclass": subclassed_loop, "uvloop": uvloop_loop}


def plain_factory(loop: Any, coro: Any, **kwargs: Any) -> Any:
    return asyncio.Task(coro, loop=loop, **kwargs)


class Task(asyncio.Task[Any]):
    """asyncio's, with methods in Python."""

    def cancel(self, *args: Any, **kwargs: Any) -> bool:
        return super().cancel(*args, **kwargs)

    def add_done_callback(self, *args: Any, **kwargs: Any) -> None:
        super().add_done_callback(*args, **kwargs)


def subclass_factory(loop: Any, coro: Any, **kwargs: Any) -> Any:
    return Task(coro, loop=loop, **kwargs)


def eager_factory(loop: Any, coro: Any, *, eager_start: bool | None = None, **kwargs: Any) -> Any:
    """As asyncio's, which uvloop makes lazy by telling it None."""
    return asyncio.Task(coro, loop=loop, eager_start=eager_start is not False, **kwargs)


FACTORIES: dict[str, Any] = {"": None, "plain": plain_factory, "subclass": subclass_factory}
if sys.version_info >= (3, 12):
    FACTORIES |= {"eager": asyncio.eager_task_factory, "own eager": eager_factory}


# ---- what is told of things that are other objects in each run

TASK_NAMES: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def name(future: Any) -> str:
    return TASK_NAMES.get(future) or type(future).__name__


def names(futures: Iterable[Any]) -> list[str]:
    return sorted(map(name, futures))


def describe(value: Any) -> Any:
    if isinstance(value, BaseException):
        what = value.args if not isinstance(value, BaseExceptionGroup) else (value.message, *value.exceptions)
        others = [type(other).__name__ for other in (value.__cause__, value.__context__)]
        return type(value).__name__, *map(describe, what), *others, value.__suppress_context__
    if asyncio.isfuture(value):
        return name(value)
    if isinstance(value, (list, tuple)):
        return [*map(describe, value)]
    return value


def state(future: Any) -> Any:
    """What a task knows of itself."""
    waiters = names(getattr(future, "_asyncio_awaited_by", None) or ())
    if not future.done():
        return "pending", future.cancelling(), waiters
    if future.cancelled():
        return "cancelled", future.cancelling(), ENDED, waiters
    return future.exception() or future.result(), future.cancelling(), ENDED, waiters


def look(group: Any) -> Any:
    """What a group knows of itself."""
    return [repr(group), COUNTED, len(group._tasks), group._parent_task, group._errors, group._exiting, group._aborting]


class Stop(BaseException):
    """One that asyncio does not let out of the loop."""


V: ContextVar[int] = ContextVar("V", default=0)

NAMES = {
    "CancelledError": asyncio.CancelledError,
    "aclosing": aclosing,
    "as_completed": asyncio.as_completed,
    "Stop": Stop,
    "V": V,
    "copy_context": copy_context,
    "current_task": asyncio.current_task,
    "gather": asyncio.gather,
    "look": look,
    "names": names,
    "shield": asyncio.shield,
    "sleep": asyncio.sleep,
    "state": state,
    "timeout": asyncio.timeout,
    "wait": asyncio.wait,
    "wait_for": asyncio.wait_for,
}


# ---- running


class Script:
    """A program that can be run."""

    def __init__(self, program: Program) -> None:
        self.program = program
        source = program.source
        self.code = compile(source, "<program>", "exec")
        named = Counter(re.findall(r"'(\w+)'", source))
        self.wanted = {name for name in named if named[name] > 1}  # elsewhere than where it is created


class Runner:
    """A loop on which program after program is run, each to its end."""

    def __init__(self, kind: str) -> None:
        self.loop = LOOPS[kind](self.on_idle)
        self.loop.slow_callback_duration = 1e9

    def close(self) -> None:
        self.loop.close()
        for each in getattr(self.loop, "parity_sockets", ()):
            each.close()

    def run(self, script: Script, make_group: Callable[[Runner], Callable[[], Any]], mode: Mode) -> Story:
        loop = self.loop
        V.set(0)  # the exception handler may have set it in our own context
        loop.set_debug(mode.debug)
        loop.set_task_factory(FACTORIES[mode.factory])
        self.story: Story = []
        self.alive = 0
        self.stopped = False
        self.rescues = 0
        self.idle: deque[Callable[[], None]] = deque()
        self.hooks: deque[Callable[[], None]] = deque()
        self.handlers: deque[Callable[[], None]] = deque()
        self.futures = [loop.create_future() for _ in range(FUTURES)]
        self.events = [asyncio.Event() for _ in range(EVENTS)]
        self.kept: dict[str, Any] = {}
        self.groups: list[Any] = []
        self.deadlines: dict[int, asyncio.Timeout] = {}
        self.wanted = script.wanted
        self.keep_all = mode.kept
        self.callables = mode.callables
        self.eager = "eager" in mode.factory
        loop.set_exception_handler(self.report)
        program: dict[str, Any] = {
            "TaskGroup": make_group(self),
            "loop": loop,
            "T": self.kept,
            "D": self.deadlines,
            "expire": self.expire,
            "F": self.futures,
            "E": self.events,
            "log": self.log,
            "create": self.create,
            "C": copy_context(),
            "when_idle": self.idle.append,
            "when_hooked": self.hooks.append,
            "when_reported": self.handlers.append,
            "keep": self.keep,
            "those": self.those,
            **NAMES,
        }
        exec(script.code, program)
        main = self.kept["main"] = copy_context().run(loop.create_task, self.told("main", program["main"]))
        TASK_NAMES[main] = "main"
        while not self.stopped:
            try:
                loop.run_forever()
            except (SystemExit, KeyboardInterrupt) as error:
                self.story.append((OUT_OF_THE_LOOP, describe(error)))
        self.story.append(describe(state(main)))
        story = self.story
        del main
        program.clear()
        self.hooks.clear()
        self.handlers.clear()
        self.kept.clear()
        self.deadlines.clear()
        self.futures.clear()
        self.events.clear()
        loop.set_exception_handler(lambda loop, context: None)  # when the collector runs is not of the program
        return story

    # -- what programs call

    def log(self, label: Any, value: Any = None) -> None:
        task = asyncio.current_task()
        self.story.append((label, describe(value), task and task.cancelling(), V.get()))

    async def told(self, name: str, function: Any) -> Any:
        self.alive += 1
        self.log(name, "starts")
        try:
            result = await function()
        except BaseException as error:
            self.log(name, error)
            raise
        else:
            self.log(name, "ends")
            return result or name
        finally:
            self.alive -= 1

    def create(self, group: Any, name: str, function: Any, /, **kwargs: Any) -> None:
        if sys.version_info < (3, 14):
            kwargs.pop("eager_start", None)
        if self.eager and "context" in kwargs:
            kwargs["context"] = copy_context()  # not one that somebody may be in
        job: Any = self.told(name, function)
        if self.callables and isinstance(group, quattro.TaskGroup):
            job.close()
            job = functools.partial(self.told, name, function)
        try:
            task = group.create_task(job, **kwargs)
        except RuntimeError as error:
            self.log(name, error)
            return
        TASK_NAMES[task] = name
        if self.keep_all or name in self.wanted or group is self.loop:
            self.kept[name] = task

    def keep(self, group: Any) -> Any:
        """One that is not left, and would report its errors when it is dropped; asyncio's loses them."""
        self.groups.append(group)
        return group

    def those(self, *names: str) -> list[Any]:
        return [self.kept[name] for name in names if name in self.kept]

    def expire(self, number: int) -> None:
        with suppress(KeyError, RuntimeError):  # it has not been entered, or is over
            self.deadlines[number].reschedule(-1)

    # -- what the loop calls

    def report(self, _: Any, context: dict[str, Any]) -> None:
        message = context["message"].partition(" <")[0].partition(" callback")[0]
        if "displaced" in message or "instead" in message:  # only the plain Python group and ours say such things
            message = "displaced"
        self.story.append(("reported", message, describe(context.get("exception")), V.get()))
        self.call_next(self.handlers)

    def hooked(self, what: str, *args: Any) -> None:
        self.log(what, *args)
        self.loop.call_soon(self.log, f"after {what}")
        self.call_next(self.hooks)

    def call_next(self, callbacks: deque[Callable[[], None]]) -> None:
        if callbacks:
            try:
                callbacks.popleft()()
            except BaseException as error:
                self.log("raises", type(error).__name__)

    def on_idle(self) -> None:
        """Go on with what was to be done then; when there is nothing, free those who wait; or stop."""
        if self.idle:
            self.story.append("idle")
            self.loop.call_soon(self.idle.popleft())
        elif self.alive > 0 and self.rescues < 100:
            self.loop.call_soon(self.rescue)
        elif not self.stopped:  # uvloop polls once more then
            self.loop.call_soon(self.stop)

    def stop(self) -> None:
        self.stopped = True
        self.loop.stop()

    def rescue(self) -> None:
        self.rescues += 1
        self.story.append("rescue")
        if self.rescues == 1:
            for future in self.futures:
                if not future.done():
                    future.set_result("late")
            for event in self.events:
                event.set()
        else:
            for task in sorted(asyncio.all_tasks(self.loop), key=name):
                task.cancel("rescue")


class Stage:
    """A runner for each kind of loop."""

    def __init__(self) -> None:
        self.runners: dict[str, Runner] = {}

    def close(self) -> None:
        for runner in self.runners.values():
            runner.close()

    def tell(self, script: Script, make_group: Callable[[Runner], Callable[[], Any]], mode: Mode) -> Story:
        if mode.loop not in self.runners:
            self.runners[mode.loop] = Runner(mode.loop)
        runner = self.runners[mode.loop]
        story = runner.run(script, make_group, mode)
        assert runner.alive == 0, f"this program does not end:\n{script.program.source}"
        return story
