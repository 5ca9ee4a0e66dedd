"""Write docs/python.inv, the names of the standard library that the pages link to, for a build without a network.

    python tools/inventory.py OBJECTS.INV

OBJECTS.INV is that of docs.python.org, or of a distribution's package of Python's documentation. What is kept are the
modules below and the built-in names.
"""

from __future__ import annotations

import re
import sys
import zlib
from pathlib import Path

MODULES = "asyncio collections[.]abc concurrent[.]futures contextlib contextvars functools inspect logging types typing"
KEPT = re.compile(rf"(?:(?:{MODULES.replace(' ', '|')})(?:\.\S+)?|[^.\s]+) py:(?!module)\S+ ")
WRITTEN = Path(__file__).parents[1] / "docs" / "python.inv"


def shortened(inventory: bytes) -> bytes:
    """The same inventory (version 2: four lines, then compressed ones) with the names that are kept."""
    *head, packed = inventory.split(b"\n", 4)
    lines = [line for line in zlib.decompress(packed).decode().splitlines() if KEPT.match(line)]
    return b"\n".join([*head, zlib.compress("\n".join([*lines, ""]).encode(), 9)])


if __name__ == "__main__":
    WRITTEN.write_bytes(shortened(Path(sys.argv[1]).read_bytes()))
