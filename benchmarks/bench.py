"""Measure, and print tables.

    python benchmarks/bench.py --rows     the rows of design.md, section 5, and who they compare with
    python benchmarks/bench.py            everything (about a quarter of an hour)

    --only TEXT, --loop NAME              less
    --json FILE                           keep the results, for pyperf and for report.py

Implementations take turns within one process, so that whatever else the machine does befalls all of them, and ratios
are taken turn by turn. Time is the process's CPU time: nothing here waits for anything but itself, and the time of a
neighbour on the same core is not counted. Every run has a new event loop and starts after a garbage collection; the
collector is on.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import platform
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import pyperf
import trio
import uvloop
from implementations import BARE, OURS, TRIO
from report import print_tables, title
from workloads import MORE, ROWS, Case, Workload

LOOPS: dict[str, Callable[[], Any] | None] = {"asyncio": None, "uvloop": uvloop.new_event_loop}

# What describes the machine without naming it.
METADATA = ("cpu_count", "cpu_model_name", "python_compiler", "python_implementation", "python_version")


def timed(case: Case, implementation: str, loop: str) -> float:
    """CPU seconds of one run."""

    async def main() -> float:
        gc.collect()
        start = time.process_time()
        await case()
        return time.process_time() - start

    if implementation == TRIO:
        return trio.run(main)
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        return runner.run(main())


def measure(workload: Workload, loop: str, names: list[str], repeat: int) -> dict[str, list[float]]:
    """Seconds a unit of each implementation, turn by turn, after a turn to warm up."""
    values: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(repeat + 1):
        for i in range(len(names)):
            name = names[(i + turn) % len(names)]
            seconds = timed(workload.cases[name], name, loop)
            if turn:
                values[name].append(seconds / workload.units)
    return values


def metadata() -> dict[str, Any]:
    """The machine, the interpreter and the versions."""
    collected = pyperf.Run([1.0]).get_metadata()
    described = {key: collected[key] for key in METADATA if key in collected}
    described["platform"] = f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}"
    return described | {"timer": "time.process_time", "unit": "second"}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", action="store_true", help="section 5 alone, and only those that it compares")
    parser.add_argument("--only", default="", help="workloads whose name contains this")
    parser.add_argument("--loop", choices=LOOPS, action="append")
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--json")
    args = parser.parse_args()

    # What others leave behind on an abort: the warning is theirs, the printing would be measured.
    warnings.filterwarnings("ignore", "coroutine .* was never awaited")
    suite: list[pyperf.Benchmark] = []
    common = metadata()
    for loop in args.loop or LOOPS:
        for workload in ROWS if args.rows else ROWS + MORE:
            if args.only not in workload.name:
                continue
            names = [
                name
                for name in workload.cases
                if not (name == TRIO and loop != "asyncio")
                and (not args.rows or name in (OURS, BARE) or name in workload.floors)
            ]
            for name, values in measure(workload, loop, names, args.repeat).items():
                described = common | {"name": title(loop, workload.name, name)}
                suite.append(pyperf.Benchmark([pyperf.Run(values, metadata=described, collect_metadata=False)]))
            print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    if args.json:
        pyperf.BenchmarkSuite(suite).dump(args.json, replace=True)
    print_tables(suite)


if __name__ == "__main__":
    main()
