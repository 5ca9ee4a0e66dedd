"""What the examples have in common: errors of one line, numbers and addresses from the command line, Ctrl-C, pipes."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, NoReturn
from urllib.parse import urlsplit

from yarl import URL


class Parser(argparse.ArgumentParser):
    """A parser of the command line whose errors are one line; ``--help`` has the rest."""

    def error(self, message: str) -> NoReturn:
        """End the program with the exit code for a wrong command line."""
        self.exit(2, f"{self.prog}: {message}\n")

    def print_help(self, file: Any = None) -> None:
        """Print the help, if somebody reads it."""
        with suppress(KeyboardInterrupt):
            say(self.format_help().rstrip())


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return a function that reads a whole number within bounds."""
    bounds = f"at least {least}" if most is None else f"from {least} to {most}"

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least or (most is not None and number > most):
            raise argparse.ArgumentTypeError(f"must be a whole number, {bounds}, not {text!r}")
        return number

    return read


def positive(text: str) -> float:
    """Read seconds or a rate: neither 0 nor nan, nor smaller or larger than a clock can measure."""
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not 1e-6 <= number <= 1e6:
        raise argparse.ArgumentTypeError(f"must be a number above 0, up to a million, not {text!r}")
    return number


def host_and_port(text: str) -> tuple[str, int]:
    """Read HOST:PORT."""
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname or "", parts.port
        host.encode("idna")  # as asyncio will, which takes no host that cannot be
    except UnicodeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT: no possible host name") from None
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT: {error}") from None
    if not host or not port or re.search("[/?#@]", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host, port


def web_address(text: str) -> URL:
    """Read the address of something on the web."""
    if "://" not in text:
        hint = f", did you mean https://{text}?" if re.match(r"[\w.-]+(:\d+)?(/|$)", text) else ""
        raise argparse.ArgumentTypeError(f"{text!r} is no address{hint}")
    try:
        url = URL(text)
        host = url.host  # decoded only here, and not every xn-- can be
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no address: {error}") from None
    if url.scheme not in ("http", "https") or not host:
        raise argparse.ArgumentTypeError(f"{text!r} is not the address of a web site (https://...)")
    return url.join(URL(url.raw_path_qs, encoded=True))  # with a path, and without a fragment


def regex(text: str) -> re.Pattern[str]:
    """Read a regular expression."""
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from None


def counted(number: int, one: str, many: str) -> str:
    """Say how many there are: 1 file, 2 files."""
    return f"{number} {one if number == 1 else many}"


def say(text: str) -> None:
    """Print a line at once; if nobody reads it (``| head -1``), the program ends, as after Ctrl-C."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        signal.raise_signal(signal.SIGINT)


def run(main: Coroutine[Any, Any, int]) -> int:
    """Run a program that Ctrl-C cancels, however often it is pressed: no traceback, whatever the program does then."""

    async def cancelled_by_interrupts() -> int:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job
            return await main
        signal.signal(signal.SIGINT, lambda *_: loop.call_soon_threadsafe(task.cancel))
        try:
            return await main
        finally:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # it need not wait for threads that are left

    return asyncio.run(cancelled_by_interrupts())
