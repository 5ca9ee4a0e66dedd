"""A chat over websockets: ``python examples/chat.py [--port PORT]``, then open the address that it prints in a browser.

A connection is a group. Its body reads what the browser sends; a background task writes what the others say, another
one checks that the browser still answers. When the body ends, because the user has left, the group ends both; when
there is no answer, or a user reads too slowly, ``cancel()`` ends the group, and the connection, without an error.

Needs aiohttp.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from typing import NoReturn

from aiohttp import WSMsgType, web

from command_line import Parser, positive, run, say, whole_number
from quattro import TaskGroup

PAGE = """<!DOCTYPE html><meta charset="utf-8"><title>Chat</title>
<form>Say <input autofocus></form><div></div>
<script>
  const name = prompt("Who are you?") || "somebody", input = document.querySelector("input");
  const socket = new WebSocket("ws://" + location.host + "/chat/" + encodeURIComponent(name));
  const show = text => document.querySelector("div").prepend(text, document.createElement("br"));
  socket.onmessage = event => show(event.data);
  socket.onclose = () => show("The connection is closed.");
  document.forms[0].onsubmit = () => { socket.send(input.value); input.value = ""; return false; };
</script>
"""


class Member:
    """A user who is connected."""

    def __init__(self, name: str, socket: web.WebSocketResponse) -> None:
        self.name = name
        self.socket = socket
        self.group = TaskGroup()
        self.unsent: asyncio.Queue[str] = asyncio.Queue(100)
        self.pong = asyncio.Event()

    async def read(self, room: Room) -> None:
        """Hand to the room what comes in, until this member leaves."""
        async for message in self.socket:
            if message.type is WSMsgType.TEXT:
                room.say(f"{self.name}: {message.data}")
            elif message.type is WSMsgType.PING:
                await self.socket.pong(message.data)
            elif message.type is WSMsgType.PONG:
                self.pong.set()

    async def write(self) -> NoReturn:
        """Send what others say, at the pace of this member's line."""
        while True:
            await self.socket.send_str(await self.unsent.get())

    async def heartbeat(self, interval: float, patience: float) -> None:
        """Ask now and then whether anybody is there, and end the connection when there is no answer."""
        try:
            while True:
                await asyncio.sleep(interval)
                self.pong.clear()
                await self.socket.ping()
                async with asyncio.timeout(patience):
                    await self.pong.wait()
        except TimeoutError:
            self.group.cancel()


class Room:
    """Everybody who is connected."""

    def __init__(self, *, interval: float, patience: float) -> None:
        self.interval = interval
        self.patience = patience
        self.members: set[Member] = set()

    def say(self, text: str) -> None:
        """Say something to all; a user who is a hundred messages behind is disconnected."""
        say(text)
        for member in self.members:
            try:
                member.unsent.put_nowait(text)
            except asyncio.QueueFull:
                member.group.cancel()

    async def connection(self, request: web.Request) -> web.WebSocketResponse:
        """Serve one member, from the handshake until nothing of the connection is left."""
        # The answers to our pings are for the heartbeat, not for aiohttp.
        socket = web.WebSocketResponse(autoping=False, timeout=self.patience)
        await socket.prepare(request)
        member = Member(request.match_info["name"], socket)
        self.members.add(member)
        self.say(f"{member.name} is here, {len(self.members)} in all")
        try:
            async with member.group as tg:
                tg.create_background_task(member.write)
                tg.create_background_task(member.heartbeat(self.interval, self.patience))
                await member.read(self)
        except* ConnectionError:
            pass  # the line broke while something was being sent: a way to leave like others
        finally:
            self.members.discard(member)
            self.say(f"{member.name} has left")
        await socket.close()
        return socket

    async def close(self, _: web.Application) -> None:
        """Say goodbye, as the server goes down."""
        for member in list(self.members):
            await member.socket.close(message=b"the server goes down")


async def page(_: web.Request) -> web.Response:
    """Answer with the page that talks to the room."""
    return web.Response(text=PAGE, content_type="text/html")


async def serve(room: Room, port: int) -> None:
    """Serve on the loopback interface until Ctrl-C."""
    app = web.Application()
    app.add_routes([web.get("/", page), web.get("/chat/{name}", room.connection)])
    app.on_shutdown.append(room.close)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        say("http://{}:{}/".format(*runner.addresses[0]))
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(description="A chat over websockets.")
    add = parser.add_argument
    add("--port", type=whole_number(0, 65535), default=8080, help="default: %(default)s; 0 takes a free one")
    add("--heartbeat", type=positive, default=10, help="seconds between heartbeats (default: %(default)s)")
    add("--patience", type=positive, default=10, help="seconds to wait for the answer (default: %(default)s)")
    return parser.parse_args()


async def main(args: argparse.Namespace) -> int:
    """Return the exit code; Ctrl-C is the way to end it."""
    try:
        await serve(Room(interval=args.heartbeat, patience=args.patience), args.port)
    except asyncio.CancelledError:
        return 130
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        print(f"chat.py: cannot serve on port {args.port}: {reason}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(run(main(parse_arguments())))
