"""Check every link of a web site: ``python examples/linkcheck.py [URL]``.

Each link is a task, made by the page that it stands on; the group runs ``--limit`` of them at a time, in the order in
which they were found, and leaves when the last one is done. The progress is drawn by a background task, which lives for
as long as there is work: the group ends it, and no code has to stop it.

Without a URL the site is pydoc's account of the standard library, served from a loopback port. The exit code is 1 if a
link is broken, and 130 after Ctrl-C, which gives the report so far.

Needs aiohttp, lxml, rich and stamina.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import re
import sys
from collections import Counter, defaultdict
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from pathlib import Path
from time import perf_counter

import stamina
from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column, Table
from yarl import URL

from command_line import Parser, counted, positive, regex, run, web_address, whole_number
from library_site import library_site
from page import MAX_SIZE, Page, read_page
from quattro import TaskGroup
from web_errors import WEB_ERRORS, in_words, may_pass

MAX_REDIRECTS = 10  # in a row
SAMPLE = 20  # links that are asked for once more, one at a time, to compare


class RedirectsError(ClientError):
    """Redirects lead nowhere."""


class LinkChecker:
    """What is known of a site so far, to be reported at any time, after Ctrl-C as well."""

    start: URL
    site: URL
    session: ClientSession
    tg: TaskGroup

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.patiently = stamina.AsyncRetryingCaller(attempts=1 + args.retries, timeout=None).on(may_pass)
        self.hosts: dict[str | None, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(args.per_host))
        self.found_on: dict[URL | str, set[URL]] = defaultdict(set)  # every link, and the pages that it stands on
        self.accepted: set[URL] = set()  # the links that have a task
        self.skipped: dict[URL, str] = {}  # those that have none, and why
        self.checked = 0
        self.healthy: list[URL] = []
        self.broken: dict[URL | str, str] = {}  # a link, and what is wrong with it
        self.ids: dict[URL, set[str]] = {}  # of a page that was read, for links to a part of it
        self.cut_off = 0
        self.comparison = ""

    async def run(self, address: AbstractAsyncContextManager[URL]) -> None:
        """Check the site: the first link is enough, since each page adds its own."""
        timeout = ClientTimeout(total=self.args.timeout)
        async with (
            address as self.start,
            ClientSession(connector=TCPConnector(limit=0), timeout=timeout) as self.session,
        ):
            self.site = self.start.origin()
            began = perf_counter()
            async with TaskGroup(concurrency_limit=self.args.limit) as self.tg:
                self.tg.create_background_task(self.draw_progress())
                self.follow(self.start, page=self.start, depth=0)
            await self.compare(self.checked / (perf_counter() - began))

    async def draw_progress(self) -> None:
        """Draw what the group says of itself, until it ends this task after the last of the others."""
        columns = BarColumn(12), TextColumn("{task.description}"), TimeElapsedColumn(), TimeRemainingColumn()
        with Progress(*columns, console=Console(stderr=True), auto_refresh=False, transient=True) as progress:
            bar, began = progress.add_task(""), perf_counter()
            while True:
                now, rate = self.tg.statistics(), self.checked / (perf_counter() - began)
                text = f"{self.checked} done, {now.running} running, {now.queued} queued, {rate:.0f}/s"
                progress.update(bar, completed=self.checked, total=len(self.accepted), description=text, refresh=True)
                await asyncio.sleep(0.1)

    def follow(self, link: URL, *, page: URL, depth: int) -> None:
        """Make a task for a link unless it has one, which is what keeps a site of circles finite."""
        self.found_on[link].add(page)
        link = link.with_fragment(None)
        self.found_on[link].add(page)
        if link in self.accepted or link in self.skipped:
            return
        if why := self.reason_to_skip(link):
            self.skipped[link] = why
        else:
            self.accepted.add(link)
            self.tg.create_task(self.check(link, depth))

    def reason_to_skip(self, link: URL) -> str | None:
        """Return why the options leave a link out, if they do."""
        if any(pattern.search(str(link)) for pattern in self.args.exclude):
            return "excluded"
        if not self.args.external and link.origin() != self.site:
            return "to other sites skipped"
        if len(self.accepted) >= self.args.max_pages:
            return "left out because of --max-pages"
        return None

    async def check(self, link: URL, depth: int) -> None:
        """Ask for one link; whatever goes wrong is a finding, and no reason to stop the others."""
        page = None
        try:
            page = await self.patiently(self.visit, link)
            self.healthy.append(link)
        except WEB_ERRORS as error:
            self.broken[link] = in_words(error, timeout=self.args.timeout)
        self.checked += 1
        if page is not None:
            self.note(page, link, depth)

    def note(self, page: Page, link: URL, depth: int) -> None:
        """Keep what links may point to in a page that a link led to, and follow its links."""
        if page.whole:
            self.ids[link] = page.ids
        else:
            self.cut_off += 1
        if depth < self.args.depth:
            for other in page.links:
                self.follow(other, page=page.url, depth=depth + 1)
            for href, problem in page.malformed.items():
                self.found_on[href].add(page.url)
                self.broken[href] = problem

    async def visit(self, link: URL) -> Page | None:
        """Ask for a link, and for whatever it redirects to; return the page of the site that it leads to, if any."""
        hops = [link]
        while len(hops) <= MAX_REDIRECTS:
            url = hops[-1]
            if url.origin() != self.site:
                if self.args.external:
                    await self.visit_elsewhere(url)
                return None
            async with self.hosts[url.host], self.session.get(url, allow_redirects=False) as response:
                response.raise_for_status()
                if response.status < 300 or "Location" not in response.headers:
                    return await read_page(response)
                hops.append(url.join(URL(response.headers["Location"])))
            if link == self.start:  # the site is where its address leads: https, www
                self.site = hops[-1].origin()
        ends = "in a circle" if len(set(hops)) < len(hops) else f"more than {MAX_REDIRECTS} times"
        raise RedirectsError(f"redirects {ends}")

    async def visit_elsewhere(self, url: URL) -> None:
        """Ask for the headers of a page of another site, or for all of it where that is refused."""
        for method in ("HEAD", "GET"):
            async with self.hosts[url.host], self.session.request(method, url, max_redirects=MAX_REDIRECTS) as response:
                if response.ok:
                    return
        response.raise_for_status()

    async def compare(self, rate: float) -> None:
        """Ask for a few links once more, one after the other, to show what the limit gains."""
        if self.args.limit == 1 or len(self.healthy) <= self.args.limit:
            return
        count, seconds, began = 0, 0.0, perf_counter()
        with suppress(*WEB_ERRORS):
            while seconds < 1 and count < SAMPLE:
                await self.visit(self.healthy[count * len(self.healthy) // SAMPLE])
                count, seconds = count + 1, perf_counter() - began
            self.comparison = (
                f"{rate:,.1f} links/s at a limit of {self.args.limit}, "
                f"{count / seconds:,.1f} one at a time (measured on {count} of them)"
            )

    def check_fragments(self) -> None:
        """Find the links to parts of pages that do not have them."""
        for link in self.found_on:
            if isinstance(link, URL) and re.match(r"(?!top$|/|!|:~:).", link.fragment):  # scripts make #/ and #!
                ids = self.ids.get(link.with_fragment(None))
                if ids is not None and link.fragment not in ids:
                    self.broken[link] = "the page has no such id"

    def summary(self, *, interrupted: bool) -> str:
        """Say in a line how much was looked at."""
        total = len(self.accepted)
        links = f"interrupted: {self.checked} of {total}" if interrupted else counted(total, "link", "links")
        parts = [f"{links} checked"]
        parts.append(f"{len(self.broken)} broken")
        parts += [f"{count} {why}" for why, count in Counter(self.skipped.values()).items()]
        if self.cut_off:
            parts.append(f"{self.cut_off} read no further than {MAX_SIZE:,} bytes")
        return ", ".join(parts)

    def print_report(self, *, interrupted: bool) -> None:
        """Print what is broken, and how much was looked at to know it."""
        console = Console(markup=False, emoji=False, highlight=False)
        if self.broken:
            table = Table(*(Column(title, overflow="fold") for title in ("Broken link", "Problem", "On page")))
            for link, problem in sorted(self.broken.items(), key=lambda item: str(item[0])):
                page, *others = sorted(map(self.short, self.found_on[link] - {link})) or ["the command line"]
                table.add_row(self.short(link), problem, f"{page} and {len(others)} more" if others else page)
            console.print(table)
        console.print(self.summary(interrupted=interrupted))
        if self.comparison:
            console.print(self.comparison)

    def short(self, link: URL | str) -> str:
        """Name a link without what is the same for all of the site."""
        inside = isinstance(link, URL) and link.origin() == self.site
        return str(link).removeprefix(str(self.site)) if inside else str(link)

    def write_json(self, path: Path, *, interrupted: bool) -> None:
        """Write what is broken, and where, for other programs."""
        broken = [
            {"link": str(link), "problem": problem, "pages": sorted(map(str, self.found_on[link]))}
            for link, problem in sorted(self.broken.items(), key=lambda item: str(item[0]))
        ]
        found = {
            "interrupted": interrupted,
            "checked": self.checked,
            "broken": broken,
            "skipped": Counter(self.skipped.values()),
        }
        path.write_text(json.dumps(found, indent=2) + "\n")


def parse_arguments() -> argparse.Namespace:
    """Read the command line; without a URL no network is needed, and pydoc's many links to missing parts are spared."""
    parser = Parser(description="Check every link of a web site.")
    add = parser.add_argument
    add("url", nargs="?", type=web_address, metavar="URL", help="default: a site of its own, pydoc's pages")
    add("--limit", type=whole_number(1), default=20, help="requests at a time (default: %(default)s)")
    add("--per-host", type=whole_number(1), help="requests at a time to one host (default: the limit)")
    add("--timeout", type=positive, default=10, help="seconds for a request (default: %(default)s)")
    add("--retries", type=whole_number(0), default=1, help="new tries of a failed request (default: %(default)s)")
    add("--depth", type=whole_number(0), default=math.inf, help="follow links this many clicks away from the URL")
    add("--max-pages", type=whole_number(1), default=math.inf, help="ask for this many pages and files at most")
    add("--exclude", type=regex, action="append", default=[], help="leave out links that this regular expression finds")
    add("--external", action=argparse.BooleanOptionalAction, help="check other sites, too (default: given a URL)")
    add("--fragments", action=argparse.BooleanOptionalAction, help="check #parts of pages, too (default: given a URL)")
    add("--json", type=Path, metavar="FILE", help="also write the results to this file")
    args = parser.parse_args()
    for name in "external", "fragments":
        if getattr(args, name) is None:
            setattr(args, name, bool(args.url))
    args.per_host = args.per_host or args.limit
    if args.json:
        try:
            args.json.open("a").close()
        except OSError as error:
            parser.error(f"cannot write {args.json}: {error.strerror}")
    return args


async def main(args: argparse.Namespace) -> int:
    """Return the exit code; there is a report after Ctrl-C, too."""
    stamina.instrumentation.set_on_retry_hooks([])  # what matters is how the last try ends
    checker, interrupted = LinkChecker(args), False
    try:
        await checker.run(nullcontext(args.url) if args.url else library_site())
    except asyncio.CancelledError:
        interrupted = True
    if args.fragments:
        checker.check_fragments()
    checker.print_report(interrupted=interrupted)
    if args.json:
        try:
            checker.write_json(args.json, interrupted=interrupted)
        except OSError as error:
            print(f"linkcheck.py: cannot write {args.json}: {error.strerror}", file=sys.stderr)
            return 2
    return 130 if interrupted else 1 if checker.broken else 0


if __name__ == "__main__":
    sys.exit(run(main(parse_arguments())))
