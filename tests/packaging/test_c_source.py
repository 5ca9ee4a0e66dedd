"""Rules of our own C that no compiler checks; each is shown to fail on a copy that breaks it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import includes
import pytest

Rule = Callable[[str], Iterator[str]]


def functions(text: str) -> list[tuple[str, str]]:
    """Names and bodies of functions, in PEP 7's layout: name and braces begin a line."""
    return re.findall(r"^(\w+)\([^;{]*?\)\n\{\n(.*?)^\}", text, re.M | re.S)


def without_comments(text: str) -> str:
    return re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.S)


def traverse_visits_the_type(text: str) -> Iterator[str]:
    """A heap type's instances own a reference to it, which the collector has to see."""
    for name, body in functions(text):
        if name.endswith("_traverse") and name != "module_traverse" and "Py_VISIT(Py_TYPE(op));" not in body:
            yield name


def dealloc_untracks_first(text: str) -> Iterator[str]:
    """Nothing may run a collection over half an object: after the finalizer, untracking comes before anything else."""
    for name, body in functions(text):
        if name.endswith("_dealloc") and not body.endswith("    Part_dealloc(op);\n"):
            untrack = body.find("PyObject_GC_UnTrack(op);")
            # Only taking the type and the finalizer, which needs a tracked object, come before.
            before = body[: max(untrack, 0)]
            if untrack < 0 or re.search(r"\bPy_X?(CLEAR|DECREF)\(|_clear\(|tp_free|PyMem_Free", before):
                yield name


def dealloc_drops_the_type(text: str) -> Iterator[str]:
    """Each instance gives its reference to the type back, after its memory."""
    for name, body in functions(text):
        last = r"(Part_dealloc\(op\);|type->tp_free\(op\);\s*Py_DECREF\(type\);)\s*\Z"
        if name.endswith("_dealloc") and not re.search(last, body):
            yield name


def versions_in_compat_only(text: str) -> Iterator[str]:
    """compat.h alone knows versions."""
    yield from re.findall(r"\bPY_(?:VERSION_HEX|M\w+_VERSION)\b", text)


SECTION = r"\bBEGIN_SECTION\(.*?\bEND_SECTION\(\)|\b(?:LOCKED|TRANSITION|RETURN_NONE_LOCKED)\(.*?\);"


def no_way_out_of_a_section(text: str) -> Iterator[str]:
    """A critical section is left at its end, or the lock stays."""
    for name, body in functions(text):
        for section in re.findall(SECTION, body, re.S):
            if re.search(r"\b(return|goto)\b|\bPy_RETURN_\w+", section):
                yield name
        if body.count("BEGIN_SECTION(") != body.count("END_SECTION("):
            yield name


def lock_held_is_called_with_the_lock(text: str) -> Iterator[str]:
    """..._lock_held() is called by another such function, or within a critical section."""
    for name, body in functions(text):
        if name.endswith("_lock_held"):
            continue
        outside = re.sub(SECTION, "", body, flags=re.S)
        for called in re.findall(r"\b\w+_lock_held(?=\()", outside):
            yield f"{name} calls {called}"


def no_static_state(text: str) -> Iterator[str]:
    """What interpreters would share is constant, or one of CPython's tables."""
    tables = "Py(Method|Member|GetSet)Def|PyType_S(lot|pec)|PyModuleDef_Slot|struct PyModuleDef"
    for line in re.findall(r"^\s*static [^(){}]*?(?:=|;)", text, re.M):
        if not re.search(rf"\bconst\b|static (?:{tables})\b", line):
            yield line.strip()


# What each rule looks for, and a change to the source that breaks it.
RULES: dict[Rule, tuple[str, str]] = {
    traverse_visits_the_type: ("Py_VISIT(Py_TYPE(op));", ""),
    dealloc_untracks_first: ("    PyObject_GC_UnTrack(op);\n    type->tp_clear(op);\n", "    type->tp_clear(op);\n"),
    dealloc_drops_the_type: ("type->tp_free(op);\n    Py_DECREF(type);", "type->tp_free(op);"),
    versions_in_compat_only: ("#include <stddef.h>", "#if PY_VERSION_HEX > 0x030c0000\n#endif\n#include <stddef.h>"),
    no_way_out_of_a_section: ("    rc = self->call(group, ", "    return ("),
    lock_held_is_called_with_the_lock: (
        "    RETURN_NONE_LOCKED(op, cancel_lock_held(GROUP(op)));\n",
        "    cancel_lock_held(GROUP(op));\n",
    ),
    no_static_state: ("static PyType_Slot", "static int counter;\nstatic PyType_Slot"),
}


def name_of(rule: object) -> str | None:
    return getattr(rule, "__name__", None)


@pytest.fixture(scope="module")
def sources() -> dict[str, str]:
    """The files, without comments."""
    if not includes.SOURCE.exists():
        pytest.skip("the source of the extension is not here")
    return {file: without_comments(text) for file, text in includes.read().items()}


def broken(rule: Rule, sources: dict[str, str]) -> list[str]:
    """Where it is broken."""
    excused = {"compat.h"} if rule is versions_in_compat_only else set()
    return [f"{file}: {what}" for file, text in sources.items() if file not in excused for what in rule(text)]


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_rule(rule: Rule, sources: dict[str, str]) -> None:
    """Our C keeps the rule."""
    assert broken(rule, sources) == []


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_rule_finds_what_breaks_it(rule: Rule, sources: dict[str, str]) -> None:
    """The rule would be seen to be broken."""
    old, new = RULES[rule]
    file = next(file for file, text in sources.items() if old in text)
    assert broken(rule, sources | {file: sources[file].replace(old, new, 1)}) != []


def test_all_functions_are_seen(sources: dict[str, str]) -> None:
    """The rules look at every function that ends in a brace of its own at the beginning of a line."""
    code = [re.sub(r'"(?:\\.|[^"\\])*"', '""', text) for text in sources.values()]
    seen = sum(len(functions(text)) for text in sources.values())
    assert seen == sum(len(re.findall(r"^\{\n", text, re.M)) for text in code) > 100


def test_files_know_those_before_them_alone(sources: dict[str, str]) -> None:
    """What a file includes comes before it in the order of the rooms, so that there is no circle."""
    assert includes.out_of_order(sources) == []


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("turn.h", '#include "turn.h"', "turn.h includes turn.h, which comes after it"),
        ("turn.h", '#include "create.h"', "turn.h includes create.h, which comes after it"),
        ("more.c", "", "more.c has no place in the order"),
    ],
)
def test_a_circle_is_found(file: str, text: str, says: str) -> None:
    """A file that includes one after it, or none that the order knows, is named."""
    assert includes.out_of_order({file: text}) == [says]


def too_long(text: str) -> Iterator[str]:
    """A file of more than 700 lines, a function of more than 80."""
    if (lines := text.count("\n")) > 700:
        yield f"{lines} lines"
    for name, body in functions(text):
        if (lines := body.count("\n")) > 80:
            yield f"{name}: {lines} lines"


@pytest.mark.parametrize("file", includes.read())
def test_size(file: str) -> None:
    """A file is a room and no hall, a function a page at most."""
    assert list(too_long(includes.read()[file])) == []


def test_what_is_too_long_is_found() -> None:
    """The test of the size would fail."""
    assert list(too_long("\n" * 701)) == ["701 lines"]
    assert list(too_long("f(void)\n{\n" + "    f();\n" * 81 + "}\n")) == ["f: 81 lines"]
    assert list(too_long("f(void)\n{\n" + "    f();\n" * 80 + "}\n" + "\n" * 617)) == []
