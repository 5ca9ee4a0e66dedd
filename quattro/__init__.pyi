import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from types import TracebackType
from typing import Any, Self, SupportsIndex, TypeVar, final

__all__ = ["TaskGroup", "TaskGroupStatistics"]
__version__: str

_T = TypeVar("_T")

class TaskGroup(asyncio.TaskGroup):
    def __init__(self, *, concurrency_limit: SupportsIndex | None = None) -> None: ...
    @property
    def concurrency_limit(self) -> int | None: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(  # type: ignore[override]
        self, et: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None, /
    ) -> bool | None: ...
    def create_task(  # type: ignore[override]  # takes callables, not generators
        self,
        coro: Coroutine[Any, Any, _T] | Callable[[], Coroutine[Any, Any, _T]],
        *,
        name: str | None = None,
        context: Context | None = None,
        eager_start: bool | None = None,
        **kwargs: Any,
    ) -> asyncio.Task[_T]: ...
    def create_background_task(
        self,
        coro: Coroutine[Any, Any, _T] | Callable[[], Coroutine[Any, Any, _T]],
        *,
        name: str | None = None,
        context: Context | None = None,
        eager_start: bool | None = None,
        **kwargs: Any,
    ) -> asyncio.Task[_T]: ...
    def cancel(self) -> None: ...
    def statistics(self) -> TaskGroupStatistics: ...

@final
class TaskGroupStatistics(tuple[int, int, int, int | None]):
    @property
    def running(self) -> int: ...
    @property
    def queued(self) -> int: ...
    @property
    def background(self) -> int: ...
    @property
    def concurrency_limit(self) -> int | None: ...
