"""Tables from the results: on the terminal, and in docs/performance.md.

python benchmarks/report.py     rewrite the tables of docs/performance.md from benchmarks/results/
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyperf
from implementations import BARE, OURS
from workloads import GROWTH, MAPPED, MORE, ROWS

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PAGE = HERE.parent / "docs" / "performance.md"

WORKLOADS = {workload.name: workload for workload in ROWS + MORE + MAPPED + GROWTH}
LIMITS = {f"{OURS}": 1000, f"{OURS}, callables": 850}  # bytes a queued task, at most

Values = tuple[float, ...]
Table = dict[str, dict[str, dict[str, Values]]]


def title(loop: str, workload: str, implementation: str) -> str:
    """The name of a benchmark in the JSON."""
    return f"{loop}: {workload}: {implementation}"


def by_loop(suite: Iterable[pyperf.Benchmark]) -> Table:
    """Values by loop (or "memory"), workload and implementation."""
    table: Table = {}
    for benchmark in suite:
        loop, workload, implementation = benchmark.get_name().split(": ")
        table.setdefault(loop, {}).setdefault(workload, {})[implementation] = benchmark.get_values()
    return table


def ratio(theirs: Values, ours: Values) -> tuple[float, float, float]:
    """How many times our time: best against best, and the middle half of the turns."""
    turns = [a / b for a, b in zip(theirs, ours, strict=True)]
    low, _, high = statistics.quantiles(turns, n=4) if len(turns) > 1 else turns * 3
    return min(theirs) / min(ours), low, high


def floor(loop: str, workload: str, name: str) -> float | None:
    """What is wanted, if anything is."""
    wanted = WORKLOADS[workload].floors.get(name)
    return wanted[loop == "uvloop"] if wanted else None


def print_tables(suite: Iterable[pyperf.Benchmark]) -> None:
    """For people, on a terminal."""
    table = by_loop(suite)
    for kind, sizes in table.pop("memory", {}).items():
        print(f"\nbytes a {kind}")
        for name, values in sizes.items():
            line = f"    {name:28} {values[0]:8.0f}"
            if kind == "queued task" and name in LIMITS:
                line += f"   at most {LIMITS[name]}: {'passed' if values[0] <= LIMITS[name] else 'NOT YET'}"
            print(line)
    for loop, workloads in table.items():
        print(f"\n{loop}, CPU time in ns: best, median; theirs / ours: of the bests, middle half of the turns; floor")
        for workload, implementations in workloads.items():
            print(f"  {workload} (a {WORKLOADS[workload].unit})")
            for name, values in implementations.items():
                line = f"    {name:22} {min(values) * 1e9:8.0f} {statistics.median(values) * 1e9:8.0f}"
                if name != OURS:
                    best, low, high = ratio(values, implementations[OURS])
                    line += f"   x {best:5.2f} ({low:.2f} to {high:.2f})"
                    if wanted := floor(loop, workload, name):
                        line += f"   floor {wanted:.2f}: {'passed' if best >= wanted else 'NOT YET'}"
                print(line)


# --- docs/performance.md


def markdown(header: list[str], rows: Iterable[list[str]]) -> str:
    """A table whose first column is text."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def ns(values: Values) -> str:
    """The best, with the separators that people read."""
    return f"{min(values) * 1e9:,.0f}"


def rows_table(tables: dict[str, Table]) -> Iterator[list[str]]:
    """Section 5: a line a comparison, with the ratio on each Python and loop."""
    for workload in ROWS + MAPPED:
        for name in workload.floors:
            for loop in ("asyncio", "uvloop"):
                cells = [workload.name, name, loop, f"{floor(loop, workload.name, name):.2f}"]
                for table in tables.values():
                    measured = table[loop][workload.name]
                    best, low, high = ratio(measured[name], measured[OURS])
                    mark = "**" if best >= (floor(loop, workload.name, name) or 0) else ""
                    cells += [f"{mark}{best:.2f}{mark} ({low:.2f} to {high:.2f})"]
                yield cells


def bare_table(tables: dict[str, Table]) -> Iterator[list[str]]:
    """Our time over that of tasks without a group, on each Python and loop."""
    for workload in ROWS + MORE:
        cells = [
            f"{ratio(table[loop][workload.name][OURS], table[loop][workload.name][BARE])[0]:.2f}"
            for table in tables.values()
            for loop in ("asyncio", "uvloop")
            if {OURS, BARE} <= table[loop].get(workload.name, {}).keys()
        ]
        if cells:
            yield [workload.name, *cells]


def times_table(table: Table, loop: str, workloads: Iterable[str]) -> str:
    """Nanoseconds: a line a workload, a column an implementation."""
    measured = table[loop]
    wanted = [name for name in workloads if name in measured]
    names = list(dict.fromkeys(name for workload in wanted for name in measured[workload]))
    return markdown(
        [f"{loop}, ns", *names],
        [[w, *(ns(measured[w][name]) if name in measured[w] else "" for name in names)] for w in wanted],
    )


def memory_table(tables: dict[str, Table]) -> str:
    """Bytes, by Python."""
    first = next(iter(tables.values()))["memory"]
    return markdown(
        ["bytes a task", *tables],
        [
            [f"{kind}: {name}", *(f"{table['memory'][kind][name][0]:,.0f}" for table in tables.values())]
            for kind, sizes in first.items()
            for name in sizes
        ],
    )


def machine(suites: dict[str, pyperf.BenchmarkSuite]) -> str:
    """What it was measured on."""
    lines = []
    for suite in suites.values():
        about = suite.get_metadata()
        lines.append(
            f"- CPython {about['python_version']}, {about['python_compiler']}, on {about['platform']}, "
            f"{about['cpu_model_name']}, {about['cpu_count']} cores"
        )
    return "\n".join(lines)


def blocks() -> dict[str, str]:
    """The generated parts of the page."""
    suites = {path.stem: pyperf.BenchmarkSuite.load(str(path)) for path in sorted(RESULTS.glob("*.json"))}
    tables = {version: by_loop(suite) for version, suite in suites.items()}
    newest = list(tables.values())[-1]
    limited = [w.name for w in ROWS + MORE if any("Semaphore" in name for name in w.cases)]
    unlimited = [w.name for w in ROWS + MORE if w.name not in limited]
    growth = [workload.name for workload in GROWTH]
    return {
        "machine": machine(suites),
        "rows": markdown(["work", "compared with", "loop", "floor", *tables], rows_table(tables)),
        "bare": markdown(
            ["quattro / loop.create_task", *(f"{v}, {loop}" for v in tables for loop in ("asyncio", "uvloop"))],
            bare_table(tables),
        ),
        "unlimited": "\n\n".join(times_table(newest, loop, unlimited) for loop in ("asyncio", "uvloop")),
        "limited": "\n\n".join(times_table(newest, loop, limited) for loop in ("asyncio", "uvloop")),
        "maps": "\n\n".join(times_table(newest, loop, [w.name for w in MAPPED]) for loop in ("asyncio", "uvloop")),
        "growth": times_table(newest, "asyncio", growth),
        "memory": memory_table(tables),
        "budget": (RESULTS / "budget.md").read_text().strip(),
    }


def rewrite(page: str, parts: dict[str, str]) -> str:
    """Put each part between its markers."""
    for name, text in parts.items():
        pattern = re.compile(rf"(<!-- {name}: generated -->\n).*?(<!-- end -->)", re.DOTALL)
        page, found = pattern.subn(lambda match, text=text: f"{match[1]}\n{text}\n\n{match[2]}", page)
        if found != 1:
            raise SystemExit(f"{PAGE.name} has {found} places for {name}")
    return page


if __name__ == "__main__":
    PAGE.write_text(rewrite(PAGE.read_text(), blocks()))
