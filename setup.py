"""Only the extension and its switches; all else is in pyproject.toml.

QUATTRO_WERROR=1    warnings are errors
QUATTRO_SYMBOLS=1   keep the names of functions and lines, for debuggers and profilers
QUATTRO_DEBUG=1     assertions, the group's invariants after each transition, no optimisation
QUATTRO_SANITIZE=address,undefined   build with these sanitizers
QUATTRO_COVERAGE=1  count lines for gcov
"""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup

HERE = Path(__file__).parent
compile_args: list[str] = []
link_args: list[str] = []

if sys.platform == "win32":
    compile_args += ["/std:c11", "/W3"]
    if os.environ.get("QUATTRO_WERROR"):
        compile_args += ["/WX"]
else:
    compile_args += ["-std=c11", "-Wall", "-Wextra", "-Wno-missing-field-initializers", "-fvisibility=hidden"]
    if sys.platform == "linux":
        compile_args += ["-fno-plt"]  # a jump less on each call into the interpreter
    if "-O" not in os.environ.get("CFLAGS", ""):  # whoever sets CFLAGS may choose another there
        compile_args += ["-O3"]
    if os.environ.get("QUATTRO_WERROR"):
        compile_args += ["-Werror"]
    if os.environ.get("QUATTRO_DEBUG"):
        compile_args += ["-O0", "-g3", "-UNDEBUG", "-DQUATTRO_DEBUG"]
    elif sanitizers := os.environ.get("QUATTRO_SANITIZE"):
        compile_args += [f"-fsanitize={sanitizers}", "-fno-omit-frame-pointer", "-g"]
        link_args += [f"-fsanitize={sanitizers}"]
    elif os.environ.get("QUATTRO_COVERAGE"):
        compile_args += ["-O0", "--coverage", "-fprofile-update=atomic"]  # threads count, too
        link_args += ["--coverage"]
    elif os.environ.get("QUATTRO_SYMBOLS"):
        compile_args += ["-g"]
    else:  # CPython's own flags ask for symbols, which would be four fifths of a wheel
        compile_args += ["-g0"]
        link_args += ["-Wl,-x" if sys.platform == "darwin" else "-Wl,-s"]


def files(suffix: str) -> list[str]:
    """The files of src/, always in the same order."""
    return sorted(path.relative_to(HERE).as_posix() for path in HERE.glob(f"src/*{suffix}"))


setup(
    ext_modules=[
        Extension(
            "quattro._quattro",
            sources=files(".c"),
            depends=files(".h"),
            extra_compile_args=compile_args,
            extra_link_args=link_args,
        )
    ]
)
