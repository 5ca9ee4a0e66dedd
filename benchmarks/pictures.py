"""Draw docs/_static/performance-*.svg from benchmarks/results/.

Text and axes are of a grey that reads on white and on black, and the background is left out.
"""

from __future__ import annotations

import statistics
from pathlib import Path

import matplotlib as mpl
import pyperf
from implementations import BARE, NAMESAKE, OURS, SEMAPHORE, STOCK
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from report import RESULTS, Table, by_loop, shown

FOLDER = Path(__file__).parent.parent / "docs" / "_static"
GREY = "#747c84"
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
    """What a task costs, by implementation, with the part of the task itself set off: all bars on one scale."""
    works = {
        "waits three times": ("10,000 x three sleep(0)", [OURS, STOCK]),
        "waits for another": ("10,000 that wait for one another", [OURS, STOCK]),
        "ends at once": ("10,000 x noop", [OURS, STOCK]),
        "waits once, ten at a time": ("limit 10, sleep(0)", [OURS, SEMAPHORE, NAMESAKE]),
    }
    figure, axes = plt.subplots(figsize=(4.8, 4.6), layout="constrained")
    y, ticks, labels = 0.0, [], []
    for title, (workload, names) in works.items():
        axes.text(0, y, title, color=GREY, va="bottom", fontweight="bold")
        measured = {name: statistics.median(values) * 1e9 for name, values in table["asyncio"][workload].items()}
        for name in names:
            y += 1
            colour = OURS_COLOUR if name == OURS else OTHER_COLOUR
            axes.barh(y - 0.25, measured[name], color=colour, height=0.75)
            axes.barh(y - 0.25, min(measured[BARE], measured[name]), color=BARE_COLOUR, height=0.75)
            axes.text(measured[name], y - 0.25, f" {measured[name]:,.0f}", color=GREY, va="center")
            ticks.append(y - 0.25)
            labels.append(shown(name))
        y += 1.2
    axes.set_yticks(ticks, labels)
    axes.set_ylim(y - 0.6, -0.7)
    axes.set_xlabel("ns a task; yellow: the task alone")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.margins(x=0.14)
    axes.spines["left"].set_visible(False)
    axes.tick_params(left=False)
    save(figure, "overhead")


def memory(table: Table) -> None:
    """Bytes a queued task."""
    measured = table["memory"]["queued task"]
    names = [OURS, f"{OURS}, callables", SEMAPHORE, NAMESAKE]
    figure, axes = plt.subplots(figsize=(4.8, 2.3), layout="constrained")
    sizes = {shown(name): measured[name][0] for name in names}
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
    figure, grid = plt.subplots(4, 1, figsize=(4.8, 9), layout="constrained", sharex=True)
    for axes, (kind, title) in zip(grid.flat, panels.items(), strict=True):
        lines: dict[str, list[tuple[int, float]]] = {}
        for workload, measured in table["asyncio"].items():
            name, _, n = workload.partition(", n = ")
            if n and name == kind:
                for implementation, values in measured.items():
                    lines.setdefault(implementation, []).append(
                        (int(n.replace(",", "")), statistics.median(values) * 1e6)
                    )
        for implementation, points in lines.items():
            style = "--" if implementation == NAMESAKE else "-"
            colour = COLOURS.get(implementation, OTHER_COLOUR)
            axes.plot(*zip(*points, strict=True), style, marker="o", color=colour, label=shown(implementation))
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
    grid[-1].set_xlabel("tasks")
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
