"""The list of ways to break the C (`tools/run mutations`) fits the C that is here, whatever its names."""

from __future__ import annotations

from pathlib import Path

import mutations
import pytest
from mutants import MUTANTS, Mutant
from mutations import mutated

TESTS = Path(__file__).parents[1]
SOURCES = {
    "a.c": "int rc = give_back(self, task); /* a comment */\nPy_DECREF(task);\nreturn rc;",
    "b.c": "int rc = take(self);\nPy_DECREF(self);\nreturn rc;",
}
DECREF = Mutant("", "rc = give_back(self, task);\n    Py_DECREF(task);", "rc = give_back(self, task);", "")


def test_every_mutant_has_its_place() -> None:
    """Each piece of the C is there, once, and the tests that ought to notice are."""
    sources = mutations.read_sources()
    if not sources:
        pytest.skip("the source of the extension is not here")
    for mutant in MUTANTS:
        assert mutated(mutant, sources)[0] != sources
        for part in mutant.tests.split():
            assert len(list(TESTS.glob(f"*/test_{part.partition(':')[0]}.py"))) == 1


def test_layout_and_comments_do_not_matter() -> None:
    """A piece is compared token by token; what is around it stays as it is."""
    broken, other_names = mutated(DECREF, SOURCES)
    assert " ".join(broken["a.c"].split()) == "int rc = give_back(self, task); return rc;"
    assert (broken["b.c"], other_names) == (SOURCES["b.c"], "")


def test_a_renamed_function_is_found() -> None:
    """The place where the fewest names are others is taken, with these names."""
    sources = {file: text.replace("give_back", "return_slot") for file, text in SOURCES.items()}
    broken, other_names = mutated(DECREF, sources)
    assert " ".join(broken["a.c"].split()) == "int rc = return_slot(self, task); return rc;"
    assert other_names == "give_back is return_slot"


@pytest.mark.parametrize(
    ("piece", "times"),
    [
        ("Py_INCREF(task);", 0),  # CPython's names are not ours to change
        ("Py_DECREF(task, task);", 0),
        ("rc = take(self, self);", 0),  # two names that would be one
        ("Py_DECREF(self->group);", 0),
        ("return rc;", 2),
        ("Py_DECREF(x);", 2),
    ],
)
def test_a_piece_without_one_place_is_an_error(piece: str, times: int) -> None:
    """What is gone, or is there in two places that are equally near, is not guessed at."""
    with pytest.raises(LookupError, match=f"found {times} times"):
        mutated(Mutant("", piece, "", ""), SOURCES)
