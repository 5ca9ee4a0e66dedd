"""What the C has to say: its errors in words, with a note on what to do; and errors that only the loop is told of."""

from __future__ import annotations

from asyncio import Future
from functools import partial
from types import CodeType

TYPE_CHECKING = False  # typing's, without the time that importing it takes
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Any


def _report(loop: AbstractEventLoop, message: str, errors: Iterable[BaseException]) -> None:
    """Tell the loop's handler of each error, whatever it raises."""
    raised: BaseException | None = None
    for error in errors:
        try:
            loop.call_exception_handler({"message": message, "exception": error})
        except BaseException as again:
            raised = again
    try:
        if raised is not None:
            raise raised
    finally:
        del raised  # its frames lead to this one


def report_displaced(loop: AbstractEventLoop, errors: list[BaseException], base: BaseException) -> None:
    """Report the errors that a SystemExit or KeyboardInterrupt displaces; two tasks may have failed with the same."""
    displaced = dict(zip(map(id, errors), errors, strict=True))
    displaced.pop(id(base), None)
    message = f"unhandled error in a TaskGroup that raises {type(base).__name__} instead"
    _report(loop, message, displaced.values())


def report_lost(loop: AbstractEventLoop, errors: list[BaseException]) -> None:
    """Report the errors of a group that nobody has left."""
    _report(loop, "unhandled error in a TaskGroup that was never left", errors)


def report_late(loop: AbstractEventLoop, task: Task[Any], error: BaseException, parent: Task[Any] | None) -> None:
    """Report an error that comes when the parent has ended, as asyncio does."""
    message = f"Task {task!r} has errored out but its parent task {parent!r} is already completed"
    loop.call_exception_handler({"message": message, "exception": error, "task": task})


_ADVICE = {
    "has already been entered": "A group is used once: make a new one for each `async with`.",
    "has not been entered": "Use it inside `async with TaskGroup() as tg:`.",
    "is finished": "Its `async with` block has ended: create tasks inside it, or from the group's own tasks.",
    "is shutting down": "Its tasks are being cancelled: one of them or the body failed, it was cancelled from outside, "
    "or somebody called cancel(). The exit of the group raises the errors, if there are any.",
    "is stopping": "Its body and foreground tasks have ended, and its background tasks are being cancelled. What has "
    "to be done still can be a task made by create_task().",
}


def refusal(group: Any, why: str) -> RuntimeError:
    """Make asyncio's error for what a group can't do now, with a note on what to do."""
    error = RuntimeError(f"TaskGroup {group!r} {why}")
    stopping = why == "is shutting down" and not group._aborting
    if advice := _ADVICE.get("is stopping" if stopping else why):
        error.add_note(advice)
    return error


def low_limit() -> ValueError:
    """Make the error for a limit that nothing could run under."""
    error = ValueError("concurrency_limit must be >= 1")
    error.add_note("None means no limit.")
    return error


def not_a_coroutine(value: object) -> TypeError:
    """Make asyncio's error for what is no coroutine."""
    error = TypeError(f"a coroutine was expected, got {value!r}")
    if isinstance(value, Future):
        error.add_note("A future is awaited in a coroutine: async def wait(): return await future")
    return error


def given_exception(kind: Any, value: Any = None, traceback: TracebackType | None = None, /) -> BaseException:
    """Give the exception that throw() or __aexit__() is called with, where it is not an instance alone."""
    # Asked for its type: isinstance() believes what an object says of itself.
    error: BaseException = value
    if not issubclass(type(value), BaseException):
        is_class = isinstance(kind, type) and issubclass(kind, BaseException)
        error = kind if not is_class else kind() if value is None else kind(value)
    if not issubclass(type(error), BaseException):
        raise TypeError(f"an exception was expected, got {error!r}")
    # Not by a method of its own, which may return anything.
    return error if traceback is None else BaseException.with_traceback(error, traceback)


given_exception.__qualname__ = "throw"  # as it is called in the TypeError for a wrong number of arguments


def note_callable(error: TypeError, function: Callable[[], Any]) -> None:
    """Say below an error of a callable that was not even entered, or gave no coroutine, where it is defined."""
    if error.__traceback__ is not None:
        return
    inner: Any = function
    for _ in range(16):  # partials of partials, and no endless ring of them
        inner = inner.func if type(inner) is partial else inner
    code = getattr(inner, "__code__", None) or getattr(type(inner).__call__, "__code__", None)
    place = f", in {code.co_filename!r}, line {code.co_firstlineno}," if isinstance(code, CodeType) else ""
    error.add_note(f"{function!r}{place} is called without arguments and has to return a coroutine.")
