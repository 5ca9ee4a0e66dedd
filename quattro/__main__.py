"""``python -m quattro``: what a bug report should say about the version, the build, the interpreter and the loop."""

from __future__ import annotations

import asyncio
import platform
import sys
import sysconfig
from importlib import metadata

from . import TaskGroup, __version__, _quattro


def name_of(thing: object) -> str:
    """Where a class or function comes from, and its name."""
    module = getattr(thing, "__module__", None) or type(thing).__module__
    return f"{module}.{getattr(thing, '__qualname__', type(thing).__qualname__)}"


def build() -> str:
    """The interpreter: its version and how it was built."""
    words = [platform.python_implementation(), *sys.version.split()]
    if hasattr(sys, "gettotalrefcount"):
        words.append("debug build")
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        words.append("GIL on" if sys._is_gil_enabled() else "GIL off")  # type: ignore[attr-defined,unused-ignore]
    return " ".join(words)


def installed(*distributions: str) -> str:
    """The versions of those that are there."""
    found = []
    for name in distributions:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(found) or "none"


async def facts() -> dict[str, str]:
    """Everything that is printed; what it says of the loop is true of the one that it runs on."""
    loop = asyncio.get_running_loop()
    async with TaskGroup(concurrency_limit=1) as tg:
        task = tg.create_task(asyncio.sleep(0))
    factory = loop.get_task_factory()
    return {
        "quattro": __version__,
        "extension": str(_quattro.__file__),
        "python": build(),
        "platform": f"{platform.platform()} ({sysconfig.get_platform()})",
        "loop": name_of(type(loop)) + (", debug mode" if loop.get_debug() else ""),
        "create_task": name_of(loop.create_task),
        "task factory": "none" if factory is None else name_of(factory),
        "task": name_of(type(task)),
        # Another project has the same name on the package index: its version here would tell a mix-up.
        "installed": installed("quattro", "uvloop", "winloop", "anyio", "sentry-sdk", "ddtrace"),
    }


def main() -> None:
    """Print them, one a line."""
    for name, value in asyncio.run(facts()).items():
        print(f"{name + ':':14}{value}")


if __name__ == "__main__":
    main()
