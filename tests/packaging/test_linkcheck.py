"""The link checker in examples/, run as its users run it: a process, a site, a table, an exit code."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import runpy
import signal
import socket
import ssl
import sys
import threading
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest
from aiohttp import ClientSession, web
from helpers import table_rows, wait_for_text

import quattro

EXAMPLES = Path(__file__).parents[2] / "examples"
CERTIFICATE = Path(__file__).with_name("localhost.pem")
SUMMARY = r"(\d+)(?: of \d+| links?) checked, (\d+) broken(?:, (\d+) to other sites skipped)?"
PATIENCE = 120  # seconds after which a test has failed; none takes nearly as long

TERMINAL = {"FORCE_COLOR": "1", "TERM": "xterm"}  # has the progress drawn though nobody looks

T = TypeVar("T")
Page = str | Callable[[web.Request], Awaitable[web.StreamResponse]]

needs_sigint = pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot send Ctrl-C to one process alone")


class Site:
    """A site as a test writes it down, which notes what it is asked for, and how much of that at once."""

    def __init__(self, pages: dict[str, Page]) -> None:
        self.pages = pages
        self.asked: Counter[str] = Counter()
        self.running = 0
        self.most = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
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
            return await page(request)
        finally:
            self.running -= 1

    @asynccontextmanager
    async def serve(self, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
        """Serve it from a free port; its address has no slash at the end."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.answer)
        runner = web.AppRunner(app, handler_cancellation=True)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
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
        self.printed = ""

    async def says(self, pattern: str) -> None:
        """Wait until it has written something to the terminal."""
        await wait_for_text(self.process.stderr, pattern)

    async def report(self) -> Report:
        """Wait for its end, and read its report."""
        out, err = (stream.decode() for stream in await self.process.communicate())
        table = {link: (problem, page) for link, problem, page in table_rows(out)}
        summary = re.search(SUMMARY, out, re.MULTILINE)
        assert summary is not None and "Traceback" not in err, out + err
        checked, broken, skipped = map(int, summary.groups("0"))
        assert self.process.returncode is not None
        self.printed = out
        return Report(self.process.returncode, table, checked, broken, skipped)


@asynccontextmanager
async def linkcheck(*arguments: str, **environment: str) -> AsyncIterator[Checker]:
    """Start the checker with the quattro that is tested here, and room for whole links in the table."""
    env = {"PYTHONPATH": str(Path(quattro.__file__).parents[1]), "PYTHONUTF8": "1", "COLUMNS": "200"} | environment
    command = sys.executable, str(EXAMPLES / "linkcheck.py"), *arguments
    process = await asyncio.create_subprocess_exec(
        *command, env=os.environ | env, stdout=PIPE, stderr=PIPE, start_new_session=True
    )
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


async def never(_: web.Request) -> web.Response:
    """Keep whoever asks for this page waiting."""
    await asyncio.Event().wait()
    raise AssertionError("nobody sets it")


def redirect(location: str) -> Page:
    """Make a page that is elsewhere."""

    async def page(_: web.Request) -> web.Response:
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


def test_no_site() -> None:
    """A site that is not there is one broken link, and where that stands is plain."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        report = run(report_of(f"http://127.0.0.1:{deaf.getsockname()[1]}", "--retries", "0"))
    assert report == (1, {"/": ("refused the connection", "the command line")}, 1, 1, 0)


def test_healthy_site() -> None:
    """A site with nothing broken gets no table, and 0."""
    page = """
        <!DOCTYPE html><base href="/deep/er/"><link rel=preconnect href="/nothing"><a name="here">
        <A HREF=" ../up?a=1&amp;b=2 ">up</A> <img src="pic.png"> <a href="#here">here</a> <a href>self</a>
        <a href="mailto:somebody@example.org">mail</a> <a href="javascript:void(0)">script</a>
    """

    async def picture(_: web.Request) -> web.Response:
        return web.Response(body=b"<a href='/nothing'>", content_type="image/png")

    site = Site({"/": page, "/deep/up?a=1&b=2": links("/"), "/deep/er/pic.png": picture, "/deep/er/": "<p id=here>"})
    assert check(site) == (0, {}, 4, 0, 0)


def test_once() -> None:
    """However often and however written a page is linked, it is asked for once."""
    pages: dict[str, Page] = {f"/{n}": links("/", ".", "#top", *(f"/{n}#{n}" for n in range(30))) for n in range(30)}
    site = Site(pages | {"/": links("/0", "0", "./0", "/x/../0", "/0#a", "/0#b", "HTTP://127.0.0.1:1/../0")})
    assert check(site, "--no-external", "--no-fragments", "--limit", "31") == (0, {}, 31, 0, 1)
    assert site.asked == {f"GET {path}": 1 for path in site.pages}


def test_redirects() -> None:
    """What a link redirects to is looked at for the link, on the page where a person finds it; the way is bounded."""
    hrefs = "/old", "/new", "/to-missing", "/elsewhere", "/circle", "/self", "/cookie", "/nonsense", "/on-and-on"
    cookies: list[str | None] = []

    async def cookie(request: web.Request) -> web.Response:
        cookies.append(request.cookies.get("seen"))
        response = web.Response(status=200 if cookies[-1] else 302, headers={"Location": "/cookie"})
        response.set_cookie("seen", "yes")
        return response

    site = Site(
        {
            "/": redirect("/start"),
            "/start": links(*hrefs),
            "/old": redirect("older"),
            "/older": redirect("/new"),
            "/new": links("/old", "/older"),
            "/to-missing": redirect("/missing"),
            "/elsewhere": redirect("http://127.0.0.1:1/"),
            "/circle": redirect("/circle-2"),
            "/circle-2": redirect("/circle"),
            "/self": redirect("/self#again"),
            "/cookie": cookie,
            "/nonsense": redirect("http://["),
            "/on-and-on": redirect("/on-and-on?"),
            **{"/on-and-on?" + "x" * n: redirect("/on-and-on?" + "x" * (n + 1)) for n in range(1, 30)},
        }
    )
    site.pages["/on-and-on"] = redirect("/on-and-on?x")

    async def body() -> Report:
        async with site.serve() as address:
            return await report_of(address.replace("127.0.0.1", "localhost"), "--no-external")  # numbers get no cookies

    report = run(body())
    assert (report.code, report.checked, report.broken, report.skipped) == (1, 11, 5, 0)
    assert report.table == {
        "/to-missing": ("404 Not Found", "/start"),
        "/circle": ("redirects in a circle", "/start"),
        "/self": ("redirects in a circle", "/start"),
        "/nonsense": ("not a possible address: Invalid IPv6 URL", "/start"),
        "/on-and-on": ("redirects more than 10 times", "/start"),
    }
    assert cookies == [None, "yes"]
    assert sum(count for path, count in site.asked.items() if "/on-and-on" in path) == 10


def test_moved_site() -> None:
    """The site is where its address leads, so that http:// does for a site that is all https://."""

    async def body() -> None:
        site, sign = Site({"/": links("/a"), "/a": links("/missing")}), Site({})
        async with site.serve() as address, sign.serve() as old_address:
            sign.pages["/"] = redirect(address)
            report = await report_of(old_address, "--no-external")
        assert report == (1, {"/missing": ("404 Not Found", "/a")}, 3, 1, 0)

    run(body())


def test_limit_and_progress() -> None:
    """It has as many requests out as it may, never more, and draws what the group says of that."""
    gate, barrier, hrefs, answered = asyncio.Event(), asyncio.Barrier(3), [f"/{n}" for n in range(12)], []

    async def page(request: web.Request) -> web.Response:
        answered.append(request.path)
        if len(answered) <= len(hrefs):  # what comes after them is the comparison, one at a time
            await gate.wait()
            await barrier.wait()
        return web.Response()

    async def body() -> None:
        site = Site({"/": links(*hrefs)} | dict.fromkeys(hrefs, page))
        async with site.serve() as address, linkcheck(address, "--limit", "3", **TERMINAL) as checker:
            await checker.says(r"1 done, 3 running, 9 queued, \d+/s 0:00:\d\d (-:--:--|0:00:\d\d)")
            gate.set()
            assert await checker.report() == (0, {}, 13, 0, 0)
        assert site.most == 3

    run(body())


@needs_sigint
@pytest.mark.parametrize("times", [1, 3])
def test_interrupt(times: int, tmp_path: Path) -> None:
    """Ctrl-C gives the table so far and 130, while the site still owes answers; more of it does no harm."""
    file = tmp_path / "found.json"

    async def body() -> None:
        hrefs = "/1", "/2", "/3", "/4"
        site = Site({"/": links("/missing", *hrefs)} | dict.fromkeys(hrefs, never))
        options = "--limit", "2", "--timeout", str(10 * PATIENCE), "--json", str(file)
        async with site.serve() as address, linkcheck(address, *options, **TERMINAL) as checker:
            await checker.says("2 done, 2 running, 2 queued")
            for _ in range(times):
                checker.process.send_signal(signal.SIGINT)
            code, *report = await checker.report()
            assert report == [{"/missing": ("404 Not Found", "/")}, 2, 1, 0]
            assert "interrupted: 2 of 6 checked, 1 broken" in checker.printed
            # What comes after the report is for the system, which knows nothing of 130.
            assert code == 130 or (times > 1 and code == -signal.SIGINT)
        assert site.most == 2

    run(body())
    if times == 1:
        found = json.loads(file.read_text())
        assert found["interrupted"] and found["checked"] == 2 and len(found["broken"]) == 1


@needs_sigint
def test_interrupt_of_library() -> None:
    """Ctrl-C, which the server of the site gets as well, gives the report so far."""

    async def body() -> None:
        async with linkcheck("--limit", "1", **TERMINAL) as checker:
            await checker.says("[1-9] done")
            os.killpg(checker.process.pid, signal.SIGINT)
            code, _, checked, *_ = await checker.report()  # how far it has come depends on the machine
            assert code == 130 and checked > 0
            assert "interrupted" in checker.printed

    run(body())


def test_library_server_is_ended() -> None:
    """The server of the site goes with the block that needs it."""
    library_site = runpy.run_path(str(EXAMPLES / "library_site.py"))["library_site"]

    async def body() -> None:
        async with library_site() as url, ClientSession() as session:
            async with session.get(url / "asyncio.html") as response:
                assert response.status == 200 and "taskgroups.html" in await response.text()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(url.host, url.port)

    run(body())


def test_library_server_ends_alone() -> None:
    """It ends when whoever started it is gone, and with it the other end of its input."""

    async def body() -> None:
        command = sys.executable, "-I", "-S", str(EXAMPLES / "library_server.py")
        server = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
        assert server.stdin is not None and server.stdout is not None
        assert int(await server.stdout.readline()) > 0
        server.stdin.close()
        assert await server.wait() == 0

    run(body())


def test_library_server_fails(tmp_path: Path) -> None:
    """A site that is not there is not one to call healthy."""
    library_site = runpy.run_path(str(EXAMPLES / "library_site.py"))["library_site"]
    library_site.__wrapped__.__globals__["SERVER"] = tmp_path / "nothing.py"

    async def body() -> None:
        async with library_site():
            raise AssertionError("there is nothing to serve")

    with pytest.raises(RuntimeError, match="the server of the site ended with 2"):
        run(body())


def test_timeout() -> None:
    """A page that does not come is broken, and the others are not kept from coming."""
    site = Site({"/": links("/slow", "/fast"), "/slow": never, "/fast": ""})
    report = check(site, "--limit", "1", "--timeout", "2", "--retries", "0")
    assert report == (1, {"/slow": ("timed out after 2 s", "/")}, 3, 1, 0)


@asynccontextmanager
async def answers(*answers: bytes) -> AsyncIterator[list[str]]:
    """Serve each of some answers, byte for byte, from a port of its own; their addresses."""

    async def serve(answer: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.readline()
            writer.write(answer)
            await writer.drain()
        writer.close()

    async with AsyncExitStack() as stack:
        addresses = []
        for answer in answers:
            server = await asyncio.start_server(partial(serve, answer), "127.0.0.1", 0)
            await stack.enter_async_context(server)
            addresses.append("http://{}:{}/".format(*server.sockets[0].getsockname()))
        yield addresses


def test_errors_in_words() -> None:
    """Whatever goes wrong is told in words, not in the names of classes, and is no reason to stop."""
    raw = [
        b"",
        b"this is no HTTP\r\n\r\n",
        b"HTTP/1.1 404 \xff\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /\r\nConnection: close\r\n\r\n",
    ]

    async def body() -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(CERTIFICATE)
        async with answers(*raw) as (silent, nonsense, strange, circle), Site({"/": ""}).serve(context) as secure:
            insecure = secure.replace("http://", "https://") + "/"
            plain = nonsense.replace("http://", "https://")
            problems = {
                silent: "closed the connection without an answer",
                nonsense: "the answer is not valid HTTP",
                strange: "404 ?",
                circle: "redirects without end",
                insecure: "certificate not trusted: self-signed certificate",
                plain: "no secure connection: wrong version number",
                "http://nowhere.invalid/": "name not found",
                "http://not..a.host/": "not a possible host name",
                "http://1.2.3/": "not a possible address",
            }
            site = Site({"/": links(*problems, "/half"), "/half": half})
            async with site.serve() as address:
                report = await report_of(address, "--retries", "0")
        assert report.table.pop("/half") == ("the answer is garbled or breaks off", "/")
        assert {link: problem for link, (problem, _) in report.table.items()} == problems

    async def half(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000", "Content-Type": "text/html"})
        await response.prepare(request)
        await response.write(b"<html>")
        assert request.transport is not None
        request.transport.abort()
        return response

    run(body())


def test_external_links() -> None:
    """With a URL, links to other sites are checked by their headers and not read, unless they are not to be."""

    async def no_head(_: web.Request) -> web.Response:
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
                    report = await report_of(address, "--retries", "0")
        assert inside == (0, {}, 1, 0, 5)
        assert (report.code, report.checked, report.skipped) == (1, 6, 0)
        assert report.table.keys() == {f"{there}/refuses", nobody, "http://not..a.host/"}
        assert report.table[f"{there}/refuses"] == ("405 Method Not Allowed", "/")
        assert report.table[nobody] == ("refused the connection", "/")
        assert other.asked == {"HEAD /": 2, "HEAD /moved": 1, "HEAD /refuses": 1, "GET /refuses": 1}

    run(body())


def test_attributes() -> None:
    """Pictures for several sizes, posters and frames are links like others, and so are parts of pages."""
    page = """
        <meta name="description"><a name="old">here</a> <p id="part">there</p>
        <img src="a.png" srcset="b.png, c.png 2x,d.png 3x"> <video poster="e.png"></video>
        <iframe src="f.html"></iframe>
        <a href="#part">1</a> <a href="#old">2</a> <a href="#">3</a> <a href="#top">4</a> <a href="#/route">5</a>
        <a href="#description">6</a> <a href="f.html#part">7</a> <a href="f.html#%C3%A9">8</a>
        <a href="a.png#xywh">9</a> <a href="other#missing">10</a>
    """

    async def picture(_: web.Request) -> web.Response:
        return web.Response(body=b"", content_type="image/png")

    site = Site({"/": page, "/f.html": "<b id='\u00e9'>", "/a.png": picture, "/other": redirect("/f.html")})
    report = check(site)
    assert report.table == {
        **{f"/{name}.png": ("404 Not Found", "/") for name in "bcde"},
        "/#description": ("the page has no such id", "/"),
        "/f.html#part": ("the page has no such id", "/"),
        "/other#missing": ("the page has no such id", "/"),
    }
    assert check(site, "--no-fragments").broken == 4


def test_long_links() -> None:
    """A link as long as a page is named by its beginning; an address that holds a picture is none to be checked."""
    page = f'<a href="{"x" * 1_000_000}"> <img src="data:image/png;base64,{"x" * 1_000_000}"> <a href="mailto:a@b">'
    report = check(Site({"/": page}))
    assert report.table == {"x" * 60 + "...": ("too long: 1,000,000 characters", "/")}


def test_charset() -> None:
    """A page is read in the encoding that it says it has; one that says nonsense is read all the same."""

    def page(charset: str, body: bytes) -> Page:
        async def answer(_: web.Request) -> web.Response:
            return web.Response(body=body, headers={"Content-Type": f"text/html; charset={charset}"})

        return answer

    pages = {
        "/": links("/1", "/2", "/3"),
        "/1": page("iso-8859-1", b"<a href='\xe9'>"),
        "/3": page("hex", b"<a href='x'>"),
    }
    report = check(Site(pages | {"/2": page("utf-16", links("y").encode("utf-16"))}))
    assert report.table.keys() == {"/%C3%A9", "/x", "/y"} or report.table.keys() == {"/\u00e9", "/x", "/y"}


def test_big_page() -> None:
    """A page without end is read up to a bound; what comes after it is not known, and not called broken."""

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/html"})
        await response.prepare(request)
        with suppress(ConnectionError):
            await response.write(b"<a href='/early'>")
            while True:
                await response.write(b"<p>and so on</p>" * 4096)
        return response

    async def body() -> None:
        site = Site({"/": links("/endless#late"), "/endless": endless})
        async with site.serve() as address, linkcheck(address) as checker:
            report = await checker.report()
            assert report == (1, {"/early": ("404 Not Found", "/endless")}, 3, 1, 0)
            assert "1 broken, 1 read no further than 4,000,000 bytes" in checker.printed

    run(body())


def test_parsed_off_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """No page is parsed in the thread of the loop, which has others to serve."""
    example = runpy.run_path(str(EXAMPLES / "page.py"))
    threads = []
    monkeypatch.setattr(example["Page"], "start", lambda *_: threads.append(threading.current_thread()))

    async def body() -> None:
        async with Site({"/": links("/a", "/b")}).serve() as address, ClientSession() as session:
            async with session.get(address) as response:
                await example["read_page"](response)

    run(body())
    assert len(threads) >= 2 and threading.main_thread() not in threads


def test_json(tmp_path: Path) -> None:
    """What is broken, and on which pages, can be had for programs as well."""
    file = tmp_path / "found.json"

    async def body() -> None:
        site = Site({"/": links("/a", "/b", "http://["), "/a": links("/b", "http://127.0.0.1:1/")})
        async with site.serve() as address:
            await report_of(address, "--no-external", "--json", str(file))
            found = json.loads(file.read_text())
            problem = found["broken"][1].pop("problem")
            assert found == {
                "interrupted": False,
                "checked": 3,
                "broken": [
                    {"link": f"{address}/b", "problem": "404 Not Found", "pages": [f"{address}/", f"{address}/a"]},
                    {"link": "http://[", "pages": [f"{address}/"]},
                ],
                "skipped": {"to other sites skipped": 1},
            }
            assert problem.startswith("not a URL")

    run(body())


def test_json_that_cannot_be_written(tmp_path: Path) -> None:
    """If the file cannot be written in the end, the report is there all the same, and one line says why."""
    file = tmp_path / "folder" / "found.json"
    file.parent.mkdir()

    async def page(_: web.Request) -> web.Response:
        file.unlink()
        file.parent.rmdir()
        return web.Response()

    async def body() -> None:
        async with Site({"/": page}).serve() as address, linkcheck(address, "--json", str(file)) as checker:
            out, err = await checker.process.communicate()
        assert checker.process.returncode == 2 and b"1 link checked, 0 broken" in out
        assert err.decode().endswith(f"linkcheck.py: cannot write {file}: {os.strerror(errno.ENOENT)}{os.linesep}")
        assert b"Traceback" not in err

    run(body())


def test_depth() -> None:
    """Links are followed as many clicks away as wanted, and checked there."""
    pages: dict[str, Page] = {"/": links("/1"), "/1": links("/2", "/"), "/2": links("/3")}
    for depth, asked in ("0", ["/"]), ("2", ["/", "/1", "/2"]):
        site = Site(pages)
        assert check(site, "--depth", depth).checked == len(asked)
        assert site.asked == Counter(f"GET {path}" for path in asked)


def test_max_pages_and_exclude() -> None:
    """What shall not be asked for is not asked for, and counted."""
    hrefs = [f"/{n}" for n in range(9)]

    async def body() -> None:
        site = Site(dict.fromkeys(hrefs, "") | {"/": links("/private/a", *hrefs, "/private/b", "/x.pdf")})
        options = "--max-pages", "5", "--exclude", "/private/", "--exclude", r"\.pdf$"
        async with site.serve() as address, linkcheck(address, *options) as checker:
            assert (await checker.report())[:4] == (0, {}, 5, 0)
            assert "5 links checked, 0 broken, 3 excluded, 5 left out because of --max-pages" in checker.printed
        assert site.asked == Counter(f"GET {path}" for path in ["/", *hrefs[:4]])

    run(body())


def test_per_host() -> None:
    """No host is asked for more at a time than it may be, and time that a request waits for that does not count."""
    hrefs = [f"/{n}" for n in range(6)]

    barrier = asyncio.Barrier(2)

    async def page(_: web.Request) -> web.Response:
        await barrier.wait()
        return web.Response()

    site = Site({"/": links(*hrefs)} | dict.fromkeys(hrefs, page))
    assert check(site, "--per-host", "2", "--limit", "10") == (0, {}, 7, 0, 0)
    assert site.most == 2


def test_retries() -> None:
    """What may pass is tried again, and what a server means is not."""
    statuses = {"/busy": [503, 200], "/dead": [500, 500, 500], "/no": [404, 200]}

    async def page(request: web.Request) -> web.Response:
        return web.Response(status=statuses[request.path].pop(0))

    site = Site({"/": links(*statuses)} | dict.fromkeys(statuses, page))
    report = check(site, "--retries", "2")
    assert report.table == {"/dead": ("500 Internal Server Error", "/"), "/no": ("404 Not Found", "/")}
    assert site.asked == {"GET /": 1, "GET /busy": 2, "GET /dead": 3, "GET /no": 1}


def test_comparison() -> None:
    """In the end it tells what the limit is good for, from a sample; unless there is nothing to compare."""
    hrefs = [f"/{n}" for n in range(30)]

    async def body() -> None:
        site = Site(dict.fromkeys(hrefs, "") | {"/": links(*hrefs)})
        async with site.serve() as address:
            for limit in "1", "40":
                async with linkcheck(address, "--limit", limit) as checker:
                    assert (await checker.report()).code == 0 and "at a time" not in checker.printed
            assert site.asked.total() == 2 * 31
            async with linkcheck(address, "--limit", "3") as checker:
                assert (await checker.report()).code == 0
        line = r"[\d,.]+ links/s at a limit of 3, [\d,.]+ one at a time \(measured on (\d+) of them\)"
        sample = re.search(line, checker.printed)
        assert sample is not None and site.asked.total() == 3 * 31 + int(sample[1])

    run(body())


@pytest.mark.parametrize(
    ("error", "arguments"),
    [
        ("did you mean https://example.org?", ["example.org"]),
        ("did you mean https://localhost:8000?", ["localhost:8000"]),
        ("'mailto:a@example.org' is no address\n", ["mailto:a@example.org"]),
        ("'' is no address\n", [""]),
        ("not the address of a web site", ["ftp://127.0.0.1/"]),
        ("not the address of a web site", ["http:///path"]),
        ("is no address", ["http://["]),
        ("is no address", ["http://a:99999/"]),
        ("'http://xn--/' is no address: ", ["http://xn--/"]),
        ("--limit: must be a whole number, at least 1", ["--limit", "0"]),
        ("--limit: must be a whole number, at least 1", ["--limit", "1.5"]),
        ("--per-host: must be", ["--per-host", "0"]),
        ("--timeout: must be a number above 0", ["--timeout", "nan"]),
        ("--timeout: must be a number above 0", ["--timeout", "-1"]),
        ("--timeout: must be a number above 0", ["--timeout", "inf"]),
        ("--timeout: must be a number above 0", ["--timeout", "soon"]),
        ("--retries: must be", ["--retries", "-1"]),
        ("--depth: must be", ["--depth", "-1"]),
        ("--max-pages: must be", ["--max-pages", "0"]),
        ("is no regular expression", ["--exclude", "("]),
        ("cannot write", ["--json", str(EXAMPLES)]),
        ("unrecognized arguments", ["http://127.0.0.1:1/", "http://127.0.0.1:2/"]),
    ],
)
def test_usage(
    error: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be done is refused in one line before anything is done, with argparse's exit code."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setattr(sys, "argv", ["linkcheck.py", *arguments])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(EXAMPLES / "linkcheck.py"), run_name="__main__")
    out, err = capsys.readouterr()
    assert (end.value.code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("linkcheck.py: ") and error in err
