"""Tables from the results: on the terminal, and in docs/performance.md and docs/performance-details.md.

python benchmarks/report.py     rewrite what is generated in these pages from benchmarks/results/
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyperf
from implementations import BARE, NAMESAKE, OURS, SEMAPHORE, STOCK
from workloads import GROWTH, MAPPED, MORE, ROWS

HERE = Path(__file__).parent
RESULTS = HERE / "results"
DOCS = HERE.parent / "docs"

WORKLOADS = {workload.name: workload for workload in ROWS + MORE + MAPPED + GROWTH}
WAITING = ("10,000 x three sleep(0)", "10,000 that wait for one another")
LIMITS = {f"{OURS}": 900, f"{OURS}, callables": 700}  # bytes a queued task, at most

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
    """How many times our time, turn by turn: the median, and where the middle half of the turns lies."""
    turns = [a / b for a, b in zip(theirs, ours, strict=True)]
    low, median, high = statistics.quantiles(turns, n=4) if len(turns) > 1 else turns * 3
    return median, low, high


def target(loop: str, workload: str, name: str) -> float | None:
    """What is wanted, if anything is."""
    wanted = WORKLOADS[workload].targets.get(name)
    return wanted[loop == "uvloop"] if wanted else None


def print_tables(suite: Iterable[pyperf.Benchmark]) -> None:
    """For people, on a terminal."""
    table = by_loop(suite)
    for kind, sizes in table.pop("memory", {}).items():
        print(f"\nbytes: {kind}")
        for name, values in sizes.items():
            line = f"    {name:28} {values[0]:8.0f}"
            if kind == "queued task" and name in LIMITS:
                line += f"   at most {LIMITS[name]}: {'passed' if values[0] <= LIMITS[name] else 'NOT YET'}"
            print(line)
    for loop, workloads in table.items():
        print(f"\n{loop}, CPU time in ns: best, median; theirs / ours: median, middle half of the turns; target")
        for workload, implementations in workloads.items():
            print(f"  {workload} (a {WORKLOADS[workload].unit})")
            for name, values in implementations.items():
                line = f"    {name:22} {min(values) * 1e9:8.0f} {statistics.median(values) * 1e9:8.0f}"
                if name != OURS:
                    median, low, high = ratio(values, implementations[OURS])
                    line += f"   x {median:5.2f} ({low:.2f} to {high:.2f})"
                    if wanted := target(loop, workload, name):
                        line += f"   target {wanted:.2f}: {'passed' if median >= wanted else 'NOT YET'}"
                print(line)


# --- the pages


def markdown(header: list[str], rows: Iterable[list[str]], words: int = 1) -> str:
    """A table whose first columns are text."""
    lines = [header, ["---"] * words + ["---:"] * (len(header) - words), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def ns(values: Values) -> str:
    """The median, with the separators that people read."""
    return f"{statistics.median(values) * 1e9:,.0f}"


def shown(name: str) -> str:
    """What users call an implementation."""
    return "quattro on PyPI (26.1)" if name == NAMESAKE else name


def summary(table: Table) -> str:
    """The one sentence: what a group adds to tasks that wait, against asyncio's, and what a limit costs."""
    measured = table["asyncio"]
    shares = []
    for workload in WAITING:
        turns = zip(*(measured[workload][name] for name in (OURS, STOCK, BARE)), strict=True)
        shares.append(statistics.median((ours - bare) / (stock - bare) for ours, stock, bare in turns))
    limited, _, _ = ratio(measured["limit 10, sleep(0)"][SEMAPHORE], measured["limit 10, sleep(0)"][OURS])
    queued = table["memory"]["queued task"]
    return (
        f"**To a task that waits, this group adds {min(shares) * 100:.0f} to {max(shares) * 100:.0f} % of the time "
        f"that `asyncio.TaskGroup` adds. At a limit of ten, tasks that wait take {limited:.1f} times as long in a "
        f"TaskGroup with a Semaphore.** A queued task takes {queued[SEMAPHORE][0]:,.0f} bytes there, and "
        f"{queued[OURS][0]:,.0f} here."
    )


def real(table: Table) -> str:
    """What is left of that where tasks do something."""
    echo = table["asyncio"]["TCP echo, limit 50"]
    ours, (slower, low, high) = statistics.median(echo[OURS]) * 1e6, ratio(echo[SEMAPHORE], echo[OURS])
    return (
        f"A request to an echo server on the same machine, fifty at a time, takes {ours:.0f} µs of CPU time; with "
        f"`asyncio.TaskGroup` and a Semaphore it takes {slower:.2f} times that (the middle half of the turns: "
        f"{low:.2f} to {high:.2f})."
    )


def rows_table(tables: dict[str, Table]) -> Iterator[list[str]]:
    """A line a comparison, with the ratio on each Python and loop, and the target."""
    for workload in ROWS + MAPPED:
        for name in workload.targets:
            for loop in ("asyncio", "uvloop"):
                cells = [workload.name, shown(name), loop, f"{target(loop, workload.name, name):.2f}"]
                for table in tables.values():
                    measured = table[loop][workload.name]
                    median, low, high = ratio(measured[name], measured[OURS])
                    mark = "**" if median >= (target(loop, workload.name, name) or 0) else ""
                    cells += [f"{mark}{median:.2f}{mark} ({low:.2f} to {high:.2f})"]
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
        [f"{loop}, ns", *map(shown, names)],
        [[w, *(ns(measured[w][name]) if name in measured[w] else "" for name in names)] for w in wanted],
    )


def memory_table(tables: dict[str, Table]) -> str:
    """Bytes, by Python."""
    first = next(iter(tables.values()))["memory"]
    return markdown(
        ["bytes", *tables],
        [
            [f"{kind}: {shown(name)}", *(f"{table['memory'][kind][name][0]:,.0f}" for table in tables.values())]
            for kind, sizes in first.items()
            for name in sizes
            if all(name in table["memory"][kind] for table in tables.values())  # what memory was enough for
        ],
    )


def machine(suites: dict[str, pyperf.BenchmarkSuite]) -> str:
    """What it was measured on, and how often."""
    lines = []
    for suite in suites.values():
        about = suite.get_metadata()
        turns = max(benchmark.get_nvalue() for benchmark in suite)
        lines.append(
            f"- CPython {about['python_version']}, {about['python_compiler']}, on {about['platform']}, "
            f"{about['cpu_model_name']}, {about['cpu_count']} cores; {turns} turns"
        )
    return "\n".join(lines)


def blocks() -> dict[str, dict[str, str]]:
    """The generated parts of each page."""
    suites = {path.stem: pyperf.BenchmarkSuite.load(str(path)) for path in sorted(RESULTS.glob("*.json"))}
    tables = {version: by_loop(suite) for version, suite in suites.items()}
    newest = list(tables.values())[-1]
    limited = [w.name for w in ROWS + MORE if any("Semaphore" in name for name in w.cases)]
    unlimited = [w.name for w in ROWS + MORE if w.name not in limited]
    growth = [workload.name for workload in GROWTH]
    first = {"summary": summary(newest), "real": real(newest)}
    details = {
        "machine": machine(suites),
        "rows": markdown(["work", "alternative", "loop", "target", *tables], rows_table(tables), words=3),
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
    return {"performance.md": first, "performance-details.md": details}


def rewrite(page: str, parts: dict[str, str]) -> str:
    """Put each part between its markers."""
    for name, text in parts.items():
        pattern = re.compile(rf"(<!-- {name}: generated -->\n).*?(<!-- end -->)", re.DOTALL)
        page, found = pattern.subn(lambda match, text=text: f"{match[1]}\n{text}\n\n{match[2]}", page)
        if found != 1:
            raise SystemExit(f"there are {found} places for {name}")
    return page


if __name__ == "__main__":
    for name, parts in blocks().items():
        (DOCS / name).write_text(rewrite((DOCS / name).read_text(), parts))
