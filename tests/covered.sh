#!/usr/bin/env bash
# The lines and branches of the C that the tests reach, in a copy of the tree: covered.sh PYTHON [PYTEST ARGUMENTS].
# PYTHON has the tools of the tests, and gcovr.  What earlier runs with other interpreters reached counts too, until
# the C changes.  A line that no test reaches is an error; the few that only a broken interpreter reaches are marked.
set -euo pipefail
cd "$(dirname "$0")/.."

python=$(realpath -s "$1")
shift
all=$PWD/build/coverage
state=$(cat src/* | cksum | tr -d ' ')
mkdir -p "$all/$state"
tree=$all/tree
rm -rf "$tree"
mkdir -p "$tree"
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$tree" 2>/dev/null || true
cd "$tree"

export PYTHONPATH=$PWD
QUATTRO_WERROR=1 QUATTRO_COVERAGE=1 "$python" setup.py -q build_ext --inplace --force --build-temp objects
QUATTRO_FAULTS=1 "$python" -m pytest "$@"

report=("$python" -m gcovr --root . --filter src/ --exclude-lines-by-pattern '.*// not covered: .*' --exclude-throw-branches)
tag=$("$python" -c 'import sys; print(sys.implementation.cache_tag + sys.abiflags)')
"${report[@]}" --json "$all/$state/$tag.json" objects
merge=()
for earlier in "$all/$state"/*.json; do
    merge+=(--add-tracefile "$earlier")
done
"$python" -m gcovr --root . "${merge[@]}" --txt - --txt-summary --html-details "$all/$state/index.html" --fail-under-line 100
