"""Count instructions with callgrind, which repeats to a few in a million whatever else the machine does.

    python benchmarks/instructions.py check     fail if a task costs more instructions than guard.json says
    python benchmarks/instructions.py record    write guard.json
    python benchmarks/instructions.py budget    where the instructions of a task's life go

A count is the difference of two runs within one process, after a warm-up, so that start-up cancels. On the interpreter
and compiler of the record, counts are compared as they are. On others, what is compared is what a task costs more than
it does without a group, with more room, so that a change of the interpreter is not taken for one of ours.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from counted import COUNTS, LARGE, SMALL, STEPS

HERE = Path(__file__).parent
RECORDED = HERE / "guard.json"
BUDGET = HERE / "results" / "budget.md"

# A fraction of our count, and at least SLACK instructions: checkouts in other folders differ by up to half of this.
# Another build of the interpreter or of the compiler shifts things a little more, and wants a new record.
ROOM, ROOM_ELSEWHERE, SLACK = 0.0075, 0.03, 60


def interpreter() -> dict[str, str]:
    """What the counts depend on."""
    return {"python": platform.python_version(), "compiler": platform.python_compiler()}


class Part:
    """One part of callgrind's output: instructions by function, and what was called from where."""

    def __init__(self) -> None:
        self.total = 0
        self.own: Counter[tuple[str, str]] = Counter()  # (object file, function): its own instructions
        self.calls: Counter[tuple[str, str, str, str]] = Counter()  # (object file, function) of caller and callee
        self.inclusive: Counter[tuple[str, str, str, str]] = Counter()

    def __sub__(self, other: Part) -> Part:
        result = Part()
        result.total = self.total - other.total
        for name in ("own", "calls", "inclusive"):
            mine: Counter[Any] = getattr(self, name).copy()
            mine.subtract(getattr(other, name))
            setattr(result, name, mine)
        return result


def parse(lines: Iterator[str]) -> list[Part]:
    """The parts of a file that --combine-dumps wrote."""
    names: dict[tuple[str, str], str] = {}
    parts: list[Part] = []
    obj = function = callee_obj = callee = ""
    calls: int | None = None  # 0 where the call was under way when the part began

    def named(kind: str, text: str) -> str:
        number, _, name = text.partition(" ")
        return names.setdefault((kind, number), Path(name).name if kind == "ob" else name)

    for line in lines:
        if line.startswith("part:"):
            parts.append(Part())
        elif match := re.match(r"(ob|fn|cob|cfn)=(\(\d+\).*)", line):
            key, text = match.groups()
            if key == "ob":
                obj = callee_obj = named("ob", text)
            elif key == "fn":
                function, callee_obj = named("fn", text), obj
            elif key == "cob":
                callee_obj = named("ob", text)
            else:
                callee = named("fn", text)
        elif line.startswith("calls="):
            calls = int(line[6:].split()[0])
        elif line[:1] in "+-*0123456789" and line.strip():
            cost = int(line.split()[1])
            if calls is not None:
                parts[-1].calls[obj, function, callee_obj, callee] += calls
                parts[-1].inclusive[obj, function, callee_obj, callee] += cost
                calls, callee_obj = None, obj
            else:
                parts[-1].own[obj, function] += cost
                parts[-1].total += cost
    return parts


def count(*args: str, layout: int = 0) -> list[Part]:
    """Differences for (LARGE - SMALL) tasks, in the order in which counted.py runs; `layout` moves things in memory."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind.out"
        command = ["valgrind", "--tool=callgrind", "--dump-before=getppid", "--combine-dumps=yes"]
        command += [f"--callgrind-out-file={out}", sys.executable, "-s", str(HERE / "counted.py"), *args]
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(HERE.parent), "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}
        env |= {f"LAYOUT_{i}": str(i) for i in range(layout * 100)}
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(command)}: status {done.returncode}\n{done.stderr}")
        with out.open() as lines:
            parts = parse(lines)
    expected = 3 * (len(STEPS) if "--steps" in args else 2 * len(COUNTS)) + 1
    if len(parts) != expected:
        sys.exit(f"callgrind wrote {len(parts)} parts, not {expected}")
    return [parts[i + 2] - parts[i + 1] for i in range(0, expected - 1, 3)]


def measure(layout: int = 0) -> dict[str, dict[str, int]]:
    """Instructions a task (or empty group), ours and without a group."""
    counted = [round(part.total / (LARGE - SMALL)) for part in count(layout=layout)]
    return {
        name: {"quattro": ours, "bare": bare}
        for name, ours, bare in zip(COUNTS, counted[::2], counted[1::2], strict=True)
    }


def check() -> int:
    """Compare with the record: the number of those that are above it."""
    recorded = json.loads(RECORDED.read_text())
    here = interpreter()
    if here["python"].split(".")[:2] != recorded["python"].split(".")[:2]:
        sys.exit(f"recorded on Python {recorded['python']}, and no measure for {here['python']}")
    same = all(recorded[key] == value for key, value in here.items())
    if not same:
        print(f"recorded on {recorded['python']}, {recorded['compiler']}; this is {here['python']}, {here['compiler']}")
        print("so there is more room than usual: tools/run guard record")

    def slower(name: str, now: dict[str, int]) -> tuple[int, float]:
        then = recorded["counts"][name]
        change = now["quattro"] - then["quattro"] - (0 if same else now["bare"] - then["bare"])
        return change, max(SLACK, then["quattro"] * (ROOM if same else ROOM_ELSEWHERE))

    measured = measure()
    if measured.keys() != recorded["counts"].keys():
        sys.exit("other workloads than recorded: tools/run guard record")
    # The interpreter's cache of attributes has one place for a name, by its address: where two that a task needs share
    # one, each costs 300 instructions more. That is nobody's doing, and another layout of memory rarely has it, too.
    for layout in range(1, 5):
        if any(change > room for change, room in map(slower, measured, measured.values())):
            print(f"slower than recorded; once more with layout {layout} of memory")
            again = measure(layout)
            measured = {name: min(measured[name], again[name], key=lambda n: n["quattro"]) for name in measured}
    worse = 0
    print(f"{'instructions a task':24}{'quattro':>8}{'recorded':>10}{'change':>8}{'bare':>8}")
    for name, now in measured.items():
        change, room = slower(name, now)
        verdict = "  SLOWER" if change > room else "  faster: tools/run guard record" if change < -room else ""
        worse += change > room
        print(f"{name:24}{now['quattro']:8}{recorded['counts'][name]['quattro']:10}{change:+8}{now['bare']:8}{verdict}")
    return worse


def record() -> None:
    """Write what is measured now."""
    RECORDED.write_text(json.dumps(interpreter() | {"counts": measure()}, indent=1) + "\n")
    print(RECORDED.read_text())


def by_file(part: Part) -> Counter[str]:
    """Instructions by the object file that they are in."""
    kinds: Counter[str] = Counter()
    for (file, _), number in part.own.items():
        kind = file.split(".")[0]
        kinds[kind if kind in ("_quattro", "_asyncio", "libc") else "python" if "python" in kind else "other"] += number
    return kinds


def table(header: list[str], rows: Iterable[tuple[str, list[float]]], digits: int = 0) -> str:
    """Markdown; numbers are instructions (or calls) a task."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1)]
    lines += [[name, *(f"{number:,.{digits}f}" for number in numbers)] for name, numbers in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def budget() -> str:
    """Where a task's instructions go: 10,000 x noop in one group, no limit, asyncio's loop."""
    n = LARGE - SMALL
    parts = dict(zip(STEPS, count("--steps"), strict=True))
    a_task = {name: part.total / n for name, part in parts.items()}
    steps = [
        ("the coroutine: made, run, gone", "coroutine", None),
        ("the Task around it, its Handle, its pass through the loop", "direct", "coroutine"),
        ("**the group: quattro**", "quattro", "direct"),
        ("instead of it: `loop.create_task`, a Python function", "task", "direct"),
        ("instead of it: a done callback, its Handle, another pass through the loop", "callback", "direct"),
        ("on top of that: the group, asyncio.TaskGroup", "asyncio", "callback"),
    ]
    ours = parts["quattro"]
    files = {name: by_file(parts[name]) for name in ("direct", "callback", "quattro", "asyncio")}
    own = [(f"`{fn}`", [number / n]) for (file, fn), number in ours.own.most_common() if file.startswith("_quattro")]
    callees: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for key, number in ours.inclusive.items():
        if key[0].startswith("_quattro") and not key[2].startswith("_quattro"):
            callees[key[3]] += number
            calls[key[3]] += ours.calls[key]
    outside = [(f"`{fn}`", [calls[fn] / n, number / n]) for fn, number in callees.most_common()]
    about = interpreter()
    return "\n".join(
        [
            f"CPython {about['python']}, {about['compiler']}; instructions a task.\n",
            table(
                ["step", "instructions", "up to here"],
                [(what, [a_task[name] - (a_task[less] if less else 0), a_task[name]]) for what, name, less in steps],
            ),
            table(
                ["where they are executed", "Task alone", "with callback", "quattro", "asyncio.TaskGroup"],
                [
                    (what, [files[name][kind] / n for name in files])
                    for kind, what in (
                        ("_quattro", "quattro's C"),
                        ("_asyncio", "asyncio's C: Task, Future"),
                        ("python", "the interpreter: the loop's Python code, calls, objects, contexts"),
                        ("libc", "libc"),
                        ("other", "elsewhere"),
                    )
                ],
            ),
            table(["quattro's functions, what they execute themselves", "instructions"], own[:16]),
            table(
                ["what quattro's functions call, with all that it calls", "calls", "instructions"],
                [row for row in outside if row[1][1] >= 10],
                digits=1,
            ),
        ]
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["check", "record", "budget"])
    what = parser.parse_args().what
    if what == "check":
        if worse := check():
            sys.exit(f"{worse} slower than recorded")
    elif what == "record":
        record()
    else:
        BUDGET.parent.mkdir(exist_ok=True)
        BUDGET.write_text(budget())
        print(BUDGET.read_text())


if __name__ == "__main__":
    main()
