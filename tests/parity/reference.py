"""The oracle: what ``quattro.TaskGroup`` promises, said in plain Python and as simply as it can be.

The algorithm is that of CPython 3.15.2's ``asyncio/taskgroups.py``, with background tasks, a concurrency limit, waiting
for a slot, errors that cancel nothing, and callables. It is slow, it is never shipped, and nothing in it is clever:
where it and the extension disagree about something that is promised, one of the two is wrong. How many passes of the
loop something takes is not promised, but for one thing: a task that waits in the queue takes its first step in the pass
after the one in which a slot came free.

A coroutine of a group without a limit is its task's own coroutine. Anything else (a callable, or a task of a group with
a limit) runs behind ``_run``, which waits for the task's turn: a future that has its result if there was a slot.
"""

from __future__ import annotations

import asyncio
import inspect
import operator
import sys
from asyncio import CancelledError, Future, Task
from collections import deque
from types import SimpleNamespace
from typing import Any, NamedTuple


class Statistics(NamedTuple):
    running: int
    queued: int
    background: int
    concurrency_limit: int | None


def _uncancel_disarms() -> bool:
    """Does Task.uncancel(), on reaching 0, take back a CancelledError that is still to be delivered? (From 3.13.)"""

    async def nothing() -> None: ...

    coro = nothing()
    loop = SimpleNamespace(call_soon=lambda *args, **kwargs: None, get_debug=lambda: False)
    task = Task(coro, loop=loop, name="probe")
    task._log_destroy_pending = False
    task.cancel()
    task.uncancel()
    coro.close()
    return not task._must_cancel


UNCANCEL_DISARMS = _uncancel_disarms()


def _close_if_unstarted(coro: Any) -> None:
    if inspect.iscoroutine(coro) and inspect.getcoroutinestate(coro) == inspect.CORO_CREATED:
        coro.close()


class ReferenceTaskGroup:
    def __init__(self, *, concurrency_limit: int | None = None, cancel_on_error: bool = True) -> None:
        if concurrency_limit is not None:
            concurrency_limit = operator.index(concurrency_limit)
            if concurrency_limit < 1:
                raise ValueError("concurrency_limit must be >= 1")
        self.concurrency_limit = concurrency_limit
        self.cancel_on_error = bool(cancel_on_error)
        self._entered = self._exiting = self._aborting = self._stopping = False
        self._cancel_on_enter = self._parent_cancel_requested = False
        self._loop: Any = None
        self._parent_task: Any = None
        # Sets that remember the order of joining, in which an abort cancels.
        self._tasks: dict[Task[Any], None] = {}  # all of them: foreground, queued, background
        self._background: dict[Task[Any], None] = {}
        self._errors: Any = []
        self._base_error: BaseException | None = None
        self._wake: Future[None] | None = None  # what __aexit__ waits for
        self._queue: deque[tuple[Task[Any], Future[None]]] = deque()
        self._slots: set[Future[None]] = set()  # the turns that were granted and have not ended
        self._granted: dict[Future[None], None] = {}  # those of them that came from the queue and have yet to move
        # Who waits for a slot, in order of arrival: the call, and what it waits on now.
        self._slot_waiters: dict[object, Future[None]] = {}
        self._jobs: dict[Task[Any], tuple[Any, Future[None]]] = {}  # those behind _run

    def __repr__(self) -> str:
        counts = {
            "tasks": self._tasks,
            "background": self._background,
            "queued": self._waiting(),
            "errors": self._errors,
        }
        info = [f" {what}={len(those)}" for what, those in counts.items() if those]
        info += [" cancelling"] if self._aborting else [" entered"] if self._entered else []
        return f"<TaskGroup{''.join(info)}>"

    def statistics(self) -> Statistics:
        running = self._foreground().difference(task for task, _ in self._queue)
        alive = [sum(not task.done() for task in tasks) for tasks in (running, self._waiting(), self._background)]
        return Statistics(*alive, self.concurrency_limit)

    # ---- enter and exit

    async def __aenter__(self) -> ReferenceTaskGroup:
        if self._entered:
            raise RuntimeError(f"TaskGroup {self!r} has already been entered")
        self._loop = asyncio.get_running_loop()
        self._parent_task = asyncio.current_task()
        if self._parent_task is None:
            raise RuntimeError(f"TaskGroup {self!r} cannot determine the parent task")
        self._entered = True
        if self._cancel_on_enter:
            self.cancel()
        return self

    async def __aexit__(self, et: Any, exc: BaseException | None, tb: Any) -> bool:
        try:
            return await self._exit(exc)
        finally:
            self._parent_task = self._errors = self._base_error = exc = None

    async def _exit(self, exc: BaseException | None) -> bool:
        self._exiting = True
        parent = self._parent_task
        if exc is not None and self._is_base_error(exc) and self._base_error is None:
            self._base_error = exc
        propagate = exc if isinstance(exc, CancelledError) else None  # a cancel that came from outside
        if exc is not None and not self._aborting:
            self._abort()

        interrupted = None
        while self._tasks:
            if not self._aborting and not self._foreground():
                self._stop_background()
            self._wake = self._loop.create_future()
            try:
                await self._wake
            except CancelledError as error:
                interrupted = error
                if not self._aborting:
                    propagate = error
                    self._abort()
            self._wake = None

        try:
            if self._parent_cancel_requested:
                if parent.uncancel() > 0:  # somebody else's cancel is there as well
                    propagate = propagate or interrupted
                else:
                    propagate = None
                    if parent._must_cancel:  # 3.11, 3.12: ours is still to be delivered; take it here
                        try:
                            await asyncio.sleep(0)
                        except CancelledError as error:
                            propagate = error if parent.cancelling() else None
            errors = list(self._errors)
            known = not self.cancel_on_error and any(error is exc for error in errors)  # the body awaited the task
            if exc is not None and not isinstance(exc, CancelledError) and not known:
                errors.append(exc)
            if self._base_error is not None:
                for error in {id(e): e for e in errors if e is not self._base_error}.values():
                    message = f"{error!r} was displaced by {self._base_error!r}"
                    self._loop.call_exception_handler({"message": message, "exception": error})
                raise self._base_error
            if propagate is not None and not self._errors:
                raise propagate
            if not errors:
                return True
            if parent.cancelling():  # cancelled from outside, and now an error hides it: cancel again
                if UNCANCEL_DISARMS:
                    self._cancel_again(parent)
                else:
                    self._loop.call_soon(self._cancel_again, parent)
            if len(errors) == 1 and isinstance(exc, GeneratorExit):
                raise exc
            raise BaseExceptionGroup("unhandled errors in a TaskGroup", errors) from None
        finally:
            propagate = interrupted = exc = error = errors = parent = None  # no reference cycles

    @staticmethod
    def _cancel_again(parent: Task[Any]) -> None:
        if parent.cancelling():
            parent.uncancel()
            parent.cancel()

    # ---- tasks

    def create_task(self, coro: Any, **kwargs: Any) -> Task[Any]:
        return self._create(coro, kwargs, background=False)

    def create_background_task(self, coro: Any, **kwargs: Any) -> Task[Any]:
        return self._create(coro, kwargs, background=True)

    def _create(self, coro: Any, kwargs: dict[str, Any], background: bool) -> Task[Any]:
        if not asyncio.iscoroutine(coro) and not callable(coro):
            raise TypeError(f"a coroutine was expected, got {coro!r}")
        try:
            self._check_open(background)
        except RuntimeError:
            _close_if_unstarted(coro)
            raise

        limit = None if background else self.concurrency_limit
        direct = limit is None and asyncio.iscoroutine(coro)
        turn = self._loop.create_future()
        queued = not background and not self._slot_is_free()
        if not queued:
            turn.set_result(None)
            if limit is not None:
                self._slots.add(turn)
        body = coro if direct else self._run(coro, turn)
        try:
            task = self._new_task(body, kwargs)
        except BaseException:
            _close_if_unstarted(body)
            _close_if_unstarted(coro)
            self._release(turn)
            raise
        if queued:
            self._queue.append((task, turn))
            self._grant()
        if not direct:
            self._jobs[task] = (coro, turn)
        if hasattr(asyncio, "future_add_to_awaited_by"):
            asyncio.future_add_to_awaited_by(task, self._parent_task)
        self._tasks[task] = None
        if background:
            self._background[task] = None
        task.add_done_callback(self._on_task_done)
        if task.done():  # it ran eagerly, to its end
            if task.cancelled() or not self._is_fatal(task.exception(), background):
                self._release(turn)
        elif self._aborting:
            task.cancel()  # it ran eagerly, and its first step aborted the group
        return task

    def _check_open(self, background: bool = False) -> None:
        if not self._entered:
            raise RuntimeError(f"TaskGroup {self!r} has not been entered")
        if self._exiting and not self._tasks:
            raise RuntimeError(f"TaskGroup {self!r} is finished")
        if self._aborting or (background and self._stopping):
            raise RuntimeError(f"TaskGroup {self!r} is shutting down")

    def _new_task(self, coro: Any, kwargs: dict[str, Any]) -> Task[Any]:
        kwargs = {key: value for key, value in kwargs.items() if value is not None}
        if "eager_start" in kwargs and (3, 12) <= sys.version_info < (3, 14) and not self._loop.get_task_factory():
            return Task(coro, loop=self._loop, **kwargs)  # loop.create_task does not know the keyword yet
        return self._loop.create_task(coro, **kwargs)

    async def _run(self, job: Any, turn: Future[None]) -> Any:
        try:
            await turn
            while turn in self._granted and next(iter(self._granted)) is not turn:
                await asyncio.sleep(0)  # those that were granted earlier go first
            self._granted.pop(turn, None)
            self._wake_slot_waiters()
            coro = job if asyncio.iscoroutine(job) else job()
            if not asyncio.iscoroutine(coro):
                raise TypeError(f"a coroutine was expected, got {coro!r}")
            result = await coro
        except CancelledError:
            self._release(turn)
            raise
        except Exception:
            if not self.cancel_on_error:  # if it does, the group acts on the error first, in _on_task_done
                self._release(turn)
            raise
        self._release(turn)
        return result

    def _on_task_done(self, task: Task[Any]) -> None:
        background = task in self._background
        self._tasks.pop(task, None)
        self._background.pop(task, None)
        if hasattr(asyncio, "future_discard_from_awaited_by"):
            asyncio.future_discard_from_awaited_by(task, self._parent_task)
        error = None if task.cancelled() else task.exception()
        fatal = self._is_fatal(error, background)
        coro, turn = self._jobs.pop(task, (None, None))
        if not fatal:
            self._release(turn)  # who waits for the slot goes before the parent
        if self._wake is not None and not self._wake.done() and not self._foreground():
            if not self._tasks or not (self._stopping or self._aborting):
                self._wake.set_result(None)
        if error is not None:
            self._on_error(task, error, fatal)
        _close_if_unstarted(coro)
        self._release(turn)

    def _is_fatal(self, error: BaseException | None, background: bool) -> bool:
        """Does this error abort the group?"""
        return error is not None and (self.cancel_on_error or background or not isinstance(error, Exception))

    def _on_error(self, task: Task[Any], error: BaseException, fatal: bool) -> None:
        finished = self._parent_task is None  # the exit was broken off
        if not finished:
            self._errors.append(error)
            if self._is_base_error(error) and self._base_error is None:
                self._base_error = error
        if finished or self._parent_task.done():
            message = f"Task {task!r} has errored out but its parent task {self._parent_task} is already completed"
            self._loop.call_exception_handler({"message": message, "exception": error, "task": task})
        elif fatal and not self._aborting and not self._parent_cancel_requested:
            self._abort()
            self._parent_cancel_requested = True
            self._parent_task.cancel()

    # ---- the limit

    def _foreground(self) -> set[Task[Any]]:
        return self._tasks.keys() - self._background.keys()

    def _waiting(self) -> list[Task[Any]]:
        """The queue, without those that were cancelled in it."""
        return [task for task, _ in self._queue if not task.cancelling()]

    def _slot_is_free(self) -> bool:
        """Would a foreground task start now, if it were created?"""
        limit = self.concurrency_limit
        return limit is None or (len(self._slots) < limit and not self._waiting() and not self._granted)

    async def wait_for_slot(self) -> None:
        me = object()
        try:
            self._check_open()
            while not self._slot_is_free():
                self._slot_waiters[me] = self._loop.create_future()  # in the old place, if this is not the first time
                await self._slot_waiters[me]
                self._check_open()
        finally:
            self._slot_waiters.pop(me, None)

    def _wake_slot_waiters(self) -> None:
        if self._aborting or self._slot_is_free():
            for waiter in self._slot_waiters.values():
                if not waiter.done():
                    waiter.set_result(None)

    def _release(self, turn: Future[None] | None) -> None:
        self._slots.discard(turn)
        self._granted.pop(turn, None)
        self._grant()
        self._wake_slot_waiters()

    def _grant(self) -> None:
        while self._queue and not self._aborting and len(self._slots) < (self.concurrency_limit or 1):
            task, turn = self._queue.popleft()
            if not task.cancelling():
                self._slots.add(turn)
                self._granted[turn] = None
                turn.set_result(None)

    # ---- the end

    @staticmethod
    def _is_base_error(exc: BaseException) -> bool:
        return isinstance(exc, (SystemExit, KeyboardInterrupt))

    def _stop_background(self) -> None:
        self._stopping = True
        for task in list(self._background):
            self._cancel_unless_ending(task)

    def _abort(self) -> None:
        again = self._aborting or self._stopping
        self._aborting = True
        for task in list(self._tasks):
            if task not in self._background:
                task.cancel()
            elif not again:
                self._cancel_unless_ending(task)
        self._wake_slot_waiters()

    def _cancel_unless_ending(self, task: Task[Any]) -> None:
        if task.done():
            return
        if task.cancelling():  # by somebody else, who may take that back
            self._loop.call_later(0.001, self._cancel_unless_ending, task)
        else:
            task.cancel()

    def cancel(self) -> None:
        if not self._entered:
            self._cancel_on_enter = True
        elif not self._aborting and not (self._exiting and not self._tasks):
            self._abort()
            if self._parent_task is not None and not self._parent_cancel_requested:
                self._parent_cancel_requested = True
                self._parent_task.cancel()
