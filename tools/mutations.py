"""Break the C on purpose, one rule at a time, and see that a test notices: `tools/run mutations`.

Each mutant replaces a piece of the C, wherever in src/ that is; it is built in a copy of the project, and runs the
tests that ought to notice: a failure, a crash or a hang is what we want. The status is 1 if a mutant survives or no
longer applies. Arguments choose mutants by a part of their name.

The piece is compared token by token, so that its layout and comments do not matter. Nor does it if a function, a field
or a constant of ours has been renamed: a name that is nowhere in the C any more may be any other one, the same
throughout. What is taken is the place where the fewest names differ, and the report tells which. Two places that are
equally near, or none, are an error.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from mutants import MUTANTS, Mutant

ROOT = Path(__file__).parent.parent
Sources = dict[str, str]  # the text of each file of src/, by its name
TIMEOUT = 200
PYTHON = sys.version_info[:2]


def applies(mutant: Mutant) -> bool:
    return mutant.since <= PYTHON < mutant.before


TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|\w+|->|[-+|&<>=]=?|[^\w\s]')
COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
# C's own words, CPython's, and the names of Python's that the C asks for: these do not change their names.
FIXED = re.compile(
    r"[^a-zA-Z_].*|_?Py.*|str_.*|NULL|if|else|for|while|do|return|goto|break|continue|switch|case|default|sizeof|static"
    r"|inline|const|volatile|void|int|char|bool|unsigned|true|false|struct|enum|typedef|u?intptr_t|size_t|u?int\d+_t"
)


class Place(NamedTuple):
    """Where a piece is, and which of its names are others there."""

    file: str
    start: int
    end: int
    renamed: dict[str, str]


@functools.cache
def tokens(text: str) -> list[re.Match[str]]:
    text = COMMENT.sub(lambda comment: " " * len(comment[0]), text)
    return list(TOKEN.finditer(text))


@functools.cache
def positions(text: str) -> dict[str, list[int]]:
    """Where each token is."""
    found: dict[str, list[int]] = defaultdict(list)
    for i, token in enumerate(tokens(text)):
        found[token[0]].append(i)
    return dict(found)


def renamed(piece: list[str], there: list[str], gone: set[str]) -> dict[str, str] | None:
    """The names that differ, if nothing else does; no two have become one."""
    names: dict[str, str] = {}
    for old, new in zip(piece, there, strict=True):
        if old != new and (old not in gone or FIXED.fullmatch(new)):
            return None
        if names.setdefault(old, new) != new:
            return None
    return names if len(set(names.values())) == len(names) else None


def places(piece: str, sources: Sources) -> list[Place]:
    """Where the piece is, or what is nearest to it."""
    wanted = [token[0] for token in tokens(piece)]
    present = set().union(*(positions(text) for text in sources.values()))
    gone = {word for word in wanted if word not in present and not FIXED.fullmatch(word)}
    found: list[Place] = []
    for file, text in sources.items():
        there = tokens(text)
        # The rarest token that has to be there as it is says where to look.
        where = positions(text)
        _, offset = min((len(where.get(word, ())), i) for i, word in enumerate(wanted) if word not in gone)
        for position in where.get(wanted[offset], ()):
            matched = there[max(position - offset, 0) : position - offset + len(wanted)]
            if len(matched) != len(wanted):
                continue
            names = renamed(wanted, [token[0] for token in matched], gone)
            if names is not None:
                changes = {old: new for old, new in names.items() if old != new}
                found.append(Place(file, matched[0].start(), matched[-1].end(), changes))
    fewest = min((len(place.renamed) for place in found), default=0)
    return [place for place in found if len(place.renamed) == fewest]


def mutated(mutant: Mutant, sources: Sources) -> tuple[Sources, str]:
    """The sources with the mutant in them, and what has another name there; LookupError if it is not clear where."""
    found = places(mutant.old, sources)
    if len(found) != mutant.times:
        raise LookupError(f"found {len(found)} times: {[(place.file, place.renamed) for place in found[:5]]}")
    result = dict(sources)
    for place in reversed(found):  # from the end of a file, so that the places before stay where they are
        new = re.sub(r"\w+", lambda word, names=place.renamed: names.get(word[0], word[0]), mutant.new)
        text = result[place.file]
        result[place.file] = f"{text[: place.start]} {new} {text[place.end :]}"
    return result, ", ".join(f"{old} is {new}" for old, new in found[0].renamed.items())


def read_sources() -> Sources:
    return {path.name: path.read_text() for path in sorted((ROOT / "src").glob("*.[ch]"))}


def run_tests(copy: Path, tests: str) -> str:
    """What noticed: a test, a crash or a hang; empty if nothing did."""
    for part in tests.split():
        name, _, keyword = part.partition(":")
        command = [sys.executable, "-X", "faulthandler", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        if name != "model":
            command += ["-o", "faulthandler_timeout=60", "-o", "faulthandler_exit_on_timeout=true"]
        command += [str(next(copy.glob(f"tests/*/test_{name}.py"))), *(["-k", keyword] if keyword else [])]
        env = os.environ | {"PYTHONPATH": str(copy)}
        try:
            done = subprocess.run(
                command, cwd=copy, env=env, capture_output=True, text=True, timeout=TIMEOUT, check=False
            )
        except subprocess.TimeoutExpired:
            return f"a hang in {name}"
        if done.returncode in (1, 2):  # 2: not even imported
            failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
            return failed[0].split(" - ")[0] if failed else f"a hang in {name}"
        if done.returncode < 0:
            return f"a crash ({done.returncode}) in {name}"
        if done.returncode > 0:
            raise SystemExit(f"{part}: {done.stdout}{done.stderr}")
    return ""


def build(copy: Path, sources: Sources) -> bool:
    for name, text in sources.items():
        (copy / "src" / name).write_text(text)
    env = os.environ | {"CFLAGS": os.environ.get("CFLAGS", "") + " -O0 -Wno-error"}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace", "--force"]
    command += ["--build-temp", str(copy / "build")]
    return subprocess.run(command, cwd=copy, env=env, capture_output=True, check=False).returncode == 0


def main(words: list[str]) -> int:
    chosen = [m for m in MUTANTS if applies(m) and (not words or any(word in m.name for word in words))]
    sources = read_sources()
    bad = 0
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "build", "*.so", "*.egg-info", "__pycache__"))
        if not build(copy, sources):
            raise SystemExit("it does not build")
        for tests in sorted({part for mutant in chosen for part in mutant.tests.split()}):
            if noticed := run_tests(copy, tests):
                print(f"without any mutation: {noticed}")
                return 1
        for mutant in chosen:
            other_names = ""
            try:
                broken, other_names = mutated(mutant, sources)
            except LookupError as error:
                outcome, noticed = "NO LONGER APPLIES", str(error)
            else:
                if build(copy, broken):
                    noticed = run_tests(copy, mutant.tests)
                    outcome = "caught" if noticed else "SURVIVED"
                else:
                    outcome, noticed = "DOES NOT BUILD", ""
            bad += outcome != "caught"
            print(f"{outcome:9} | {mutant.name:45} | {noticed} {other_names and f'({other_names})'}", flush=True)
    print(f"{len(chosen)} mutants, {bad} of them not caught; {len(MUTANTS) - len(chosen)} not chosen")
    return 1 if bad or not chosen else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
