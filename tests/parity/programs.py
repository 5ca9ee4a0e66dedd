"""Random programs of task groups: written, run on a loop of a kind, and made smaller while they show a difference.

A program is a tree of lines of Python, so that what is printed is what has run. Its tasks are called `a`, `b`, ... and
found in `T`; `F` are shared futures, `E` shared events. `log(number, value)` notes what happened, in order, and how many
cancellations the task that says so has. `create(g1, "a", a)` makes a task of a group, or notes that it was refused.
`when_idle(function)` has it called when nothing in the loop can run. Whoever waits then for what never comes is freed.

The story of a run is its events and what the loop's exception handler was told. Two kinds of group are the same when
they tell the same story of every program, in every mode.
"""

from __future__ import annotations

import asyncio
import gc
import random
import re
import selectors
import socket
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

FUTURES = 3
EVENTS = 2

# ---- programs


@dataclass
class Block:
    """A statement that holds others: clauses of a header and what stands below it, then a line, if any."""

    clauses: list[tuple[str, list[Line]]]
    after: str = ""


Line = str | Block


def lines_of(statements: list[Line], indent: str = "    ") -> Iterator[str]:
    """Python."""
    if not statements:
        yield f"{indent}pass"
    for statement in statements:
        if isinstance(statement, str):
            yield indent + statement
            continue
        for header, below in statement.clauses:
            yield indent + header
            yield from lines_of(below, indent + "    ")
        if statement.after:
            yield indent + statement.after


@dataclass
class Program:
    statements: list[Line]

    @property
    def source(self) -> str:
        return "\n".join(["async def main():", *lines_of(self.statements)]) + "\n"


def weighted(choices: str) -> tuple[str, ...]:
    """`word*3` is three times as likely."""
    words = []
    for choice in choices.split():
        word, _, times = choice.partition("*")
        words += [word] * int(times or 1)
    return tuple(words)


ANYWHERE = """look*6 set_result*9 set_error*2 cancel_future set_event*4 call_soon*5 when_idle*2 callback*7 cancel*5
    cancel_main cancel_group*2 outside fail*5 log """
AWAITS = """step*20 wait_task*10 gather*4 gather_errors*2 shield*3 wait*3 wait_for*2 wait_future*5 shield_future*2
    wait_event*3 suppress*8 finally*3 """
IN_CALLBACK = weighted(ANYWHERE + "spawn*6")
IN_TASK = weighted(ANYWHERE + AWAITS + "spawn*8 group*2 cancel_self uncancel fail*4 fail_base return")
IN_BODY = weighted(ANYWHERE + AWAITS + "spawn*160 group*4 cancel_self uncancel fail_base return")
ERRORS = weighted("CancelledError*6 ValueError*3 Exception*3 BaseException*4")


class Writer:
    """Writes one random program."""

    def __init__(self, number: int) -> None:
        self.random = random.Random(number)
        self.choice = self.random.choice
        self.lines = 0
        self.tasks = 0
        self.groups = 0
        self.in_finally = 0
        self.inside: int | None = None  # the task that is being written; None is main
        self.ranks: dict[int | None, float] = {None: 1.0}
        self.parents: dict[str, int | None] = {"loop": None}

    def program(self) -> Program:
        statements = self.block([], 2, IN_TASK, 2) if self.random.random() < 0.2 else []
        statements.append(self.guarded(self.group([], 0)))
        statements += ["log(0)", *self.block([], 2, IN_TASK, 2)]
        return Program(statements)

    def block(self, groups: list[str], depth: int, words: tuple[str, ...], most: int, least: int = 0) -> list[Line]:
        statements: list[Line] = []
        for _ in range(self.random.randint(least, most)):
            word = self.choice(words)
            if word in ("spawn", "cancel_group") and not groups:
                word = "step" if words is not IN_CALLBACK else "log"
            if depth > 4 and word in ("spawn", "outside", "group", "suppress", "finally", "call_soon", "callback"):
                word = "set_result"
            statements.append(getattr(self, word)(groups, depth))
            if word in ("return", "fail", "fail_base"):
                break
        return statements

    # -- names

    def label(self) -> int:
        self.lines += 1
        return self.lines

    @staticmethod
    def task_name(index: int) -> str:
        return chr(ord("a") + index % 25) + str(index // 25 or "")

    def some_task(self) -> str:
        """One that has been written, or is about to be."""
        return self.task_name(self.random.randrange(self.tasks + 2))

    def some_tasks(self, one: Callable[[], str]) -> str:
        return ", ".join(f'"{one()}"' for _ in range(self.choice((1, 2, 2, 3))))

    def task_to_cancel_with(self) -> str:
        """One that this task may wait for and pass its cancellation on to.

        In a circle that would go on for ever. So every task has a rank, waits for those below it only, and is below the
        parent of its group.
        """
        index = self.random.randrange(self.tasks + 2)
        if self.rank(index) >= self.rank(self.inside):
            return "z"  # there is none
        return self.task_name(index)

    def rank(self, task: int | None) -> float:
        if task not in self.ranks:
            self.ranks[task] = self.random.random()
        return self.ranks[task]

    def future(self) -> str:
        return f"F[{self.random.randrange(FUTURES)}]"

    def event(self) -> str:
        return f"E[{self.random.randrange(EVENTS)}]"

    def group_name(self, groups: list[str]) -> str:
        return self.choice(groups)

    # -- statements that any function can have

    def log(self, groups: list[str], depth: int) -> Line:
        return f"log({self.label()})"

    def look(self, groups: list[str], depth: int) -> Line:
        name = self.some_task()
        looks = [f'"{name}" in T and state(T["{name}"])', "[future._state for future in F]"]
        looks += [f"repr({group})" for group in groups] * 2
        return f"log({self.label()}, {self.choice(looks)})"

    def set_result(self, groups: list[str], depth: int) -> Line:
        future, label = self.future(), self.label()
        return self.choice(("", f"if not {future}.done(): ", f"if not {future}.done(): ")) + (
            f"{future}.set_result({label})"
        )

    def set_error(self, groups: list[str], depth: int) -> Line:
        future = self.future()
        return f"if not {future}.done(): {future}.set_exception(LookupError({self.label()}))"

    def cancel_future(self, groups: list[str], depth: int) -> Line:
        return f"{self.future()}.cancel({self.label()})"

    def set_event(self, groups: list[str], depth: int) -> Line:
        event = self.event()
        return self.choice((f"{event}.set()", f"{event}.set()", f"{event}.clear()"))

    def call_soon(self, groups: list[str], depth: int) -> Line:
        return self.callback_block(groups, depth, "loop.call_soon({})")

    def when_idle(self, groups: list[str], depth: int) -> Line:
        return self.callback_block(groups, depth, "when_idle({})")

    def callback(self, groups: list[str], depth: int) -> Line:
        what = self.choice([f'T["{self.some_task()}"]'] * 5 + [self.future()])
        guard = f"if {what[2:-1]} in T: " if what[0] == "T" else ""
        return self.callback_block(groups, depth, guard + what + ".add_done_callback({})")

    def callback_block(self, groups: list[str], depth: int, after: str) -> Line:
        label = self.label()
        below = [f"log({label}, args)", *self.block(groups, depth + 2, IN_CALLBACK, 2)]
        return Block([(f"def callback_{label}(*args):", below)], after.format(f"callback_{label}"))

    def cancel(self, groups: list[str], depth: int) -> Line:
        name, label = self.some_task(), self.label()
        return f'if "{name}" in T: log({label}, T["{name}"].cancel({self.choice(("", label))}))'

    def cancel_main(self, groups: list[str], depth: int) -> Line:
        return f'T["main"].cancel({self.label()})'

    def cancel_group(self, groups: list[str], depth: int) -> Line:
        return f"{self.group_name(groups)}.cancel()"

    def spawn(self, groups: list[str], depth: int) -> Line:
        return self.task(groups, depth, self.group_name(groups))

    def outside(self, groups: list[str], depth: int) -> Line:
        return self.task(groups, depth, "loop")

    def task(self, groups: list[str], depth: int, creator: str) -> Line:
        highest = self.rank(self.parents[creator])
        while self.tasks in self.ranks and self.ranks[self.tasks] >= highest:
            self.tasks += 1  # others may wait for that one, who must not wait for this
        self.ranks.setdefault(self.tasks, self.random.random() * highest)
        outer, self.inside = self.inside, self.tasks
        name = self.task_name(self.tasks)
        self.tasks += 1
        below = self.block(groups, depth + 1, IN_TASK, self.choice((0, 1, 2, 3, 4, 6)))
        self.inside = outer
        return Block([(f"async def {name}():", below)], f'create({creator}, "{name}", {name})')

    def fail(self, groups: list[str], depth: int) -> Line:
        return f"raise {self.choice(('ValueError', 'ValueError', 'ValueError', 'CancelledError'))}({self.label()})"

    # -- statements of coroutines

    def fail_base(self, groups: list[str], depth: int) -> Line:
        return f"raise {self.choice(('Stop', 'Stop', 'GeneratorExit'))}({self.label()})"

    def step(self, groups: list[str], depth: int) -> Line:
        return f"log({self.label()}, await sleep(0))"

    def wait_task(self, groups: list[str], depth: int) -> Line:
        name = self.task_to_cancel_with()
        return f'if "{name}" in T: log({self.label()}, await T["{name}"])'

    def gather(self, groups: list[str], depth: int) -> Line:
        return f"log({self.label()}, await gather(*those({self.some_tasks(self.task_to_cancel_with)})))"

    def gather_errors(self, groups: list[str], depth: int) -> Line:
        return f"log({self.label()}, await gather(*those({self.some_tasks(self.task_to_cancel_with)}), return_exceptions=True))"

    def shield(self, groups: list[str], depth: int) -> Line:
        name = self.some_task()
        return f'if "{name}" in T: log({self.label()}, await shield(T["{name}"]))'

    def wait(self, groups: list[str], depth: int) -> Line:
        tasks = f"those({self.some_tasks(self.some_task)})"
        when = self.choice(("ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION"))
        return f"if {tasks}: log({self.label()}, sorted(map(name, (await wait({tasks}, return_when={when!r}))[0])))"

    def wait_for(self, groups: list[str], depth: int) -> Line:
        name = self.task_to_cancel_with()
        return f'if "{name}" in T: log({self.label()}, await wait_for(T["{name}"], None))'

    def wait_future(self, groups: list[str], depth: int) -> Line:
        return f"log({self.label()}, await {self.future()})"

    def shield_future(self, groups: list[str], depth: int) -> Line:
        return f"log({self.label()}, await shield({self.future()}))"

    def wait_event(self, groups: list[str], depth: int) -> Line:
        return f"log({self.label()}, await {self.event()}.wait())"

    def cancel_self(self, groups: list[str], depth: int) -> Line:
        return f"current_task().cancel({self.label()})"

    def uncancel(self, groups: list[str], depth: int) -> Line:
        return f"log({self.label()}, current_task().uncancel())"

    def return_(self, groups: list[str], depth: int) -> Line:
        if self.in_finally:
            return self.fail(groups, depth)  # `return` would be a SyntaxWarning there
        return f"return {self.label()}"

    def suppress(self, groups: list[str], depth: int) -> Line:
        tried = self.block(groups, depth + 1, IN_TASK, 4)
        label = self.label()
        caught: list[Line] = [f"log({label}, error)", *self.block(groups, depth + 2, IN_TASK, 2)]
        if self.random.random() < 0.2:
            caught.append("raise")
        return Block([("try:", tried), (f"except {self.choice(ERRORS)} as error:", caught)])

    def finally_(self, groups: list[str], depth: int) -> Line:
        tried = self.block(groups, depth + 1, IN_TASK, 4)
        self.in_finally += 1
        below = self.block(groups, depth + 2, IN_TASK, 2)
        self.in_finally -= 1
        return Block([("try:", tried), ("finally:", below)])

    def group(self, groups: list[str], depth: int) -> Line:
        self.groups += 1
        name = f"g{self.groups}"
        self.parents[name] = self.inside
        most = self.choice((2, 4, 8, 12)) if depth == 0 else 3
        below = self.block([*groups, name], depth + 1, IN_BODY, most, most // 2)
        return Block([(f"async with TaskGroup() as {name}:", below)])

    def guarded(self, statement: Line) -> Line:
        """With whatever it raises as an event."""
        label = self.label()
        return Block([("try:", [statement]), ("except BaseException as error:", [f"log({label}, error)"])])


setattr(Writer, "return", Writer.return_)
setattr(Writer, "finally", Writer.finally_)


def write(number: int) -> Program:
    """The program of that number, always the same."""
    return Writer(number).program()


# ---- loops and modes


class IdleSelector(selectors.DefaultSelector):  # type: ignore[misc,valid-type,unused-ignore]
    """Says when asyncio's loop has nothing to do, and does not sleep."""

    on_idle: Callable[[], None]

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            self.on_idle()
            timeout = 0
        return super().select(timeout)


def asyncio_loop(on_idle: Callable[[], None]) -> asyncio.AbstractEventLoop:
    selector = IdleSelector()
    selector.on_idle = on_idle
    return asyncio.SelectorEventLoop(selector)


def uvloop_loop(on_idle: Callable[[], None]) -> asyncio.AbstractEventLoop:
    """uvloop polls once in each iteration; a socket that is always ready to be written to is seen there."""
    import uvloop

    loop = uvloop.new_event_loop()
    (ready,) = (held for held in gc.get_referents(loop) if type(held) is deque)
    ours, theirs = socket.socketpair()

    def polled() -> None:
        if not ready:
            on_idle()

    loop.add_writer(ours, polled)
    loop.parity_sockets = ours, theirs
    return loop


def plain_factory(loop: Any, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
    return asyncio.Task(coro, loop=loop, **kwargs)


@dataclass(frozen=True)
class Mode:
    """How a program is run."""

    loop: str = "asyncio"
    debug: bool = False
    factory: str = ""  # or plain, eager
    limit: bool = False  # does the group have a limit, which is never reached?
    kept: bool = False  # does somebody keep every task, or only those that the program goes back to?

    def __str__(self) -> str:
        words = [self.loop, *(word for word in ("debug", "limit", "kept") if getattr(self, word))]
        return " ".join([*words, f"{self.factory} factory"] if self.factory else words)


@dataclass
class Story:
    """What could be seen of a run."""

    events: list[Any] = field(default_factory=list)
    reports: list[Any] = field(default_factory=list)


def describe(value: Any) -> Any:
    """Without what is another object in each run."""
    if isinstance(value, BaseExceptionGroup):
        return type(value).__name__, value.message, [describe(error) for error in value.exceptions], context_of(value)
    if isinstance(value, BaseException):
        return type(value).__name__, value.args, context_of(value)
    if isinstance(value, asyncio.Future):
        return name(value)
    if isinstance(value, (list, tuple)):
        return [describe(item) for item in value]
    return value


def context_of(error: BaseException) -> Any:
    others = [type(other).__name__ for other in (error.__cause__, error.__context__) if other is not None]
    return [*others, error.__suppress_context__]


def name(future: Any) -> str:
    return future.get_name() if isinstance(future, asyncio.Task) else type(future).__name__


def state(future: Any) -> Any:
    """What a future knows of itself."""
    if not future.done():
        return "pending", future.cancelling()
    if future.cancelled():
        return "cancelled", future.cancelling()
    return describe(future.exception()) or future.result(), future.cancelling()


class Runner:
    """A loop that runs program after program, each to its end."""

    def __init__(self, kind: str) -> None:
        self.loop = {"asyncio": asyncio_loop, "uvloop": uvloop_loop}[kind](self.on_idle)
        self.loop.slow_callback_duration = 1e9  # type: ignore[attr-defined]

    def close(self) -> None:
        self.loop.close()
        for sock in getattr(self.loop, "parity_sockets", ()):
            sock.close()

    def run(self, code: Any, wanted: frozenset[str], make_group: Callable[[], Any], mode: Mode) -> Story:
        loop = self.loop
        loop.set_debug(mode.debug)
        factories: dict[str, Any] = {"": None, "plain": plain_factory}
        loop.set_task_factory(
            factories[mode.factory] if mode.factory in factories else asyncio.eager_task_factory  # type: ignore[attr-defined,unused-ignore]
        )
        self.story = story = Story()
        events = story.events
        self.alive = 0
        self.stopped = False
        self.idle: deque[Callable[[], None]] = deque()
        self.rescues = 0
        self.futures = [loop.create_future() for _ in range(FUTURES)]
        self.events = [asyncio.Event() for _ in range(EVENTS)]
        tasks: dict[str, asyncio.Task[Any]] = {}
        current_task = asyncio.current_task

        def log(label: Any, value: Any = None) -> None:
            task = current_task()
            events.append((label, describe(value), task and task.cancelling()))

        async def told(name: str, function: Any) -> Any:
            self.alive += 1
            log(name, "starts")
            try:
                result = await function()
            except BaseException as error:
                log(name, error)
                raise
            else:
                log(name, "ends")
                return result or name
            finally:
                self.alive -= 1

        def create(group: Any, name: str, function: Any) -> None:
            job = told(name, function)
            try:
                task = group.create_task(job, name=name)
            except RuntimeError as error:
                log(name, error)
                return
            if mode.kept or name in wanted or group is loop:
                tasks[name] = task

        def report(_: Any, context: dict[str, Any]) -> None:
            message = context["message"].partition(" <")[0].partition(" callback")[0]
            story.reports.append((message, describe(context.get("exception"))))

        names: dict[str, Any] = {
            "TaskGroup": make_group,
            "loop": loop,
            "T": tasks,
            "F": self.futures,
            "E": self.events,
            "log": log,
            "create": create,
            "when_idle": self.idle.append,
            "those": lambda *names: [tasks[name] for name in names if name in tasks],
            **NAMES,
        }
        exec(code, names)
        loop.set_exception_handler(report)
        main = tasks["main"] = loop.create_task(told("main", names["main"]), name="main")
        self.run_until_idle()
        events.append(state(main))
        del main
        tasks.clear()
        names.clear()
        self.futures = self.events = []  # type: ignore[assignment]
        loop.set_exception_handler(lambda loop, context: None)  # what a collection finds later is not of a known time
        return story

    def run_until_idle(self) -> None:
        while True:
            try:
                return self.loop.run_forever()
            except (SystemExit, KeyboardInterrupt) as error:
                if self.rescues == 100:
                    raise
                self.story.events.append(("out of the loop", describe(error)))

    def on_idle(self) -> None:
        """Go on with what was to be done then; when there is nothing, free those who wait; or stop."""
        if self.idle:
            self.story.events.append("idle")
            self.loop.call_soon(self.idle.popleft())
        elif self.alive == 0:
            if not self.stopped:  # uvloop polls once more
                self.stopped = True
                self.loop.stop()
        else:
            self.loop.call_soon(self.rescue)

    def rescue(self) -> None:
        self.rescues += 1
        self.story.events.append("rescue")
        if self.rescues == 100:
            raise SystemExit("This program never ends")
        if self.rescues == 1:
            for future in self.futures:
                if not future.done():
                    future.set_result("late")
            for event in self.events:
                event.set()
        else:
            for task in sorted(asyncio.all_tasks(self.loop), key=name):
                task.cancel("rescue")


class Stop(BaseException):
    """One that asyncio does not let out of the loop."""


NAMES = {
    "Stop": Stop,
    "CancelledError": asyncio.CancelledError,
    "current_task": asyncio.current_task,
    "gather": asyncio.gather,
    "name": name,
    "shield": asyncio.shield,
    "sleep": asyncio.sleep,
    "state": state,
    "wait": asyncio.wait,
    "wait_for": asyncio.wait_for,
}


class Stage:
    """Runs programs in modes, on loops that it keeps."""

    def __init__(self) -> None:
        self.runners: dict[str, Runner] = {}
        self.runs = 0

    def close(self) -> None:
        for runner in self.runners.values():
            runner.close()

    def compile(self, program: Program) -> tuple[Any, frozenset[str]]:
        source = program.source
        named = Counter(re.findall(r'"(\w+)"', source))  # once where it is created
        return compile(source, "<program>", "exec"), frozenset(name for name in named if named[name] > 1)

    def tell(self, compiled: tuple[Any, frozenset[str]], make_group: Callable[[], Any], mode: Mode) -> Story:
        self.runs += 1
        if mode.loop not in self.runners:
            self.runners[mode.loop] = Runner(mode.loop)
        return self.runners[mode.loop].run(*compiled, make_group, mode)


if __name__ == "__main__":
    for number in sys.argv[1:]:
        print(write(int(number)).source)
