"""Which file of the C includes which, in the order of dependency: ``python tools/includes.py``.

A file may include those that come before it in this order, and none after: so there is no circle.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"

# A name without an end is a header and the file that goes with it.
ROOMS = """
    compat.h state.h pyutil.h coro link.h taskset.h group.h
    loops task callback.c turn.h slots ending turn.c create await.c group.c _quattro.c
"""
ORDER = [file for room in ROOMS.split() for file in ([room] if "." in room else [f"{room}.h", f"{room}.c"])]

Sources = dict[str, str]  # the text of each file, by its name


def read() -> Sources:
    """The files of the C, in their order; those that have no place in it come last."""
    paths = list(SOURCE.glob("*.[ch]"))
    return {path.name: path.read_text() for path in sorted(paths, key=lambda path: (place(path.name), path.name))}


def place(file: str) -> int:
    """Where in the order a file is."""
    return ORDER.index(file) if file in ORDER else len(ORDER)


def graph(sources: Sources) -> dict[str, list[str]]:
    """The files of ours that each file includes."""
    return {file: re.findall(r'^ *# *include +"([^"]+)"', text, re.MULTILINE) for file, text in sources.items()}


def out_of_order(sources: Sources) -> list[str]:
    """What is wrong with the order, in words."""
    wrong = [f"{file} has no place in the order" for file in sources if file not in ORDER]
    for file, included in graph(sources).items():
        wrong += [f"{file} includes {other}, which comes after it" for other in included if place(other) >= place(file)]
    return wrong


if __name__ == "__main__":
    for file, included in graph(read()).items():
        print(f"{file:<11} {' '.join(included)}")
    sys.exit("\n".join(out_of_order(read())) or None)
