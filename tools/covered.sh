#!/usr/bin/env bash
# The lines and branches of the C that the tests reach, in a copy of the tree: covered.sh PYTHON [PYTEST ARGUMENTS].
# PYTHON has the tools of the tests, and gcovr.  A line that no test reaches is an error, and so is a test that fails;
# no line is excused: the fault tests run out of memory in the branches that are for that.  A few lines are for CPython
# before 3.13 only, others for 3.14 and newer, so it takes two Pythons: what earlier runs with others reached counts,
# until the C or a test changes.  Status 3 says that the tests have passed and lines are missing.
set -euo pipefail
cd "$(dirname "$0")/.."

python=$(realpath -s "$1")
shift
all=$PWD/build/coverage
tree=$all/tree
rm -rf "$tree"
mkdir -p "$tree"
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$tree" 2>/dev/null || true
cd "$tree"
state=$all/$(find src quattro tests tools -type f | LC_ALL=C sort | xargs cat | cksum | tr -d ' ')
mkdir -p "$state"

export PYTHONPATH=$PWD
QUATTRO_WERROR=1 QUATTRO_COVERAGE=1 "$python" setup.py -q build_ext --inplace --force --build-temp objects
QUATTRO_FAULTS=1 "$python" -m pytest "$@"

tag=$("$python" -c 'import sys; print(sys.implementation.cache_tag + sys.abiflags)')
"$python" -m gcovr --root . --filter src/ --json "$state/$tag.json" objects
runs=("$state"/*.json)
echo "Reached with $(basename -s .json "${runs[@]}" | paste -sd ' '):"
if ! "$python" -m gcovr --root . "${runs[@]/#/--add-tracefile=}" --txt - --txt-summary \
    --html-details "$state/index.html" --fail-under-line 100; then
    echo "The lines above under Missing were not reached ($state/index.html shows them). If this was one Python" \
        "of two, go on with the other: one before 3.13, and 3.14 or newer." >&2
    exit 3
fi
