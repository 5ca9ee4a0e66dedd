"""Random programs of task groups, as text.

A program is a tree of lines of Python, so that what is printed is what has run. `Writer` says what its names mean. No
time passes in it, and its tasks never wait for each other in a circle.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

FUTURES = 3
EVENTS = 2


@dataclass
class Block:
    """A statement that holds others: clauses of a header and what stands below it, then a line, if any."""

    clauses: list[tuple[str, list[Line]]]
    after: str = ""


Line = str | Block


@dataclass
class Program:
    """The body of `async def main()`."""

    statements: list[Line]

    @property
    def source(self) -> str:
        return "\n".join(["async def main():", *lines_of(self.statements, "    ")]) + "\n"


def lines_of(statements: list[Line], indent: str) -> Iterator[str]:
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


def smaller(program: Program) -> Iterator[Program]:
    """Each program that lacks one statement, or that has what a statement holds instead of it."""
    return map(Program, _variants(program.statements))


def _variants(statements: list[Line]) -> Iterator[list[Line]]:
    for at, statement in enumerate(statements):
        before, after = statements[:at], statements[at + 1 :]
        yield before + after
        if isinstance(statement, Block):
            for number, (header, below) in enumerate(statement.clauses):
                yield before + below + after
                for less in _variants(below):
                    clauses = list(statement.clauses)
                    clauses[number] = header, less
                    yield [*before, Block(clauses, statement.after), *after]


def minimal(program: Program, differs: Callable[[Program], bool]) -> Program:
    """A program like this one, of which nothing can be left out without losing the difference."""
    while True:
        for less in smaller(program):
            try:
                if differs(less):
                    program = less
                    break
            except SyntaxError:
                pass  # a `return` in a `finally`, say
        else:
            return program


def weighted(choices: str) -> tuple[str, ...]:
    """`word*3` is three times as likely."""
    words = []
    for choice in choices.split():
        word, _, times = choice.partition("*")
        words += [word] * int(times or 1)
    return tuple(words)


# What stands in a callback, a task, a group's body: names of methods of Writer.
ANYWHERE = """look*6 look_at_group*4 set_result*9 set_error*2 cancel_future set_event*4 set_variable*4 call_soon*5
    when_idle*2 when_hooked*2 when_reported*2 callback*7 cancel*5 cancel_main cancel_group*2 outside fail*5 stop_loop
    log """
AWAITS = """step*20 wait_task*10 gather*4 gather_errors*2 as_completed*2 shield*3 wait*3 wait_for*3 wait_future*5
    shield_future*2 wait_event*3 suppress*8 lastly*3 timeout*2 generator*2 """
IN_CALLBACK = weighted(ANYWHERE + "spawn*6")
IN_TASK = weighted(ANYWHERE + AWAITS + "spawn*8 group*2 abandon*3 cancel_self uncancel fail*4 fail_base leave")
BODY = ANYWHERE + AWAITS + "spawn*160 group*4 cancel_self uncancel fail_base leave "
IN_BODY = weighted(BODY)
IN_GENERATOR = weighted(BODY + "give*80")

IN_ABANDONED = weighted("spawn*6 set_variable*4 step cancel_self")
NESTING = weighted("""spawn outside group abandon suppress lastly timeout generator call_soon when_idle when_hooked
    when_reported callback""")

ERRORS = weighted("CancelledError*6 TimeoutError*2 ValueError*3 Exception*3 BaseException*4")
OPTIONS = weighted("none*16 name='named' context=copy_context() context=C*2 eager_start=True*2 eager_start=False")


class Writer:
    """Writes one random program.

    Its tasks are `a`, `b`, ... and found in `T` once they have been created; `F` are shared futures, `E` shared events,
    `V` a context variable, `C` a context, `D` deadlines that `expire(number)` lets pass. `log(number, value)` notes
    what happened. `create(g1, 'a', a)` makes a task of a group, or of the loop, or notes that it was refused.
    `when_idle(callback)` has it called when nothing in the loop can run, `when_hooked` by the next method of a subclass
    (never, if there is none), `when_reported` by the loop's exception handler. `keep()` keeps a group until the program
    has ended.
    """

    def __init__(self, number: int) -> None:
        self.random = random.Random(number)
        self.choice = self.random.choice
        self.lines = 0
        self.tasks = 0
        self.groups = 0
        self.deadlines = 0
        self.inside: int | None = None  # the task that is being written; None is main
        self.may_return = True
        self.ranks: dict[int | None, float] = {None: 1.0}
        self.parents: dict[str, int | None] = {"loop": None}  # of the groups
        self.abandoned: set[str] = set()
        self.errors = ["ValueError"] * 6 + ["CancelledError"] * 2
        self.base_errors = ["Stop", "Stop", "GeneratorExit"]
        if number % 8 == 7:
            self.errors += ["SystemExit", "KeyboardInterrupt"]
            self.base_errors += ["SystemExit", "KeyboardInterrupt"] * 3

    def program(self) -> Program:
        statements = self.block([], 2, IN_TASK, 2) if self.random.random() < 0.2 else []
        label = self.label()
        statements.append(
            Block([("try:", self.group([], 0)), ("except BaseException as error:", [f"log({label}, error)"])])
        )
        statements += ["log(0)", *self.block([], 2, IN_TASK, 2)]
        return Program(statements)

    def block(self, groups: list[str], depth: int, words: tuple[str, ...], most: int, least: int = 0) -> list[Line]:
        statements: list[Line] = []
        for _ in range(self.random.randint(least, most)):
            word = self.choice(words)
            if word in ("spawn", "cancel_group", "look_at_group") and not groups:
                word = "log" if words is IN_CALLBACK else "step"
            if depth > 4 and word in NESTING:
                word = "set_result"
            statement = getattr(self, word)(groups, depth)
            statements += statement if isinstance(statement, list) else [statement]
            if word in ("leave", "fail", "fail_base"):  # what comes after that is not reached
                break
        return statements

    # ---- names

    def label(self) -> int:
        self.lines += 1
        return self.lines

    @staticmethod
    def task_name(index: int) -> str:
        return chr(ord("a") + index % 25) + str(index // 25 or "")

    def some_task(self) -> str:
        """One that has been written, or is about to be."""
        return self.task_name(self.random.randrange(self.tasks + 2))

    def task_to_wait_for(self) -> str:
        """One that may be cancelled with this one: of a lower rank, as all tasks are of their group's parent."""
        index = self.random.randrange(self.tasks + 2)
        return self.task_name(index) if self.rank(index) < self.rank(self.inside) else "z"  # there is none

    def rank(self, task: int | None) -> float:
        if task not in self.ranks:
            self.ranks[task] = self.random.random()
        return self.ranks[task]

    def those(self, name: Callable[[], str]) -> str:
        return f"those({', '.join(repr(name()) for _ in range(self.choice((1, 2, 2, 3))))})"

    def future(self) -> str:
        return f"F[{self.random.randrange(FUTURES)}]"

    def event(self) -> str:
        return f"E[{self.random.randrange(EVENTS)}]"

    # ---- what any function can do

    def log(self, groups: list[str], depth: int) -> Line:
        return f"log({self.label()})"

    def look(self, groups: list[str], depth: int) -> Line:
        name = self.some_task()
        return f"if '{name}' in T: log({self.label()}, state(T['{name}']))"

    def look_at_group(self, groups: list[str], depth: int) -> Line:
        return f"log({self.label()}, look({self.choice(groups)}))"

    def set_result(self, groups: list[str], depth: int) -> Line:
        future, label = self.future(), self.label()
        guard = self.choice(("", f"if not {future}.done(): ", f"if not {future}.done(): "))
        return f"{guard}{future}.set_result({label})"

    def set_error(self, groups: list[str], depth: int) -> Line:
        future = self.future()
        return f"if not {future}.done(): {future}.set_exception(LookupError({self.label()}))"

    def cancel_future(self, groups: list[str], depth: int) -> Line:
        return f"{self.future()}.cancel({self.label()})"

    def set_event(self, groups: list[str], depth: int) -> Line:
        return f"{self.event()}.{self.choice(('set', 'set', 'clear'))}()"

    def set_variable(self, groups: list[str], depth: int) -> Line:
        return f"V.set({self.label()})"

    def call_soon(self, groups: list[str], depth: int) -> Line:
        return self.function(groups, depth, "loop.call_soon({})")

    def when_idle(self, groups: list[str], depth: int) -> Line:
        return self.function(groups, depth, "when_idle({})")

    def when_hooked(self, groups: list[str], depth: int) -> Line:
        # Not a group's cancel() in its _abort(): asyncio's cancels each task twice then, ours once.
        return self.function([], depth, "when_hooked({})")

    def when_reported(self, groups: list[str], depth: int) -> Line:
        return self.function(groups, depth, "when_reported({})")

    def callback(self, groups: list[str], depth: int) -> Line:
        name = self.some_task()
        of_a_task = f"if '{name}' in T: T['{name}']"
        return self.function(groups, depth, self.choice([of_a_task] * 5 + [self.future()]) + ".add_done_callback({})")

    def function(self, groups: list[str], depth: int, after: str) -> Line:
        label = self.label()
        below = [f"log({label}, args)", *self.block(groups, depth + 2, IN_CALLBACK, 2)]
        return Block([(f"def callback_{label}(*args):", below)], after.format(f"callback_{label}"))

    def cancel(self, groups: list[str], depth: int) -> Line:
        name, label = self.some_task(), self.label()
        return f"if '{name}' in T: log({label}, T['{name}'].cancel({self.choice(('', label))}))"

    def cancel_main(self, groups: list[str], depth: int) -> Line:
        return f"T['main'].cancel({self.label()})"

    def cancel_group(self, groups: list[str], depth: int) -> Line:
        return f"{self.choice(groups)}.cancel()"

    def expire(self, groups: list[str], depth: int) -> Line:
        return f"expire({self.random.randrange(self.deadlines + 2)})"

    def stop_loop(self, groups: list[str], depth: int) -> Line:
        return "loop.stop()"

    def spawn(self, groups: list[str], depth: int) -> Line:
        return self.task(groups, depth, self.choice(groups))

    def outside(self, groups: list[str], depth: int) -> Line:
        return self.task(groups, depth, "loop")

    def task(self, groups: list[str], depth: int, creator: str) -> Line:
        highest = self.rank(self.parents[creator])
        while self.tasks in self.ranks and self.ranks[self.tasks] >= highest:
            self.tasks += 1  # there are those who may wait for that one
        self.ranks.setdefault(self.tasks, self.random.random() * highest)
        name = self.task_name(self.tasks)
        outer, self.inside = (self.inside, self.may_return), self.tasks
        self.may_return = True
        self.tasks += 1
        below = self.block(groups, depth + 1, IN_TASK, self.choice((0, 1, 2, 3, 4, 6)))
        if creator in self.abandoned and self.random.random() < 0.5:
            below += [self.step(groups, depth), self.fail(groups, depth)]
        self.inside, self.may_return = outer
        option = self.choice(OPTIONS)
        arguments = f"{creator}, '{name}', {name}" + (f", {option}" if option != "none" else "")
        return Block([(f"async def {name}():", below)], f"create({arguments})")

    def fail(self, groups: list[str], depth: int) -> Line:
        return f"raise {self.choice(self.errors)}({self.label()})"

    # ---- what a coroutine can do

    def fail_base(self, groups: list[str], depth: int) -> Line:
        error, label = self.choice(self.base_errors), self.label()
        # A coroutine that awaits another closes it when it is thrown that, so that frames in between would be seen.
        return "raise GeneratorExit" if error == "GeneratorExit" else f"raise {error}({label})"

    def step(self, groups: list[str], depth: int) -> Line:
        return f"log({self.label()}, await sleep(0))"

    def wait_task(self, groups: list[str], depth: int) -> Line:
        name = self.task_to_wait_for()
        return f"if '{name}' in T: log({self.label()}, await T['{name}'])"

    def gather(self, groups: list[str], depth: int) -> Line:
        return f"log({self.label()}, await gather(*{self.those(self.task_to_wait_for)}))"

    def gather_errors(self, groups: list[str], depth: int) -> Line:
        return f"log({self.label()}, await gather(*{self.those(self.task_to_wait_for)}, return_exceptions=True))"

    def as_completed(self, groups: list[str], depth: int) -> Line:
        # Those that are done come in the order of a set.
        of = f"as_completed([each for each in {self.those(self.task_to_wait_for)} if not each.done()])"
        return f"for each in {of}: log({self.label()}, await each)"

    def shield(self, groups: list[str], depth: int) -> Line:
        name = self.some_task()
        return f"if '{name}' in T: log({self.label()}, await shield(T['{name}']))"

    def wait(self, groups: list[str], depth: int) -> Line:
        # Not FIRST_EXCEPTION: of those that are done it asks one by one, in the order of a set, that is of addresses.
        tasks = self.those(self.some_task)
        when = self.choice(("ALL_COMPLETED", "FIRST_COMPLETED"))
        return f"if {tasks}: log({self.label()}, names((await wait({tasks}, return_when={when!r}))[0]))"

    def wait_for(self, groups: list[str], depth: int) -> Line:
        name = self.task_to_wait_for()
        return f"if '{name}' in T: log({self.label()}, await wait_for(T['{name}'], {self.choice(('None', '0'))}))"

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

    def leave(self, groups: list[str], depth: int) -> Line:
        return f"return {self.label()}" if self.may_return else self.fail(groups, depth)

    def suppress(self, groups: list[str], depth: int) -> Line:
        tried = self.block(groups, depth + 1, IN_TASK, 4)
        caught: list[Line] = [f"log({self.label()}, error)", *self.block(groups, depth + 2, IN_TASK, 2)]
        if self.random.random() < 0.2:
            caught.append("raise")
        return Block([("try:", tried), (f"except {self.choice(ERRORS)} as error:", caught)])

    def lastly(self, groups: list[str], depth: int) -> Line:
        tried = self.block(groups, depth + 1, IN_TASK, 4)
        outer, self.may_return = self.may_return, False
        below = self.block(groups, depth + 2, IN_TASK, 2)
        self.may_return = outer
        return Block([("try:", tried), ("finally:", below)])

    def timeout(self, groups: list[str], depth: int) -> Line:
        number = self.deadlines
        self.deadlines += 1
        header = f"async with timeout({self.choice(('None', 'None', '-1'))}) as D[{number}]:"
        return Block([(header, self.block(groups, depth + 1, IN_TASK, 4))])

    def generator(self, groups: list[str], depth: int) -> Line:
        """One that gives values from within a group."""
        name = f"generator_{self.label()}"
        outer, self.may_return = self.may_return, False
        inside = [*self.group(groups, depth, IN_GENERATOR), self.give(groups, depth)]
        self.may_return = outer
        below: list[Line] = []
        for _ in range(self.random.randint(1, 3)):
            below += [f"log({self.label()}, await anext(values, None))", *self.block(groups, depth + 1, IN_TASK, 2)]
        return Block([(f"async def {name}():", inside), (f"async with aclosing({name}()) as values:", below)])

    def give(self, groups: list[str], depth: int) -> Line:
        return f"log({self.label()}, (yield {self.label()}))"

    def group(self, groups: list[str], depth: int, words: tuple[str, ...] = IN_BODY) -> list[Line]:
        self.groups += 1
        name = f"g{self.groups}"
        self.parents[name] = self.inside
        groups = [*groups, name]
        before: list[Line] = []
        header = f"async with TaskGroup() as {name}:"
        if self.random.random() < 0.1:  # known to others before it is entered
            before = [f"{name} = TaskGroup()", *self.block(groups, depth + 3, IN_CALLBACK, 2)]
            header = f"async with {name}:"
        most = self.choice((2, 4, 8, 12)) if depth == 0 else 3
        body = self.block(groups, depth + 1, words, most, most // 2)
        if self.random.random() < 0.4:
            body = [Block([("try:", body), ("finally:", [f"log({self.label()})"])])]
        return [*before, Block([(header, body)])]

    def abandon(self, groups: list[str], depth: int) -> list[Line]:
        """A group that is never left: its parent may be done when its tasks fail."""
        self.groups += 1
        name = f"g{self.groups}"
        self.parents[name] = self.inside
        self.abandoned.add(name)
        body = self.block([name], depth + 1, IN_ABANDONED, 4, 1)
        if self.random.random() < 0.8:
            body.append(self.leave(groups, depth))
        return [f"{name} = await keep(TaskGroup()).__aenter__()", *body]


def write(number: int) -> Program:
    """The program of that number, always the same."""
    return Writer(number).program()


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(write(int(argument)).source)
