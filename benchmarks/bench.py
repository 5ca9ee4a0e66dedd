"""Measure, and print tables.

    python benchmarks/bench.py --rows     the rows with targets, and who they are compared with
    python benchmarks/bench.py            everything
    --only TEXT, --loop NAME              less
    --json FILE                           keep the results, for pyperf and for report.py
    --growth                              up to a million tasks as well
    --processes N                         in several processes, one after the other (--growth in the first)

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
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import memory
import pyperf
import trio
import uvloop
from implementations import BARE, HOOKED, OURS, TRIO
from report import print_tables, title
from workloads import GROWTH, MAPPED, MORE, ROWS, Case, Workload

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
    for turn in range(workload.turns is not None, repeat + 1):  # long ones warm up by themselves
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
    return described | {"timer": "time.process_time"}


def measure_all(
    rows: bool, growth: bool, only: str, loops: list[str], repeat: int
) -> Iterator[tuple[str, list[float], str]]:
    """The name of each benchmark, its values and their unit."""
    for loop in loops:
        workloads = [workload for workload in ROWS + MORE + MAPPED if workload.targets or not rows]
        workloads = workloads + GROWTH if growth and loop == "asyncio" else workloads
        for workload in workloads:
            if only not in workload.name:
                continue
            names = [
                name
                for name in workload.cases
                if not (name == TRIO and loop != "asyncio")
                and (not rows or name in (OURS, BARE, HOOKED) or name in workload.targets)
            ]
            for name, values in measure(workload, loop, names, min(repeat, workload.turns or repeat)).items():
                yield title(loop, workload.name, name), values, "second"
            print(".", end="", file=sys.stderr, flush=True)
    for kind, implementations in {} if only else memory.measure(million=growth).items():
        for name, size in implementations.items():
            yield title("memory", kind, name), [size], "byte"


def in_processes(number: int, rows: bool) -> list[pyperf.Benchmark]:
    """The same command in as many processes, for where things lie in memory differs from one to the next."""
    merged: dict[str, pyperf.Benchmark] = {}
    for process in range(number):
        with tempfile.TemporaryDirectory() as folder:
            file = str(Path(folder) / "results.json")
            growth = ["--growth"] if process == 0 else []
            command = [sys.executable, *sys.argv, "--processes", "1", "--quiet", "--json", file, *growth]
            subprocess.run(command, check=True)
            for benchmark in pyperf.BenchmarkSuite.load(file).get_benchmarks():
                if benchmark.get_name() in merged:
                    merged[benchmark.get_name()].add_runs(benchmark)
                else:
                    merged[benchmark.get_name()] = benchmark
    return list(merged.values())


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", action="store_true", help="the rows with targets, and who they are compared with")
    parser.add_argument("--growth", action="store_true", help="up to a million tasks as well")
    parser.add_argument("--only", default="", help="workloads whose name contains this")
    parser.add_argument("--loop", choices=LOOPS, action="append")
    parser.add_argument("--repeat", type=int, default=9, help="turns in each process")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", help="keep the results in this file")
    parser.add_argument("--quiet", action="store_true", help="no tables")
    args = parser.parse_args()

    # What others leave behind on an abort: the warning is theirs, but the printing would be measured.
    warnings.filterwarnings("ignore", "coroutine .* was never awaited")
    if args.processes > 1:
        suite = in_processes(args.processes, args.rows)
    else:
        common = metadata()
        suite = [
            pyperf.Benchmark(
                [pyperf.Run(values, metadata=common | {"name": name, "unit": unit}, collect_metadata=False)]
            )
            for name, values, unit in measure_all(
                args.rows, args.growth, args.only, args.loop or list(LOOPS), args.repeat
            )
        ]
        print(file=sys.stderr)
    if args.json:
        Path(args.json).parent.mkdir(exist_ok=True)
        pyperf.BenchmarkSuite(suite).dump(args.json, replace=True)
    if not args.quiet:
        print_tables(suite)


if __name__ == "__main__":
    main()
