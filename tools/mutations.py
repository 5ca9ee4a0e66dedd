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
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
Sources = dict[str, str]  # the text of each file of src/, by its name
TIMEOUT = 200
PYTHON = sys.version_info[:2]


@dataclass
class Mutant:
    name: str  # what is broken
    old: str  # a piece of the C, as it stands there
    new: str
    tests: str  # names of files without test_ and .py, or files and part of a test's name: "limit:order"
    since: tuple[int, int] = (3, 11)  # Pythons on which it matters
    before: tuple[int, int] = (9, 0)
    times: int = 1  # how often the text is there


MUTANTS = [
    # References.
    Mutant(
        "drop a DECREF: a quiet task that leaves",
        "        rc = discard_awaited_by(self, task);\n        Py_DECREF(task);",
        "        rc = discard_awaited_by(self, task);",
        "leaks:no_leak",
        since=(3, 12),
    ),
    Mutant(
        "drop a DECREF: a task that ends", "    if (tag >= 0) {\n        Py_DECREF(task); ", "    if (0) {", "leaks"
    ),
    Mutant("drop an INCREF: a task in the set", "(uintptr_t)Py_NewRef(task)", "(uintptr_t)task", "group limit"),
    Mutant(
        "drop an INCREF: a turn on the wake list",
        "Py_INCREF(self);\n        Link_append(&self->group->wake_list",
        "Link_append(&self->group->wake_list",
        "limit",
    ),
    Mutant("no visit of tasks", "Py_VISIT(ENTRY_TASK(self->tasks.entries[i]))", "(void)i", "leaks:collector"),
    Mutant("no visit of turns", "Py_VISIT(TURN_OF(link))", "(void)link", "leaks:collector"),
    *(
        Mutant(f"no visit of {field}", f"    Py_VISIT(self->{field});\n", "", "leaks:collector")
        for field in (
            "loop",
            "parent",
            "errors",
            "base_error",
            "waiter",
            "stop",
            "done",
            "context",
            "args",
            "kwargs",
            "uvloop",
            "done_future",
            "wake",
            "sweeper",
            "newest",
            "coro",
            "waker",
            "waker_context",
            "message",
            "exc",
            "propagate",
            "pending",
        )
    ),
    Mutant("no visit of eager_kwargs", "    Py_VISIT(self->eager_kwargs);\n", "", "leaks:collector", since=(3, 12)),
    Mutant("no visit of the group", "    Py_VISIT(self->group);\n", "", "leaks:collector", times=2),
    Mutant("no visit of the type", "    Py_VISIT(Py_TYPE(op));\n", "", "leaks:collector", times=3),
    Mutant("the parent is kept", "    Py_CLEAR(group->parent);\n", "", "group:held"),
    Mutant(
        "the done callback is kept",
        "self->tasks.used == 0) {\n        Py_CLEAR(self->done);",
        "self->tasks.used == 0) {",
        "leaks",
    ),
    # The StopIteration that `await` is given, which is used again.
    Mutant("a kept StopIteration keeps its value", "    Py_CLEAR(self->value);\n", "", "internals:carries"),
    Mutant("it is used while somebody has it", "if (!ONLY_REFERENCES(stop, 1) || ", "if (", "internals:carries"),
    *(
        Mutant(f"its {name} stays", f"self->{name} != NULL", "0", "internals:carries")
        for name in ("dict", "traceback", "context", "cause")
    ),
    Mutant("it stays suppressed", "self->suppress_context", "0", "internals:carries"),
    Mutant("the collector knows it", "    PyObject_GC_UnTrack(stop);\n", "    if (0) {}\n", "internals:carries"),
    Mutant("its args stay", "PyTuple_GET_SIZE(self->args) != 0", "0", "internals:carries"),
    Mutant("it is never given back", "self->stop != NULL && !reset_stop", "0 && !reset_stop", "internals:carries"),
    Mutant("it is lost", "    drop_stop(self->stop);\n    type->tp_free", "    type->tp_free", "leaks"),
    # Fresh tasks.
    Mutant(
        "fresh: the sweep does not give callbacks back",
        "    if (watch_fresh_lock_held(self, task) < 0) {\n        return -1;\n    }\n    int tag = cancel",
        "    int tag = cancel",
        "steps",
    ),
    Mutant("fresh: the body's are looked at too late", "self->sweep == SWEEP_WATCH ||", "", "steps"),
    Mutant(
        "fresh: an error is as good as an end",
        "!fresh_has_ended(self, task, &failed)",
        "!fresh_has_ended(self, task, &failed) && !failed",
        "steps",
    ),
    Mutant("fresh: those after an error go on", "abort |= failed;", "", "steps:every_step"),
    Mutant(
        "fresh: those before an error are cancelled early", "abort && !failed && started", "started", "steps:every_step"
    ),
    Mutant("fresh: those not started are cancelled", "started = started && task != creator;", "", "steps"),
    Mutant(
        "fresh: cancelled twice",
        "    TaskSet_set_tag(&self->tasks, task, tag | MARK);\n    return cancel_task(self->state, task);",
        "    return cancel_task(self->state, task);",
        "steps",
    ),
    Mutant(
        "fresh: the creation of a task does not look",
        "if (self->exiting && self->fresh > 0) {",
        "if (0) {",
        "steps:every_step",
    ),
    Mutant("fresh: the group ends at once", "rc == 0 && self->sweeps > 1", "0", "steps"),
    Mutant(
        "fresh: what is ready is overtaken",
        "!(self->parent_is_next = parent_may_step(self, task) > 0)",
        "!(self->parent_is_next = 1)",
        "steps",
    ),
    Mutant(
        "fresh: a subclass's hook is left out",
        "&& self->hooks_are_ours && !self->exiting",
        "&& !self->exiting",
        "group misuse transparency",
    ),
    Mutant(
        "fresh: debug mode, too",
        "loop_kind == LOOP_FAST && self->hooks_are_ours",
        "loop_kind >= LOOP_STOCK_DEBUG && self->hooks_are_ours",
        "steps",
    ),
    Mutant("fresh: one who waits teaches nothing", "self->tasks_wait |= !failed;", "", "steps"),
    Mutant(
        "fresh: what others know of is forgotten", "self->tasks_shared |= !ONLY_REFERENCES(task, 2);", "", "steps group"
    ),
    Mutant(
        "fresh: a sweep that could not be scheduled is lost",
        "        collect_error(self, &first, sweep_lock_held(self, NULL));\n",
        "",
        "steps",
    ),
    Mutant(
        "fresh: a stopped task is foreground",
        "self->stopping ? KIND_BACKGROUND : KIND_PLAIN",
        "KIND_PLAIN",
        "steps background model",
    ),
    Mutant("fresh: a stopped task still counts", "    self->background -= self->stopping;\n", "", "steps background"),
    Mutant(
        "fresh: no reference of the sweep's",
        "            set->hint = set->swept;\n            return Py_NewRef(ENTRY_TASK(entry));",
        "            return ENTRY_TASK(entry);",
        "steps",
    ),
    Mutant(
        "fresh: a position is lost when holes are squeezed out",
        "swept += i < set->swept;",
        "swept++;",
        "steps leaks soak",
    ),
    Mutant(
        "fresh: one that is taken back is not found",
        "    if (at < set->swept) {\n        set->swept = at;\n    }\n",
        "",
        "steps",
    ),
    # The parent's cancellation.
    Mutant("forget an uncancel", "if (!group->parent_cancel_requested) {", "if (1) {", "group"),
    Mutant("cancel twice", "            *entry |= MARK;\n", "", "group:abort background"),
    Mutant(
        "cancel twice: one that an abort overtakes",
        "tag | MARK);\n            if",
        "tag);\n            if",
        "group:abort",
    ),
    Mutant("a pending cancel is dropped", "self->propagate = Py_XNewRef(self->pending);", "", "group"),
    Mutant(
        "a stray cancel is left",
        "rc = attr_is_true(parent, state->str__must_cancel);",
        "rc = 0;",
        "group",
        before=(3, 13),
    ),
    Mutant(
        "a fresh cancel is swallowed with a stray one",
        "            if (cancelling > 0) {\n                Py_XSETREF(self->propagate",
        "            if (0) {\n                Py_XSETREF(self->propagate",
        "group",
        before=(3, 13),
    ),
    Mutant("the outside cancel is lost in errors", "if (exit_rearm_lock_held(group) < 0) {", "if (0) {", "group"),
    Mutant(
        "it is given back at once",
        "cancelling > 0 && state->uncancel_resets",
        "cancelling > 0",
        "group",
        before=(3, 13),
    ),
    # The parent that steps within the last done callback.
    Mutant(
        "the parent never steps early",
        "(rc < 0 || debug < 0 ? -1 : 0) : no_task_is_running(self);",
        "(rc < 0 || debug < 0 ? -1 : 0) : 0;",
        "group:goes_on_within",
    ),
    Mutant(
        "the parent steps within another task",
        "(rc < 0 || debug < 0 ? -1 : 0) : no_task_is_running(self);",
        "(rc < 0 || debug < 0 ? -1 : 0) : 1;",
        "internals:announced",
    ),
    Mutant(
        "the parent steps within a subclass's hook",
        "    if (!self->hooks_are_ours) {\n        return 0;",
        "    if (0) {\n        return 0;",
        "group:hook",
    ),
    Mutant(
        "the parent overtakes a call_soon() of the loop's own",
        "rc = function != NULL && PyFunction_Check(function)",
        "rc = 1 || PyFunction_Check(function)",
        "group:keeps_what_is_ready",
    ),
    Mutant(
        "the parent overtakes a _ready of another kind",
        "Py_IS_TYPE(ready, (PyTypeObject *)state->deque) && ",
        "",
        "group:what_is_ready",
    ),
    Mutant("the parent overtakes what is ready", "&& PyObject_Size(ready) == 0;", ";", "group:what_is_ready"),
    Mutant(
        "debug mode is ignored: asyncio's",
        "debug = rc > 0 ? attr_is_true(self->loop, state->str__debug) : 0;",
        "debug = 0;",
        "group:goes_on_within",
    ),
    Mutant(
        "debug mode is ignored: uvloop's",
        "debug = value != NULL && value != Py_False;",
        "debug = 0;",
        "group:goes_on_within",
    ),
    Mutant(
        "any loop is taken for uvloop",
        "rc = uvloop != NULL && !self->tasks_shared && ONLY_REFERENCES(task, 2);\n        if (rc > 0) {",
        "rc = !self->tasks_shared && ONLY_REFERENCES(task, 2);\n        if (rc > 0 && uvloop != NULL) {",
        "group:keeps_what_is_ready",
    ),
    Mutant("uvloop's other callbacks are overtaken", "&& ONLY_REFERENCES(task, 2);", ";", "group:goes_on_within"),
    Mutant(
        "a loop that raises then is not asked again",
        "if (now < 0) {\n        PyErr_Clear();",
        "if (now < 0) {\n        return -1;",
        "hostile:say_what_is_ready",
    ),
    Mutant(
        "a task steps in the callback's context",
        "(context == NULL || PyContext_Enter(context) == 0)) {",
        "(context == NULL || PyContext_Enter(PyContext_CopyCurrent()) == 0)) {",
        "group internals",
    ),
    Mutant(
        "the parent is woken with a task that failed",
        " && task_succeeded(self->state, last)) {",
        ") {",
        "group",
    ),
    # Errors.
    Mutant(
        "an abort stops at its first error",
        "                collect_error(self, &first, cancel_task(state, task));\n",
        "                if (cancel_task(state, task) < 0) { Py_DECREF(task); return -1; }\n",
        "misuse:methods_raise",
    ),
    Mutant("a displaced error vanishes", "            if (error != base) {", "            if (0) {", "group"),
    Mutant(
        "SystemExit is an error like others",
        "group->base_error != NULL) {\n        // Ev",
        "0) {\n        // Ev",
        "group",
    ),
    # The queue and the slots.
    Mutant("lose a slot at an end", "    return release_lock_held(self->group);", "    return 0;", "limit"),
    Mutant(
        "lose the slot of a cancelled grant",
        "int rc = turn_release_lock_held(self);\n    // W",
        "int rc = 0;\n    // W",
        "limit",
    ),
    Mutant(
        "lend a slot to one cancelled unstarted",
        "            turn->slot = 0;\n            self->slots--;\n",
        "",
        "limit",
    ),
    Mutant(
        "a slot too many",
        "self->slots < self->limit && Link_is_empty(",
        "self->slots <= self->limit && Link_is_empty(",
        "limit",
    ),
    Mutant(
        "a queued coroutine is left open",
        "    if (coro != NULL) {\n        close_coroutine(self",
        "    if (0) {\n        close_coroutine(self",
        "limit",
    ),
    Mutant(
        "a refused coroutine is left open",
        "    close_coroutine(self->state, coro);\n    PyErr_Format",
        "    PyErr_Format",
        "group:refus",
    ),
    Mutant("an unstarted coroutine is left open", "    if (started <= 0) {", "    if (0) {", "misuse"),
    Mutant("an unstarted coroutine is closed though it runs", "    if (started <= 0) {", "    if (1) {", "misuse"),
    Mutant(
        "a slot comes back twice: a task that joins",
        "self->fresh--;\n        }\n    }\n    else {\n        slot = 0;",
        "self->fresh--;\n        }\n    }\n    else {",
        "hostile:parent_whose_hash",
        since=(3, 14),
    ),
    Mutant(
        "a slot is lost: a task that can't join",
        "        if (slot) {\n            release_lock_held(self);",
        "        if (0) {\n            release_lock_held(self);",
        "misuse hostile:parent_whose_hash",
    ),
    Mutant(
        "a task that joins an abort is not cancelled if it raises",
        "done <= 0 && tag >= 0",
        "done == 0 && tag >= 0",
        "hostile:joins_an_aborted",
    ),
    Mutant(
        "a task whose context is entered is lost",
        "rc = callback == NULL ? -1 : call_soon(turn->group, callback, (PyObject *)turn, context);",
        "rc = -1;",
        "hostile:somebody_is_in",
    ),
    Mutant(
        "any builtin of a Task is taken for its wake-up",
        " && PyCFunction_GET_FLAGS(waker) == METH_O\n",
        "\n",
        "internals:somebody_else_waits",
    ),
    Mutant(
        "a turn's method belongs to the next waker",
        "    self->wakeup = NULL;\n",
        "",
        "internals:somebody_else_waits",
    ),
    Mutant("a newcomer overtakes the granted", " && self->starting == 0) {", ") {", "limit"),
    Mutant("the newest is not asked", "    int now = newest_has_started_lock_held(self);", "    int now = 1;", "limit"),
    Mutant(
        "the head is not started directly",
        "    int now = newest_has_started_lock_held(self);",
        "    int now = 0;",
        "limit",
    ),
    Mutant(
        "a failure passes its slot on",
        "    if (failed) {\n        return",
        "    if (failed) {\n        turn_release_lock_held(self);\n        return",
        "limit",
    ),
    Mutant(
        "an eager failure frees its slot",
        "rc = exc == NULL ? -1 : exc == Py_None;",
        "rc = exc == NULL ? -1 : 1;",
        "limit",
        since=(3, 12),
    ),
    Mutant(
        "the last quiet task is not watched",
        "if (self->tasks.used - self->background == 1) {",
        "if (0) {",
        "limit",
        since=(3, 12),
    ),
    Mutant(
        "the queue is not drained on an abort",
        "drain_queue_lock_held(self);\n    PyErr_SetRaisedException(exc);",
        "PyErr_SetRaisedException(exc);",
        "misuse limit",
    ),
    Mutant(
        "slots' callbacks share a context",
        "kind == KIND_SLOT || !self->hooks_are_ours ? NULL",
        "0 ? NULL",
        "group:nested_loop",
    ),
    Mutant("a hole in the index", "            hole = i;\n", "", "group:any_order"),
    # Background tasks.
    Mutant(
        "they end with the body",
        "        || self->background == 0 || self->tasks.used != self->background)",
        "        || self->background == 0)",
        "background",
    ),
    Mutant("one may start while they stop", "    if (background && self->stopping) {", "    if (0) {", "background"),
    Mutant("they are cancelled though somebody did", "if (cancelling <= 0) {", "if (1) {", "background"),
    # What others see, and their hooks.
    Mutant(
        "debug mode takes the fast path",
        "debug == Py_False ? LOOP_FAST : LOOP_STOCK_DEBUG",
        "LOOP_FAST",
        "transparency",
    ),
    Mutant("the factory is ignored", "    else if (factory != Py_None) {", "    else if (0) {", "transparency"),
    Mutant("the Task class is ignored", "    else if (!c_task) {", "    else if (0) {", "transparency"),
    Mutant("swapped code is ignored", "stock->func_code != state->stock_code\n", "0\n", "transparency"),
    Mutant("a patched instance is ignored", "!PyMethod_Check(create_task) || ", "", "transparency"),
    Mutant("the method of another loop is ignored", "PyMethod_GET_SELF(create_task) != loop", "0", "transparency"),
    Mutant("a patched class is ignored", "function == state->stock_create_task;", "1;", "transparency"),
    Mutant(
        "a subclass of uvloop's is ignored",
        "rc = is_uvloop_function(self, function);",
        "rc = 1;",
        "transparency",
    ),
    Mutant(
        "a patch before the import is ignored",
        'PyUnicode_CompareWithASCIIString(name, "BaseEventLoop.create_task") == 0',
        "1",
        "transparency",
    ),
    Mutant("names are not copied", "if (runner != NULL && copy_names", "if (0 && copy_names", "transparency"),
    Mutant(
        "no awaited-by edges",
        "if (state->add_awaited_by != NULL && self->parent != NULL) {",
        "if (0) {",
        "transparency",
        since=(3, 14),
    ),
    Mutant(
        "awaited-by edges stay",
        "if (self->state->discard_awaited_by == NULL || self->parent == NULL) {",
        "if (1) {",
        "transparency",
        since=(3, 14),
    ),
]


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
