"""Sum up what sensors send, for ever, over TCP: ``python examples/pipeline.py [HOST:PORT]``.

    sensors ==> pump --> lines --> parse --> readings --> sum_up
            ==> pump --/      \\-> parse --/

The last stage is the one task of the group. It ends when it has seen enough. The stages before it never end by
themselves: they are background tasks, so they live exactly as long as the last stage wants more. The queues
between them are short, which keeps a fast sensor from filling the memory. Should a connection break, or fall silent,
the pump's error ends all of it.

Without an address the sensors are served from a loopback port. Needs rich.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import sys
from asyncio import Queue, StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from typing import NamedTuple, NoReturn

from rich.console import Console
from rich.table import Table

from command_line import Parser, counted, host_and_port, positive, run, whole_number
from quattro import TaskGroup

Address = tuple[str, int]


class Reading(NamedTuple):
    """What one line of a sensor says."""

    sensor: str
    celsius: float


class Summary:
    """The least, the greatest and the sum of a sensor's readings."""

    count = 0
    total = 0.0
    least = math.inf
    most = -math.inf

    def add(self, value: float) -> None:
        """Take one more reading in."""
        self.count += 1
        self.total += value
        self.least = min(self.least, value)
        self.most = max(self.most, value)


class Pipeline:
    """The stages, and the queues between them."""

    def __init__(self, wanted: int, timeout: float) -> None:
        self.wanted = wanted
        self.timeout = timeout
        self.lines: Queue[bytes] = Queue(10)
        self.readings: Queue[Reading] = Queue(10)
        self.summaries: dict[str, Summary] = {}
        self.garbled = 0

    async def run(self, address: AbstractAsyncContextManager[Address], pumps: int, parsers: int) -> None:
        """Run until the last stage has what it wants: the group ends the others then."""
        async with address as (host, port), TaskGroup() as tg:
            for _ in range(pumps):
                tg.create_background_task(self.pump(host, port))
            for _ in range(parsers):
                tg.create_background_task(self.parse)
            tg.create_task(self.sum_up)

    async def pump(self, host: str, port: int) -> NoReturn:
        """Move lines from a connection to the queue; when the queue is full, the sensor has to wait."""
        reader, writer = await asyncio.open_connection(host, port)
        try:
            while line := await self.read(reader):
                await self.lines.put(line)
            raise ConnectionError("the sensors hung up")
        finally:
            writer.close()

    async def read(self, reader: StreamReader) -> bytes:
        """Read a line; to wait for ever for one helps nobody."""
        try:
            async with asyncio.timeout(self.timeout):
                return await reader.readline()
        except TimeoutError:
            raise TimeoutError(f"nothing came for {self.timeout:g} s") from None

    async def parse(self) -> NoReturn:
        """Make readings of lines, and count those that make no sense."""
        while True:
            line = await self.lines.get()
            try:
                reading = Reading(**json.loads(line))
            except (TypeError, ValueError):
                self.garbled += 1
            else:
                await self.readings.put(reading)

    async def sum_up(self) -> None:
        """Take as many readings as are wanted."""
        for _ in range(self.wanted):
            sensor, celsius = await self.readings.get()
            self.summaries.setdefault(sensor, Summary()).add(celsius)

    def print_report(self) -> None:
        """Print a line for each sensor."""
        table = Table("Sensor", "Readings", "Least", "Mean", "Most")
        for sensor, summary in sorted(self.summaries.items()):
            values = summary.least, summary.total / summary.count, summary.most
            table.add_row(sensor, str(summary.count), *(f"{value:.1f}" for value in values))
        console = Console(highlight=False)
        if self.summaries:
            console.print(table)
        count = sum(summary.count for summary in self.summaries.values())
        lines = counted(self.garbled, "line", "lines")
        console.print(f"{counted(count, 'reading', 'readings')}, {lines} not understood")


async def sensors(writer: StreamWriter) -> None:
    """Send readings of three rooms as long as the connection lasts; now and then a line is garbled."""
    rooms, dice = {"attic": 29.0, "cellar": 11.0, "kitchen": 21.0}, random.Random(0)
    try:
        while True:
            for room in rooms:
                rooms[room] += dice.uniform(-0.1, 0.1)
                line = json.dumps({"sensor": room, "celsius": rooms[room]})
                writer.write((line if dice.random() < 0.99 else line[:20]).encode() + b"\n")
            await writer.drain()
            await asyncio.sleep(0.001)
    except ConnectionError:
        pass
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def loopback_sensors() -> AsyncIterator[Address]:
    """Serve the sensors from a loopback port that is free."""
    async with TaskGroup() as tg:

        def connected(_: StreamReader, writer: StreamWriter) -> None:
            try:
                task = tg.create_background_task(sensors(writer))
            except RuntimeError:  # the group is finished: too late
                writer.close()
            else:  # also if the task is cancelled before its first step
                task.add_done_callback(lambda _: writer.close())

        async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
            yield server.sockets[0].getsockname()


def in_words(error: OSError) -> str:
    """Say what went wrong with a connection."""
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused"
    return str(error.strerror or error)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(description="Sum up what sensors send.")
    add = parser.add_argument
    add("address", nargs="?", type=host_and_port, metavar="HOST:PORT", help="default: sensors of its own")
    add("--readings", type=whole_number(1), default=5_000, help="how many to read (default: %(default)s)")
    add("--pumps", type=whole_number(1, 1000), default=2, help="connections (default: %(default)s)")
    add("--parsers", type=whole_number(1, 1000), default=3, help="tasks that parse (default: %(default)s)")
    add("--timeout", type=positive, default=30, help="seconds without a line (default: %(default)s)")
    return parser.parse_args()


async def main(args: argparse.Namespace) -> int:
    """Return the exit code: 1 if a connection broke before enough had been read, 130 after Ctrl-C."""
    pipeline, code = Pipeline(args.readings, args.timeout), 0
    source = nullcontext(args.address) if args.address else loopback_sensors()
    try:
        await pipeline.run(source, args.pumps, args.parsers)
    except* OSError as group:
        problems = {in_words(error) for error in group.exceptions if isinstance(error, OSError)}
        print("the sensors cannot be read:", *problems, file=sys.stderr)
        code = 1
    except* asyncio.CancelledError:
        code = 130
    pipeline.print_report()
    return code


if __name__ == "__main__":
    sys.exit(run(main(parse_arguments())))
