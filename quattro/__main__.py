"""``python -m quattro``: what a bug report should say about the version, the build, the interpreter and the loop."""

from __future__ import annotations

import argparse
import asyncio
import platform
import signal
import sys
import sysconfig
from importlib import metadata

import quattro

from . import _quattro
from ._version import __version__


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


def mixed_up() -> str | None:
    """What to do if another project's package, which has the name quattro on the index, is installed into ours."""
    other = installed("quattro")
    if other == "none":
        return None
    ours = issubclass(quattro.TaskGroup, _quattro.TaskGroup)
    return (
        f"{other}, another project's, is installed in the same folder, and `import quattro` gives you "
        f"{'this one for now' if ours else 'that one'}. To have this one: python -m pip uninstall quattro quattro-c, "
        "then install quattro-c again."
    )


async def facts() -> dict[str, str]:
    """Everything that is printed; what it says of the loop is true of the one that it runs on."""
    loop = asyncio.get_running_loop()
    async with quattro.TaskGroup() as tg:
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
        "installed": installed("quattro-c", "quattro", "uvloop", "winloop", "anyio", "sentry-sdk", "ddtrace"),
    }


def main() -> None:
    """Print them, one a line; the status is 1 if two projects share the package's folder."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end quietly if nobody reads: `| head -1`
    parser = argparse.ArgumentParser(prog="python -m quattro", description="Print the facts that a bug report needs.")
    parser.add_argument("--version", action="version", version=f"quattro-c {__version__}")
    parser.parse_args()
    wrong = mixed_up()
    for name, value in asyncio.run(facts()).items():
        print(f"{name + ':':14}{value}")
    if wrong is not None:
        raise SystemExit(wrong)


if __name__ == "__main__":
    main()
