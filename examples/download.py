"""Download many files: ``python examples/download.py [--into FOLDER] [URL ...]``.

Every file is a task; the group runs ``--limit`` of them at a time. What they ask for is spread over time as well, at
``--rate`` requests a second: a background task hands out the permissions, another one draws the progress. Both live for
as long as there is something to download; nobody has to tell them to stop. A request that fails is repeated after a
pause that doubles; a file that cannot be had is told in the end, and keeps no other from coming.

Without a URL it downloads from a loopback server that is often too busy. Needs aiohttp and rich.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import NoReturn

from aiohttp import ClientError, ClientResponseError, ClientSession, ClientTimeout, TCPConnector, web
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from yarl import URL

from quattro import TaskGroup


class Downloader:
    """Downloads files into a folder, under the last part of their addresses."""

    session: ClientSession
    tg: TaskGroup

    def __init__(self, folder: Path, *, limit: int, rate: float, tries: int, pause: float, timeout: float) -> None:
        self.folder = folder
        self.limit = limit
        self.rate = rate
        self.tries = tries
        self.pause = pause
        self.timeout = ClientTimeout(total=None, connect=timeout, sock_read=timeout)
        self.permissions = asyncio.Semaphore(0)
        self.started: set[Path] = set()
        self.saved: list[Path] = []
        self.failed: dict[URL, str] = {}
        self.received = 0

    async def run(self, source: AbstractAsyncContextManager[list[URL]]) -> None:
        """Download all of it."""
        async with (
            source as urls,
            ClientSession(connector=TCPConnector(limit=0), timeout=self.timeout) as self.session,
            TaskGroup(concurrency_limit=self.limit) as self.tg,
        ):
            self.tg.create_background_task(self.hand_out_permissions)
            self.tg.create_background_task(self.draw_progress)
            for url in dict.fromkeys(urls):
                self.tg.create_task(self.download(url))

    async def hand_out_permissions(self) -> NoReturn:
        """Permit a request now and then, but don't save up what nobody wanted."""
        while True:
            if self.permissions.locked():
                self.permissions.release()
            await asyncio.sleep(1 / self.rate)

    async def draw_progress(self) -> NoReturn:
        """Draw what the group says of itself."""
        columns = BarColumn(), TextColumn("{task.description}"), DownloadColumn(), TransferSpeedColumn()
        with Progress(*columns, console=Console(stderr=True), auto_refresh=False, transient=True) as progress:
            files, size = progress.add_task(""), progress.add_task("", total=None)
            while True:
                now, done = self.tg.statistics(), len(self.saved) + len(self.failed)
                text = f"{done} done, {now.running} running, {now.queued} queued"
                progress.update(files, completed=done, total=done + now.running + now.queued, description=text)
                progress.update(size, completed=self.received, refresh=True)
                await asyncio.sleep(0.1)

    async def download(self, url: URL) -> None:
        """Download one file, in several tries if need be; it gets its name when it is complete."""
        path = self.folder / (url.raw_name or "index.html")
        part = path.with_name(path.name + ".part")
        if path in self.started:
            self.failed[url] = f"{path.name} is another one's name already"
            return
        self.started.add(path)
        try:
            await self.fetch_patiently(url, part)
            part.replace(path)
            self.saved.append(path)
        except (ClientError, OSError) as error:  # a timeout is an OSError
            self.failed[url] = str(error) or type(error).__name__
        finally:
            part.unlink(missing_ok=True)

    async def fetch_patiently(self, url: URL, path: Path) -> None:
        """Try to fetch a file until it works, or there is no hope left."""
        for retry in range(self.tries):
            if retry:
                await asyncio.sleep(self.pause * 2 ** (retry - 1) * random.uniform(1, 1.5))
            await self.permissions.acquire()
            try:
                return await self.fetch(url, path)
            except (ClientError, OSError) as error:
                hopeless = isinstance(error, ClientResponseError) and error.status < 500 and error.status != 429
                if hopeless or retry == self.tries - 1:
                    raise

    async def fetch(self, url: URL, path: Path) -> None:
        """Fetch a file as it comes; what a failed try brought does not count."""
        received = 0
        try:
            async with self.session.get(url, raise_for_status=True) as response:
                with path.open("wb") as file:
                    async for chunk in response.content.iter_any():
                        file.write(chunk)
                        received += len(chunk)
                        self.received += len(chunk)
        except BaseException:
            self.received -= received
            raise

    def print_report(self) -> None:
        """Print what could not be had, and how much there is."""
        for url, problem in self.failed.items():
            print(f"{url}: {problem}")
        print(f"{len(self.saved)} files, {self.received} bytes, {len(self.failed)} failed")


@asynccontextmanager
async def busy_server() -> AsyncIterator[list[URL]]:
    """Serve fifty files of up to 1 MB from a loopback port that is free, and be too busy every third time."""
    dice = random.Random(0)

    async def file(request: web.Request) -> web.Response:
        await asyncio.sleep(dice.uniform(0, 0.2))
        if dice.random() < 1 / 3:
            raise web.HTTPServiceUnavailable
        return web.Response(body=bytes(dice.randrange(1_000_000)))

    app = web.Application()
    app.router.add_get("/{name}", file)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        base = URL("http://{}:{}/".format(*runner.addresses[0]))
        yield [base / f"file-{n}.bin" for n in range(50)]
    finally:
        await runner.cleanup()


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Download many files.")
    parser.add_argument("urls", nargs="*", type=URL, metavar="URL", help="default: files of its own")
    parser.add_argument("--into", type=Path, default=Path("downloads"), help="folder (default: %(default)s)")
    parser.add_argument("--limit", type=int, default=10, help="downloads at a time (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=50, help="requests a second (default: %(default)s)")
    parser.add_argument("--tries", type=int, default=6, help="for each file (default: %(default)s)")
    parser.add_argument("--pause", type=float, default=0.1, help="seconds before the second try (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=30, help="seconds without data (default: %(default)s)")
    args = parser.parse_args()
    for url in args.urls:
        if not (url.scheme in ("http", "https") and url.host):
            parser.error(f"not an address to download from: {url}")
    if args.limit < 1 or args.rate <= 0 or args.tries < 1:
        parser.error("--limit and --tries must be at least 1, and --rate above 0")
    return args


def main() -> int:
    """Return the exit code: 1 if a file could not be had, 130 after Ctrl-C."""
    args = vars(parse_arguments())
    urls, folder = args.pop("urls"), args.pop("into")
    folder.mkdir(parents=True, exist_ok=True)
    downloader = Downloader(folder, **args)
    interrupted = False
    try:
        asyncio.run(downloader.run(nullcontext(urls) if urls else busy_server()))
    except KeyboardInterrupt:
        interrupted = True
    downloader.print_report()
    return 130 if interrupted else 1 if downloader.failed else 0


if __name__ == "__main__":
    sys.exit(main())
