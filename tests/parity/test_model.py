"""Random programs on ``quattro.TaskGroup`` and on the plain Python one of ``reference.py``, which have to agree.

A program is a list of commands that a conductor, a task outside every group, carries out. Actors (the parent is number
0, the children follow) do what they are told by mail, so that nothing depends on time, and the conductor lets the loop
*settle* after a command, so that nothing depends on how many passes of the loop something takes. ``test_bursts`` leaves
that out, and then only asks for what holds at every moment.

A failure prints the program and what reproduces it: a blob for `@reproduce_failure`, and of a longer run the seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import gc
import itertools
import os
import sys
import warnings
from asyncio import CancelledError, Task
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
from helpers import LOOPS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from reference import ReferenceTaskGroup

import quattro

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("unfrozen")]

# By default the same programs every time; with a number, that many new ones for each test (`tools/run model`).
EXAMPLES = os.environ.get("QUATTRO_MODEL_EXAMPLES")
EAGER = sys.version_info >= (3, 12)
EAGER_BOTH = sys.version_info >= (3, 14)  # eager_start next to a task factory
BASE_ERRORS = {"exit": SystemExit, "interrupt": KeyboardInterrupt}


def examples(by_default: int) -> settings:
    return settings(
        max_examples=int(EXAMPLES or by_default),
        derandomize=EXAMPLES is None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )


RUNS = itertools.count()


def freeze() -> None:
    """Set aside what was there before a run, so that the collection at its end is quick."""
    if next(RUNS) % 100 == 0:
        gc.unfreeze()
        gc.collect()
    gc.freeze()


class Boom(Exception):
    """What an actor raises."""


class Crash(BaseException):
    """What an actor raises, too: no Exception, and none that leaves the loop."""


class Hooked(quattro.TaskGroup):
    """One whose hooks are overridden, which takes other ways through the C."""

    def _on_task_done(self, task: Task[Any]) -> None:
        super()._on_task_done(task)

    def _abort(self) -> None:
        super()._abort()


CHILD = contextvars.ContextVar("CHILD", default=0)  # as it is when a child is created


@dataclass(frozen=True)
class Spec:
    """What a child is like."""

    form: str = "coroutine"  # or call, call_raises, call_wrong: a callable, and what happens when it is called
    first: str = "listen"  # what it does before it listens: return, raise, exit, stop (its group), child (makes one)
    on_cancel: str = "die"  # or slow, held, swallow, return, raise, create
    eager: bool | None = None
    keeps_errors: bool = True  # does it go on after an error of a group that it opened?


@dataclass(frozen=True)
class Command:
    # create, background, produce, stranger (who produces), await, finish, leave, fail, crash, exit, interrupt, cancel,
    # stop, stop_outside, open, expire
    what: str
    who: int = 0  # of those who can do it
    group: int = 0
    spec: Spec = Spec()
    limit: int | None = None
    timeout: bool = False
    cancel_on_error: bool = True
    early: bool = False  # cancel the group that is opened before it is entered
    times: int = 1  # how many tasks a producer makes; 0: it only waits for a slot
    settle: bool = True


@dataclass(frozen=True)
class Program:
    limit: int | None
    timeout: bool
    commands: tuple[Command, ...]
    cancel_on_error: bool = True
    parent: Spec = Spec()
    loop: str = "asyncio"  # or another of helpers.LOOPS
    hooked: bool = False  # is ours a subclass with hooks?


def sampled(values: str) -> st.SearchStrategy[str]:
    """One of these words; `word*3` is three times as likely."""
    words = []
    for value in values.split():
        word, _, times = value.partition("*")
        words += [word] * int(times or 1)
    return st.sampled_from(words)


loops = sampled(" ".join(f"{kind}*{5 if kind == 'asyncio' else 1 if kind == 'debug' else 3}" for kind in LOOPS))
limits = st.sampled_from([None, None, 1, 1, 1, 2, 2, 3, 4])
specs = st.builds(
    Spec,
    form=sampled("coroutine*20 call*10 call_raises call_wrong"),
    first=sampled("listen*30 return*4 child*3 raise exit stop"),
    on_cancel=sampled("die*4 held*3 create*2 slow swallow return raise"),
    eager=st.sampled_from([None, None, True, False]) if EAGER else st.none(),
    keeps_errors=st.booleans(),
)


def programs(settle: st.SearchStrategy[bool]) -> st.SearchStrategy[Program]:
    def commands(what: str, max_size: int) -> st.SearchStrategy[list[Command]]:
        command = st.builds(
            Command,
            what=sampled(what),
            who=st.sampled_from([1, 2, 3, 4, 5, 0, 1, 2, 3, 4]),
            group=st.sampled_from([0, 0, 0, 1, 1, 2]),  # the newest is number 0
            spec=specs,
            limit=limits,
            timeout=st.booleans(),
            cancel_on_error=st.booleans(),
            early=sampled("no*6 yes").map("yes".__eq__),
            times=st.integers(0, 3),
            settle=settle,
        )
        return st.lists(command, min_size=max_size // 4, max_size=max_size)

    crew = commands("create*5 background*2 produce*2 stranger", 8)
    story = commands(
        "create*4 background*2 produce*3 stranger*2 await*2 finish*8 cancel*5 open*2 expire*3 fail*3 leave stop "
        "stop_outside crash exit interrupt",
        14,
    )
    return st.builds(
        Program,
        limit=limits,
        timeout=st.booleans(),
        cancel_on_error=st.booleans(),
        commands=st.tuples(crew, story).map(lambda parts: (*parts[0], *parts[1])),
        parent=specs,
        loop=loops,
        hooked=sampled("no*4 yes").map("yes".__eq__),
    )


@dataclass
class Group:
    """A group and what we know about it."""

    number: int
    tg: Any
    active: int = 0  # children between their first step and their end
    body_ended: bool = False
    over: bool = False
    stopping: bool = False
    started: list[int] = field(default_factory=list)
    waited: set[int] = field(default_factory=set)  # foreground, not started when create_task returned
    foreground: dict[int, Task[Any]] = field(default_factory=dict)


def structure(error: BaseException | None) -> Any:
    """An error as something that compares equal when it is promised to be equal."""
    if isinstance(error, BaseExceptionGroup):
        errors = sorted(map(structure, error.exceptions), key=repr)
        return type(error).__name__, error.message, errors, error.__cause__
    if isinstance(error, TypeError):
        return "TypeError", str(error).split(" got ")[0]
    return type(error).__name__, error.args if isinstance(error, (Boom, Crash)) else ()


def text(error: BaseException) -> str:
    """What a group says, without its repr."""
    return str(error).split("> ")[-1]


class World:
    """One run of a program."""

    def __init__(self, make: Callable[..., Any], program: Program) -> None:
        self.make = make
        self.program = program
        self.mail: dict[int, asyncio.Future[Command]] = {}
        self.tasks: dict[int, Task[Any]] = {}
        self.cancelled: list[int] = []  # whom the conductor or a timeout (may have) cancelled
        self.groups: list[Group] = []
        self.scopes: list[tuple[int, Any]] = []
        self.notes: dict[int, list[Any]] = {}
        self.violations: list[str] = []
        self.snapshots: list[Any] = []
        self.openers: set[int] = set()  # whom a group of their own may cancel
        self.helpers: set[int] = set()  # background tasks
        self.waiting: dict[int, Group] = {}  # who waits for a slot of which group
        self.waited = False  # has anybody waited for a slot?
        self.awaiting: set[int] = set()  # who awaits a task
        self.count = 0

    def check(self, good: bool, what: str) -> None:
        if not good:
            self.violations.append(what)

    # ---- actors

    async def actor(self, me: int, spec: Spec, group: Group | None, background: bool) -> str:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.setdefault(me, task)
        self.check(CHILD.get() == me, f"{me} runs in the context of {CHILD.get()}")
        if group is None:  # the parent of all: whenever it is out of a group and gets something to do, it opens one
            first = self.program
            command = Command("open", limit=first.limit, timeout=first.timeout, cancel_on_error=first.cancel_on_error)
            while command.what != "finish":
                await self.open(me, command, spec, None)
                command = await self.listen(me, spec, None)
            return "finished"
        group.started.append(me)
        limit = group.tg.concurrency_limit
        if not background:
            group.active += 1
            self.check(limit is None or group.active <= limit, f"{group.active} at limit {limit}")
        try:
            if spec.first == "return":
                return "at once"
            if spec.first in ("raise", "exit"):
                raise Boom(me) if spec.first == "raise" else SystemExit(me)
            if spec.first == "stop":
                group.tg.cancel()
            if spec.first == "child":
                self.create(me, group, Spec(), False)
            return await self.body(me, spec, (group, background))
        finally:
            group.active -= not background

    async def body(self, me: int, spec: Spec, home: tuple[Group, bool] | None) -> str:
        """Do what the mail says until it says to finish."""
        while (command := await self.listen(me, spec, home)).what not in ("finish", "leave"):
            await self.obey(me, command, spec, home)
        if command.what == "leave":
            self.pick(command).tg.cancel()
        return "finished"

    async def receive(self, me: int) -> Command:
        self.mail[me] = asyncio.get_running_loop().create_future()
        try:
            return await self.mail[me]
        finally:
            del self.mail[me]

    async def listen(self, me: int, spec: Spec, home: tuple[Group, bool] | None) -> Command:
        while True:
            try:
                return await self.receive(me)
            except CancelledError:
                self.on_cancel(me, home)
                if spec.on_cancel == "slow":
                    for _ in range(3):
                        await asyncio.sleep(0)
                elif spec.on_cancel == "held":
                    await self.receive(me)
                elif spec.on_cancel == "raise":
                    raise Boom(me, "cleanup") from None
                elif spec.on_cancel == "create" and home is not None:
                    self.create(me, home[0], Spec(first="return"), False)
                    self.create(me, home[0], Spec(), True)
                elif spec.on_cancel == "return":
                    return Command("finish")
                if spec.on_cancel != "swallow":
                    raise

    def on_cancel(self, me: int, home: tuple[Group, bool] | None) -> None:
        cancelling = self.tasks[me].cancelling()
        self.note(me, "cancelled", cancelling)
        if home is None:
            return
        group, background = home
        others = me in self.cancelled or me in self.openers  # may have cancelled it, too
        self.check(others or cancelling == 1, f"{me} was cancelled {cancelling} times")
        self.check(others or background or group.tg._aborting, f"{me} was cancelled by nobody")
        if background and not group.tg._aborting and not group.stopping:
            left = [who for who, task in group.foreground.items() if not task.done()]
            group.stopping = group.body_ended and not left
            self.check(others or group.stopping, f"{me} was stopped before the body or {left} ended")

    async def obey(self, me: int, command: Command, spec: Spec, home: tuple[Group, bool] | None) -> None:
        if command.what in ("create", "background"):
            self.create(me, self.pick(command), command.spec, command.what == "background")
        elif command.what == "produce":
            await self.produce(me, self.pick(command), command, spec, home)
        elif command.what == "await":
            await self.await_task(me, self.pick(command), command, spec)
        elif command.what in ("fail", "crash"):
            raise Boom(me) if command.what == "fail" else Crash(me)
        elif command.what in BASE_ERRORS:
            raise BASE_ERRORS[command.what](me)
        elif command.what == "stop":
            self.pick(command).tg.cancel()
        elif command.what == "open":
            await self.open(me, command, spec, home)

    def create(self, me: int, group: Group, spec: Spec, background: bool) -> None:
        self.count += 1
        child = self.count
        CHILD.set(child)
        if background:
            self.helpers.add(child)
        factory = asyncio.get_running_loop().get_task_factory() is not None
        kwargs = {} if spec.eager is None or (factory and not EAGER_BOTH) else {"eager_start": spec.eager}
        job: Any = functools.partial(self.actor, child, spec, group, background)
        if spec.form == "coroutine":
            job = job()
        elif spec.form != "call":
            job = {"call_raises": lambda: 1 / 0, "call_wrong": lambda: 42}[spec.form]
        method = group.tg.create_background_task if background else group.tg.create_task
        try:
            task = method(job, name=f"actor {child}", **kwargs)
        except (RuntimeError, SystemExit) as error:
            self.note(me, "create", structure(error), text(error))
        else:
            self.check(self.tasks.setdefault(child, task) is task, "another task")
            self.check(task.get_name() == f"actor {child}", f"{child} is called {task.get_name()}")
            if not background:
                group.foreground[child] = task
                if child not in group.started:
                    group.waited.add(child)

    async def produce(
        self, me: int, group: Group, command: Command, spec: Spec, home: tuple[Group, bool] | None
    ) -> None:
        """Make tasks, each when there is a slot for it."""
        for _ in range(command.times or 1):
            over, answer = group.over, "slot"
            try:
                await self.wait_for_slot(me, group)
            except CancelledError:
                self.on_cancel(me, home)
                if spec.on_cancel == "swallow":
                    return
                raise
            except RuntimeError as error:
                answer = text(error)
            if not over and group.body_ended and all(task.done() for task in group.foreground.values()):
                self.note(me, group.number, "the end came")  # before or after the slot is not promised
                return
            self.note(me, group.number, answer)
            if answer != "slot":
                return
            if command.times:
                self.create(me, group, command.spec, False)
                queues = group.tg.statistics()[1] and command.spec.first != "child"
                self.check(not queues, f"{me} waited for a slot, and its task queues")

    async def wait_for_slot(self, me: int, group: Group) -> None:
        self.waiting[me], self.waited = group, True
        try:
            await group.tg.wait_for_slot()
        finally:
            del self.waiting[me]
        running, queued, _, limit = group.tg.statistics()
        self.check(
            limit is None or (queued == 0 and running < limit), f"{running} run, {queued} wait: no slot for {me}"
        )

    async def stranger(self, me: int, group: Group, command: Command) -> None:
        """Produce from outside the group."""
        task = asyncio.current_task()
        assert task is not None
        self.tasks.setdefault(me, task)
        await self.produce(me, group, command, command.spec, None)

    async def await_task(self, me: int, group: Group, command: Command, spec: Spec) -> None:
        """Await a task of a group, never one that may await us."""
        able = sorted(who for who in group.foreground if who > me)
        if (
            not able or me in self.helpers
        ):  # whether a background task has the last result or is stopped is not promised
            return
        who = able[command.who % len(able)]
        self.awaiting.add(me)
        self.cancelled.append(who)  # who cancels us cancels it
        try:
            self.note(me, "result", who, await group.foreground[who])
        except BaseException as error:
            self.note(me, "error", who, structure(error), self.tasks[me].cancelling())
            if self.waited:  # in which iteration of the loop they hear of a slot is not promised: let them
                for _ in range(3):
                    await asyncio.sleep(0)
            if not spec.keeps_errors or isinstance(error, CancelledError):
                raise
        finally:
            self.awaiting.discard(me)

    async def open(self, me: int, command: Command, spec: Spec, home: tuple[Group, bool] | None) -> None:
        """Open a group, be its body, and note how it ends and what it leaves behind."""
        task = self.tasks[me]
        before = task.cancelling()
        tg = self.make(concurrency_limit=command.limit, cancel_on_error=command.cancel_on_error)
        group = Group(len(self.groups), tg)
        if command.early:
            tg.cancel()
        with pytest.raises(RuntimeError, match="has not been entered"):
            await tg.wait_for_slot()
        self.groups.append(group)
        self.openers.add(me)
        scope = asyncio.timeout(None) if command.timeout else contextlib.nullcontext()
        try:
            async with scope:
                if command.timeout:
                    self.scopes.append((me, scope))
                try:
                    async with tg:
                        try:
                            await self.body(me, spec, home)
                        finally:
                            group.body_ended = True
                finally:
                    group.over = True
                    with pytest.raises(RuntimeError, match="is finished"):
                        await tg.wait_for_slot()
                    self.scopes = [(who, other) for who, other in self.scopes if other is not scope]
                    self.note(me, group.number, "raised", structure(sys.exception()), task.cancelling() - before)
        except BaseException as error:
            self.note(me, group.number, "left", structure(error), task.cancelling() - before)
            if not spec.keeps_errors or isinstance(error, CancelledError):
                raise
        try:
            for _ in range(3):
                await asyncio.sleep(0)
        except CancelledError:
            self.note(me, group.number, "late cancel", task.cancelling() - before)
            raise

    def pick(self, command: Command) -> Group:
        return self.groups[-1 - command.group % len(self.groups)]

    def note(self, me: int, *what: Any) -> None:
        self.notes.setdefault(me, []).append(what)

    # ---- the conductor

    def command(self, command: Command) -> None:
        """Tell somebody to do something, if there is somebody who can."""
        if command.what == "cancel":
            if able := sorted(who for who, task in self.tasks.items() if not task.done()):
                self.cancelled.append(who := able[command.who % len(able)])
                self.tasks[who].cancel(f"cancel {who}")
        elif command.what == "stranger":
            self.count += 1
            me = self.count
            stranger = asyncio.get_running_loop().create_task(self.stranger(me, self.pick(command), command))
            self.tasks.setdefault(me, stranger)
        elif command.what == "stop_outside":
            self.pick(command).tg.cancel()
        elif command.what == "expire":
            if self.scopes:
                who, scope = self.scopes.pop(command.who % len(self.scopes))
                self.cancelled.append(who)
                scope.reschedule(asyncio.get_running_loop().time() - 1)
        elif able := sorted(who for who, future in self.mail.items() if not future.done()):
            self.mail[able[command.who % len(able)]].set_result(command)

    async def conduct(self) -> None:
        main = asyncio.get_running_loop().create_task(self.actor(0, self.program.parent, None, False))
        await settle()
        for command in self.program.commands:
            self.command(command)
            if command.settle:
                await settle()
                self.look()
        while not main.done():
            await settle()
            self.look()
            if main.done():
                break
            able = sorted(who for who, future in self.mail.items() if not future.done())
            if not able:  # a member waits for its own slot, or for a task that is queued behind it
                stuck = sorted(self.awaiting.union(self.waiting))
                assert stuck, f"nothing moves any more: {self.groups}"
                self.cancelled.append(stuck[-1])
                self.tasks[stuck[-1]].cancel("stuck")
                continue
            first = next((who for who in able if who not in self.helpers), able[0])  # background tasks last
            self.mail[first].set_result(Command("finish"))
        await settle()
        self.check(asyncio.all_tasks() == {asyncio.current_task()}, f"left: {asyncio.all_tasks()}")

    def look(self) -> None:
        """The loop has settled: take down what everybody can see, and check what must hold now."""
        for group in self.groups:
            stats = group.tg.statistics()
            left = {who for who, task in group.foreground.items() if not task.done()}
            queued = left.difference(group.started)
            if group.over:
                self.check(stats[:3] == (0, 0, 0), f"{stats} after the end")
            elif not group.tg._aborting:
                self.check(
                    stats[:2] == (len(left - queued), len(queued)), f"{stats}, but {queued} of {left} are queued"
                )
                self.check(not queued or group.active == stats[3], f"{group.active} run while {queued} wait")
            waiting = [who for who, other in self.waiting.items() if other is group]
            full = not group.over and not group.tg._aborting and (queued or group.active == stats[3])
            self.check(not waiting or full, f"{waiting} wait for a slot that is free, or never comes")
            waited = [who for who in group.started if who in group.waited]
            self.check(waited == sorted(waited), f"not first in, first out: {waited}")
        groups = [
            # in order; that of foreground to background tasks is not promised
            (
                [who for who in group.started if who not in self.helpers],
                self.helpers.intersection(group.started),
                group.tg.statistics()[:],
            )
            for group in self.groups
        ]
        outcomes = {who: outcome(task) for who, task in self.tasks.items()}
        self.snapshots.append((sorted(self.mail), sorted(self.waiting), sorted(self.awaiting), outcomes, groups))


def outcome(task: Task[Any]) -> Any:
    if not task.done():
        return "pending", task.cancelling()
    if task.cancelled():
        return "cancelled", task.cancelling()
    return structure(task.exception()) if task.exception() else task.result()


class Result(NamedTuple):
    notes: dict[int, list[Any]]
    snapshots: list[Any]
    reports: list[Any]


def run(make: Callable[..., Any], program: Program) -> Result:
    """Run a program in a new loop, and see that nothing is left over."""
    freeze()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        world = World(make, program)
        reports: list[Any] = []
        loop = new_loop(program.loop)
        try:
            loop.set_exception_handler(lambda _, context: reports.append(structure(context.get("exception"))))
            conductor = Task(world.conduct(), loop=loop)
            while not conductor.done():
                with contextlib.suppress(*BASE_ERRORS.values()):  # a child's leaves the loop: go on
                    loop.run_until_complete(conductor)
            conductor.result()
        finally:
            loop.close()
        result = Result(world.notes, world.snapshots, sorted(reports, key=repr))
        violations = world.violations
        del world, conductor
        gc.collect()
    assert not violations
    assert not [str(warning.message) for warning in caught]
    return result


def new_loop(kind: str) -> Any:
    factory, debug = LOOPS[kind]
    loop = factory()
    loop.set_debug(debug)
    loop.slow_callback_duration = 1e9
    return loop


async def settle() -> None:
    """Let the loop run until nothing that could run is left."""
    ready = getattr(asyncio.get_running_loop(), "_ready", None)
    if ready is None:  # uvloop does not tell
        for _ in range(100):
            await asyncio.sleep(0)
        return
    for passes in itertools.count():
        await asyncio.sleep(0)
        if not ready:
            break
        assert passes < 1000, "the loop never comes to rest"


def group_of(program: Program) -> type[quattro.TaskGroup]:
    return Hooked if program.hooked else quattro.TaskGroup


@examples(1000)
@given(programs(settle=st.just(True)))
def test_same_outcome(program: Program) -> None:
    """Both implementations make the same of a program in which one thing happens at a time. [G12]"""
    expected, got = run(ReferenceTaskGroup, program), run(group_of(program), program)
    assert got.notes == expected.notes
    for ours, theirs in zip(got.snapshots, expected.snapshots, strict=False):
        assert ours == theirs
    assert len(got.snapshots) == len(expected.snapshots)
    assert got.reports == expected.reports


@examples(600)
@given(programs(settle=st.booleans()))
def test_bursts(program: Program) -> None:
    """When things happen in the same pass of the loop, what holds at every moment holds."""
    run(ReferenceTaskGroup, program)
    run(group_of(program), program)


@dataclass
class Job:
    """A task of the machine below, and what the model says about it."""

    number: int
    background: bool
    gate: asyncio.Future[str]
    started: bool = False
    begins: bool = False  # the model: it has started
    told: str = ""  # what its gate was opened with
    doomed: bool = False  # the model: it was cancelled, and has not ended yet
    fate: str = "pending"  # the model: or done, failed, cancelled
    task: Any = None


class Machine(RuleBasedStateMachine):
    """One group against a model: a queue, and who runs. What is done between two settles is done in one pass."""

    make: Callable[..., Any] = quattro.TaskGroup

    @initialize(limit=limits, kind=loops, hooked=st.sampled_from([False, False, True]), cancel_on_error=st.booleans())
    def enter(self, limit: int | None, kind: str, hooked: bool, cancel_on_error: bool) -> None:
        self.stack = contextlib.ExitStack()
        self.caught = self.stack.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("always")
        freeze()
        self.loop = new_loop(kind)
        self.stack.callback(self.loop.close)
        self.loop.set_exception_handler(lambda _, context: self.reports.append(context))
        self.limit, self.eager, self.reports = limit, kind == "eager", []
        # Where a queued task is parked at once; elsewhere one that has yet to reach its place stays counted.
        self.parks = EAGER and not hooked and kind not in ("debug", "factory")
        make = Hooked if hooked and self.make is quattro.TaskGroup else self.make
        self.cancel_on_error = cancel_on_error
        self.tg = make(concurrency_limit=limit, cancel_on_error=cancel_on_error)
        self.jobs: list[Job] = []
        self.queue: list[Job] = []
        self.running: list[Job] = []  # those with a slot; without a limit, all of the foreground
        self.background: list[Job] = []
        self.order: list[int] = []
        self.waited: list[int] = []  # foreground, and not started when create_task returned
        self.script: list[Callable[[], None]] = []
        self.aborted = self.ended = self.over = False
        self.end = self.loop.create_future()
        self.parent = Task(self.body(), loop=self.loop)
        self.settle()

    async def body(self) -> None:
        async with self.tg:
            await self.end

    async def job(self, job: Job) -> str:
        job.started = True
        self.order.append(job.number)
        if (result := await job.gate) == "fail":
            raise Boom(job.number)
        return result

    @rule(background=sampled("no*3 yes"), form=sampled("coroutine call"), told=st.sampled_from(["", "", "done"]))
    def create(self, background: str, form: str, told: str) -> None:
        self.script.append(lambda: self.do_create(background == "yes", form, told))

    @rule(who=st.integers(0, 30), what=sampled("done*4 cancel*3 fail"))
    def act(self, who: int, what: str) -> None:
        self.script.append(lambda: self.do_act(who, what))

    @rule(what=sampled("nothing*4 cancel end"))
    def finish(self, what: str) -> None:
        if what != "nothing":
            self.script.append(self.do_cancel if what == "cancel" else self.do_end)

    def do_create(self, background: bool, form: str, told: str) -> None:
        job = Job(len(self.jobs), background, self.loop.create_future())
        if told:
            self.open_gate(job, told)
        coro: Any = functools.partial(self.job, job) if form == "call" else self.job(job)
        create = self.tg.create_background_task if background else self.tg.create_task
        if self.aborted or self.over:
            with pytest.raises(RuntimeError, match="is finished" if self.over else "is shutting down"):
                create(coro)
            return
        job.task = create(coro)
        self.jobs.append(job)
        free = self.limit is None or (len(self.running) < self.limit and not self.queue)
        job.begins = self.eager and (background or free)
        assert job.started == job.begins
        if job.begins and told:
            job.fate = told  # at once, and its slot is free again
        else:
            (self.background if background else self.running if free else self.queue).append(job)
        if not background and not job.started:
            self.waited.append(job.number)

    def do_act(self, who: int, what: str) -> None:
        able = [job for job in self.jobs if job.fate == "pending"]
        job = able[who % len(able)] if able else None
        if job and what == "cancel":
            job.task.cancel("because")
            job.doomed = True
            if job in self.queue:
                self.queue.remove(job)
                job.fate = "cancelled"
        elif job:
            self.open_gate(job, what)

    def open_gate(self, job: Job, what: str) -> None:
        if not job.gate.done():
            job.told = what
            job.gate.set_result(what)

    def do_cancel(self) -> None:
        self.tg.cancel()
        self.aborted |= not self.over

    def do_end(self) -> None:
        if not self.end.done():
            self.end.set_result(None)
        self.ended = True

    @rule()
    def settle(self) -> None:
        """Play the script, let the loop settle, let the model do the same, and compare."""

        async def play() -> None:
            for action in script:
                action()
                if self.parks and not self.aborted:
                    assert self.tg.statistics().queued == len(self.queue)
            await settle()

        script, self.script, self.good = self.script, [], False
        self.loop.run_until_complete(Task(play(), loop=self.loop))
        loose = self.advance()
        for job in self.jobs:
            got = outcome(job.task)
            fate = got if isinstance(got, str) else {"Boom": "failed"}.get(got[0], got[0])
            assert loose or (fate, job.started) == (job.fate, job.begins), job
            assert fate != "cancelled" or job.doomed or got[1] == 1
            job.fate, job.begins = fate, job.started
        waited = [number for number in self.order if number in self.waited]
        assert waited == sorted(waited)
        assert self.tg.statistics()[:3] == self.counts()
        assert (f" queued={len(self.queue)}" in repr(self.tg)) == bool(self.queue)
        assert self.parent.done() == self.over
        if self.over:
            errors = [Boom(job.number) for job in self.jobs if job.fate == "failed"]
            group = BaseExceptionGroup("unhandled errors in a TaskGroup", errors) if errors else None
            assert structure(self.parent.exception()) == structure(group)
        self.good = True

    def counts(self) -> tuple[int, int, int]:
        return len(self.running), len(self.queue), len(self.background)

    def advance(self) -> bool:
        """Let the model settle. Is what became of the jobs a matter of passes, because one failed or the end came?"""
        loose = False
        while not self.aborted:
            while self.queue and (self.limit is None or len(self.running) < self.limit):
                self.running.append(self.queue.pop(0))
            for job in self.running + self.background:
                job.begins |= not job.doomed
                if job.doomed or job.told:
                    job.fate = "cancelled" if job.doomed else "failed" if job.told == "fail" else "done"
                    self.aborted |= job.fate == "failed" and (self.cancel_on_error or job.background)
                    loose = self.aborted
            ended = [job for job in self.running + self.background if job.fate != "pending"]
            self.running = [job for job in self.running if job not in ended]
            self.background = [job for job in self.background if job not in ended]
            if not ended:
                break
        self.over |= self.aborted or (self.ended and not self.running)
        loose |= self.over and not self.aborted
        if self.over:
            for job in self.running + self.background + self.queue:
                job.fate = "cancelled"
            self.running, self.background, self.queue = [], [], []
        return loose

    def teardown(self) -> None:
        """Let everything end, and see that nothing is left."""
        with self.stack:
            if self.good:
                self.settle()
                self.script += [self.do_end, *(functools.partial(self.open_gate, job, "done") for job in self.jobs)]
                self.settle()
                assert (self.over, asyncio.all_tasks(self.loop)) == (True, set())
                self.tg = self.parent = self.jobs = None
                gc.collect()
                assert (self.reports, self.caught) == ([], [])


class ReferenceMachine(Machine):
    """The same with the plain Python group: is the model right?"""

    make = ReferenceTaskGroup


TestMachine = Machine.TestCase
TestReferenceMachine = ReferenceMachine.TestCase
TestMachine.settings = settings(examples(400), stateful_step_count=40)
TestReferenceMachine.settings = settings(examples(100), stateful_step_count=40)
