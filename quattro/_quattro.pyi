"""The C core, as far as the package itself uses it; the public surface is in __init__.pyi."""

from collections.abc import Coroutine, Generator
from typing import Any

from . import TaskGroup as TaskGroup
from . import TaskGroupStatistics as TaskGroupStatistics

class _Turn:
    def __await__(self) -> Generator[Any, None, Coroutine[Any, Any, Any]]: ...
    def end(self) -> None: ...
    def fail(self) -> None: ...

class _Await: ...
