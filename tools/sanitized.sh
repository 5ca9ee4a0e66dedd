#!/usr/bin/env bash
# Every test under AddressSanitizer and UBSan, in a copy of the tree: sanitized.sh PYTHON [PYTEST ARGUMENTS].  PYTHON has
# the tools of the tests.  First the sanitizer has to find an error that is planted there.
set -euo pipefail
cd "$(dirname "$0")/.."

python=$(realpath -s "$1")
shift
copy=build/sanitized
rm -rf "$copy"
mkdir -p "$copy"
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$copy" 2>/dev/null || true
cd "$copy"

cc=$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("CC").split()[0])')
# CPython's own leaks are not our business; its free lists and arenas would hide errors.
export PYTHONMALLOC=malloc PYTHONPATH=$PWD
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1

build() {
    QUATTRO_WERROR=1 QUATTRO_SANITIZE=address,undefined "$python" setup.py -q build_ext --inplace --force
}

under() {
    LD_PRELOAD="$($cc -print-file-name=libasan.so) $($cc -print-file-name=libubsan.so)" "$@"
}

cp -r src sound
sed -i '/^Part_dealloc/,/^}/ s/type->tp_free(op);/type->tp_free(op); ((volatile Part *)op)->group = NULL;/' src/group.h
build
if under "$python" tools/leaks.py concurrency_limit asyncio 1 >planted.log 2>&1 || ! grep -q heap-use-after-free planted.log; then
    echo "the planted use after free was not found" >&2
    exit 1
fi
cp sound/* src/
build
# Without those that weigh memory: the sanitizer keeps what is freed.
under "$python" -m pytest --ignore tests/hostile/test_leaks.py --deselect tests/hostile/test_soak.py::test_memory_is_flat \
    --deselect tests/hostile/test_soak.py::test_a_leak_would_be_seen "$@"
