"""The how-to pages in bad weather: a member that fails, a cancel, a shutdown in the middle.

The pages' own programs show the good ending, and conftest.py at the root runs them. Here their functions are taken out
of the pages and put where things go wrong.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import gc
import re
import signal
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from aiohttp import ClientSession, web
from helpers import fail, forever, settle

from quattro import TaskGroup

HOWTO = Path(__file__).parents[2] / "docs" / "howto"


def defines(node: ast.stmt) -> bool:
    """An import, a definition or a constant, and no deed."""
    if isinstance(node, ast.Assign):
        return isinstance(node.targets[0], ast.Name)
    return isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)


def recipe(page: str, name: str) -> ModuleType:
    """What the block of the page that defines this name defines; what it does is left out."""
    for block in re.findall(r"^```python\n(.*?)^```$", (HOWTO / page).read_text("utf-8"), re.MULTILINE | re.DOTALL):
        module = ast.parse(block)
        if any(getattr(node, "name", None) == name for node in module.body):
            module.body = [node for node in module.body if defines(node)]
            defined = ModuleType("recipe")
            del defined.__loader__, defined.__spec__  # a traceback asks them for the source, and warns without one
            exec(compile(module, page, "exec"), defined.__dict__)
            return defined
    raise LookupError(name)


async def value(result: Any) -> Any:
    """A step of the loop, and a result."""
    await asyncio.sleep(0)
    return result


# --- first-success.md


first_success = recipe("first-success.md", "first_success").first_success


async def test_first_success_after_failures() -> None:
    """Those that fail before the first success do not count; those that have not started never do."""
    result = await first_success(partial(fail, OSError()), partial(fail, ValueError()), partial(value, 3), forever)
    assert result == 3
    assert await first_success(partial(fail, OSError()), partial(value, 1), partial(value, 2), limit=1) == 1


async def test_first_success_of_none() -> None:
    """If all fail, all errors are raised."""
    with pytest.raises(ExceptionGroup) as caught:
        await first_success(partial(fail, OSError()), partial(fail, ValueError()))
    assert [type(error) for error in caught.value.exceptions] == [OSError, ValueError]


async def test_first_success_with_a_loser_that_fails_to_clean_up() -> None:
    """An error in a loser's clean-up does not take the result away."""

    async def stubborn() -> None:
        try:
            await forever()
        finally:
            raise OSError

    assert await first_success(stubborn, partial(value, 1)) == 1


async def test_first_success_cancelled() -> None:
    """A timeout around it ends all attempts, and is a timeout."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await first_success(forever, forever, limit=1)


# --- leave-early.md


async def test_leave_early_finds_nothing_or_fails() -> None:
    """Nothing found is None; an error of a shelf is raised."""
    find_one = recipe("leave-early.md", "find_one").find_one
    assert await find_one([["Emma"], []], "Ul") is None
    with pytest.raises(ExceptionGroup, match="unhandled errors"):
        await find_one([["Emma"], [3]], "Ul")


# --- catchable-errors.md


async def test_catchable_errors_leave_no_cycle(collected: None) -> None:
    """A lone error comes out as itself, several in their group; neither is part of a reference cycle."""
    load_parts = recipe("catchable-errors.md", "load_parts").load_parts
    module = recipe("catchable-errors.md", "LoadError")
    gc.collect()

    for load, kind in (
        (module.load_page(), module.LoadError),
        (load_parts(["text", "menu"]), OSError),
        (load_parts(["menu", "menu"]), ExceptionGroup),
    ):
        try:
            await load
        except kind as error:
            assert "menu" in str(error) or kind is not OSError
        else:
            raise AssertionError
    assert gc.collect() == 0


# --- shut-down.md


@pytest.mark.skipif(sys.platform == "win32", reason="asyncio has no signal handlers on Windows")
@pytest.mark.parametrize("how", ["nothing to do", "drained", "out of time", "cancelled", "a job fails"])
async def test_shut_down(how: str) -> None:
    """Jobs that run are finished, or cancelled when the time is up; no new one is taken; the handler is removed."""
    serve = recipe("shut-down.md", "serve").serve
    jobs: asyncio.Queue[str] = asyncio.Queue()
    log: list[str] = []
    go_on = asyncio.Event()

    async def handle(job: str) -> None:
        try:
            await go_on.wait()
            assert how != "a job fails"
        finally:
            log.append(job)

    serving = asyncio.ensure_future(serve(jobs, handle, grace=0 if how == "out of time" else 3600))
    await settle()
    if how != "nothing to do":
        jobs.put_nowait("taken")
        await settle()
    if how == "cancelled":
        serving.cancel()
    elif how != "a job fails":
        signal.raise_signal(signal.SIGTERM)
        await settle()
        jobs.put_nowait("too late")
        await settle()
    if how not in ("cancelled", "out of time"):
        go_on.set()
    await asyncio.wait([serving])
    assert log == ([] if how == "nothing to do" else ["taken"])
    assert asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM) is False
    assert serving.cancelled() == (how == "cancelled")
    if not serving.cancelled():
        assert isinstance(serving.exception(), ExceptionGroup if how == "a job fails" else type(None))


# --- wait-until-ready.md


async def test_wait_until_ready_with_the_port_taken() -> None:
    """The server's error comes out; nobody waits for what will never be ready."""
    ask = recipe("wait-until-ready.md", "ask").ask
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    with pytest.raises(ExceptionGroup) as caught:
        await ask(server.sockets[0].getsockname()[1])
    server.close()
    assert isinstance(caught.value.exceptions[0], OSError)


# --- results-as-they-come.md


async def test_results_as_they_come_until_one_fails(capsys: pytest.CaptureFixture[str]) -> None:
    """The error is raised once, by the group, wherever in the list it is."""
    load = recipe("results-as-they-come.md", "load").load
    assert await load([13, 1, 2]) == []
    assert await load([1, 2, 13]) == [1, 2]
    assert capsys.readouterr().out == "page 13 is missing\n" * 2


# --- shared-limits.md


async def test_shared_limit_when_a_request_fails_or_is_cancelled() -> None:
    """Every connection comes back."""
    module = recipe("shared-limits.md", "Database")
    database = module.Database(connections=2)
    requests = [asyncio.ensure_future(module.request(database, range(4))) for _ in range(3)]
    await settle(2)
    requests[0].cancel()
    requests[1].cancel()
    await asyncio.wait(requests)
    assert requests[2].result() == 6 and database.busy == 0 and database.most == 2
    assert await module.request(database, range(4)) == 6


# --- tracing.md


@pytest.mark.parametrize("ending", ["well", "refused", "cancelled in the queue", "aborted"])
async def test_observed_and_wrapped_tasks(ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each task that began has ended; no coroutine is left unclosed, with a wrapper around it neither."""
    seen: list[tuple[str, Any]] = []
    observe = recipe("tracing.md", "observe").observe
    traced = recipe("tracing.md", "traced").traced
    monkeypatch.setattr(TaskGroup, "create_task", traced(TaskGroup.create_task), raising=False)
    log = partial(observe, began=lambda task: seen.append(("+", task)), ended=lambda task: seen.append(("-", task)))
    monkeypatch.setattr(TaskGroup, "create_task", log(TaskGroup.create_task))
    with contextlib.suppress(ExceptionGroup):
        async with TaskGroup(concurrency_limit=1) as tg:
            tasks = [tg.create_task(value(n)) for n in range(3)]
            if ending == "cancelled in the queue":
                tasks[1].cancel()
            if ending == "aborted":
                raise OSError
    if ending == "refused":
        with pytest.raises(RuntimeError):
            tg.create_task(value(4))
    assert [task for what, task in seen if what == "+"] == tasks
    assert {task for what, task in seen if what == "-"} == set(tasks)


# --- background.md


async def test_heartbeat_that_fails_ends_the_session() -> None:
    """The error of the heartbeat is the group's."""
    heartbeat = recipe("background.md", "heartbeat").heartbeat
    with pytest.raises(ExceptionGroup):
        async with TaskGroup() as tg:
            tg.create_background_task(heartbeat(partial(fail, OSError()), interval=30))
            await forever()


@pytest.mark.parametrize("ending", ["well", "a sibling fails", "cancelled", "the writer fails"])
async def test_flush_in_every_ending(ending: str) -> None:
    """What is in the buffer is written, and no RuntimeError is added to the error that ended the group."""
    keep_flushing = recipe("background.md", "keep_flushing").keep_flushing
    written: list[int] = []
    buffer: list[int] = []

    async def write(lines: list[int]) -> None:
        await asyncio.sleep(0)
        if ending == "the writer fails":
            raise OSError
        written.extend(lines)

    errors: tuple[Exception, ...] = ()
    try:
        async with asyncio.timeout(None) as timeout, TaskGroup() as tg:
            tg.create_background_task(keep_flushing(buffer, write, interval=60))
            await settle(1)
            buffer += [1, 2]
            if ending == "a sibling fails":
                tg.create_task(fail(ValueError()))
            if ending == "cancelled":
                timeout.reschedule(0)
                await forever()
    except ExceptionGroup as group:
        errors = group.exceptions
    except TimeoutError:
        assert ending == "cancelled"
    assert [type(error) for error in errors] == {"a sibling fails": [ValueError], "the writer fails": [OSError]}.get(
        ending, []
    )
    assert (buffer, written) == (([1, 2], []) if ending == "the writer fails" else ([], [1, 2]))


async def test_flush_cancelled_in_the_middle() -> None:
    """What was being written is written again: nothing is lost."""
    keep_flushing = recipe("background.md", "keep_flushing").keep_flushing
    buffer, written = [1], []
    writing = asyncio.Event()

    async def write(lines: list[int]) -> None:
        if not writing.is_set():
            writing.set()
            await forever()
        written.extend(lines)

    async with TaskGroup() as tg:
        tg.create_background_task(keep_flushing(buffer, write, interval=0))
        await writing.wait()
    assert (buffer, written) == ([], [1])


# --- servers.md


async def test_an_application_survives_a_job_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """A background task and a task of the application's group fail: logged, and the group goes on."""
    module = recipe("servers.md", "lifespan")
    module.price = lambda shop: fail(OSError("no prices"))
    async with module.lifespan(module.app) as state:
        await settle()
        await state["tg"].create_task(module.keep_going(partial(fail, OSError("no paper"))))
        assert await state["tg"].create_task(value(1)) == 1
    assert "no prices" in caplog.text and "no paper" in caplog.text


@pytest.mark.loops("asyncio", "uvloop")
async def test_orders_of_an_application_that_stops(caplog: pytest.LogCaptureFixture) -> None:
    """What its orders do wrong is logged; when it stops, what still runs is cancelled."""
    module = recipe("servers.md", "make_app")
    app = module.make_app()
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    async with ClientSession(f"http://{host}:{port}") as session, session.post("/") as response:
        assert response.status == 200
    task = app[module.TASKS].create_task(forever())
    await settle()
    await runner.cleanup()
    assert task.cancelled() and "out of paper" in caplog.text


@contextlib.asynccontextmanager
async def chatting(answer: Any) -> AsyncIterator[Any]:
    """The page's websocket handler behind a server, and a client that has just connected."""
    module = recipe("servers.md", "websocket")
    module.answer = answer
    app = web.Application()
    app.router.add_get("/", module.websocket)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    async with ClientSession(f"http://{host}:{port}") as session, session.ws_connect("/") as socket:
        yield socket
    await runner.cleanup()


@pytest.mark.loops("asyncio", "uvloop")
async def test_websocket_reads_no_faster_than_it_answers() -> None:
    """Of a flood of messages five are being answered, and the others are no tasks yet."""
    begun: list[str] = []
    five, go_on = asyncio.Event(), asyncio.Event()

    async def answer(_: Any, text: str) -> None:
        begun.append(text)
        if len(begun) == 5:
            five.set()
        await go_on.wait()

    async with chatting(answer) as socket:
        for _ in range(200):
            await socket.send_str("hello")
        await five.wait()
        await settle()
        tasks = len(asyncio.all_tasks())
        go_on.set()
        assert len(begun) == 5 and tasks < 20
        while len(begun) < 200:
            await asyncio.sleep(0)


@pytest.mark.loops("asyncio", "uvloop")
async def test_websocket_whose_client_leaves(caplog: pytest.LogCaptureFixture) -> None:
    """A client that leaves before it has its answers is no error of the server's."""
    module = recipe("servers.md", "websocket")
    left, answered = asyncio.Event(), asyncio.Event()

    async def answer(socket: Any, text: str) -> None:
        await left.wait()
        try:
            await module.answer(socket, text)
        finally:
            answered.set()

    async with chatting(answer) as socket:
        await socket.send_str("hello")
        await socket.close()
        left.set()
        await answered.wait()
    assert caplog.text == ""


# --- plain-server.md


@contextlib.asynccontextmanager
async def served(answer: Any, **options: Any) -> AsyncIterator[Any]:
    """A server of the page's, in a task, and a function that connects to it."""
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    server = recipe("plain-server.md", "Server").Server(answer, stop, **options)
    serving = asyncio.ensure_future(server.serve(ready))
    address = await ready
    writers = []

    async def connect(line: bytes) -> asyncio.StreamReader:
        reader, writer = await asyncio.open_connection(*address)
        writers.append(writer)
        writer.write(line)
        return reader

    try:
        yield SimpleNamespace(stop=stop, serving=serving, connect=connect, server=server)
    finally:
        for writer in writers:
            writer.transport.abort()
        stop.set()
        await asyncio.wait([serving])
        await settle(3)


async def echo(line: bytes) -> bytes:
    """Answer at once."""
    return line


@pytest.mark.loops("asyncio", "uvloop", "debug")
async def test_server_isolates_a_client(caplog: pytest.LogCaptureFixture) -> None:
    """One client's error is logged and closes that connection; the others do not notice."""

    async def answer(line: bytes) -> bytes:
        assert line != b"bad\n"
        return line

    async with served(answer) as it:
        bad = await it.connect(b"bad\n")
        good = await it.connect(b"good\n")
        with contextlib.suppress(ConnectionError):
            assert await bad.read() == b""
        assert await good.readline() == b"good\n"
        it.stop.set()
        assert await good.read() == b""
    assert it.serving.exception() is None and "AssertionError" in caplog.text


@pytest.mark.loops("asyncio", "uvloop", "debug")
async def test_server_drains() -> None:
    """When it stops, an idle client gets the end at once, a busy one its answer first; new ones are refused."""
    busy, go_on = asyncio.Event(), asyncio.Event()

    async def answer(line: bytes) -> bytes:
        if line == b"slow\n":
            busy.set()
            await go_on.wait()
        return line

    async with served(answer, grace=3600) as it:
        idle = await it.connect(b"hello\n")
        assert await idle.readline() == b"hello\n"
        slow = await it.connect(b"slow\n")
        await busy.wait()
        it.stop.set()
        assert await idle.read() == b""
        assert not it.serving.done()
        with pytest.raises(OSError):
            await it.connect(b"too late\n")
        go_on.set()
        assert await slow.read() == b"slow\n"
        await it.serving


@pytest.mark.loops("asyncio", "uvloop", "debug")
@pytest.mark.parametrize("how", ["out of time", "cancelled"])
async def test_server_gives_up(how: str) -> None:
    """A client that is not answered in time, or does not read, cannot hold the server; nor when it is cancelled."""
    busy = asyncio.Event()

    async def answer(line: bytes) -> bytes:
        if line == b"for ever\n":
            busy.set()
            await forever()
        return line * 1_000_000

    async with served(answer, grace=0) as it:
        await it.connect(b"for ever\n")
        await it.connect(b"much\n")  # and does not read it
        await busy.wait()
        await settle()
        it.stop.set() if how == "out of time" else it.serving.cancel()
        await asyncio.wait([it.serving])
        assert it.serving.cancelled() == (how == "cancelled")
        assert not it.server.waiting


@pytest.mark.loops("asyncio", "uvloop")
async def test_server_lets_an_idle_client_go() -> None:
    """A client that sends nothing in its time gets the end."""
    async with served(echo, idle=0.001) as it:
        idle = await it.connect(b"")
        assert await idle.read() == b""
