"""The C is C11 and nothing more, so that other compilers take it too: no GNU extensions, no warnings."""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "_quattro.c"

# The slots of the C API hold functions as `void *`, which ISO C leaves to the platform (POSIX and Windows have it).
SLOT = re.compile(r"between (function pointer and .void \*.|void pointer and function pointer)")


@pytest.mark.parametrize("assertions", ["-DNDEBUG", "-UNDEBUG"])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_pedantic(compiler: str, assertions: str) -> None:
    """Each compiler that is here accepts it with -Wpedantic, with assertions and without."""
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    switches = ["-std=c11", "-Wpedantic", "-Wall", "-Wextra", "-Wno-missing-field-initializers", assertions]
    paths = sysconfig.get_paths()
    includes = [f"-I{paths['include']}", f"-I{paths['platinclude']}"]
    command = [compiler, *switches, *includes, "-fsyntax-only", str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True)
    found = [line for line in done.stderr.splitlines() if re.search(r"\b(warning|error): ", line)]
    assert [line for line in found if not SLOT.search(line)] == []
    assert done.returncode == 0 and found, done.stderr  # the slots' ones: it did look
