"""Neighbours, for real: a group per request in servers under load, with clients that hang up mid-way."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import aiohttp
import fastapi
import httpx
import pytest
import uvicorn
from aiohttp import web
from fastapi.responses import StreamingResponse
from helpers import forever

from quattro import TaskGroup

pytestmark = pytest.mark.loops("asyncio", "uvloop")

EACH = 12
REQUESTS = ["work"] * 8 * EACH + ["wait", "stream", "fail"] * EACH
Ask = Callable[[str], Awaitable[int]]  # a path; the status of the answer


class Service:
    """What the handlers of both servers do, and the books, which must balance in the end."""

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.changed = asyncio.Event()
        self.finished: list[bool] = []

    @asynccontextmanager
    async def booked(self, what: str) -> AsyncIterator[None]:
        """Enter something into the books, and its end, however it ends."""
        self.begun[what] += 1
        self.changed.set()
        try:
            yield
        finally:
            self.ended[what] += 1
            self.changed.set()

    async def until(self, books: Counter[str], what: str, count: int) -> None:
        """Wait until something is in the books that often."""
        while books[what] < count:
            self.changed.clear()
            await self.changed.wait()

    @asynccontextmanager
    async def group(self, kind: str) -> AsyncIterator[TaskGroup]:
        """A group for a request, with a background task; afterwards it must be of no use any more."""
        tg = TaskGroup(concurrency_limit=2)
        async with self.booked(kind):
            try:
                async with tg:
                    tg.create_background_task(self.background)
                    yield tg
            finally:
                try:
                    tg.create_task(forever)
                except RuntimeError as error:
                    self.finished.append("is finished" in str(error))
                self.finished.append(tg.statistics()[:3] == (0, 0, 0))

    async def background(self) -> None:
        """A heartbeat, say."""
        async with self.booked("background"):
            await forever()

    async def job(self, n: int) -> int:
        """A piece of work that ends soon."""
        async with self.booked("job"):
            for _ in range(n % 4):
                await asyncio.sleep(0)
            return n

    async def work(self) -> int:
        """Ten jobs, two at a time."""
        async with self.group("work") as tg:
            tasks = [tg.create_task(self.job(n)) for n in range(10)]
        return sum(task.result() for task in tasks)

    async def wait(self, tg: TaskGroup) -> None:
        """More jobs than slots, none of which ends by itself."""
        for _ in range(10):
            tg.create_task(self.background)
        await self.background()

    async def fail(self) -> None:
        """A job that goes wrong while others run and wait."""
        async with self.group("fail") as tg:
            tg.create_task(self.background)
            tg.create_task(self.error)
            tg.create_task(self.job(1))

    async def error(self) -> None:
        async with self.booked("job"):
            await asyncio.sleep(0)
            raise ValueError("a job went wrong")

    async def stream(self) -> AsyncIterator[bytes]:
        """What jobs make, as it comes, and then nothing more, for ever."""
        queue: asyncio.Queue[int] = asyncio.Queue()

        async def produce(n: int) -> None:
            await queue.put(await self.job(n))

        async with self.group("stream") as tg:
            for n in range(10):
                tg.create_task(produce(n))
            tg.create_task(self.background)
            while True:
                yield b"%d\n" % await queue.get()

    async def check(self, ask: Ask, hang_up: Ask) -> None:
        """Have a crowd of clients; those who would wait for ever hang up when all of them are being served."""
        statuses: list[tuple[str, int]] = []

        async def client(path: str) -> None:
            statuses.append((path, await ask(path)))

        async with TaskGroup() as patient, TaskGroup() as impatient:
            for path in REQUESTS:
                if path in ("wait", "stream"):
                    impatient.create_task(hang_up(path))
                else:
                    patient.create_task(client(path))
            for path in ("wait", "stream"):
                await self.until(self.begun, path, EACH)
            impatient.cancel()
        assert Counter(statuses) == {("work", 200): 8 * EACH, ("fail", 500): EACH}
        for path in ("wait", "stream"):
            await self.until(self.ended, path, EACH)

    def balance(self) -> None:
        """Everything that began has ended, and every group is finished and gone."""
        assert self.begun == self.ended
        assert {kind: self.begun[kind] for kind in set(REQUESTS)} == Counter(REQUESTS)
        assert self.finished == [True] * 2 * len(REQUESTS)
        assert self.begun["background"] >= len(REQUESTS)


def groups_alive() -> int:
    """How many groups there are."""
    gc.collect()
    return sum(type(thing) is TaskGroup for thing in gc.get_objects())


async def test_aiohttp() -> None:
    """aiohttp cancels the handler of a client that hangs up: the group of that request ends with it, no other."""
    before = groups_alive()
    service = Service()

    async def handle(request: web.Request) -> web.StreamResponse:
        kind = request.match_info["kind"]
        if kind == "work":
            return web.json_response(await service.work())
        if kind == "fail":
            await service.fail()
        if kind == "wait":
            async with service.group("wait") as tg:
                await service.wait(tg)
        response = web.StreamResponse()
        await response.prepare(request)
        async with aclosing(service.stream()) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                await response.write(chunk)
        return response

    logging.getLogger("aiohttp.server").disabled = True  # it logs the errors that are provoked here
    app = web.Application()
    app.router.add_get("/{kind}", handle)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        base = "http://{}:{}".format(*runner.addresses[0])
        async with aiohttp.ClientSession(base, connector=aiohttp.TCPConnector(limit=0)) as session:

            async def ask(path: str) -> int:
                async with session.get(path) as response:
                    assert response.status != 200 or await response.json() == 45
                    return response.status

            async def hang_up(path: str) -> int:
                async with session.get(path) as response:
                    return len(await response.read())

            await service.check(ask, hang_up)
    finally:
        await runner.cleanup()
        logging.getLogger("aiohttp.server").disabled = False
    service.balance()
    assert groups_alive() == before


def application(service: Service) -> fastapi.FastAPI:
    """The same service in FastAPI, which leaves it to the handler to notice that the client has gone."""
    app = fastapi.FastAPI()

    async def end_with_the_client(request: fastapi.Request, tg: TaskGroup) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        tg.cancel()

    @app.get("/work")
    async def work() -> int:
        return await service.work()

    @app.get("/fail")
    async def fail() -> None:
        await service.fail()

    @app.get("/wait")
    async def wait(request: fastapi.Request) -> None:
        async with service.group("wait") as tg:
            tg.create_background_task(end_with_the_client(request, tg))
            await service.wait(tg)

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(service.stream())

    return app


@asynccontextmanager
async def uvicorn_server(app: Any) -> AsyncIterator[str]:
    """Serve an application from a free port."""
    logging.getLogger("uvicorn.error").disabled = True  # it logs the errors that are provoked here
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None))
        serving = asyncio.ensure_future(server.serve(sockets=[listening]))
        try:
            while not server.started:
                await asyncio.sleep(0)
            yield "http://{}:{}".format(*listening.getsockname())
        finally:
            server.should_exit = True
            await serving
            logging.getLogger("uvicorn.error").disabled = False


async def test_fastapi() -> None:
    """Under uvicorn a background task that hears of the hang-up cancels the group; a streaming response is dropped."""
    before = groups_alive()
    service = Service()
    limits = httpx.Limits(max_connections=None)
    async with (
        uvicorn_server(application(service)) as base,
        httpx.AsyncClient(base_url=base, limits=limits, timeout=None, trust_env=False) as client,
    ):

        async def ask(path: str) -> int:
            response = await client.get(path)
            assert response.status_code != 200 or response.json() == 45
            return response.status_code

        async def hang_up(path: str) -> int:
            return (await client.get(path)).status_code

        await service.check(ask, hang_up)
    service.balance()
    assert groups_alive() == before
