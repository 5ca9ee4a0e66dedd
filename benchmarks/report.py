"""Tables from the results."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

import pyperf
from implementations import OURS
from workloads import MORE, ROWS

FLOORS = {workload.name: workload.floors for workload in ROWS + MORE}
UNITS = {workload.name: workload.unit for workload in ROWS + MORE}


def title(loop: str, workload: str, implementation: str) -> str:
    """The name of a benchmark in the JSON."""
    return f"{loop}: {workload}: {implementation}"


def by_loop(suite: Iterable[pyperf.Benchmark]) -> dict[str, dict[str, dict[str, tuple[float, ...]]]]:
    """Values by loop, workload and implementation."""
    table: dict[str, dict[str, dict[str, tuple[float, ...]]]] = {}
    for benchmark in suite:
        loop, workload, implementation = benchmark.get_name().split(": ")
        table.setdefault(loop, {}).setdefault(workload, {})[implementation] = benchmark.get_values()
    return table


def ratio(theirs: tuple[float, ...], ours: tuple[float, ...]) -> tuple[float, float, float]:
    """How many times our time: best against best, and the middle half of the turns."""
    turns = [a / b for a, b in zip(theirs, ours, strict=True)]
    low, _, high = statistics.quantiles(turns, n=4) if len(turns) > 1 else turns * 3
    return min(theirs) / min(ours), low, high


def print_tables(suite: Iterable[pyperf.Benchmark]) -> None:
    """For people, on a terminal."""
    for loop, workloads in by_loop(suite).items():
        print(f"\n{loop}, CPU time in ns: best, median; theirs / ours: of the bests, middle half of the turns; floor")
        for workload, implementations in workloads.items():
            print(f"  {workload} (a {UNITS[workload]})")
            ours = implementations[OURS]
            for name, values in implementations.items():
                line = f"    {name:22} {min(values) * 1e9:8.0f} {statistics.median(values) * 1e9:8.0f}"
                if name != OURS:
                    best, low, high = ratio(values, ours)
                    line += f"   x {best:5.2f} ({low:.2f} to {high:.2f})"
                    if floor := FLOORS[workload].get(name):
                        wanted = floor[loop == "uvloop"]
                        line += f"   floor {wanted:.2f}: {'passed' if best >= wanted else 'NOT YET'}"
                print(line)
