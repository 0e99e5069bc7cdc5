#!/usr/bin/env bash
# Builds the kernels and their tests with ASan and UBSan and runs them, on every instruction set that this CPU has.
# The 16-lane templates are built once more for AVX2, so that they run on a CPU without AVX-512 too.
set -euo pipefail
cd "$(dirname "$0")"
readonly source=../../xla_ops build=../../build/sanitize
readonly kernels=(spmm depthwise depthwise_planes)
readonly flags=(-std=c++17 -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
  -ffp-contract=fast -Wall -Wextra -Wno-psabi)
CXX=${CXX:-g++}
rm -rf "$build" && mkdir -p "$build"  # `wait` hides a failed compilation; a missing object does not
objects=()

compile() {  # object, source, flags
  "$CXX" "${flags[@]}" "${@:3}" -c "$2" -o "$build/$1.o"
}

add_kernels() {  # target, lanes, flags
  for kernel in "${kernels[@]}"; do
    compile "$kernel.$1" "$source/$kernel.cc" -DSPARSEJAX_TARGET="$1" -DSPARSEJAX_LANES="$2" "${@:3}" &
    objects+=("$build/$kernel.$1.o")
  done
  wait
}

defines=()
case $(uname -m) in
  x86_64)
    add_kernels sse2 4
    add_kernels avx2 8 -mavx2 -mfma
    add_kernels avx512 16 -mavx512f -mavx512dq -mavx512vl -mfma
    add_kernels wide 16 -mavx2 -mfma -DSPARSEJAX_REGISTERS=32
    defines+=(-DSPARSEJAX_TEST_WIDE)
    ;;
  *) add_kernels neon 4 ;;
esac
for file in "$source"/{kernels,matrix,run_spmm,run_depthwise}.cc {main,spmm_test,depthwise_test}.cc; do
  name=$(basename "$file" .cc)
  compile "$name" "$file" ${defines[@]+"${defines[@]}"}
  objects+=("$build/$name.o")
done
"$CXX" "${flags[@]}" "${objects[@]}" -lpthread -o "$build/kernel_tests"
UBSAN_OPTIONS=print_stacktrace=1 "$build/kernel_tests"
