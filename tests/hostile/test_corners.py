"""Corners of the C that no other test gets to: wrong arguments, and what is got hold of while it is freed."""

from __future__ import annotations

import asyncio
import gc
import sys
import sysconfig
import warnings
from typing import Any

import pytest
from helpers import fail, noop, settle

from quattro import TaskGroup, _quattro


def test_methods_of_the_c_type_take_what_the_functions_take() -> None:
    """__aexit__() takes three arguments, and the functions of the class say what they miss, as any function does."""
    with pytest.raises(TypeError, match="takes 3 arguments"):
        _quattro.TaskGroup.__aexit__(TaskGroup())  # type: ignore[call-arg]
    for method in (TaskGroup.__aenter__, TaskGroup.wait_for_slot):
        with pytest.raises(TypeError, match="missing 1 required positional argument: 'self'"):
            method()  # type: ignore[call-arg]
    for bad in ((), (print, print), (noop, noop, 42)):
        with pytest.raises(TypeError, match="takes three functions"):
            _quattro._shorten(*bad)


async def test_methods_called_by_name() -> None:
    """Called with keywords, the functions run their own code, which does the same."""
    tg = TaskGroup()
    assert await TaskGroup.__aenter__(self=tg) is tg
    await TaskGroup.wait_for_slot(self=tg)
    await TaskGroup.__aexit__(tg, None, None, None)


def test_flag_whose_truth_cannot_be_told() -> None:
    """_parent_cancel_requested takes what has a truth value, and raises what it raises."""

    class Untrue:
        def __bool__(self) -> bool:
            raise LookupError("untrue")

    with pytest.raises(LookupError, match="untrue"):
        TaskGroup()._parent_cancel_requested = Untrue()  # type: ignore[attr-defined]


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What sys.unraisablehook was told of, and keeps."""
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: told.append(unraisable.object))
    return told


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
async def test_an_awaitable_that_is_kept_as_the_collector_frees_it() -> None:
    """It has warned, and can't be awaited any more: it would leave a trace in the group if it were dropped again."""

    class Keeper:
        def __del__(self) -> None:
            kept.append(self.waiting)

    kept: list[Any] = []
    async with TaskGroup(concurrency_limit=1) as tg:
        tg.create_task(settle(3))
        keeper: Any = Keeper()
        keeper.cycle, keeper.waiting = keeper, _quattro.TaskGroup.wait_for_slot(tg)
        del keeper
        gc.collect()
        with pytest.raises(RuntimeError, match="cannot reuse"):
            await kept.pop()


def test_awaitable_that_is_kept_while_it_is_freed(kept: list[Any]) -> None:
    """Whoever keeps an awaitable that warns, where warnings are errors, has one that can still be closed."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TaskGroup().__aenter__()  # type: ignore[unused-coroutine]
    (awaitable,) = kept
    awaitable.close()
    kept.clear()


@pytest.mark.loops("asyncio", "uvloop")
@pytest.mark.reports
async def test_group_that_is_kept_while_it_is_freed(kept: list[Any]) -> None:
    """An exception handler that raises is reported with the group, which lives as long as somebody keeps it."""
    loop = asyncio.get_running_loop()

    def refuse(_: object, context: dict[str, Any]) -> None:
        if "never left" in context["message"]:
            raise SystemExit("refused")

    loop.set_exception_handler(refuse)

    async def enter(by_a_task: bool) -> None:
        group: Any = await TaskGroup().__aenter__()
        if by_a_task:
            group.create_task(fail(ValueError()))
            await settle(3)
        else:
            group._errors.append(ValueError())  # without a task there is no cycle

    await asyncio.ensure_future(enter(False))
    with pytest.raises(asyncio.CancelledError):
        await asyncio.ensure_future(enter(True))
    for _ in range(2):
        gc.collect()
        await settle(1)
    assert [type(group) for group in kept] == [TaskGroup] * 2
    kept.clear()
    gc.collect()


@pytest.mark.skipif(not (3, 12) <= sys.version_info < (3, 14), reason="the loop makes eager tasks with every keyword")
@pytest.mark.loops("eager")
async def test_eager_loop_that_cannot_say_whether_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then create_task() raises what asyncio's would, and the coroutine is closed."""
    loop = asyncio.get_running_loop()
    if type(loop).__module__.startswith("uvloop"):
        return

    def unsure() -> None:
        raise LookupError("unsure")

    async with TaskGroup() as tg:
        coro = noop()
        with monkeypatch.context() as patch:
            patch.setattr(loop, "_check_closed", unsure)
            with pytest.raises(LookupError, match="unsure"):
                tg.create_task(coro, name="named")
        assert coro.cr_frame is None


@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    reason="the collector of free-threaded builds shows nobody its garbage",
)
async def test_group_whose_class_the_collector_has_cleared() -> None:
    """Code that runs while the collector has cleared a group's class, the group not yet, gets an AttributeError."""
    said: list[str] = []

    class Late:
        """Made while the garbage is finalized, this goes while the garbage is cleared."""

        def __del__(self) -> None:
            for op in gc.get_objects():
                if type(op) is super and type(group := super.__self__.__get__(op)).__name__ == "Cleared":  # type: ignore[attr-defined]
                    with pytest.raises(AttributeError, match="_on_task_done") as caught:
                        _quattro.TaskGroup.create_task(group, noop())
                    said.append(str(caught.value))

    class Early:
        def __init__(self, holder: list[Any]) -> None:
            self.holder = holder

        def __del__(self) -> None:
            self.holder.append(Late())

    async def leave_garbage() -> None:
        # The collector clears in this order, and nothing of the second, which leads to the group.
        group_type = type("Cleared", (TaskGroup,), {})
        early = super.__new__(super)
        holder: list[Any] = [early]
        group = group_type()
        early.__init__(group_type, group)  # type: ignore[misc]
        holder.append(Early(holder))
        await group.__aenter__()

    gc.collect()
    gc.disable()
    try:
        await leave_garbage()
        gc.collect()
    finally:
        gc.enable()
    assert said == ["'Cleared' object has no attribute '_on_task_done'"]
