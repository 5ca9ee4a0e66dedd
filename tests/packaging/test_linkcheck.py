"""The link checker in examples/, run as its users run it: a process, a site, a table, an exit code."""

from __future__ import annotations

import asyncio
import os
import re
import runpy
import signal
import socket
import sys
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest
from aiohttp import web

import quattro

LINKCHECK = Path(__file__).parents[2] / "examples" / "linkcheck.py"
PATIENCE = 120  # seconds after which a test has failed; none takes nearly as long

TERMINAL = {"FORCE_COLOR": "1", "TERM": "xterm"}  # has the progress drawn though nobody looks

T = TypeVar("T")
Page = str | Callable[[], Awaitable[web.Response]]

needs_sigint = pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot send Ctrl-C to one process alone")


class Site:
    """A site as a test writes it down, which notes what it is asked for, and how much of that at once."""

    def __init__(self, pages: dict[str, Page]) -> None:
        self.pages = pages
        self.asked: Counter[str] = Counter()
        self.running = 0
        self.most = 0

    async def answer(self, request: web.Request) -> web.Response:
        """Answer with the page of that path, if there is one."""
        self.asked[f"{request.method} {request.raw_path}"] += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            page = self.pages.get(request.raw_path)
            if page is None:
                return web.Response(status=404)
            if isinstance(page, str):
                return web.Response(text=page, content_type="text/html")
            return await page()
        finally:
            self.running -= 1

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        """Serve it from a free port; its address has no slash at the end."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.answer)
        runner = web.AppRunner(app, handler_cancellation=True)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield "http://{}:{}".format(*runner.addresses[0])
        finally:
            await runner.cleanup()


class Report(NamedTuple):
    """What a run of the checker said."""

    code: int
    table: dict[str, tuple[str, str]]  # a broken link: what is wrong with it, the page that it is on
    checked: int
    broken: int
    skipped: int


class Checker:
    """A run of the checker."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def says(self, text: str) -> None:
        """Wait until it has written a text to the terminal."""
        assert self.process.stderr is not None
        seen = ""
        while text not in seen:
            chunk = await self.process.stderr.read(1024)
            assert chunk, seen
            seen += chunk.decode()

    async def report(self) -> Report:
        """Wait for its end, and read its report."""
        out, err = (stream.decode() for stream in await self.process.communicate())
        rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in out.splitlines() if line[:1] == "│"]
        table = {link: (problem, page) for link, problem, page in rows}
        summary = re.search(r"^(\d+) links checked, (\d+) broken, (\d+) to other sites skipped$", out, re.MULTILINE)
        assert summary is not None and "Traceback" not in err, out + err
        checked, broken, skipped = map(int, summary.groups())
        assert self.process.returncode is not None
        return Report(self.process.returncode, table, checked, broken, skipped)


@asynccontextmanager
async def linkcheck(*arguments: str, **environment: str) -> AsyncIterator[Checker]:
    """Start the checker with the quattro that is tested here, and room for whole links in the table."""
    env = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "TTY_COMPATIBLE")}
    env |= {"PYTHONPATH": str(Path(quattro.__file__).parents[1]), "PYTHONUTF8": "1", "COLUMNS": "200"} | environment
    command = sys.executable, str(LINKCHECK), *arguments
    process = await asyncio.create_subprocess_exec(*command, env=env, stdout=PIPE, stderr=PIPE)
    try:
        yield Checker(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def report_of(*arguments: str) -> Report:
    """Let the checker run to its end."""
    async with linkcheck(*arguments) as checker:
        return await checker.report()


def run(body: Coroutine[Any, Any, T]) -> T:
    """Run the body of a test, which is not to hang."""
    return asyncio.run(asyncio.wait_for(body, PATIENCE))


def check(site: Site, *arguments: str) -> Report:
    """Check a site from its start to the end."""

    async def body() -> Report:
        async with site.serve() as address:
            return await report_of(address, *arguments)

    return run(body())


async def never() -> web.Response:
    """Keep whoever asks for this page waiting."""
    await asyncio.Event().wait()
    raise AssertionError("nobody sets it")


def redirect(location: str) -> Page:
    """Make a page that is elsewhere."""

    async def page() -> web.Response:
        return web.Response(status=302, headers={"Location": location})

    return page


def links(*hrefs: str) -> str:
    """Make a page of links."""
    return "".join(f"<a href='{href}'>there</a>" for href in hrefs)


def test_library() -> None:
    """Without a URL it checks pydoc's pages: several hundred, with links to modules that cannot be imported here."""

    report = run(report_of())
    foreign = "unix" if sys.platform == "win32" else "windows"
    assert report.code == 1
    assert report.checked > 400
    assert report.skipped > 100
    assert report.broken == len(report.table) < 100
    assert report.table["/asyncio.__main__.html"] == ("404 Not Found", "/asyncio.html")
    assert report.table[f"/asyncio.{foreign}_events.html"] == ("404 Not Found", "/asyncio.html")
    assert "/asyncio.html" not in report.table


def test_broken_link() -> None:
    """One link that leads nowhere is the one row of the table, with the pages that it is on."""
    site = Site({"/": links("/a", "/b"), "/a": links("./missing:smile:?x=b#y"), "/b": links("/missing:smile:?x=b")})
    report = check(site)
    assert report == (1, {"/missing:smile:?x=b": ("404 Not Found", "/a and 1 more")}, 4, 1, 0)


def test_healthy_site() -> None:
    """A site with nothing broken gets no table, and 0."""
    page = """
        <!DOCTYPE html><base href="/deep/er/"><link rel=preconnect href="/nothing"><a name="here">
        <A HREF=" ../up?a=1&amp;b=2 ">up</A> <img src="pic.png"> <a href="#here">here</a> <a href>self</a>
        <a href="mailto:somebody@example.org">mail</a> <a href="javascript:void(0)">script</a>
    """

    async def picture() -> web.Response:
        return web.Response(body=b"<a href='/nothing'>", content_type="image/png")

    site = Site({"/": page, "/deep/up?a=1&b=2": links("/"), "/deep/er/pic.png": picture, "/deep/er/": "no link"})
    assert check(site) == (0, {}, 4, 0, 0)


def test_once() -> None:
    """However often and however written a page is linked, it is asked for once."""
    pages: dict[str, Page] = {f"/{n}": links("/", ".", "#top", *(f"/{n}#{n}" for n in range(30))) for n in range(30)}
    site = Site(pages | {"/": links("/0", "0", "./0", "/x/../0", "/0#a", "/0#b", "HTTP://127.0.0.1:1/../0")})
    assert check(site, "--no-external") == (0, {}, 31, 0, 1)
    assert site.asked == {f"GET {path}": 1 for path in site.pages}


def test_redirects() -> None:
    """A redirect is a link like others: its target is checked once, be it missing, elsewhere, or where it came from."""
    start = links("/old", "/new", "/to-missing", "/elsewhere", "/circle", "/self", "/malformed")
    site = Site(
        {
            "/": redirect("/start"),
            "/start": start,
            "/old": redirect("older"),
            "/older": redirect("/new"),
            "/new": links("/old", "/older"),
            "/to-missing": redirect("/missing"),
            "/elsewhere": redirect("http://127.0.0.1:1/"),
            "/circle": redirect("/circle-2"),
            "/circle-2": redirect("/circle"),
            "/self": redirect("/self#again"),
            "/malformed": redirect("http://["),
        }
    )
    report = check(site, "--no-external")
    assert (report.code, report.checked, report.broken, report.skipped) == (1, 12, 4, 1)
    assert report.table.pop("http://[")[1] == "/malformed"
    assert report.table == {
        "/missing": ("404 Not Found", "/to-missing"),
        "/circle-2": ("redirects in a circle", "/circle"),
        "/self": ("redirects in a circle", "/self and 1 more"),
    }
    assert site.asked == {f"GET {path}": 1 for path in (*site.pages, "/missing")}


def test_moved_site() -> None:
    """The site is where its address leads, so that http:// does for a site that is all https://."""

    async def body() -> None:
        site, sign = Site({"/": links("/a"), "/a": links("/missing")}), Site({})
        async with site.serve() as address, sign.serve() as old_address:
            sign.pages["/"] = redirect(address)
            report = await report_of(old_address, "--no-external")
        assert report == (1, {"/missing": ("404 Not Found", "/a")}, 4, 1, 0)

    run(body())


def test_limit_and_progress() -> None:
    """It has as many requests out as it may, never more, and draws what the group says of that."""
    gate, barrier, hrefs = asyncio.Event(), asyncio.Barrier(3), [f"/{n}" for n in range(12)]

    async def page() -> web.Response:
        await gate.wait()
        await barrier.wait()
        return web.Response()

    async def body() -> None:
        site = Site({"/": links(*hrefs)} | dict.fromkeys(hrefs, page))
        async with site.serve() as address, linkcheck(address, "--limit", "3", **TERMINAL) as checker:
            await checker.says("1 done, 3 running, 9 queued")
            gate.set()
            assert await checker.report() == (0, {}, 13, 0, 0)
        assert site.most == 3

    run(body())


@needs_sigint
def test_interrupt() -> None:
    """Ctrl-C gives the table so far and 130, while the site still owes answers."""

    async def body() -> None:
        hrefs = "/1", "/2", "/3", "/4"
        site = Site({"/": links("/missing", *hrefs)} | dict.fromkeys(hrefs, never))
        options = "--limit", "2", "--timeout", str(10 * PATIENCE)
        async with site.serve() as address, linkcheck(address, *options, **TERMINAL) as checker:
            await checker.says("2 done, 2 running, 2 queued")
            checker.process.send_signal(signal.SIGINT)
            assert await checker.report() == (130, {"/missing": ("404 Not Found", "/")}, 2, 1, 0)
        assert site.most == 2

    run(body())


@needs_sigint
def test_interrupt_of_pydoc(tmp_path: Path) -> None:
    """Ctrl-C while the pages are being written leaves no file."""

    async def body() -> None:
        async with linkcheck(TMPDIR=str(tmp_path)) as checker:
            await checker.says("pydoc writes")
            checker.process.send_signal(signal.SIGINT)
            assert await checker.report() == (130, {}, 0, 0, 0)

    run(body())
    assert not list(tmp_path.iterdir())


def test_pydoc_is_ended(tmp_path: Path) -> None:
    """Whoever need not wait for pydoc's processes any longer ends them."""
    example = runpy.run_path(str(LINKCHECK))
    example["write_docs"].__globals__["WRITE_DOCS"] = """
import socket, sys
socket.create_connection(("127.0.0.1", int(sys.argv[1]))).recv(1)
"""

    async def body() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.setblocking(False)
            writing = asyncio.create_task(example["write_docs"](str(tmp_path), [str(server.getsockname()[1])]))
            connection, _ = await asyncio.get_running_loop().sock_accept(server)
            with connection:
                writing.cancel()
                await asyncio.wait([writing])
                assert writing.cancelled()

    run(body())


def test_pydoc_fails(tmp_path: Path) -> None:
    """A site that could not be written is not one to call healthy."""
    example = runpy.run_path(str(LINKCHECK))
    example["write_docs"].__globals__["WRITE_DOCS"] = "raise SystemExit(3)"
    with pytest.raises(RuntimeError, match="pydoc ended with 3"):
        run(example["write_docs"](str(tmp_path), []))


def test_timeout() -> None:
    """A page that does not come is broken, and the others are not kept from coming."""
    report = check(Site({"/": links("/slow", "/fast"), "/slow": never, "/fast": ""}), "--limit", "1", "--timeout", "2")
    assert report == (1, {"/slow": ("TimeoutError", "/")}, 3, 1, 0)


def test_external_links() -> None:
    """With a URL, links to other sites are checked by their headers and not read, unless they are not to be."""

    async def no_head() -> web.Response:
        return web.Response(status=405)

    async def body() -> None:
        other = Site({"/": links("/never"), "/refuses": no_head, "/moved": redirect("/")})
        with socket.socket() as deaf:
            deaf.bind(("127.0.0.1", 0))
            nobody = f"http://127.0.0.1:{deaf.getsockname()[1]}/"
            async with other.serve() as there:
                hrefs = f"{there}/", f"{there}/refuses", f"{there}/moved", nobody, "http://not..a.host/"
                site = Site({"/": links(*hrefs)})
                async with site.serve() as address:
                    inside = await report_of(address, "--no-external")
                    assert not other.asked
                    report = await report_of(address)
        assert inside == (0, {}, 1, 0, 5)
        assert (report.code, report.checked, report.skipped) == (1, 6, 0)
        assert report.table.keys() == {f"{there}/refuses", nobody, "http://not..a.host/"}
        assert report.table[f"{there}/refuses"] == ("405 Method Not Allowed", "/")
        assert "Cannot connect" in report.table[nobody][0]
        assert other.asked == {"HEAD /": 2, "HEAD /moved": 1, "HEAD /refuses": 1, "GET /refuses": 1}

    run(body())


@pytest.mark.parametrize("arguments", [["example.org"], ["ftp://127.0.0.1/"], ["--limit", "0"], ["http://["]])
def test_usage(arguments: list[str]) -> None:
    """What cannot be checked is refused before anything is done, with argparse's exit code."""

    async def body() -> None:
        async with linkcheck(*arguments) as checker:
            out, err = await checker.process.communicate()
            assert (checker.process.returncode, out) == (2, b"")
            assert b"usage:" in err and b"Traceback" not in err

    run(body())
