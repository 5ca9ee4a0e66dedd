"""With a limit, tasks start in the order in which they were created, as many as may run and no more.

Random programs of two hundred tasks, coroutines and callables, made by the body, by another task and by each other,
with steps of the loop, waits for a slot, cancels and errors in between, in each mode. `QUATTRO_PARITY_PROGRAMS` and
`QUATTRO_PARITY_SEED` as in test_differential.py, a tenth as many programs.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import random
import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from reference import ReferenceTaskGroup
from stage import FACTORIES, SubclassedLoop

import quattro

PROGRAMS = int(os.environ.get("QUATTRO_PARITY_PROGRAMS", "4000")) // 10
SEED = int(os.environ.get("QUATTRO_PARITY_SEED", "0"))


def uvloop_loop() -> Any:
    import uvloop

    return uvloop.new_event_loop()


# Kinds of loop, debug mode, task factory.
MODES: dict[str, tuple[Callable[[], Any], bool, str]] = {
    "asyncio": (asyncio.SelectorEventLoop, False, ""),
    "debug": (asyncio.SelectorEventLoop, True, ""),
    "factory": (asyncio.SelectorEventLoop, False, "plain"),
    "subclass": (SubclassedLoop, False, ""),
}
if sys.version_info >= (3, 12):
    MODES["eager"] = (asyncio.SelectorEventLoop, False, "eager")
if sys.platform != "win32":
    MODES["uvloop"] = (uvloop_loop, False, "")


# ---- programs


@dataclass(frozen=True)
class Step:
    def __str__(self) -> str:
        return "await asyncio.sleep(0)"


@dataclass(frozen=True)
class Wait:
    """For a slot; this may be one of several that do so, and then takes its place in the queue if it is beaten."""

    def __str__(self) -> str:
        return "await tg.wait_for_slot()"


@dataclass(frozen=True)
class Cancel:
    number: int

    def __str__(self) -> str:
        return f"tasks[{self.number}].cancel()"


@dataclass(frozen=True)
class Create:
    """A task that does what the body can do, too."""

    number: int
    does: tuple[Step | Cancel | Create, ...]
    form: str  # coroutine or callable
    stubborn: bool  # does it take its steps although it is cancelled?
    eager: bool
    fails: bool

    def __str__(self) -> str:
        name = "stubborn" if self.stubborn else "work"
        steps = sum(isinstance(what, Step) for what in self.does)
        others = [str(what) for what in self.does if not isinstance(what, Step)]
        job = f"{name}({', '.join([str(self.number), str(steps), *others])})"
        call = f"tg.create_task({'lambda: ' * (self.form == 'callable')}{job}{', eager_start=True' * self.eager})"
        return call + "  # fails" * self.fails


Statement = Step | Wait | Cancel | Create


@dataclass(frozen=True)
class Program:
    limit: int
    statements: tuple[Statement, ...]
    producer: tuple[Statement, ...]  # what another task does, which is no member of the group
    stops: bool  # does the body end with tg.cancel()?
    fragile: bool  # does an error cancel the others?
    hooked: bool  # is the group of a subclass?

    def __str__(self) -> str:
        lines = [*map(str, self.statements), *["tg.cancel()"] * self.stops]
        name = "Hooked" if self.hooked else "TaskGroup"
        header = f"async with {name}(concurrency_limit={self.limit}, cancel_on_error={self.fragile}) as tg:"
        return "\n    ".join([header, *lines, "# another task:", *map(str, self.producer)]) + "\n"


class Writer:
    """Writes a random program."""

    def __init__(self, number: int) -> None:
        self.random = random.Random(number)
        self.tasks = 0
        self.steps = self.random.choice((0.2, 0.4, 0.6))  # with many the queue is often empty, with few never

    def program(self) -> Program:
        size = self.random.choice((10, 30, 100, 250))
        statements = tuple(self.statement(0.1, self.steps, waits=0.05) for _ in range(size))
        producer = tuple(self.statement(0.1, 0.4, waits=0.3) for _ in range(self.random.choice((0, 0, 20))))
        chance = self.random.random
        limit = self.random.choice((1, 2, 2, 3))
        return Program(limit, statements, producer, chance() < 0.2, chance() < 0.2, chance() < 0.2)

    def statement(self, cancels: float, steps: float, waits: float = 0) -> Statement:
        if self.random.random() < waits:
            return Wait()
        what = self.random.random()
        if what < cancels:
            return Cancel(max(0, self.tasks - 1 - self.random.randrange(self.random.choice((2, 5, 12)))))
        return Step() if what < cancels + steps else self.create()

    def create(self) -> Create:
        number = self.tasks
        self.tasks += 1
        chance = self.random.random
        does: tuple[Statement, ...] = (Step(),) * self.random.choice((0, 1, 1, 2, 3))
        if chance() < 0.15:
            does = tuple(self.statement(0.2, 0.6) for _ in range(4))
        form = "callable" if chance() < 0.3 else "coroutine"
        return Create(number, does, form, chance() < 0.1, chance() < 0.1, chance() < 0.1)


def write(number: int) -> Program:
    return Writer(number).program()


def smaller(statements: tuple[Statement, ...]) -> Iterator[tuple[Statement, ...]]:
    """Without a part, from halves to single ones; then with something simpler in the place of one."""
    size = len(statements)
    while size := size // 2:
        for at in range(0, len(statements), size):
            yield statements[:at] + statements[at + size :]
    for at, what in enumerate(statements):
        if isinstance(what, Create):
            simpler = [*what.does, replace(what, form="coroutine")]
            simpler += [replace(what, stubborn=False), replace(what, eager=False), replace(what, fails=False)]
            simpler += [replace(what, does=less) for less in smaller(what.does)]
            yield from ((*statements[:at], each, *statements[at + 1 :]) for each in simpler if each != what)


def minimal(program: Program, fails: Callable[[Program], Any]) -> Program:
    """A program like this one, of which no part can be left out."""
    while True:
        variants = [replace(program, statements=less) for less in smaller(program.statements)]
        variants += [replace(program, producer=less) for less in smaller(program.producer)]
        for less in variants + [replace(program, hooked=False)] * program.hooked:
            if fails(less):
                program = less
                break
        else:
            return program


# ---- runs


class Run:
    """One run of a program, and which rules were broken."""

    def __init__(self, program: Program, group_class: Any) -> None:
        self.program = program
        self.group_class = group_class
        self.broken: list[str] = []
        self.tasks: dict[int, asyncio.Task[Any]] = {}
        self.queue: deque[int] = deque()  # created, and not begun
        self.running: set[int] = set()
        self.waits: int | None = None  # at the head of the queue, although one more could run
        self.waited = 0  # for so many iterations
        self.cancelled = 0  # for so many more iterations a slot may be held by somebody who was cancelled
        self.waiters = 0  # for a slot
        self.told_late = 0  # so many iterations
        self.tg: Any = None
        self.left = False

    async def main(self) -> None:
        self.tick()
        with contextlib.suppress(ExceptionGroup):
            options = {"concurrency_limit": self.program.limit, "cancel_on_error": self.program.fragile}
            async with self.group_class(**options) as self.tg:
                producer = asyncio.create_task(self.produce())
                await self.do(self.program.statements)
                if self.program.stops:
                    self.tg.cancel()
        self.left = True
        await producer
        if not self.tg._aborting and self.next_in_queue() is not None:
            self.broken.append(f"{self.queue} never start")

    async def produce(self) -> None:
        with contextlib.suppress(RuntimeError):  # the group is finished, or is shutting down
            await self.do(self.program.producer)

    async def wait(self) -> None:
        self.waiters += 1
        self.told_late = 0
        try:
            await self.tg.wait_for_slot()
        finally:
            self.waiters -= 1
        if len(self.running) >= self.program.limit or self.tg.statistics().queued:
            self.broken.append(f"who waits is told of a slot while {self.running} run and {self.queue} have not begun")

    async def do(self, statements: tuple[Statement, ...], stubborn: bool = False) -> None:
        for statement in statements:
            if isinstance(statement, Create):
                self.create(statement)
            elif isinstance(statement, Step):
                with contextlib.suppress(*[asyncio.CancelledError] * stubborn):
                    await asyncio.sleep(0)
            elif isinstance(statement, Wait):
                await self.wait()
            elif statement.number in self.tasks:
                self.tasks[statement.number].cancel()
                self.cancelled = 3

    def create(self, what: Create) -> None:
        self.told_late = 0  # this may have been quicker than who waits
        self.queue.append(what.number)
        job = functools.partial(self.work, what)
        options = {"eager_start": True} if what.eager and sys.version_info >= (3, 14) else {}
        try:
            task = self.tg.create_task(job if what.form == "callable" else job(), **options)
        except RuntimeError:
            assert self.tg._aborting or not self.running
            self.queue.remove(what.number)
            return
        self.tasks[what.number] = task

    async def work(self, what: Create) -> None:
        number = what.number
        if self.tg._aborting:
            self.broken.append(f"{number} starts although the group aborts")
        if self.next_in_queue() == number:
            self.queue.popleft()
        elif number in self.queue:
            # An eager one may be quicker than those that have a slot and are about to start.
            ahead = [each for each in self.queue if each not in self.tasks or not self.tasks[each].cancelling()]
            if not what.eager or len(self.running) + len(ahead) > self.program.limit:
                self.broken.append(f"{number} starts before {self.queue[0]}")
            self.queue.remove(number)
        else:
            self.broken.append(f"{number} starts although it was cancelled")
        self.running.add(number)
        if len(self.running) > self.program.limit:
            self.broken.append(f"{self.running} run")
        try:
            await self.do(what.does, what.stubborn)
            if what.fails:
                raise ValueError(number)
        finally:
            self.running.discard(number)

    def next_in_queue(self) -> int | None:
        """The first of those that have not begun, leaving out those who were cancelled."""
        queue, tasks = self.queue, self.tasks
        while queue and queue[0] in tasks and tasks[queue[0]].cancelling():
            queue.popleft()
        return queue[0] if queue else None

    def tick(self) -> None:
        """Called in each iteration of the loop.

        A slot that comes free is taken in the next one. It was free already when this was called there, or when this
        was called in the next; somebody who got it and was cancelled has to take that step before it is passed on.
        """
        free = self.tg is not None and len(self.running) < self.program.limit and not self.tg._aborting
        head = self.next_in_queue() if free else None
        self.waited = self.waited + 1 if head == self.waits else 0
        self.waits = head
        if head is not None and self.waited > (3 if self.cancelled else 1):
            self.broken.append(f"{head} waits while only {self.running} run")
        self.told_late = self.told_late + 1 if free and self.waiters and head is None else 0
        if self.told_late > (
            5 if self.cancelled else 3
        ):  # a slot comes free in the next one, and is told of in another
            self.broken.append(f"{self.waiters} wait while only {self.running} run")
        self.cancelled = max(0, self.cancelled - 1)
        if not self.left:
            asyncio.get_running_loop().call_soon(self.tick)


@pytest.fixture(params=MODES)
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    make_loop, debug, factory = MODES[request.param]
    with asyncio.Runner(loop_factory=make_loop, debug=debug) as runner:
        runner.get_loop().set_task_factory(FACTORIES[factory])
        runner.get_loop().slow_callback_duration = 1e9
        yield runner


def run(runner: asyncio.Runner, program: Program, group_class: Any) -> Run:
    class Hooked(group_class):
        def _on_task_done(self, task: Any) -> None:
            super()._on_task_done(task)

    result = Run(program, Hooked if program.hooked else group_class)
    runner.run(result.main())
    return result


@pytest.mark.parametrize("group_class", [quattro.TaskGroup, ReferenceTaskGroup], ids=["quattro", "reference"])
def test_first_in_first_out(runner: asyncio.Runner, group_class: Any) -> None:
    """The order is that of create_task(), the limit is kept and made use of, and after a stop nothing starts."""

    def broken(program: Program) -> list[str]:
        return run(runner, program, group_class).broken

    for number in range(SEED, SEED + PROGRAMS):
        program = write(number)
        if broken(program):
            program = minimal(program, broken)
            pytest.fail(f"Program {number}:\n\n{program}\n{broken(program)[0]}", pytrace=False)
