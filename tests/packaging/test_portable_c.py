"""The C is C11 and nothing more, so that other compilers take it too; each of its files compiles alone."""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig

import includes
import pytest

# The slots of the C API hold functions as `void *`, which ISO C leaves to the platform (POSIX and Windows have it).
SLOT = re.compile(r"between (function pointer and .void \*.|void pointer and function pointer)")


@pytest.mark.parametrize("assertions", ["-DNDEBUG", "-UNDEBUG -DQUATTRO_DEBUG"])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("file", sorted(path.name for path in includes.SOURCE.glob("*.[ch]")))
def test_pedantic(file: str, compiler: str, assertions: str) -> None:
    """Each compiler that is here accepts each file by itself with -Wpedantic, with assertions and without."""
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    switches = ["-std=c11", "-Wpedantic", "-Wall", "-Wextra", "-Wno-missing-field-initializers", *assertions.split()]
    # What a header declares for others is not used in it.
    switches += ["-Wno-unused-function"] if file.endswith(".h") else []
    paths = sysconfig.get_paths()
    # Ours first: CPython 3.15 has a slots.h, too, which its own headers find beside them.
    search = [f"-I{includes.SOURCE}", f"-I{paths['include']}", f"-I{paths['platinclude']}"]
    done = subprocess.run(
        [compiler, *switches, *search, "-fsyntax-only", "-x", "c", "-"],
        input=f'#include "{file}"\n',
        capture_output=True,
        text=True,
    )
    # What CPython's headers have of a platform's own (__int64) is not ours to mend.
    ours = re.compile(re.escape(str(includes.SOURCE)) + r".*\b(warning|error): ")
    found = [line for line in done.stderr.splitlines() if ours.match(line)]
    assert [line for line in found if not SLOT.search(line)] == []
    assert done.returncode == 0, done.stderr
    assert found or "Slot" not in includes.read()[file], "-Wpedantic says nothing of the slots: did it look?"
