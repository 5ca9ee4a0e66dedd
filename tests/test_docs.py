"""The pages are tested as conftest.py of the project says; here, that no block escapes and that a broken one fails."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
GOOD = """
```python
import asyncio

async def main():
    print("hello")

asyncio.run(main())
```

```output
hello
```
"""
BROKEN = {
    "raises": ("asyncio.run(main())", "asyncio.run(main)"),
    "prints something else": ('print("hello")', 'print("good-bye")'),
    "leaves a coroutine": ("asyncio.run(main())", "asyncio.run(main()); main()"),
    "is logged by asyncio": (
        'print("hello")',
        'print("hello"); asyncio.get_running_loop().create_future().set_exception(OSError())',
    ),
    "is no Python": ("async def", "async fed"),
    "is a test that fails": ("```python\nimport asyncio\n", "```{code-block} python\n:caption: test_it.py\nassert 0\n"),
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_of_a_known_language(page: Path) -> None:
    """A fence says ``python`` or ``output``, which are run and compared, or something that is no Python."""
    languages = re.findall(r"^ *```(?:\{code-block\} )?(\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(languages) <= {"python", "output", "shell", "text", "toml", "{toctree}", "{note}", "{warning}", "{raw}"}


def run(folder: Path, page: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on a page with the project's settings."""
    (folder / "docs").mkdir()
    (folder / "docs" / "page.md").write_text(page, encoding="utf-8")
    for name in ("conftest.py", "pyproject.toml"):
        (folder / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "docs"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_a_good_page_passes(tmp_path: Path) -> None:
    """A program and its output are two tests."""
    done = run(tmp_path, GOOD)
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_block_fails(tmp_path: Path, what: str) -> None:
    """The same page with one thing changed fails."""
    before, after = BROKEN[what]
    assert before in GOOD
    done = run(tmp_path, GOOD.replace(before, after, 1))
    assert done.returncode == 1, done.stdout
