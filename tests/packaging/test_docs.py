"""The pages are tested as conftest.py of the project says; here, that no block escapes and that a broken one fails."""

from __future__ import annotations

import asyncio
import copy
import itertools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import forever, noop

from quattro import TaskGroup

ROOT = Path(__file__).parents[2]
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


LANGUAGES = {"python", "output", "shell", "text", "toml", "yaml", "c"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_of_a_known_language(page: Path) -> None:
    """A fence says ``python`` or ``output``, which are run and compared, or something that is no Python."""
    fences = re.findall(r"^ *```+ *(.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    for opened, closed in zip(fences[::2], fences[1::2], strict=True):
        language = opened.removeprefix("{code-block} ")
        assert (language in LANGUAGES or re.fullmatch(r"\{(?!code)[\w-]+\}.*", language)) and not closed


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.name)
def test_programs_fit_the_column(page: Path) -> None:
    """No line of a program, or of what it prints, is longer than the 84 characters that a page has room for."""
    programs = re.compile(r"^```+(?:python|output|shell|{code-block}.*)\n(.*?)^```+$", re.MULTILINE | re.DOTALL)
    for block in programs.findall(page.read_text(encoding="utf-8")):
        assert [line for line in block.splitlines() if len(line) > 84] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_headings_are_in_order(page: Path) -> None:
    """A page has one title, and no heading skips a level."""
    text = page.read_text(encoding="utf-8")
    if included := re.match("```{include} (.+)", text):
        text = (page.parent / included[1]).read_text(encoding="utf-8")
    prose = re.sub(r"^(```+).*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    levels = [len(marks) for marks in re.findall("^(#+) ", prose, re.MULTILINE)]
    assert levels[0] == levels.count(1) == 1
    assert all(below <= above + 1 for above, below in itertools.pairwise(levels))


def test_guides_and_reference_link_to_each_other() -> None:
    """A guide that the reference names for a method has a link to the reference."""
    guides = re.findall(r":doc:`([\w/-]+)`", (ROOT / "docs/reference.md").read_text(encoding="utf-8"))
    assert len(guides) > 10
    for guide in guides:
        text = (ROOT / f"docs/{guide}.md").read_text(encoding="utf-8")
        assert re.search(r"<quattro\.TaskGroup|\(quattro\.TaskGroup", text), guide


def test_a_broken_block_fails(tmp_path: Path) -> None:
    """A program and its output pass; the same page with one thing changed fails, whatever it is."""
    (tmp_path / "docs").mkdir()
    for name in ("conftest.py", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "docs" / "good.md").write_text(GOOD, encoding="utf-8")
    for what, (before, after) in BROKEN.items():
        assert before in GOOD
        (tmp_path / "docs" / f"{what}.md").write_text(GOOD.replace(before, after, 1), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "docs"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    failed = set(re.findall(r"^FAILED docs/(.+)\.md::", done.stdout, re.MULTILINE))
    assert done.returncode == 1 and failed == set(BROKEN), done.stdout


async def test_every_message_is_explained() -> None:
    """docs/errors.md has each error message of ours word for word, but for the repr of the group."""
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    explained = [re.sub("<[^>]*>", "<...>", term).rstrip(".") for term in re.findall("^`(.*)`$", page, re.MULTILINE)]
    loop = asyncio.get_running_loop()
    limit: Any = TaskGroup
    finished, entered = TaskGroup(), TaskGroup()
    entering: list[BaseException] = []

    def enter_without_a_task() -> None:
        try:
            TaskGroup().__aenter__().send(None)  # type: ignore[attr-defined]
        except RuntimeError as error:
            entering.append(error)

    async def f(x: int) -> None: ...

    class Odd:
        def __iter__(self) -> Odd:
            return self

        def __next__(self) -> int:
            raise StopAsyncIteration

    async with finished:
        pass
    loop.call_soon(enter_without_a_task)
    async with entered as tg:
        tg.create_task(forever())
        group: Any = tg
        busy = tg.map(lambda _: forever(), [1], buffersize=1)
        waiting: Any = anext(busy)
        waiting.send(None)
        mistakes: list[Any] = [
            lambda: TaskGroup().create_task(noop()),
            lambda: finished.create_task(noop()),
            lambda: tg.__aenter__().send(None),  # type: ignore[attr-defined]
            lambda: finished.__aexit__(None, None, None).send(None),  # type: ignore[attr-defined]
            lambda: group.create_task(42),
            lambda: group.create_task(f, 1),
            lambda: limit(concurrency_limit=0),
            lambda: limit(concurrency_limit=1.5),
            lambda: limit(10),
            lambda: limit(limit=10),
            lambda: copy.copy(tg),
            lambda: group.map(42, []),
            lambda: group.map(f, 42),
            lambda: group.map(f, []),
            lambda: group.map(f, [], buffersize=0),
            lambda: group.map(f, [], buffersize=1.5),
            lambda: anext(tg.map(f, Odd(), buffersize=1)).send(None),  # type: ignore[attr-defined]
            lambda: anext(busy).send(None),  # type: ignore[attr-defined]
            lambda: (tg.cancel(), tg.create_task(noop())),
        ]
        for mistake in mistakes:
            with pytest.raises((RuntimeError, TypeError, ValueError)) as caught:
                mistake()
            text = re.sub("<[^>]*>", "<...>", str(caught.value))
            assert any(text.startswith(term) for term in explained), text
        waiting.close()
    assert str(entering[0]).endswith("cannot determine the parent task") and "cannot determine the parent" in page
