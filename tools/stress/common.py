"""What the scenarios share: their options, threads, and the group that they try."""

from __future__ import annotations

import argparse
import asyncio
import sys
import sysconfig
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Event
from typing import Any, NoReturn

import quattro

parser = argparse.ArgumentParser()
parser.add_argument("--scale", type=float, default=1)
parser.add_argument("--stock", action="store_true")
OPTIONS = parser.parse_args()

HAS_GIL = getattr(sys, "_is_gil_enabled", lambda: True)()
if HAS_GIL:
    sys.setswitchinterval(1e-6)  # as many switches between threads as there can be
assert not (HAS_GIL and sysconfig.get_config_var("Py_GIL_DISABLED")), "the import of quattro has turned the GIL on"


class StockTaskGroup(asyncio.TaskGroup):
    """asyncio's, with the signatures of ours."""

    def __init__(self, *, concurrency_limit: int | None = None) -> None:
        super().__init__()

    def create_task(self, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
        return super().create_task(coro() if callable(coro) else coro, **kwargs)

    create_background_task = create_task


TaskGroup: Any = StockTaskGroup if OPTIONS.stock else quattro.TaskGroup


def rounds(n: int) -> int:
    """How often something is done at this scale, at least twice."""
    return max(2, int(n * OPTIONS.scale))


def not_applicable(why: str) -> NoReturn:
    """End this scenario as one that does not apply here."""
    print(why)
    raise SystemExit(77)


def in_threads(*functions: Callable[[], object]) -> None:
    """Run each in a thread of its own until all have ended; an error of any is raised."""
    with ThreadPoolExecutor(len(functions)) as pool:
        for future in [pool.submit(function) for function in functions]:
            future.result()


def attempt(action: Callable[[], object]) -> None:
    """Do this, and let any error be a fine answer."""
    with suppress(Exception, asyncio.CancelledError):
        action()


def until(stop: Event, *actions: Callable[[], object]) -> Callable[[], None]:
    """A function that does all this again and again until told to stop, whatever error it gets for an answer."""

    def run() -> None:
        while not stop.is_set():
            for action in actions:
                attempt(action)

    return run


def main(function: Callable[[], object], *others: Callable[[], None], stop: Event) -> None:
    """Run this while the others run in threads, and stop them then."""

    def first() -> None:
        try:
            function()
        finally:
            stop.set()

    in_threads(first, *others)
