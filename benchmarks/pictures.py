"""Draw docs/_static/performance-*.svg from benchmarks/results/.

Text and axes are of a grey that reads on white and on black, and the background is left out.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import pyperf
from implementations import BARE, GATHER, NAMESAKE, OURS, SEMAPHORE, STOCK
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from report import RESULTS, Table, by_loop

FOLDER = Path(__file__).parent.parent / "docs" / "_static"
GREY = "#7a828a"
OURS_COLOUR, OTHER_COLOUR, BARE_COLOUR = "#2f8f83", "#8d9bb5", "#c9a24b"
COLOURS = {OURS: OURS_COLOUR, f"{OURS}, callables": OURS_COLOUR, BARE: BARE_COLOUR}

mpl.rcParams.update(
    {
        "svg.fonttype": "path",  # the same everywhere, whatever fonts there are
        "svg.hashsalt": "quattro",  # the same picture is the same file
        "font.family": "sans-serif",
        "font.size": 10,
        "text.color": GREY,
        "axes.labelcolor": GREY,
        "axes.edgecolor": GREY,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": GREY,
        "ytick.color": GREY,
        "legend.frameon": False,
        "legend.labelcolor": GREY,
        "savefig.transparent": True,
    }
)


def bars(axes: Axes, title: str, sizes: dict[str, float], unit: str) -> None:
    """One bar an implementation, with its number."""
    names = list(sizes)[::-1]
    drawn = axes.barh(names, [sizes[name] for name in names], color=[COLOURS.get(name, OTHER_COLOUR) for name in names])
    axes.bar_label(drawn, [f"{sizes[name]:,.0f}" for name in names], padding=3, color=GREY)
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel(unit)
    axes.margins(x=0.15)
    axes.spines["left"].set_visible(False)
    axes.tick_params(left=False)


def overhead(table: Table) -> None:
    """What a task costs more than without a group or limit, by implementation."""
    figure, panels = plt.subplots(2, 2, figsize=(9, 4.6), layout="constrained")
    works = [
        ("In one group", "10,000 x noop", [OURS, STOCK, NAMESAKE, GATHER]),
        ("Ten at a time", "limit 10, noop", [OURS, SEMAPHORE, NAMESAKE]),
    ]
    for row, (title, workload, names) in zip(panels, works, strict=True):
        for axes, loop in zip(row, ("asyncio", "uvloop"), strict=True):
            measured = table[loop][workload]
            bare = min(measured[BARE])
            sizes = {name: (min(measured[name]) - bare) * 1e9 for name in names}
            bars(axes, f"{title}, {loop}", sizes, f"ns over the bare task's {bare * 1e9:,.0f}")
    save(figure, "overhead")


def memory(table: Table) -> None:
    """Bytes a queued task."""
    measured = table["memory"]["queued task"]
    names = [OURS, f"{OURS}, callables", SEMAPHORE, NAMESAKE]
    figure, axes = plt.subplots(figsize=(7, 2.3), layout="constrained")
    sizes = {name: measured[name][0] for name in names}
    sizes["a plain task, not queued"] = measured["loop.create_task, no limit"][0]
    bars(axes, "Memory of a queued task", sizes, "bytes, its coroutine included")
    save(figure, "memory")


def growth(table: Table) -> None:
    """Time a task against their number."""
    panels = {
        "noop": "In one group",
        "limit 100": "A hundred at a time",
        "cancelled in the queue": "Cancelled in the queue",
        "abort with a queue": "Aborted with a queue",
    }
    figure, grid = plt.subplots(2, 2, figsize=(9, 5.6), layout="constrained", sharex=True)
    for axes, (kind, title) in zip(grid.flat, panels.items(), strict=True):
        lines: dict[str, list[tuple[int, float]]] = {}
        for workload, measured in table["asyncio"].items():
            name, _, n = workload.partition(", n = ")
            if n and name == kind:
                for implementation, values in measured.items():
                    lines.setdefault(implementation, []).append((int(n.replace(",", "")), min(values) * 1e6))
        for implementation, points in lines.items():
            style = "--" if implementation == NAMESAKE else "-"
            colour = COLOURS.get(implementation, OTHER_COLOUR)
            axes.plot(*zip(*points, strict=True), style, marker="o", color=colour, label=implementation)
        axes.set(xscale="log", title=title)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        if kind in ("noop", "limit 100"):
            axes.set_ylim(bottom=0)
        else:
            axes.set_yscale("log")
            axes.set_ylim(1, 300)
            axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.set_ylabel("µs a task")
        axes.minorticks_off()
        axes.legend(fontsize=9)
    for axes in grid[1]:
        axes.set_xlabel("tasks")
    save(figure, "growth")


def save(figure: plt.Figure, name: str) -> None:
    """Without a date, so that the same picture is the same file."""
    FOLDER.mkdir(exist_ok=True)
    figure.savefig(FOLDER / f"performance-{name}.svg", metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    newest = sorted(RESULTS.glob("*.json"))[-1]
    results = by_loop(pyperf.BenchmarkSuite.load(str(newest)))
    overhead(results)
    memory(results)
    growth(results)
