"""A site to check: pydoc's pages of the standard library, several hundred, some with links to pages that do not exist.

It is served from a loopback port, and each answer comes a little late, as from a server far away.
"""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from tempfile import TemporaryDirectory

from aiohttp import web
from rich.console import Console
from rich.progress import Progress
from yarl import URL

from quattro import TaskGroup

DISTANCE = 0.05  # seconds to a server on another continent and back

# Modules that open a window or print, and those that are not on every machine.
NOT_IMPORTED = {"antigravity", "idlelib", "lib2to3", "test", "this", "tkinter", "turtle", "turtledemo"}

# Writes a page for each module that can be imported. What else pydoc links to is what the site has broken.
WRITE_DOCS = """
import contextlib, pkgutil, pydoc, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends this process
pydoc.inspect.getcomments = lambda thing: None  # it would parse a module once more for each of its classes
names = sys.argv[1:]
for name in names:  # it grows: the modules of a package come after it
    with contextlib.suppress(Exception):
        pydoc.writedoc(name)
        for module in pkgutil.iter_modules(getattr(sys.modules[name], "__path__", ()), name + "."):
            if not {"__main__", "test", "tests"} & set(module.name.split(".")):
                names.append(module.name)
"""


async def write_docs(folder: str, names: list[str]) -> None:
    """Have pydoc import modules in a process of its own, as there is no telling what they do to one."""
    command = [sys.executable, "-I", "-S", "-W", "ignore", "-c", WRITE_DOCS, *names]
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL)
    try:
        if await process.wait():
            raise RuntimeError(f"pydoc ended with {process.returncode}")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def write_site(folder: str) -> None:
    """Have the pages written by a process for each processor, and draw how far they are."""
    names, parts = sorted(sys.stdlib_module_names - NOT_IMPORTED), 16
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("pydoc writes the pages", total=parts)
        async with TaskGroup(concurrency_limit=os.cpu_count()) as tg:
            for part in range(parts):
                task = tg.create_task(write_docs(folder, names[part::parts]))
                task.add_done_callback(lambda _: progress.advance(bar))


@web.middleware
async def far_away(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer as late as a server far away."""
    await asyncio.sleep(DISTANCE)
    return await handler(request)


@asynccontextmanager
async def library_site() -> AsyncIterator[URL]:
    """Write the pages, and serve them from a port that is free."""
    with TemporaryDirectory() as folder:
        await write_site(folder)
        app = web.Application(middlewares=[far_away])
        app.router.add_static("/", folder, show_index=True)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield URL("http://{}:{}/".format(*runner.addresses[0]))
        finally:
            await runner.cleanup()
