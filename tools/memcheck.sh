#!/usr/bin/env bash
# Tests under valgrind's memcheck, which sees what ASan does not: memory that is read before anybody has written it.
# memcheck.sh PYTHON [PYTEST ARGUMENTS], in a copy of the tree.  PYTHON, a release build, has the tools of the tests.
# First memcheck has to find such a read that is planted there.
set -euo pipefail
cd "$(dirname "$0")/.."

python=$(realpath -s "$1")
shift
[ $# -gt 0 ] || set -- tests/behaviour tests/hostile/test_hostile.py
copy=build/memcheck
rm -rf "$copy"
mkdir -p "$copy"
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$copy" 2>/dev/null || true
cd "$copy"

# Of CPython's own arenas memcheck would know nothing.
export PYTHONMALLOC=malloc PYTHONPATH=$PWD

build() {
    QUATTRO_WERROR=1 "$python" setup.py -q build_ext --inplace --force
}

under() {
    valgrind --quiet --error-exitcode=99 --num-callers=30 "$python" "$@"
}

cp -r src sound
sed -i '/^TaskGroup__counts/,/^}/ s/^    PyObject \*result;/&\n    volatile char *planted = PyMem_RawMalloc(1);\n    if (*planted) {\n        PyErr_Clear();\n    }\n    PyMem_RawFree((void *)planted);/' src/*.c
build
if under tools/leaks.py statistics asyncio 1 >planted.log 2>&1 || ! grep -q "depends on uninitialised value" planted.log; then
    echo "the planted read of uninitialised memory was not found" >&2
    exit 1
fi
cp sound/* src/
build
under -m pytest "$@"
