#!/usr/bin/env bash
# Builds the kernels and their tests with ASan and UBSan and runs them, on every instruction set that this CPU has, then
# with TSan on one of them: what threads share does not depend on the instruction set.
# On a CPU without AVX-512 its 16-lane templates are built for AVX2, so that they run there, too; NEON runs under
# emulation where a cross compiler and qemu are there (without sanitizers: those need the target's libraries).
# With `fuzz SECONDS` programs and custom calls are fuzzed instead: by libFuzzer where clang++ has it, else by seeds.
set -euo pipefail
cd "$(dirname "$0")"
readonly source=../../xla_ops
python=../../.venv/bin/python
[ -x "$python" ] || python=python3
xla=$("$python" -c "import importlib.util as u; print(u.find_spec('jaxlib').submodule_search_locations[0])")/include
readonly kernels=(spmm bcr depthwise depthwise_planes window depthwise_rows columns pool elementwise
  product product_rows product_blocks product_masks product_vector)
readonly common=(-std=c++17 -ffp-contract=fast -Wall -Wextra -Werror -Wno-psabi -isystem "$xla")
readonly sanitize=(-O1 -g1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all)
readonly sanitize_threads=(-O1 -g1 -fsanitize=thread)
readonly avx512=(16 -mavx512f -mavx512dq -mavx512vl -mfma)
readonly not_run=(-O0 -fno-sanitize=all)  # of kernels that kernels.cc asks for, and nothing else

compile() {  # object, source, flags
  "$compiler" "${common[@]}" "${flags[@]}" "${@:3}" -c "$2" -o "$build/$1.o"
}

add_kernels() {  # target, lanes, flags
  for kernel in "${kernels[@]}"; do
    compile "$kernel.$1" "$source/$kernel.cc" -DSPARSEJAX_TARGET="$1" -DSPARSEJAX_LANES="$2" "${@:3}" &
    objects+=("$build/$kernel.$1.o")
  done
  wait
}

start() {  # build folder, compiler, flags
  build=../../build/$1 compiler=$2 flags=("${@:3}") objects=()
  rm -rf "$build"  # so that an object that failed to compile is missed
  mkdir -p "$build"
}

readonly engine=("$source"/{kernels,matrix,bcr_matrix,run_spmm,run_bcr,run_depthwise,pack_product,product_layout,program}.cc
  "$source"/{plan,executable,run_step,program_store,spmm_handlers,bcr_handlers,depthwise_handlers,program_handlers}.cc
  {programs,random_program,reference,calls}.cc)

link() {  # flags of the tests
  for file in "${engine[@]}" \
    {main,spmm_test,bcr_test,depthwise_test,window_test,elementwise_test,product_test,program_test,refused_test}.cc \
    {ranges_test,threads_test,handlers_test,program_calls_test}.cc; do
    name=$(basename "$file" .cc)
    compile "$name" "$file" "$@" &
    objects+=("$build/$name.o")
  done
  wait
  "$compiler" "${flags[@]}" "${objects[@]}" -lpthread -o "$build/kernel_tests"
}

fuzz() {  # seconds
  local libfuzzer=()
  start fuzz "${CXX:-g++}" "${sanitize[@]}"
  if echo 'extern "C" int LLVMFuzzerTestOneInput(const char*, unsigned long) { return 0; }' |
    clang++ -x c++ -fsanitize=fuzzer,address - -o "$build/probe" 2>/dev/null; then
    libfuzzer=(-fsanitize=fuzzer-no-link -DSPARSEJAX_LIBFUZZER -Wno-unknown-warning-option)
    start fuzz clang++ "${sanitize[@]}" "${libfuzzer[@]}"
  fi
  if [ "$(uname -m)" = x86_64 ]; then
    add_kernels sse2 4
    add_kernels avx2 8 -mavx2 -mfma
    add_kernels avx512 "${avx512[@]}"
  else
    add_kernels neon 4
  fi
  for file in "${engine[@]}" fuzz.cc; do
    name=$(basename "$file" .cc)
    compile "$name" "$file" &
    objects+=("$build/$name.o")
  done
  wait
  if [ "${#libfuzzer[@]}" = 0 ]; then
    "$compiler" "${flags[@]}" "${objects[@]}" -lpthread -o "$build/fuzz"
    "$build/fuzz" "$1"
  else
    "$compiler" "${flags[@]}" -fsanitize=fuzzer "${objects[@]}" -lpthread -o "$build/fuzz"
    mkdir -p "$build/corpus"
    "$build/fuzz" -max_total_time="$1" -max_len=600 -print_final_stats=1 -artifact_prefix="$build/" "$build/corpus"
  fi
}

if [ "${1:-}" = fuzz ]; then
  fuzz "${2:-600}"
  exit
fi

start sanitize "${CXX:-g++}" "${sanitize[@]}"
if [ "$(uname -m)" = x86_64 ]; then
  add_kernels sse2 4
  add_kernels avx2 8 -mavx2 -mfma
  if grep -q avx512dq /proc/cpuinfo; then
    add_kernels avx512 "${avx512[@]}"
    link
  else
    add_kernels avx512 "${avx512[@]}" "${not_run[@]}"
    add_kernels wide 16 -mavx2 -mfma -DSPARSEJAX_REGISTERS=32
    link -DSPARSEJAX_TEST_WIDE
  fi
else
  add_kernels neon 4
  link
fi
UBSAN_OPTIONS=print_stacktrace=1 "$build/kernel_tests"

start sanitize_threads "${CXX:-g++}" "${sanitize_threads[@]}"
if [ "$(uname -m)" = x86_64 ]; then
  only=sse2
  add_kernels sse2 4
  add_kernels avx2 8 -mavx2 -mfma "${not_run[@]}"
  add_kernels avx512 "${avx512[@]}" "${not_run[@]}"
else
  only=neon
  add_kernels neon 4
fi
link
# Without the random addresses that older versions of TSan cannot place their memory among.
TSAN_OPTIONS=halt_on_error=1 setarch -R "$build/kernel_tests" $only

emulator=$(command -v qemu-aarch64-static || command -v qemu-aarch64 || true)
if [ "$(uname -m)" = x86_64 ] && [ -n "$emulator" ] && command -v aarch64-linux-gnu-g++ >/dev/null; then
  start cross aarch64-linux-gnu-g++ -O1 -static
  add_kernels neon 4
  link
  "$emulator" "$build/kernel_tests"
fi
