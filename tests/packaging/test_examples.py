"""The chat, the pipeline and the downloader in examples/, run as their users run them: a process and real sockets."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from helpers import table_rows, wait_for_text

import quattro
from quattro import TaskGroup

EXAMPLES = Path(__file__).parents[2] / "examples"
PATIENCE = 120  # seconds after which a test has failed; none takes nearly as long


needs_sigint = pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot send Ctrl-C to one process alone")


def run(body: Callable[..., Awaitable[None]], *arguments: Any) -> None:
    """Run the body of a test, which is not to hang."""
    asyncio.run(asyncio.wait_for(body(*arguments), PATIENCE))


class Example:
    """An example that runs, with the quattro that is tested here."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.printed = ""

    @classmethod
    @asynccontextmanager
    async def started(cls, name: str, *arguments: str, **environment: str) -> AsyncIterator[Example]:
        """Start an example; if it still runs in the end, it is killed."""
        env = {"PYTHONPATH": str(Path(quattro.__file__).parents[1]), "PYTHONUTF8": "1", "COLUMNS": "200"} | environment
        command = sys.executable, "-W", "error", str(EXAMPLES / name), *arguments
        process = await asyncio.create_subprocess_exec(*command, env=os.environ | env, stdout=PIPE, stderr=PIPE)
        try:
            yield cls(process)
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    async def line(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        assert line, (await self.process.communicate())[1].decode()
        return line.decode().rstrip("\r\n")

    async def shows(self, pattern: str) -> None:
        """Wait until it has drawn something on the terminal."""
        await wait_for_text(self.process.stderr, pattern)

    async def end(self, code: int, error: str = "") -> str:
        """Wait for its end; return what else it printed."""
        out, err = (stream.decode().replace(os.linesep, "\n") for stream in await self.process.communicate())
        assert self.process.returncode == code and "Traceback" not in err, out + err
        assert not error or error in err, err
        return out


# --- The chat ---------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def chat(*arguments: str) -> AsyncIterator[tuple[Example, aiohttp.ClientSession]]:
    """Start the chat server, and a session for its address."""
    async with Example.started("chat.py", "--port", "0", *arguments) as server:
        async with aiohttp.ClientSession(await server.line()) as session:
            yield server, session


def test_chat() -> None:
    """What one says all hear, in order; everybody hears who comes and who leaves, politely or not."""

    async def body() -> None:
        async with chat() as (server, session):
            async with session.get("/") as response:
                assert response.content_type == "text/html" and "/chat/" in await response.text()
            ann = await session.ws_connect("/chat/ann")
            assert await ann.receive_str() == "ann is here, 1 in all"
            bob = await session.ws_connect("/chat/bob")
            assert [await member.receive_str() for member in (ann, bob)] == ["bob is here, 2 in all"] * 2
            for n in range(20):
                await (ann, bob)[n % 2].send_str(str(n))
                for member in (ann, bob):
                    assert await member.receive_str() == f"{('ann', 'bob')[n % 2]}: {n}"
            await bob.close()
            assert await ann.receive_str() == "bob has left"
            rude = await session.ws_connect("/chat/rude")
            assert await ann.receive_str() == "rude is here, 2 in all"
            assert rude._response.connection is not None and rude._response.connection.transport is not None
            rude._response.connection.transport.abort()
            assert await ann.receive_str() == "rude has left"
            await ann.send_str("alone")
            assert await ann.receive_str() == "ann: alone"
            assert server.process.returncode is None

    run(body)


def test_chat_heartbeat() -> None:
    """Who answers the heartbeat stays, for many of them; who does not is taken for gone, and the others hear of it."""

    async def body() -> None:
        async with chat("--heartbeat", "0.01", "--patience", str(PATIENCE)) as (_, session):
            member = await session.ws_connect("/chat/alive", autoping=False)
            assert await member.receive_str() == "alive is here, 1 in all"
            for _ in range(10):
                message = await member.receive()
                assert message.type is aiohttp.WSMsgType.PING
                await member.pong(message.data)
            await member.ping(b"are you there?")
            while (message := await member.receive()).type is aiohttp.WSMsgType.PING:
                await member.pong(message.data)
            assert message.type is aiohttp.WSMsgType.PONG and message.data == b"are you there?"
        async with chat("--heartbeat", "0.01", "--patience", "0.1") as (server, session):
            await session.ws_connect("/chat/mute", autoping=False)
            assert [await server.line() for _ in range(2)] == ["mute is here, 1 in all", "mute has left"]

    run(body)


def test_chat_reads_too_slowly() -> None:
    """Who does not read is disconnected, and never slows the others down."""

    async def body() -> None:
        async with chat() as (server, session):
            slow = await session.ws_connect("/chat/slow")
            assert await server.line() == "slow is here, 1 in all"
            assert slow._response.connection is not None and slow._response.connection.transport is not None
            slow._response.connection.transport.pause_reading()
            talker = await session.ws_connect("/chat/talker")
            async with TaskGroup() as tg:
                tg.create_background_task(hear(server))
                heard = ""
                while heard != "slow has left":
                    await talker.send_str("x" * 100_000)
                    while not (heard := await talker.receive_str()).startswith(("talker: ", "slow has left")):
                        pass

    async def hear(server: Example) -> None:
        while True:
            await server.process.stdout.read(1 << 20)  # type: ignore[union-attr]

    run(body)


@needs_sigint
def test_chat_ends() -> None:
    """Ctrl-C closes the connections, with a word, and ends the server."""

    async def body() -> None:
        async with chat() as (server, session):
            member = await session.ws_connect("/chat/ann")
            assert await member.receive_str() == "ann is here, 1 in all"
            server.process.send_signal(signal.SIGINT)
            while (message := await member.receive()).type is aiohttp.WSMsgType.TEXT:
                pass
            assert (message.type, message.extra) == (aiohttp.WSMsgType.CLOSE, "the server goes down")
            await server.end(130)

    run(body)


# --- The pipeline -----------------------------------------------------------------------------------------------------


def table(printed: str) -> dict[str, list[str]]:
    """The rows of the report, by their first cells."""
    return {name: cells for name, *cells in table_rows(printed)}


def test_pipeline() -> None:
    """On its own sensors it reads as much as it shall, and ends, though the sensors would go on for ever."""

    async def body() -> None:
        async with Example.started("pipeline.py", "--readings", "500") as example:
            printed = await example.end(0)
        rows = table(printed)
        assert rows.keys() == {"attic", "cellar", "kitchen"}
        assert sum(int(cells[0]) for cells in rows.values()) == 500
        assert re.search(r"^500 readings, \d+ lines? not understood$", printed, re.MULTILINE)

    run(body)


@asynccontextmanager
async def sensor(lines: list[str], *, hang_up: bool) -> AsyncIterator[tuple[str, asyncio.Queue[asyncio.Future[int]]]]:
    """A sensor that sends lines over and over, or once; and, for each connection, how many lines it could send."""
    connections: asyncio.Queue[asyncio.Future[int]] = asyncio.Queue()

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent = 0
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        connections.put_nowait(done)
        try:
            while not (hang_up and sent):
                for line in lines:
                    writer.write(line.encode() + b"\n")
                    sent += 1
                    await writer.drain()
                await asyncio.sleep(0)  # drain() alone returns at once for as long as the system takes the data
        except ConnectionError:
            pass
        finally:
            writer.close()
            done.set_result(sent)

    server = await asyncio.start_server(send, "127.0.0.1", 0)
    async with server:
        yield "{}:{}".format(*server.sockets[0].getsockname()), connections


def test_pipeline_sums_up() -> None:
    """It sums up exactly what was sent, knows what makes no sense, and lets every connection go."""
    lines = [json.dumps({"sensor": "a", "celsius": n}) for n in range(10)] + ["nonsense", "[1]", '{"celsius": 1}']

    async def body() -> None:
        async with sensor(lines, hang_up=False) as (address, connections):
            async with Example.started(
                "pipeline.py", address, "--readings", "20", "--pumps", "1", "--parsers", "1"
            ) as e:
                printed = await e.end(0)
            assert table(printed) == {"a": ["20", "0.0", "4.5", "9.0"]}
            assert re.search(r"^20 readings, [3-9] lines not understood$", printed, re.MULTILINE)
            assert await (await connections.get()) >= 20 and connections.empty()

    run(body)


def test_pipeline_breaks() -> None:
    """A connection that breaks ends it with an error, and the report of what had come until then."""

    async def body() -> None:
        async with sensor(['{"sensor": "a", "celsius": 1}'] * 30, hang_up=True) as (address, connections):
            async with Example.started("pipeline.py", address, "--pumps", "1") as example:
                printed = await example.end(1, "the sensors hung up")
            assert await (await connections.get()) == 30 and connections.empty()
            assert int(table(printed)["a"][0]) <= 30
        async with Example.started("pipeline.py", address) as example:
            assert "0 readings" in await example.end(1, "the connection was refused")

    run(body)


def test_pipeline_falls_silent() -> None:
    """Sensors that stop to speak end it with an error; one line of theirs is one line, and not lines."""

    async def body() -> None:
        async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b'{"sensor": "a", "celsius": 1}\nnonsense\n')
            await reader.read()
            writer.close()

        async with await asyncio.start_server(send, "127.0.0.1", 0) as server:
            address = "{}:{}".format(*server.sockets[0].getsockname())
            async with Example.started("pipeline.py", address, "--pumps", "1", "--timeout", "0.1") as example:
                printed = await example.end(1, "cannot be read: nothing came for 0.1 s\n")
        assert printed.endswith("\n1 reading, 1 line not understood\n")

    run(body)


@needs_sigint
def test_pipeline_interrupted() -> None:
    """Ctrl-C gives the report so far and 130."""

    async def body() -> None:
        async with sensor(['{"sensor": "a", "celsius": 1}'], hang_up=False) as (address, connections):
            async with Example.started("pipeline.py", address, "--readings", "1000000000") as example:
                ends = [await connections.get() for _ in range(2)]
                example.process.send_signal(signal.SIGINT)
                assert re.search(r"\d readings?, 0 lines not understood$", await example.end(130), re.MULTILINE)
            await asyncio.gather(*ends)

    run(body)


# --- The downloader ---------------------------------------------------------------------------------------------------


class Files:
    """A server of files that fails when told to, and notes what it is asked for, and how much of that at once."""

    def __init__(self, files: dict[str, bytes], faults: dict[str, list[Any]] | None = None) -> None:
        self.files = files
        self.faults = faults or {}
        self.asked: Counter[str] = Counter()
        self.running = 0
        self.most = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer with the next fault of that file, or with the file."""
        self.asked[request.path] += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.gate.wait()
            faults = self.faults.get(request.path)
            fault = faults.pop(0) if faults else 200
            body = self.files.get(request.path)
            if body is None:
                raise web.HTTPNotFound
            if fault == "break off":
                response = web.StreamResponse(headers={"Content-Length": str(len(body))})
                await response.prepare(request)
                await response.write(body[: len(body) // 2])
                assert request.transport is not None
                request.transport.abort()
                return response
            return web.Response(status=fault, body=body)
        finally:
            self.running -= 1

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[list[str]]:
        """Serve the files; their addresses."""
        app = web.Application()
        app.router.add_get("/{path:.*}", self.answer)
        runner = web.AppRunner(app, handler_cancellation=True)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            base = "http://{}:{}".format(*runner.addresses[0])
            yield [base + path for path in self.files]
        finally:
            await runner.cleanup()


def contents(folder: Path) -> dict[str, bytes]:
    """What is in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_download(tmp_path: Path) -> None:
    """Every file arrives whole, whatever its server did before; what cannot be had is told, and nothing left."""
    files = {f"/{n}.bin": os.urandom(n * 10_000) for n in range(20)}
    faults: dict[str, list[Any]] = {
        "/3.bin": [503, 429, 500],
        "/5.bin": ["break off", "break off", 503],
        "/7.bin": [503] * 4,
        "/9.bin": [403],
    }

    async def body() -> None:
        server = Files(files, faults)
        async with server.serve() as urls:
            urls += [urls[1], urls[1] + "?again", urls[0] + ".missing"]
            options = "--into", str(tmp_path), "--tries", "4", "--pause", "0.001", "--rate", "1000"
            async with Example.started("download.py", *options, *urls) as example:
                printed = await example.end(1, f"{urls[3]}: 429 Too Many Requests, next try in 0.0 s\n")
        lines = printed.splitlines()
        lost = ["/7.bin", "/9.bin"]
        received = {name: body for name, body in files.items() if name not in lost}
        assert contents(tmp_path) == {name[1:]: body for name, body in received.items()}
        assert lines[-1] == f"18 files, {sum(map(len, received.values()))} bytes, 9 retries, 4 failed"
        told = {line.partition(": ")[0]: line for line in lines[:-1]}
        assert told.keys() == {urls[7], urls[9], urls[-2], urls[-1]}
        assert told[urls[7]] == f"{urls[7]}: 503 Service Unavailable"
        assert told[urls[9]] == f"{urls[9]}: 403 Forbidden" and told[urls[-1]] == f"{urls[-1]}: 404 Not Found"
        assert told[urls[-2]] == f"{urls[-2]}: another one has the same name: 1.bin"
        asked = Counter(files.keys()) + Counter({"/3.bin": 3, "/5.bin": 3, "/7.bin": 3})
        assert server.asked == asked + Counter(["/0.bin.missing"])

    run(body)


def test_download_limit_and_progress(tmp_path: Path) -> None:
    """It downloads as many files at a time as it may, never more, and draws what the group says of that."""

    async def body() -> None:
        server = Files({f"/{n}": b"content" for n in range(9)})
        server.gate.clear()
        async with server.serve() as urls:
            options = "--into", str(tmp_path), "--limit", "3", "--rate", "1000"
            async with Example.started("download.py", *options, *urls, FORCE_COLOR="1", TERM="xterm") as example:
                await example.shows(r"0 done, 3 running, 6 queued, 0 bytes, 0 bytes/s 0:00:\d\d")
                while server.running < 3:
                    await asyncio.sleep(0)
                server.gate.set()
                assert await example.end(0) == "9 files, 63 bytes, 0 retries, 0 failed\n"
        assert server.most == 3 and len(contents(tmp_path)) == 9

    run(body)


def test_download_rate(tmp_path: Path) -> None:
    """Requests are spread over time: after the first, none is sent before its turn, however many downloads may run."""

    async def body() -> None:
        server = Files({f"/{n}": b"content" for n in range(9)})
        async with server.serve() as urls:
            options = "--into", str(tmp_path), "--limit", "9", "--rate", "0.001"
            async with Example.started("download.py", *options, *urls, FORCE_COLOR="1", TERM="xterm") as example:
                await example.shows("1 done, 8 running, 0 queued")
                assert server.asked.total() == 1

    run(body)


@needs_sigint
def test_download_interrupted(tmp_path: Path) -> None:
    """Ctrl-C gives the report so far, what is missing, and 130; it leaves no half of a file."""

    async def body() -> None:
        server = Files({"/1": b"content", "/2": b"c" * 1_000_000, "/3": b""})
        halfway, release = asyncio.Event(), asyncio.Event()

        async def answer(request: web.Request) -> web.StreamResponse:
            if request.path != "/2":
                return await Files.answer(server, request)
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(server.files["/2"])
            halfway.set()
            await release.wait()
            return response

        server.answer = answer  # type: ignore[method-assign]
        async with server.serve() as urls:
            options = "--into", str(tmp_path), "--limit", "1"
            async with Example.started("download.py", *options, *urls, FORCE_COLOR="1", TERM="xterm") as example:
                await example.shows("1 done, 1 running, 1 queued")
                await halfway.wait()
                while not (tmp_path / "2.part").exists():
                    await asyncio.sleep(0)
                example.process.send_signal(signal.SIGINT)
                assert await example.end(130) == (
                    f"{urls[1]}: not downloaded\n{urls[2]}: not downloaded\n"
                    "interrupted: 1 file, 7 bytes, 0 retries, 0 failed, 2 missing\n"
                )
                release.set()
        assert contents(tmp_path) == {"1": b"content"}

    run(body)


@needs_sigint
def test_download_interrupted_after_a_failure(tmp_path: Path) -> None:
    """Ctrl-C is told, with 130, also if a file had failed before: the group raises its error first."""

    async def body() -> None:
        server = Files({"/1": b"", "/2": b"", "/3": b""}, {"/1": [403]})
        async with server.serve() as urls:
            options = "--into", str(tmp_path), "--limit", "1", "--rate", "0.001"
            async with Example.started("download.py", *options, *urls, FORCE_COLOR="1", TERM="xterm") as example:
                await example.shows("1 done, 1 running, 1 queued")
                example.process.send_signal(signal.SIGINT)
                assert await example.end(130) == (
                    f"{urls[0]}: 403 Forbidden\n{urls[1]}: not downloaded\n{urls[2]}: not downloaded\n"
                    "interrupted: 0 files, 0 bytes, 0 retries, 1 failed, 2 missing\n"
                )
        assert contents(tmp_path) == {}

    run(body)


def test_download_from_its_own_server(tmp_path: Path) -> None:
    """Without a URL it has a server of its own that is often too busy, and gets everything all the same."""

    async def body() -> None:
        options = "--into", str(tmp_path), "--limit", "25", "--rate", "1000", "--pause", "0.01", "--tries", "20"
        async with Example.started("download.py", *options) as example:
            printed = await example.end(0)
        sizes = [len(body) for body in contents(tmp_path).values()]
        assert len(sizes) == 50
        assert re.fullmatch(rf"50 files, {sum(sizes)} bytes, [1-9]\d* retr(?:y|ies), 0 failed\n", printed)

    run(body)


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------

PATIENT = """
import asyncio, sys
from command_line import run

async def main():
    loop = asyncio.get_running_loop()
    thread = loop.run_in_executor(None, sys.stdin.read)
    for n in range(3):
        try:
            print(n, flush=True)
            await loop.create_future()
        except asyncio.CancelledError:
            pass
    print("nothing but a thread is left", flush=True)
    return 1

sys.exit(run(main()))
"""


@needs_sigint
def test_interrupts() -> None:
    """However often Ctrl-C is pressed, it cancels what goes on and has no traceback; in the end it ends the process."""

    async def body() -> None:
        env = os.environ | {"PYTHONPATH": str(EXAMPLES)}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PATIENT, env=env, stdin=PIPE, stdout=PIPE, stderr=PIPE
        )
        assert process.stdout is not None and process.stderr is not None
        for n in range(3):
            assert await process.stdout.readline() == f"{n}\n".encode()
            process.send_signal(signal.SIGINT)
        assert await process.stdout.readline() == b"nothing but a thread is left\n"
        while process.returncode is None:
            process.send_signal(signal.SIGINT)
            await asyncio.sleep(0.01)
        assert process.returncode == -signal.SIGINT and await process.stderr.read() == b""

    run(body)


# --- A pipe that nobody reads any more --------------------------------------------------------------------------------

needs_sigpipe = pytest.mark.skipif(sys.platform == "win32", reason="Windows has another error for it")


@needs_sigpipe
@pytest.mark.parametrize(
    "command",
    [
        ["linkcheck.py", "--max-pages", "1"],
        ["download.py", "--rate", "1000", "--pause", "0.01", "--tries", "20", "--into"],
        ["pipeline.py", "--readings", "10"],
        ["chat.py", "--port", "0"],
        ["chat.py", "--help"],
    ],
    ids=" ".join,
)
def test_nobody_reads(command: list[str], tmp_path: Path) -> None:
    """`python examples/... | true` ends, and says nothing of it."""
    reader, writer = os.pipe()
    os.close(reader)
    into = [str(tmp_path)] if command[-1] == "--into" else []
    env = os.environ | {"PYTHONPATH": str(Path(quattro.__file__).parents[1]), "PYTHONUNBUFFERED": ""}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / command[0]), *command[1:], *into],
        env=env,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
    )
    os.close(writer)
    assert done.returncode in (0, 1, 130) and not re.search("Traceback|Broken|Exception", done.stderr), done


@needs_sigpipe
def test_nobody_reads_any_more() -> None:
    """`python examples/chat.py | head -1`: the server ends when it has something to say; its members are told."""

    async def body() -> None:
        async with chat() as (server, session):
            server.process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
            member = await session.ws_connect("/chat/ann")
            while (message := await member.receive()).type is aiohttp.WSMsgType.TEXT:
                pass
            assert (message.type, message.extra) == (aiohttp.WSMsgType.CLOSE, "the server goes down")
            assert server.process.stderr is not None and await server.process.stderr.read() == b""
            assert await server.process.wait() == 130

    run(body)


# --- What cannot be done ----------------------------------------------------------------------------------------------


def refuse(arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """Run an example that ends at once; return the one line that it says."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(EXAMPLES / arguments[0]), run_name="__main__")
    out, err = capsys.readouterr()
    assert (end.value.code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(arguments[0] + ": ")
    return err


@pytest.mark.parametrize(
    ("error", "arguments"),
    [
        ("did you mean https://example.org?", ["download.py", "example.org"]),
        ("not the address of a web site", ["download.py", "ftp://127.0.0.1/"]),
        ("--limit: must be", ["download.py", "--limit", "0"]),
        ("--tries: must be", ["download.py", "--tries", "0"]),
        ("--rate: must be", ["download.py", "--rate", "0"]),
        ("--rate: must be", ["download.py", "--rate", "nan"]),
        ("--rate: must be", ["download.py", "--rate", "inf"]),
        ("--rate: must be", ["download.py", "--rate", "1e-300"]),
        ("--pause: must be", ["download.py", "--pause", "-1"]),
        ("--timeout: must be", ["download.py", "--timeout", "nan"]),
        ("--readings: must be", ["pipeline.py", "--readings", "0"]),
        ("--pumps: must be", ["pipeline.py", "--pumps", "0"]),
        ("--parsers: must be", ["pipeline.py", "--parsers", "0"]),
        ("--timeout: must be", ["pipeline.py", "--timeout", "0"]),
        ("'127.0.0.1' is not HOST:PORT", ["pipeline.py", "127.0.0.1"]),
        ("':80' is not HOST:PORT", ["pipeline.py", ":80"]),
        ("Port out of range", ["pipeline.py", "127.0.0.1:80000"]),
        ("is not HOST:PORT", ["pipeline.py", "127.0.0.1:80/path"]),
        ("is not HOST:PORT", ["pipeline.py", "127.0.0.1:80?query"]),
        ("is not HOST:PORT", ["pipeline.py", "ann@127.0.0.1:80"]),
        ("no possible host name", ["pipeline.py", "a..b:80"]),
        ("no possible host name", ["pipeline.py", "a" * 64 + ":80"]),
        ("--pumps: must be a whole number, from 1 to 1000", ["pipeline.py", "--pumps", "1001"]),
        ("--parsers: must be a whole number, from 1 to 1000", ["pipeline.py", "--parsers", "9" * 30]),
        ("--port: must be a whole number, from 0 to 65535", ["chat.py", "--port", "80000"]),
        ("--port: must be", ["chat.py", "--port", "-1"]),
        ("--heartbeat: must be", ["chat.py", "--heartbeat", "nan"]),
        ("--patience: must be", ["chat.py", "--patience", "0"]),
    ],
)
def test_usage(
    error: str,
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """What cannot be done is refused in one line before anything is done, with argparse's exit code."""
    monkeypatch.chdir(tmp_path)
    assert error in refuse(arguments, monkeypatch, capsys)
    assert not list(tmp_path.iterdir())


def test_download_into_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A folder that cannot be made is refused in the same way."""
    file = tmp_path / "file"
    file.touch()
    for folder in file, file / "folder":
        error = refuse(["download.py", "--into", str(folder)], monkeypatch, capsys)
        assert f"cannot make the folder {folder}" in error


def test_chat_port_in_use() -> None:
    """A port that another program has is refused in the same way."""

    async def body() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = str(server.getsockname()[1])
            async with Example.started("chat.py", "--port", port) as example:
                error = f"chat.py: cannot serve on port {port}: {os.strerror(errno.EADDRINUSE)}\n"
                assert await example.end(2, error) == ""

    run(body)
