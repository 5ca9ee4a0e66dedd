"""A site to check: pydoc's pages of the standard library, several hundred, some with links to pages that do not exist.

They come from a process of its own, library_server.py: pydoc imports the modules, and some of them change a process.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from yarl import URL

SERVER = Path(__file__).with_name("library_server.py")


@asynccontextmanager
async def library_site() -> AsyncIterator[URL]:
    """Serve the pages from a port that is free."""
    command = [sys.executable, "-I", "-S", "-W", "ignore", str(SERVER)]
    server = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL)
    assert server.stdout is not None
    try:
        port = await server.stdout.readline()
        if not port:
            raise RuntimeError(f"the server of the site ended with {await server.wait()}")
        yield URL.build(scheme="http", host="127.0.0.1", port=int(port), path="/")
    finally:
        if server.returncode is None:
            server.kill()
            await server.wait()
