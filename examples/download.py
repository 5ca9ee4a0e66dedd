"""Download many files: ``python examples/download.py [--into FOLDER] [URL ...]``.

Every file is a task; the group runs ``--limit`` of them at a time. Their requests are spread over time as well, at
``--rate`` a second. The progress is drawn by a background task, which lives for as long as there is something to
download; the group ends it. A request that fails is repeated after a pause that doubles. A file that cannot
be had cancels no other: the errors of the tasks are looked at in the end.

Without a URL it downloads from a loopback server that is often too busy. The exit code is 1 if a file could not be had,
and 130 after Ctrl-C, which lists what is missing. Needs aiohttp, aiolimiter, rich and stamina.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from errno import EEXIST
from pathlib import Path
from time import perf_counter
from typing import NoReturn

import stamina
from aiohttp import ClientSession, ClientTimeout, TCPConnector, web
from aiolimiter import AsyncLimiter
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from stamina.instrumentation import RetryDetails
from yarl import URL

from command_line import Parser, counted, positive, run, say, web_address, whole_number
from quattro import TaskGroup
from web_errors import WEB_ERRORS, in_words, may_pass


class Downloader:
    """Downloads files into a folder, under the last part of their addresses."""

    session: ClientSession
    tg: TaskGroup

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.rate = AsyncLimiter(1, 1 / args.rate)
        self.fetch_patiently = stamina.retry(
            on=may_pass, attempts=args.tries, timeout=None, wait_initial=args.pause, wait_jitter=args.pause, wait_max=60
        )(self.fetch)
        self.console = Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True)
        self.names: set[str] = set()
        self.tasks: dict[URL, asyncio.Task[None]] = {}
        self.received = 0
        self.retries = 0

    async def run(self, source: AbstractAsyncContextManager[list[URL]]) -> None:
        """Download all of it."""
        timeout = ClientTimeout(total=None, connect=self.args.timeout, sock_read=self.args.timeout)
        async with source as urls, ClientSession(connector=TCPConnector(limit=0), timeout=timeout) as self.session:
            try:
                async with TaskGroup(concurrency_limit=self.args.limit, cancel_on_error=False) as self.tg:
                    progress = self.tg.create_background_task(self.draw_progress)
                    self.tasks = {url: self.tg.create_task(self.save(url)) for url in dict.fromkeys(urls)}
            except* WEB_ERRORS:
                if not progress.cancelled():  # it has failed itself, and that is no file's error
                    raise
            await asyncio.sleep(0)  # if errors came together with Ctrl-C, the group leaves that to the next await

    async def draw_progress(self) -> NoReturn:
        """Draw what the group says of itself."""
        columns = BarColumn(12), TextColumn("{task.description}"), TimeElapsedColumn(), TimeRemainingColumn()
        with Progress(*columns, console=self.console, auto_refresh=False, transient=True) as progress:
            bar, began = progress.add_task(""), perf_counter()
            while True:
                now, total = self.tg.statistics(), len(self.tasks)
                size, speed = decimal(self.received), decimal(int(self.received / (perf_counter() - began)))
                done = total - now.running - now.queued
                text = f"{done} done, {now.running} running, {now.queued} queued, {size}, {speed}/s"
                progress.update(bar, completed=done, total=total, description=text, refresh=True)
                await asyncio.sleep(0.1)

    async def save(self, url: URL) -> None:
        """Save a file, in several tries if need be; it gets its name when it is complete."""
        name = url.raw_name or "index.html"
        if name in self.names:
            raise FileExistsError(EEXIST, "another one has the same name", name)
        self.names.add(name)
        part = self.args.into / f"{name}.part"
        try:
            await self.fetch_patiently(url, part)
            part.replace(self.args.into / name)
        finally:
            part.unlink(missing_ok=True)

    async def fetch(self, url: URL, path: Path) -> None:
        """Fetch a file as it comes; what a failed try brought does not count."""
        received = 0
        try:
            async with self.rate, self.session.get(url, raise_for_status=True) as response:
                with path.open("wb") as file:
                    async for chunk in response.content.iter_any():
                        file.write(chunk)
                        received += len(chunk)
                        self.received += len(chunk)
        except BaseException:
            self.received -= received
            raise

    def tell_retry(self, details: RetryDetails) -> None:
        """Print that a request has failed, and when it is repeated."""
        self.retries += 1
        problem = in_words(details.caused_by, timeout=self.args.timeout)
        self.console.print(f"{details.args[0]}: {problem}, next try in {details.wait_for:.1f} s")

    def print_report(self, *, interrupted: bool) -> int:
        """Print what could not be had, and how much there is; return the exit code."""
        saved = failed = missing = 0
        for url, task in self.tasks.items():
            if task.cancelled():
                missing += 1
                say(f"{url}: not downloaded")
            elif error := task.exception():
                failed += 1
                say(f"{url}: {in_words(error, timeout=self.args.timeout)}")
            else:
                saved += 1
        parts = [counted(saved, "file", "files"), counted(self.received, "byte", "bytes")]
        parts += [counted(self.retries, "retry", "retries"), f"{failed} failed"]
        if interrupted:
            parts.append(f"{missing} missing")
        say(("interrupted: " if interrupted else "") + ", ".join(parts))
        return 130 if interrupted else 1 if failed or missing else 0


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
    """Read the command line, and make the folder."""
    parser = Parser(description="Download many files.")
    add = parser.add_argument
    add("urls", nargs="*", type=web_address, metavar="URL", help="default: files of a server of its own")
    add("--into", type=Path, default=Path("downloads"), help="folder for the files (default: %(default)s)")
    add("--limit", type=whole_number(1), default=10, help="downloads at a time (default: %(default)s)")
    add("--rate", type=positive, default=50, help="requests a second (default: %(default)s)")
    add("--tries", type=whole_number(1), default=6, help="tries for each file (default: %(default)s)")
    add("--pause", type=positive, default=0.1, help="seconds before the second try, then longer (default: %(default)s)")
    add("--timeout", type=positive, default=30, help="seconds without data (default: %(default)s)")
    args = parser.parse_args()
    try:
        args.into.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"cannot make the folder {args.into}: {error.strerror}")
    return args


async def main(args: argparse.Namespace) -> int:
    """Return the exit code; there is a report after Ctrl-C, too."""
    downloader, interrupted = Downloader(args), False
    stamina.instrumentation.set_on_retry_hooks([downloader.tell_retry])
    try:
        await downloader.run(nullcontext(args.urls) if args.urls else busy_server())
    except asyncio.CancelledError:
        interrupted = True
    return downloader.print_report(interrupted=interrupted)


if __name__ == "__main__":
    sys.exit(run(main(parse_arguments())))
