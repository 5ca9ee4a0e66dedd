"""Memory runs out, at every allocation in turn, on every path of leaks.py.

    python faults.py calls STRIDE [PATH ...]
        In each call into our C, in turn, the n-th allocation fails, alone or with those that follow in that call.
        Memory is back when the call returns, or when a task's own code runs.
    python faults.py life STRIDE [PATH ...]
        The n-th allocation from the beginning of the path fails, wherever it is: in the group, in asyncio, in the
        interpreter.
    python faults.py stock STRIDE PATH ...
        The same with asyncio.TaskGroup.
    python faults.py import STRIDE
        The n-th allocation of an import of the C fails, alone or with those that follow: MemoryError, nothing stays
        behind, and the next import works.

The path succeeds or raises.  When the loop has nothing left to do, every group has ended and every task is done;
nothing but MemoryError was reported; no coroutine was left without being closed; no object of ours stays, and the same
failure again takes no more memory (asked only with STRIDE 0).  With a STRIDE above 1, every so many-th fails.

Some losses are asyncio's own, and stay so in any group: it marks a future as done before it finds that it can't
schedule who waits for it, loses a task that it can't schedule, and a callback that its loop can't run.  What is left
waiting is excused where it shows that this is what happened, see judge(); a slot that nobody has got never is.
"""

from __future__ import annotations

import _testcapi
import asyncio
import functools
import gc
import importlib
import importlib.util
import sys
import types
import warnings
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import helpers
from helpers import Idle, Selector

Path = Callable[[], Awaitable[None]]
Position = tuple[str, Callable[[], None]]
OURS: tuple[type, ...] = ()
NUMBERS = list(range(20_000))
DEBUG = hasattr(sys, "gettotalrefcount")
MANY = 1_000_000 if sys.version_info >= (3, 14) else 20  # before, CPython itself may unwind for ever without memory
COUNT = getattr(sys, "gettotalrefcount", sys.getallocatedblocks)


class Memory:
    """Lets allocations fail, in one call of many."""

    def __init__(self) -> None:
        self.call = self.calls = self.first = self.stop = 0
        self.active = False
        self.left = 0  # of NUMBERS at the end, where allocations are counted
        self.raised = False  # by the call
        self.refused = 0  # by call_soon()
        self.what = ""  # the call
        self.groups: list[Any] = []  # that were entered

    def __call__(self, function: Callable[[], Any]) -> Any:
        """The next call into our C; this may be the one."""
        self.calls += not self.active
        if self.active or self.calls - 1 != self.call:
            return function()
        self.what = getattr(getattr(function, "func", function), "__qualname__", "")
        self.take()
        try:
            return function()
        except MemoryError:
            self.raised = True
            raise
        finally:
            self.restore()

    def take(self) -> None:
        """From now on."""
        gc.collect()  # empties CPython's free lists, which would serve some of what is asked for
        self.active = True
        _testcapi.set_nomemory(self.first, self.stop)

    def restore(self) -> None:
        """Memory is back."""
        if self.active:
            self.active = False
            try:
                if self.first == len(NUMBERS):
                    for self.left in NUMBERS:
                        object()
            except MemoryError:
                pass
            finally:
                _testcapi.remove_mem_hooks()

    def in_call(self, call: int, first: int, stop: int) -> None:
        """Get ready for a run."""
        self.call, self.calls, self.first, self.stop = call, 0, first, stop
        self.left = len(NUMBERS)
        self.raised, self.refused, self.what = False, 0, ""

    def at_once(self, first: int) -> None:
        """Begin a run."""
        self.in_call(-1, first, first + 1)
        self.what = "life"
        self.take()

    def count(self) -> None:
        """Begin a run that only counts."""
        self.in_call(-1, len(NUMBERS), 0)
        self.take()


MEMORY = Memory()


def restoring(function: Callable[..., Any]) -> Callable[..., Any]:
    """A job that has memory from its first line on."""

    @functools.wraps(function)
    async def job(*args: Any) -> Any:
        MEMORY.restore()
        return await function(*args)

    return job


class WatchedTurn:
    """A turn whose methods are calls into our C; what its Task waits on is the turn itself."""

    def __init__(self, turn: Any) -> None:
        self.turn, self.turn_begin, self.turn_end, self.turn_fail = turn, turn.begin, turn.end, turn.fail

    def __await__(self) -> Iterator[Any]:
        return self.turn  # type: ignore[no-any-return]

    def begin(self) -> Any:
        return call_in_step(self.turn_begin)

    def end(self) -> None:
        call_in_step(self.turn_end)

    def fail(self) -> None:
        call_in_step(self.turn_fail)


def call_in_step(function: Callable[[], Any]) -> Any:
    """Call into our C from a task's step, which may itself be part of the call that lacks memory."""
    if not MEMORY.active:
        return MEMORY(function)
    try:
        return function()
    finally:
        MEMORY.restore()  # what follows is the task's own code, and the end of the step, which is asyncio's


class WatchedAwait:
    """What __aenter__() and __aexit__() return: each step is a call."""

    def __init__(self, awaitable: Any) -> None:
        self.awaitable = awaitable

    def __await__(self) -> WatchedAwait:
        return self

    def __iter__(self) -> WatchedAwait:
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def send(self, value: Any) -> Any:
        return call_in_step(functools.partial(self.awaitable.send, value))

    def throw(self, *args: Any) -> Any:
        return call_in_step(functools.partial(self.awaitable.throw, *args))

    def close(self) -> None:
        MEMORY(self.awaitable.close)


def import_watched() -> None:
    """Import quattro with its calls watched, and leaks with that and with jobs that bring memory back."""
    package = importlib.util.find_spec("quattro")
    assert package is not None
    # Not run yet: the C comes later, and keeps run_turn().
    sys.modules["quattro"] = importlib.util.module_from_spec(package)
    turn: Any = importlib.import_module("quattro._turn")
    run_turn = turn.run_turn
    turn.run_turn = lambda turn: run_turn(WatchedTurn(turn))
    del sys.modules["quattro"]
    import quattro

    def create(function: Any, coro: Any, kwargs: dict[str, Any]) -> Any:
        # No keyword is packed on the way, for that takes memory.
        keywords = "".join(f", {name}={name}" for name in kwargs)
        return MEMORY(eval(f"lambda: function(coro{keywords})", {"function": function, "coro": coro, **kwargs}))

    class TaskGroup(quattro.TaskGroup):
        def create_task(self, coro: Any, **kwargs: Any) -> Any:
            return create(super().create_task, coro, kwargs)

        def create_background_task(self, coro: Any, **kwargs: Any) -> Any:
            return create(super().create_background_task, coro, kwargs)

        def cancel(self) -> None:
            MEMORY(super().cancel)

        def statistics(self) -> Any:
            return MEMORY(super().statistics)

        def __repr__(self) -> str:
            return str(MEMORY(super().__repr__))

        def __aenter__(self) -> Any:
            MEMORY.groups.append(self)
            return WatchedAwait(super().__aenter__())

        def wait_for_slot(self) -> Any:
            return WatchedAwait(super().wait_for_slot())

        def __aexit__(self, *exc: Any) -> Any:
            # Not this call itself: if it fails, the group is never left, as any other context manager.
            return WatchedAwait(super().__aexit__(*exc))

    quattro.TaskGroup = TaskGroup  # type: ignore[misc]
    for name in ("noop", "settle", "forever", "fail"):
        setattr(helpers, name, restoring(getattr(helpers, name)))


class Loop(asyncio.SelectorEventLoop):
    """The callbacks that are ours are calls into our C."""

    def call_soon(self, callback: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(getattr(callback, "__self__", None), OURS):
            callback, args = MEMORY, (functools.partial(callback, *args),)
        try:
            return super().call_soon(callback, *args, **kwargs)
        except MemoryError:
            MEMORY.refused += 1
            raise


class Patient(Selector):
    """Waits for nobody, and not for ever for a task that has been cancelled, and that asyncio has lost since.

    The group looks again whether such a task goes on, less and less often; no path waits for time.
    """

    def select(self, timeout: float | None = None) -> Any:
        return super().select(None if timeout is not None and timeout > 0.03 else timeout)


class Run:
    """One run of a path with one failure: what came of it, and what is wrong."""

    def __init__(self, path: Path, begin: Callable[[], None], loop_class: type[asyncio.SelectorEventLoop]) -> None:
        self.wrong: list[str] = []
        self.never: list[str] = []  # what nothing excuses
        self.excused = self.failed_callbacks = 0
        self.path = path.__name__
        self.loop = loop_class(Patient())
        self.loop.set_exception_handler(self.report)
        sys.unraisablehook = self.unraisable

        async def life() -> None:
            begin()
            try:
                await path()
            finally:
                MEMORY.restore()

        task = self.loop.create_task(life())
        self.drive()
        MEMORY.restore()
        self.drive()
        self.judge(task)
        self.loop.close()

    def drive(self) -> None:
        """Until nothing is left to do."""
        while True:
            try:
                self.loop.run_forever()
            except MemoryError:
                self.excused += 1  # the loop itself: it has lost a callback
            except Idle:
                return

    def report(self, loop: Any, context: dict[str, Any]) -> None:
        """The loop's exception handler."""
        MEMORY.restore()
        error, message = context.get("exception"), context["message"]
        if isinstance(error, MemoryError):
            self.failed_callbacks += "Exception in callback" in message
        elif MEMORY.what == "life" and "has errored out but its parent task" in message:
            self.excused += 1  # its exit was broken off, or could not even be called
        elif isinstance(error, RuntimeError) and "never retrieved" in message:
            self.excused += 1  # what a stranger was told who waited for a slot, in a path that ended before it asked
        elif self.path == "eager_error" and isinstance(error, ValueError) and "never retrieved" in message:
            pass  # its task has failed before it could not be adopted: the error is not lost
        elif message != "Task was destroyed but it is pending!" and "cannot reuse already awaited" not in str(error):
            # (Those two are of a Task whose creation failed, before or after it had scheduled its first step.)
            self.wrong.append(f"{message}: {error!r}")

    def unraisable(self, unraisable: Any) -> None:
        """sys.unraisablehook."""
        error = unraisable.exc_value
        # (The second is of asyncio's Task in Python, half made; the third of what asyncio could not make a task for.)
        known = "attribute 'call_exception_handler'", "wait_for_slot' was never awaited", "__anext__' was never awaited"
        if not isinstance(error, MemoryError) and not any(text in str(error) for text in known):
            self.wrong.append(f"unraisable {unraisable.exc_value!r}")

    def judge(self, task: asyncio.Task[None]) -> None:
        """Is anything wrong, or left waiting without a reason?"""
        self.outcome = (
            "waits" if not task.done() else "cancelled" if task.cancelled() else type(task.exception()).__name__
        )
        if (MEMORY.raised and MEMORY.what.startswith("_Await")) or (
            self.outcome == "MemoryError" and MEMORY.what == "life"
        ):
            self.excused += 1  # the exit was broken off, or there was none; as in asyncio, the tasks go on
        if MEMORY.what == "life":
            self.excused += self.failed_callbacks  # never called, for all that is known
        groups: list[Any] = [op for op in gc.get_objects() if isinstance(op, OURS[0])]
        for group in groups:
            tasks, background, queued, _, running = counts = group._counts()
            if not tasks and (background or queued or running):
                self.never.append(f"a group without tasks has {counts}")
            if queued and running < group.concurrency_limit and not group._aborting:
                self.never.append(f"nobody got the slot that is free: {counts}")
            # Whoever waited for the end of a task could not be scheduled.
            self.excused += self.was_refused() and any(task.done() for task in group._tasks)
        MEMORY.groups.clear()
        waiting = asyncio.all_tasks(self.loop)
        for other in waiting:
            other._log_destroy_pending = False  # type: ignore[attr-defined]
            group = next((op for op in groups if other in op._tasks), None)
            nobody_left = group is not None and task.done() and not group._exiting
            self.excused += nobody_left or self.is_lost(other, half_made=group is None)
        if not self.excused:
            self.wrong += [f"{other} waits"[:300] for other in waiting]

    def was_refused(self) -> bool:
        """Did asyncio fail to schedule or to call something?  (Without memory call_soon() cannot even be called.)"""
        return MEMORY.refused + self.failed_callbacks > 0 or MEMORY.stop > MEMORY.first + 1

    def is_lost(self, task: Any, half_made: bool) -> bool:
        """Was it asyncio that could not let this task go on?  (Others may wait for it.)"""
        waits_for = task._fut_waiter
        if waits_for is None:
            return half_made
        if issubclass(type(waits_for), asyncio.Future):  # a turn only says so
            return waits_for.done()  # set_result() or cancel() could not schedule who waits
        if type(waits_for).__name__ == "_End":  # what a map waits on, like a future
            return waits_for._task.done() or waits_for._cancelled is not None or self.was_refused()
        if not isinstance(waits_for, OURS):
            return False
        # As with a future: who waits for a turn that has come or was cancelled could not be scheduled.  A turn that was
        # granted is tried again, unless there is no memory for that either.
        gone = ["<turn running>", "<turn cancelled>"]
        if MEMORY.stop > MEMORY.first + 1:
            gone.append("<turn granted>")
        if half_made:  # no task of the group's: it waits for a slot, until the next one comes back
            gone.append("<turn queued>")
        if self.was_refused() and repr(waits_for) in gone:
            return True
        # A Task that could not even be entered, which takes memory before 3.14.
        return sys.version_info < (3, 14) and self.failed_callbacks > 0


def run(path: Path, begin: Callable[[], None], loop_class: type[asyncio.SelectorEventLoop]) -> tuple[str, list[str]]:
    """The outcome, and what is wrong; anything that stays in memory is (asyncio leaks some of what it loses)."""
    run = Run(path, begin, loop_class)
    outcome = run.outcome + " (excused)" * (run.excused > 0)
    wrong, excused = run.never + run.wrong * (not run.excused), run.excused
    del run
    for _ in range(3):  # finalizers bring some back
        gc.collect()
    # deque.append() of CPython keeps a handle for ever if it can't have another block for it.
    if excused or any(isinstance(op, asyncio.Handle) for op in gc.get_objects()):
        gc.freeze()  # out of sight
        return outcome, wrong
    kinds = (*OURS, asyncio.Task, types.CoroutineType)
    stay = [op for op in gc.get_objects() if isinstance(op, kinds) and not is_half_made(op)]
    return outcome, wrong + [f"{op!r} stays"[:300] for op in stay]


def is_half_made(op: Any) -> bool:
    """Is it a Task whose creation failed, or its coroutine, which was closed?  asyncio leaks them on some versions."""
    coro = op.get_coro() if isinstance(op, asyncio.Task) and not op.done() else op
    return isinstance(coro, types.CoroutineType) and coro.cr_frame is None


def deque_leaks() -> bool:
    """CPython's deque.append() may keep what it fails to append (3.12.1's does), a handle of the loop's, say."""
    item = object()
    before = sys.getrefcount(item)
    full: deque[object] = deque()
    refused = 0
    while not refused:
        _testcapi.set_nomemory(0, 1)
        try:
            full.append(item)
        except MemoryError:
            refused += 1
        finally:
            _testcapi.remove_mem_hooks()
    return sys.getrefcount(item) - before > len(full)


DEQUE_LEAKS = deque_leaks()


def count_handles() -> int:
    """How many of the loops' handles there are."""
    return sum(isinstance(op, asyncio.Handle) for op in gc.get_objects())


def again(function: Callable[[], tuple[str, list[str]]]) -> list[str]:
    """The same failure again: what is wrong then, or that each run leaves something.

    CPython's free lists grow for hundreds of runs, and may so move the failure to a place that is excused.
    """
    for calls in (1, 1, 1, 1, 500, 500, 500):
        before, handles = COUNT(), count_handles()
        for _ in range(calls):
            outcome, wrong = function()
            if wrong or "excused" in outcome:
                return wrong
        if COUNT() - before < calls or (DEQUE_LEAKS and count_handles() - handles >= calls):
            return []
    return ["memory grows"]


def sweep(
    path: Path, positions: Iterator[Position], loop_class: type[asyncio.SelectorEventLoop], thorough: bool
) -> int:
    """Run every position; how many went wrong."""
    MEMORY.in_call(-1, 0, 1)
    _, usual = run(path, lambda: None, loop_class)
    if any("waits" in what for what in usual):
        print("leaves tasks behind by its nature")
        return 0
    [MemoryError() for _ in range(100)]  # fills CPython's free list of them
    gc.collect()
    gc.freeze()
    outcomes: Counter[str] = Counter()
    bad = 0
    for name, begin in positions:
        print(name, file=sys.stderr, flush=True)  # for a crash
        outcome, wrong = run(path, begin, loop_class)
        alone = MEMORY.stop == MEMORY.first + 1  # without memory at all, CPython itself leaves something
        if thorough and alone and not wrong and "excused" not in outcome:
            wrong = again(lambda: run(path, begin, loop_class))
        wrong = [what for what in wrong if what not in usual]
        outcomes[outcome] += 1
        if wrong:
            bad += 1
            print("", name, MEMORY.what, outcome, *wrong, sep="\n    ")
    print(dict(outcomes))
    return bad


def calls(stride: int) -> Iterator[Position]:
    """Each call, each allocation in it, alone and with those that follow."""
    call, calls = 0, 1
    while call < calls:
        yield f"call {call}, counted", functools.partial(MEMORY.in_call, call, len(NUMBERS), 0)
        calls = MEMORY.calls
        for first in range(0, len(NUMBERS) - MEMORY.left, stride or 1):
            yield f"call {call}, allocation {first}", functools.partial(MEMORY.in_call, call, first, first + 1)
            if not DEBUG:  # which asserts that it can unwind
                yield f"call {call}, from {first} on", functools.partial(MEMORY.in_call, call, first, first + MANY)
        call += max(1, calls // 80)  # of very many


def life(path: Path, stride: int) -> Iterator[Position]:
    """Each allocation from the beginning of the path on."""
    run(path, MEMORY.count, asyncio.SelectorEventLoop)
    for first in range(0, len(NUMBERS) - MEMORY.left, stride or 1):
        yield f"allocation {first}", functools.partial(MEMORY.at_once, first)


def import_again() -> int:
    """Import the C another time; the allocations that this took."""
    spec = importlib.util.find_spec("quattro._quattro")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    MEMORY.take()
    try:
        spec.loader.exec_module(module)
    finally:
        MEMORY.restore()
    return len(NUMBERS) - MEMORY.left


def imports(stride: int) -> int:
    """Fail at each allocation of an import; how many went wrong."""
    importlib.import_module("quattro._quattro")  # what it imports itself is there now

    MEMORY.in_call(-1, len(NUMBERS), 0)
    allocations = import_again()
    types_before = sum(isinstance(op, type) for op in gc.get_objects())
    outcomes: Counter[str] = Counter()
    bad = 0
    for first in range(0, allocations, stride or 1):
        for stop in (first + 1, first + MANY):
            print(f"import, allocations {first} to {stop}", file=sys.stderr, flush=True)  # for a crash
            MEMORY.in_call(-1, first, stop)
            try:
                import_again()
            except (MemoryError, SystemError) as error:
                # (The second where CPython forgets to set the first: PyType_FromModuleAndSpec() before 3.13, say.)
                outcomes[type(error).__name__] += 1
            else:
                outcomes["imported"] += 1
    gc.collect()
    bad += sum(isinstance(op, type) for op in gc.get_objects()) > types_before
    MEMORY.in_call(-1, len(NUMBERS), 0)
    import_again()
    print("import:", dict(outcomes), f"of {allocations}")
    return bad or not outcomes["MemoryError"]


def main(mode: str, stride: str, *names: str) -> int:
    """The command line."""
    global OURS
    warnings.simplefilter("error")
    if mode == "import":
        return imports(int(stride))
    if mode == "calls":
        import_watched()
    import leaks

    from quattro import TaskGroup, _quattro

    OURS = (TaskGroup, _quattro._Turn, _quattro._Await)  # type: ignore[attr-defined]
    if mode == "stock":
        leaks.TaskGroup = asyncio.TaskGroup  # type: ignore[misc,assignment]
    bad = 0
    for name in names or leaks.PATHS:
        if name in ("python_task", "callbacks_by_hand"):
            # asyncio's Task in Python loses itself when memory runs out in the middle of its own step; and in debug
            # mode tasks and handles keep the frames that made them.
            continue
        path = leaks.PATHS[name]
        print(name, end=": ")
        if mode == "calls":
            bad += sweep(path, calls(int(stride)), Loop, stride == "0")
        else:
            bad += sweep(path, life(path, int(stride)), asyncio.SelectorEventLoop, stride == "0")
    return bad


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) > 0)
