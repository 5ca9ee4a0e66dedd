"""Run the tests of the pure-Python package of the same name on ours: ``python namesake.py SDIST``.

Its tests of TaskGroup run on quattro.TaskGroup, those of gather() on the function that
docs/coming-from-pure-python-quattro.md gives in its place. They are read from its sdist, which ``tools/run namesake``
downloads.
"""

from __future__ import annotations

import re
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

import quattro

PAGE = Path(__file__).parents[1] / "docs" / "coming-from-pure-python-quattro.md"
FILES = {"test_taskgroup_background_tasks.py": 8, "test_gather.py": 15}  # and how many tests each has

# Tests that fail because of a difference that the page lists, with the reason.
DIFFERENCES: dict[str, str] = {}


INI = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""


class Verdicts:
    """Collects how each test ended."""

    def __init__(self) -> None:
        self.verdicts: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.rpartition("/")[2]
        if report.when == "call" or not report.passed:
            self.verdicts[name] = report.outcome


def main(sdist: str) -> int:
    """Return 0 if every test passes, but for the differences, and these do fail."""
    assert quattro.TaskGroup.__mro__[1].__module__ == "quattro._quattro"
    block = re.search(r"```\{code-block\} python\n:name: gather\n\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert block, "the page has no gather()"
    exec(block[1], names := {})  # type: ignore[var-annotated]
    quattro.gather = names["gather"]  # type: ignore[attr-defined]
    with TemporaryDirectory() as folder, tarfile.open(sdist) as archive:
        for member in archive.getmembers():
            path = Path(member.name)
            if path.parent.name == "tests" and path.name in FILES:
                (Path(folder) / path.name).write_bytes(archive.extractfile(member).read())  # type: ignore[union-attr]
        ini = Path(folder) / "pytest.ini"
        ini.write_text(INI)
        seen = Verdicts()
        pytest.main(["-q", "-ra", "-p", "no:cacheprovider", "-c", str(ini), "--rootdir", folder, folder], [seen])
    counts = {file: sum(name.startswith(file) for name in seen.verdicts) for file in FILES}
    missing = [f"{file}: {count} tests" for file, count in counts.items() if count != FILES[file]]
    wrong = [name for name, verdict in seen.verdicts.items() if (verdict == "failed") != (name in DIFFERENCES)]
    skipped = sum(verdict == "skipped" for verdict in seen.verdicts.values())
    if sys.version_info >= (3, 12) and skipped:
        wrong.append("a test was skipped")  # the one that is about eager tasks needs 3.12
    print(*missing, *wrong, sep="\n")
    return 1 if missing or wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
