"""The how-to pages in bad weather: a member that fails, a cancel, a shutdown in the middle.

The pages' own programs show the good ending, and conftest.py at the root runs them; test_weather.py interrupts each of
them at every moment. Here their functions are taken out of the pages and put where what they promise is at stake.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import gc
import io
import re
import signal
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from aiohttp import ClientResponseError, ClientSession, WSMsgType, web
from helpers import fail, forever, settle
from rich.console import Console

from quattro import TaskGroup

HOWTO = Path(__file__).parents[2] / "docs" / "howto"


def defines(node: ast.stmt) -> bool:
    """An import, a definition or a constant, and no deed."""
    if isinstance(node, ast.Assign):
        return isinstance(node.targets[0], ast.Name)
    return isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)


def recipe(page: str, name: str, having: str = "") -> ModuleType:
    """What the block of the page that defines this name defines; what it does is left out."""
    blocks = re.compile(r"^```(?:python|{code-block} python\n:caption: .*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    for block in blocks.findall((HOWTO / page).read_text("utf-8")):
        module = ast.parse(block)
        if having in block and any(getattr(node, "name", None) == name for node in module.body):
            module.body = [node for node in module.body if defines(node)]
            for node in module.body:
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):  # a fixture cannot be called
                    node.decorator_list = [
                        it for it in node.decorator_list if not ast.unparse(it).startswith("pytest.")
                    ]
            defined = ModuleType("recipe")
            del defined.__loader__, defined.__spec__  # a traceback asks them for the source, and warns without one
            exec(compile(module, page, "exec"), defined.__dict__)
            return defined
    raise LookupError(name)


class Leave(BaseException):
    """Ends the program."""


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
    """A timeout around it ends all attempts, and is a timeout, even if some have failed before."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as timeout:
            asyncio.get_running_loop().call_soon(timeout.reschedule, 0)
            await first_success(partial(fail, OSError()), forever, forever, limit=2)


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


@pytest.mark.parametrize("name", ["load_page", "load_parts"])
async def test_catchable_errors_are_no_cancellation(name: str) -> None:
    """What is no error of a part passes: a timeout around it, and the end of the program."""
    module = recipe("catchable-errors.md", name)
    module.fetch = lambda _: forever()
    load = getattr(module, name)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await (load(["text"]) if name == "load_parts" else load())
    module.fetch = lambda _: fail(Leave())
    with pytest.raises(BaseExceptionGroup) as caught:
        await (load(["text"]) if name == "load_parts" else load())
    assert not isinstance(caught.value, Exception)


# --- async-generators.md


@pytest.mark.parametrize("having", ["asynccontextmanager", "aclosing"])
@pytest.mark.parametrize("ending", ["enough", "a task fails", "the caller fails", "cancelled"])
async def test_results_of_a_generator(having: str, ending: str) -> None:
    """However the caller ends, all tasks have ended before; it sees one error, and is cancelled where it waits."""
    results = recipe("async-generators.md", "results", having).results
    ended: list[int] = []
    consuming, go_on = asyncio.Event(), asyncio.Event()

    async def work(number: int) -> int:
        try:
            if number == 1:
                await go_on.wait()
                raise OSError
            return number
        finally:
            ended.append(number)

    async def consume() -> None:
        opened = results(work, [0, 1], 2)
        async with contextlib.aclosing(opened) if having == "aclosing" else opened as numbers:
            async for _ in numbers:
                await settle()
                if ending == "enough":
                    break
                if ending == "the caller fails":
                    raise ValueError
                consuming.set()
                await forever()

    task = asyncio.ensure_future(consume())
    await settle()
    if ending == "cancelled":
        await consuming.wait()
        task.cancel()
    if ending == "a task fails":
        go_on.set()
    await asyncio.wait([task])
    assert ended == [0, 1] and task.cancelled() == (ending == "cancelled")
    if not task.cancelled():
        error = task.exception()
        errors = error.exceptions if isinstance(error, BaseExceptionGroup) else [error]
        expected = {"a task fails": OSError, "the caller fails": ValueError}.get(ending, type(None))
        assert [type(error) for error in errors] == [expected]


# --- limit-requests.md


@pytest.mark.loops("asyncio", "uvloop")
@pytest.mark.parametrize("ending", ["an error", "the server hangs"])
async def test_requests_to_a_server_in_trouble(ending: str) -> None:
    """The other requests are cancelled, and no connection is left, when a server fails or does not answer."""
    fetch_all = recipe("limit-requests.md", "fetch_all").fetch_all
    ten, asked, gone = asyncio.Event(), 0, 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal asked, gone
        asked += 1
        if asked == 10:
            ten.set()
        try:
            if request.path == "/bad":
                await ten.wait()
                if ending == "an error":
                    raise web.HTTPServiceUnavailable
            await forever()
        finally:
            gone += 1
        raise AssertionError

    app = web.Application()
    app.router.add_get("/{path}", answer)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    base = "http://{}:{}".format(*runner.addresses[0])
    try:
        async with asyncio.timeout(None) as timeout:
            fetching = asyncio.ensure_future(fetch_all([f"{base}/bad", *[f"{base}/{n}" for n in range(20)]]))
            await ten.wait()
            if ending == "the server hangs":
                timeout.reschedule(0)
            await fetching
    except TimeoutError:
        assert ending == "the server hangs"
    except ExceptionGroup as group:
        (error,) = group.exceptions
        assert type(error) is ClientResponseError and ending == "an error"  # not of what the answer says
    while gone < 10:
        await asyncio.sleep(0)
    assert asked == 10  # what was queued has not been sent
    await runner.cleanup()


# --- retries-and-timeouts.md


async def test_retries_that_are_of_no_use() -> None:
    """The last error is raised; what is no error of the network is raised at once; a cancellation is never retried."""
    retry = recipe("retries-and-timeouts.md", "retry").retry
    errors = [OSError("first"), TimeoutError("second"), OSError("third"), OSError("fourth")]
    left = errors.copy()
    with pytest.raises(OSError, match="third"):
        await retry(lambda: fail(left.pop(0)), pause=0)
    assert left == errors[3:]
    left = [ValueError("at once"), OSError()]
    with pytest.raises(ValueError, match="at once"):
        await retry(lambda: fail(left.pop(0)), pause=0)
    assert len(left) == 1

    tried = 0

    async def attempt() -> None:
        nonlocal tried
        tried += 1
        if tried == 2:
            await forever()
        raise OSError

    task = asyncio.ensure_future(retry(attempt, pause=0))
    await settle(3)
    while tried < 2:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() and tried == 2


async def test_retries_end_with_the_group() -> None:
    """Nothing is tried again when a sibling has failed."""
    module = recipe("retries-and-timeouts.md", "retry")
    tried = 0

    async def attempt() -> None:
        nonlocal tried
        tried += 1
        raise OSError

    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup(concurrency_limit=2) as tg:
            tg.create_task(module.retry(attempt, pause=3600))
            tg.create_task(fail(ValueError(), 5))
    assert [type(error) for error in caught.value.exceptions] == [ValueError] and tried == 1


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


async def test_ready_when_one_who_waits_is_cancelled() -> None:
    """The future is not cancelled with it: others wait for it too, and the server will set it."""
    module = recipe("wait-until-ready.md", "ask")
    futures: list[asyncio.Future[Any]] = []

    async def serve(_: int, ready: asyncio.Future[Any]) -> None:
        futures.append(ready)
        await forever()

    module.serve = serve
    asking = asyncio.ensure_future(module.ask())
    await settle()
    asking.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled() and not futures[0].done()


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


async def test_heartbeat_ends_with_what_it_serves() -> None:
    """In every ending: no heartbeat is left."""
    heartbeat = recipe("background.md", "heartbeat").heartbeat
    sent: list[str] = []

    async def send(message: str) -> None:
        sent.append(message)

    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup() as tg:
            beating = tg.create_background_task(heartbeat(send, interval=0))
            tg.create_task(fail(OSError(), 5))
            await forever()
    assert sent and beating.cancelled() and len(caught.value.exceptions) == 1


@pytest.mark.parametrize("ending", ["well", "a task fails", "cancelled"])
async def test_progress_bar_in_every_ending(ending: str) -> None:
    """The last line is drawn, and the terminal is as it was."""
    show_progress = recipe("background.md", "show_progress").show_progress
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    with contextlib.suppress(TimeoutError, ExceptionGroup):
        async with asyncio.timeout(None) as timeout, TaskGroup(concurrency_limit=2) as tg:
            bar = tg.create_background_task(show_progress(tg, 4, console))
            for _ in range(3):
                tg.create_task(value(1))
            tg.create_task(fail(OSError()) if ending == "a task fails" else value(1))
            if ending == "cancelled":
                await settle(1)
                timeout.reschedule(0)
                await forever()
    drawn = console.file.getvalue()  # type: ignore[attr-defined]
    assert bar.cancelled() and drawn.count("\x1b[?25l") == drawn.count("\x1b[?25h") == 1  # the cursor is back
    assert "100%" in drawn or ending != "well"


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


@pytest.mark.loops("asyncio", "uvloop")
async def test_request_whose_client_hangs_up() -> None:
    """Its group is cancelled; a request that fails is an error of the server, for that client only."""
    module = recipe("servers.md", "prices", "aiohttp")
    asked, ended = asyncio.Event(), asyncio.Event()

    async def price(_: str) -> None:
        asked.set()
        try:
            await forever()
        finally:
            ended.set()

    app = web.Application()
    app.router.add_get("/", module.prices)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    module.price = price
    async with ClientSession("http://{}:{}".format(*runner.addresses[0])) as session:
        request = asyncio.ensure_future(session.get("/"))
        await asked.wait()
        request.cancel()
        await ended.wait()
        module.price = lambda _: fail(OSError())
        async with session.get("/") as response:
            assert response.status == 500
        module.price = lambda shop: value({"shop": shop})
        async with session.get("/") as response:
            assert response.status == 200
    await runner.cleanup()


@contextlib.asynccontextmanager
async def chatting(answer: Any, stop_early: bool = False) -> AsyncIterator[Any]:
    """The page's websocket handler behind a server, and a client that has just connected."""
    module = recipe("servers.md", "websocket")
    module.answer = answer
    app = web.Application()
    app.router.add_get("/", module.websocket)
    runner = web.AppRunner(app, shutdown_timeout=0.001)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    async with ClientSession(f"http://{host}:{port}") as session, session.ws_connect("/") as socket:
        yield socket
        if stop_early:
            await runner.cleanup()
            assert (await socket.receive()).type in (WSMsgType.CLOSE, WSMsgType.CLOSED)
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


@pytest.mark.loops("asyncio", "uvloop")
@pytest.mark.parametrize("ending", ["the server stops", "an answer fails"])
async def test_websocket_ends(ending: str, caplog: pytest.LogCaptureFixture) -> None:
    """The server cancels the answers that are under way when it stops; one that fails ends that connection."""
    answering, ended = asyncio.Event(), asyncio.Event()

    async def answer(_: Any, text: str) -> None:
        answering.set()
        try:
            await (fail(OSError("no answer")) if text == "bad" else forever())
        finally:
            ended.set()

    async with chatting(answer, stop_early=ending == "the server stops") as socket:
        await socket.send_str("bad" if ending == "an answer fails" else "hello")
        await answering.wait()
        if ending == "an answer fails":
            assert (await socket.receive()).type in (WSMsgType.CLOSE, WSMsgType.CLOSED)
    assert ended.is_set() and ("no answer" in caplog.text) == (ending == "an answer fails")


# --- testing.md


@pytest.mark.loops("asyncio", "uvloop")
async def test_echo_server_of_a_test_that_ends_at_once() -> None:
    """Each connection is closed, also one whose task has not begun."""
    serve = recipe("testing.md", "echo_server").echo_server()
    for passes in range(6):
        async with serve() as (host, port):
            reader, writer = await asyncio.open_connection(host, port)
            await settle(passes)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
        await settle(3)


@pytest.mark.loops("asyncio")
async def test_echo_server_that_hears_of_a_connection_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is closed, though the block has ended: on Windows asyncio may tell of it after the server was closed."""
    start_server = asyncio.start_server
    connected, closed = [], []

    async def start(callback: Any, *address: Any) -> asyncio.Server:
        connected.append(callback)
        return await start_server(callback, *address)

    monkeypatch.setattr(asyncio, "start_server", start)
    async with recipe("testing.md", "echo_server").echo_server()():
        pass
    connected[0](None, SimpleNamespace(close=lambda: closed.append(True)))
    assert closed == [True]


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


@pytest.mark.loops("asyncio", "uvloop", "debug")
async def test_server_whose_client_leaves_early(caplog: pytest.LogCaptureFixture) -> None:
    """A client that does not wait for its answer is no error of the server's, and the others do not notice."""
    busy, go_on = asyncio.Event(), asyncio.Event()

    async def answer(line: bytes) -> bytes:
        if line == b"slow\n":
            busy.set()
            await go_on.wait()
        return line * 100_000

    async with served(answer) as it:
        gone = await it.connect(b"slow\n")
        await busy.wait()
        gone._transport.abort()
        await settle(3)
        go_on.set()
        good = await it.connect(b"good\n")
        assert await good.readline() == b"good\n"
    assert caplog.text == ""


@pytest.mark.loops("asyncio", "uvloop", "debug")
async def test_server_refuses_a_line_without_end(caplog: pytest.LogCaptureFixture) -> None:
    """A line that is too long closes that connection, and is logged."""
    async with served(echo) as it:
        endless = await it.connect(b"x" * 1_000_000)
        with contextlib.suppress(ConnectionError):
            assert await endless.read() == b""
    assert "longer than limit" in caplog.text or "exceed the limit" in caplog.text


@pytest.mark.loops("asyncio", "uvloop", "debug")
@pytest.mark.parametrize("passes", range(6))
async def test_server_closes_a_connection_that_it_has_not_begun_to_serve(passes: int) -> None:
    """Cancelled in any moment after a client came: the connection is closed."""
    async with served(echo) as it:
        reader = await it.connect(b"")
        await settle(passes)
        it.serving.cancel()
        await asyncio.wait([it.serving])
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""


@pytest.mark.loops("asyncio", "uvloop")
async def test_server_lets_an_idle_client_go() -> None:
    """A client that sends nothing in its time gets the end."""
    async with served(echo, idle=0.001) as it:
        idle = await it.connect(b"")
        assert await idle.read() == b""
