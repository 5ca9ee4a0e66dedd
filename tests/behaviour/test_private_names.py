"""What programs write to private names of asyncio's group works as it does there, or fails loudly."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest
from helpers import fail, forever, noop, settle

from quattro import TaskGroup

CLASSES = pytest.mark.parametrize("cls", [asyncio.TaskGroup, TaskGroup])


async def test_a_task_cannot_be_added_to_tasks() -> None:
    """``tg._tasks.add(task)`` (CPython 111838) is an error, for the group would not wait for it: _tasks is frozen."""
    async with TaskGroup() as tg:
        task = asyncio.ensure_future(noop())
        with pytest.raises(AttributeError):
            tg._tasks.add(task)
        with pytest.raises(AttributeError):
            tg._tasks = {task}
        member = tg.create_task(noop())
        background = tg.create_background_task(forever())
        assert tg._tasks == {member, background} and type(tg._tasks) is frozenset
    assert tg._tasks == frozenset() and task.result() == 1


@CLASSES
async def test_a_subclass_that_says_that_its_parent_is_cancelled(cls: Any) -> None:
    """``_parent_cancel_requested = True`` in __init__(): no error aborts the group, all are raised at its exit."""

    class Forgiving(cls):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._parent_cancel_requested = True

    done: list[int] = []

    async def job(number: int) -> None:
        await settle(3)
        done.append(number)

    with pytest.raises(ExceptionGroup) as caught:
        async with Forgiving() as tg:
            tg.create_task(fail(ValueError(1)))
            tg.create_task(job(2))
            tg.create_task(fail(ValueError(3), 2))
            await settle(5)
            done.append(4)
    assert [str(error) for error in caught.value.exceptions] == ["1", "3"] and done == [2, 4]
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0


@CLASSES
async def test_init_takes_back_what_a_subclass_has_written_before(cls: Any) -> None:
    """What is written before ``super().__init__()`` is gone after it."""

    class Early(cls):  # type: ignore[misc]
        def __init__(self) -> None:
            self._parent_cancel_requested = True
            super().__init__()

    group = Early()
    assert not group._parent_cancel_requested
    if hasattr(group, "cancel"):
        group.cancel()
        cls.__init__(group)
        assert not group._cancel_on_enter
    with pytest.raises(ExceptionGroup):
        async with group as tg:
            task = tg.create_task(forever())
            tg.create_task(fail(ValueError()))
    assert task.cancelled()


@CLASSES
async def test_on_task_done_is_looked_up_for_each_task(cls: Any) -> None:
    """``tg._on_task_done = spy`` is seen by the tasks that are created afterwards, and by no other."""
    seen: list[Any] = []

    async with cls() as tg:
        first = tg.create_task(noop())
        original = tg._on_task_done

        def spy(task: Any) -> None:
            seen.append(task)
            original(task)

        tg._on_task_done = spy
        second = tg.create_task(noop())
        del tg._on_task_done
        third = tg.create_task(noop())
        tg._on_task_done = spy
        fourth = tg.create_task(noop())
    assert seen == [second, fourth] and first.done() and third.done()


class Looked(TaskGroup):
    """A class in whose instances every attribute is looked up by a function of its own."""

    hook: Any = None

    def __getattribute__(self, name: str) -> Any:
        return Looked.hook if name == "_on_task_done" and Looked.hook else super().__getattribute__(name)


class Mixed(type("Mixin", (), {}), TaskGroup):  # type: ignore[misc]
    """A class that has TaskGroup as its second base."""


@pytest.mark.parametrize(
    ("cls", "where"),
    [
        (TaskGroup, lambda tg: vars(tg)),
        (TaskGroup, lambda _: TaskGroup),
        (Mixed, lambda _: Mixed),
        (Mixed, lambda _: Mixed.__bases__[0]),
        (Looked, lambda _: Looked),
    ],
    ids=["dict", "class", "subclass", "mixin", "getattribute"],
)
async def test_on_task_done_is_found_wherever_it_is(cls: Any, where: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook that is put into the instance's dict, or into a class while the group is open, is seen from then on."""
    seen: list[Any] = []
    async with cls() as tg:
        tg.create_task(noop())
        original = tg._on_task_done

        def spy(*args: Any) -> None:
            seen.append(args[-1])
            original(args[-1])

        if isinstance(where(tg), dict):
            monkeypatch.setitem(where(tg), "_on_task_done", spy)
        else:
            monkeypatch.setattr(where(tg), "hook" if cls is Looked else "_on_task_done", spy, raising=False)
        task = tg.create_task(noop())
    assert seen == [task]


async def test_a_group_has_a_dict() -> None:
    """Attributes are set, listed, deleted, replaced and let go as on any object; its own are not among them."""
    tg: Any = TaskGroup()
    assert vars(tg) == {}
    tg.mine = 1
    assert vars(tg) == {"mine": 1} and tg.mine == 1
    tg.__dict__ = {"other": 2}
    assert tg.other == 2 and not hasattr(tg, "mine")
    del tg.other
    assert not hasattr(tg, "other")
    async with tg:
        tg.create_task(noop())
    await settle(1)  # the loop has let go of the callback that woke us
    held = object()
    count = sys.getrefcount(held)
    tg.held = held
    del tg
    assert sys.getrefcount(held) == count


@pytest.mark.parametrize("limit", [1, 2])
async def test_on_task_done_is_looked_up_for_queued_tasks_too(limit: int) -> None:
    """A task that has to queue tells whoever was there when it was created; the slots go on."""
    seen: list[Any] = []
    async with TaskGroup(concurrency_limit=limit) as tg:
        tasks = [tg.create_task(noop()) for _ in range(3)]
        original = tg._on_task_done

        def spy(task: Any) -> None:
            seen.append(task)
            original(task)

        tg._on_task_done = spy  # type: ignore[method-assign]
        watched = [tg.create_task(noop()) for _ in range(3)]
        del tg._on_task_done
        tasks += [tg.create_task(noop()) for _ in range(3)]
    assert seen == watched and all(task.result() == 1 for task in tasks)


@CLASSES
async def test_a_task_that_is_done_is_not_cancelled(cls: Any) -> None:
    """An abort cancels the tasks that are not done: a Task class that overrides cancel() is not called for others."""
    cancelled: list[str] = []

    class Task(asyncio.Task):  # type: ignore[type-arg]
        def cancel(self, msg: Any = None) -> bool:
            cancelled.append(self.get_name())
            return super().cancel(msg)

    loop = asyncio.get_running_loop()
    previous = loop.get_task_factory()
    loop.set_task_factory(lambda loop, coro, **kwargs: Task(coro, loop=loop, **kwargs))
    try:
        with pytest.raises(ExceptionGroup):
            async with cls() as tg:
                for name in ("waits", "fails", "ends"):
                    coro = {"waits": forever, "ends": noop}.get(name, lambda: fail(ValueError()))()
                    tg.create_task(coro, name=name)
    finally:
        loop.set_task_factory(previous)
    assert cancelled == ["waits"]


async def test_a_name_of_ours_that_a_subclass_takes() -> None:
    """A subclass may have an attribute that is called as the one private method that asyncio's group has not."""

    class Counting(TaskGroup):
        def __init__(self) -> None:
            super().__init__()
            self._counts: dict[str, int] = {}

    async with Counting() as tg:
        tg.create_task(noop())
        assert repr(tg) == "<TaskGroup tasks=1 entered>" and tg.statistics().running == 1
    with pytest.raises(RuntimeError, match="is finished"):
        tg.create_task(noop())


def test_reload_after_asyncio_has_been_given_the_group() -> None:
    """importlib.reload(quattro) after ``asyncio.TaskGroup = quattro.TaskGroup``, as in notebooks, makes it anew."""
    program = """
import asyncio, importlib, quattro
asyncio.TaskGroup = asyncio.taskgroups.TaskGroup = quattro.TaskGroup
for _ in range(2):
    importlib.reload(quattro)
    asyncio.TaskGroup = quattro.TaskGroup

async def main():
    async with asyncio.TaskGroup() as tg:
        task = tg.create_task(asyncio.sleep(0, 42))
    print(task.result(), [cls.__module__ for cls in type(tg).__mro__])

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True)
    assert done.stderr == "" and done.stdout.startswith("42 ['quattro', 'quattro._quattro', 'asyncio.taskgroups'")
