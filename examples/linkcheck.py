"""Check every link of a web site: ``python examples/linkcheck.py [URL]``.

Each link is a task, made by the page that it stands on; the group runs ``--limit`` of them at a time, in the order in
which they were found, and leaves when the last one is done. The progress is drawn by a background task, which lives for
as long as there is work: the group ends it, nobody has to tell it to stop.

Without a URL the site is pydoc's account of the standard library, served from a loopback port: several hundred pages,
some of which link to pages that do not exist. The exit code is 1 if a link is broken, and 130 after Ctrl-C.

Needs aiohttp and rich.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from html.parser import HTMLParser
from tempfile import TemporaryDirectory

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector, web
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column, Table
from yarl import URL

from quattro import TaskGroup


class LinkChecker:
    """What is known of a site so far, so that it can be told at any time, Ctrl-C included."""

    start: URL
    site: URL
    session: ClientSession
    tg: TaskGroup

    def __init__(self, *, limit: int, timeout: float, external: bool) -> None:
        self.limit = limit
        self.timeout = ClientTimeout(total=timeout)
        self.external = external
        self.found_on: dict[URL | str, set[URL]] = {}  # every link, and the pages that it stands on
        self.redirects: dict[URL, URL] = {}
        self.broken: dict[URL | str, str] = {}  # a link, and what is wrong with it
        self.checked = 0
        self.skipped = 0

    async def run(self, address: AbstractAsyncContextManager[URL]) -> None:
        """Check the site: all that the group has to be told is where to begin."""
        async with (
            address as self.start,
            ClientSession(connector=TCPConnector(limit=0), timeout=self.timeout) as self.session,
            TaskGroup(concurrency_limit=self.limit) as self.tg,
        ):
            self.site = self.start.origin()
            self.tg.create_background_task(self.draw_progress())
            self.follow(str(self.start), page=self.start)

    async def draw_progress(self) -> None:
        """Draw what the group says of itself, until it ends this task after the last of the others."""
        columns = BarColumn(), TextColumn("{task.description}")
        with Progress(*columns, console=Console(stderr=True), auto_refresh=False, transient=True) as progress:
            bar = progress.add_task("")
            while True:
                now = self.tg.statistics()
                total = self.checked + now.running + now.queued
                text = f"{self.checked} done, {now.running} running, {now.queued} queued"
                progress.update(bar, completed=self.checked, total=total, description=text, refresh=True)
                await asyncio.sleep(0.1)

    def follow(self, href: str, *, page: URL, base: str = "") -> URL | None:
        """Make a task for a link unless it has one, which is what keeps a site of circles finite."""
        try:
            link = page.join(URL(base)).join(URL(href.strip())).with_fragment(None)
        except ValueError as error:
            self.found_on.setdefault(href, set()).add(page)
            self.broken[href] = f"not a URL: {error}"
            return None
        if link.scheme not in ("http", "https"):
            return None
        if link not in self.found_on:
            if self.external or link.origin() == self.site:
                self.tg.create_task(self.check(link))
            else:
                self.skipped += 1
        self.found_on.setdefault(link, set()).add(page)
        return link

    async def check(self, link: URL) -> None:
        """Ask for one link; whatever goes wrong is a finding, and no reason to stop the others."""
        try:
            problem = await (self.check_page(link) if link.origin() == self.site else self.check_external(link))
        except (ClientError, OSError, ValueError, AssertionError) as error:
            # A timeout is an OSError, an impossible host name a ValueError, and an older html.parser may assert.
            problem = str(error) or type(error).__name__
        if problem:
            self.broken[link] = problem
        self.checked += 1

    async def check_page(self, link: URL) -> str | None:
        """Ask for a page of the site and follow its links; return what is wrong with it."""
        async with self.session.get(link, allow_redirects=False) as response:
            if response.status >= 400:
                return f"{response.status} {response.reason}"
            if response.status >= 300 and "Location" in response.headers:
                return self.check_redirect(link, response.headers["Location"])
            if response.content_type in ("text/html", "application/xhtml+xml"):
                found = LinkParser()
                found.feed(await response.text(errors="replace"))
                for href in found.hrefs:
                    self.follow(href, page=link, base=found.base)
            return None

    def check_redirect(self, link: URL, location: str) -> str | None:
        """Treat a redirect as one more link, so that its target is asked for once; return what is wrong with it."""
        if link == self.start:  # the site is where its address leads: https, www
            self.start = link.join(URL(location))
            self.site = self.start.origin()
        target = hop = self.follow(location, page=link)
        while hop in self.redirects:
            hop = self.redirects[hop]
        if hop == link:
            return "redirects in a circle"
        if target is not None:
            self.redirects[link] = target
        return None

    async def check_external(self, link: URL) -> str | None:
        """Ask for the headers of a page elsewhere, or for all of it where HEAD is refused; return what is wrong."""
        for method in ("HEAD", "GET"):
            async with self.session.request(method, link) as response:
                if response.ok:
                    return None
        return f"{response.status} {response.reason}"

    def print_report(self) -> None:
        """Print what is broken, and how much was looked at to know it."""
        console = Console(markup=False, emoji=False, highlight=False)
        if self.broken:
            table = Table(*(Column(title, overflow="fold") for title in ("Broken link", "Problem", "On page")))
            for link, problem in sorted(self.broken.items(), key=str):
                page, *others = sorted(page.path_qs for page in self.found_on[link])
                path = str(link).removeprefix(str(self.site))
                table.add_row(path, problem, f"{page} and {len(others)} more" if others else page)
            console.print(table)
        console.print(f"{self.checked} links checked, {len(self.broken)} broken, {self.skipped} to other sites skipped")


class LinkParser(HTMLParser):
    """Collects whatever a page refers to: pages, pictures, scripts, styles."""

    def __init__(self) -> None:
        super().__init__()
        self.base = ""
        self.hrefs: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag's address, unless it is a mere hint at a host."""
        values = dict(attrs)
        href = values.get("href") or values.get("src")
        if not href or values.get("rel") in ("preconnect", "dns-prefetch"):
            return
        if tag == "base":
            self.base = href
        else:
            self.hrefs.append(href)


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


@asynccontextmanager
async def library_site() -> AsyncIterator[URL]:
    """Serve pydoc's pages of the standard library, from a loopback port that is free."""
    print("pydoc writes the pages of the standard library ...", file=sys.stderr, flush=True)
    names, parts = sorted(sys.stdlib_module_names - NOT_IMPORTED), 8
    with TemporaryDirectory() as folder:
        async with TaskGroup(concurrency_limit=os.cpu_count()) as tg:
            for part in range(parts):
                tg.create_task(write_docs(folder, names[part::parts]))
        app = web.Application()
        app.router.add_static("/", folder, show_index=True)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield URL("http://{}:{}/".format(*runner.addresses[0]))
        finally:
            await runner.cleanup()


def parse_arguments() -> argparse.Namespace:
    """Read the command line; links to other sites are asked for where a network can be expected: with a URL."""
    parser = argparse.ArgumentParser(description="Check every link of a web site.")
    parser.add_argument("url", nargs="?", type=URL, metavar="URL", help="default: the standard library's pages")
    parser.add_argument("--limit", type=int, default=20, help="requests at a time (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=10, help="seconds for a request (default: %(default)s)")
    parser.add_argument("--external", action=argparse.BooleanOptionalAction, help="check links to other sites, too")
    args = parser.parse_args()
    if args.url and not (args.url.scheme in ("http", "https") and args.url.host):
        parser.error(f"not the address of a web site: {args.url}")
    if args.limit < 1:
        parser.error("--limit must be at least 1")
    if args.external is None:
        args.external = bool(args.url)
    return args


def main() -> int:
    """Return the exit code; the report is due even if somebody could not wait for all of it."""
    args = parse_arguments()
    checker = LinkChecker(limit=args.limit, timeout=args.timeout, external=args.external)
    interrupted = False
    try:
        asyncio.run(checker.run(nullcontext(args.url) if args.url else library_site()))
    except KeyboardInterrupt:
        interrupted = True
    checker.print_report()
    return 130 if interrupted else 1 if checker.broken else 0


if __name__ == "__main__":
    sys.exit(main())
