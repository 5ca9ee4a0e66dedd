"""Only the extension and its switches; all else is in pyproject.toml.

QUATTRO_WERROR=1    warnings are errors
QUATTRO_DEBUG=1     assertions, the group's invariants after each transition, no optimisation
QUATTRO_SANITIZE=address,undefined   build with these sanitizers
QUATTRO_COVERAGE=1  count lines for gcov
"""

import os
import sys

from setuptools import Extension, setup

compile_args: list[str] = []
link_args: list[str] = []

if sys.platform == "win32":
    compile_args += ["/std:c11", "/W3"]
    if os.environ.get("QUATTRO_WERROR"):
        compile_args += ["/WX"]
else:
    compile_args += ["-std=c11", "-Wall", "-Wextra", "-Wno-missing-field-initializers", "-fvisibility=hidden"]
    # -fno-plt: a jump less on each call into the interpreter.  Whoever sets CFLAGS chooses another -O there.
    compile_args += ["-fno-plt", *(["-O3"] if "-O" not in os.environ.get("CFLAGS", "") else [])]
    if os.environ.get("QUATTRO_WERROR"):
        compile_args += ["-Werror"]
    if os.environ.get("QUATTRO_DEBUG"):
        compile_args += ["-O0", "-g3", "-UNDEBUG", "-DQUATTRO_DEBUG"]
    if sanitizers := os.environ.get("QUATTRO_SANITIZE"):
        compile_args += [f"-fsanitize={sanitizers}", "-fno-omit-frame-pointer", "-g"]
        link_args += [f"-fsanitize={sanitizers}"]
    if os.environ.get("QUATTRO_COVERAGE"):
        compile_args += ["-O0", "--coverage", "-fprofile-update=atomic"]  # threads count, too
        link_args += ["--coverage"]

setup(
    ext_modules=[
        Extension(
            "quattro._quattro",
            sources=["src/_quattro.c"],
            depends=["src/compat.h", "src/state.h"],
            extra_compile_args=compile_args,
            extra_link_args=link_args,
        )
    ]
)
