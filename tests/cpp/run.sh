#!/usr/bin/env bash
# Builds the kernels and their tests with ASan and UBSan and runs them, on every instruction set that this CPU has, then
# with TSan on one of them: what threads share does not depend on the instruction set.
# On a CPU without AVX-512 its 16-lane templates are built for AVX2, so that they run there, too. NEON runs under
# emulation in tests/arm/run.sh, which calls `emulated` (without sanitizers: those need the target's libraries).
# Last, the runtime is built as a library for others, and programs and files run on it.
# With `fuzz SECONDS` programs and custom calls are fuzzed instead, with `fuzz-files RUNS` files and the whole runtime: by
# libFuzzer where clang++ has it, else by seeds. With `one FILE_test.cc ...` only those tests are built and run, with ASan and
# UBSan. SPARSEJAX_LAUNCHER=ccache makes the next build short.
set -euo pipefail
cd "$(dirname "$0")"
readonly source=../../xla_ops
python=../../.venv/bin/python
[ -x "$python" ] || python=python3
xla=$("$python" -c "import importlib.util as u; print(u.find_spec('jaxlib').submodule_search_locations[0])")/include
mapfile -t kernels < <(sed -nE 's/^(TABLE|TRAINING|PART)\((.*, )?(\w+)\)$/\3/p' "$source/kernels/kernels.def")
readonly kernels
readonly common=(-std=c++17 -ffp-contract=fast -Wall -Wextra -Werror -Wno-psabi -I "$source" -isystem "$xla")
# Nothing that is checked is optimised: to compile it takes far longer than to run it. UBSan's checks of addresses take a third
# of the time, and ASan sees what is at a wrong one.
readonly sanitize=(-g1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
  -fno-sanitize=pointer-overflow,object-size,null)
readonly sanitize_threads=(-O1 -g1 -fsanitize=thread)

compile() {  # object, source, flags; as many at a time as there are cores
  while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do wait -n; done
  objects+=("$build/$1.o")
  ${SPARSEJAX_LAUNCHER:-} "$compiler" "${common[@]}" "${flags[@]}" "${@:3}" -c "$2" -o "$build/$1.o" &
}

compile_all() {  # files, "--", flags; an object is named by its room and its file
  local files=()
  while [ "$1" != -- ]; do files+=("$1") && shift; done
  for file in "${files[@]}"; do
    local name=${file#"$source"/}
    name=${name%.cc}
    compile "${name//\//_}" "$file" "${@:2}"
  done
}

add_kernels() {  # target, lanes, flags; the best first
  targets+=" TARGET($1)"
  for kernel in "${kernels[@]}" table; do
    compile "$kernel.$1" "$source/kernels/$kernel.cc" -DSPARSEJAX_TARGET="$1" -DSPARSEJAX_LANES="$2" "${@:3}"
  done
}

add_every_kernel() {  # of this machine
  if [ "$(uname -m)" != x86_64 ]; then
    add_kernels neon 4
    return
  fi
  if grep -q avx512dq /proc/cpuinfo; then
    add_kernels avx512 16 -mavx512f -mavx512dq -mavx512vl -mfma
  else
    add_kernels wide 16 -mavx2 -mfma -DSPARSEJAX_REGISTERS=32
  fi
  add_kernels avx2 8 -mavx2 -mfma
  add_kernels sse2 4
}

add_host() {  # flags; what knows no instruction set, behind the kernels
  compile kernels "$source/kernels/kernels.cc" -DSPARSEJAX_TARGETS="$targets" "$@"
  compile_all "$source"/{engine,files,runtime}/*.cc -- "$@"
}

start() {  # build folder, compiler, flags
  build=../../build/$1 compiler=$2 flags=("${@:3}") objects=() targets=
  rm -rf "$build"  # so that an object that failed to compile is missed
  mkdir -p "$build"
}

link() {  # program, flags
  wait
  "$compiler" "${flags[@]}" "${@:2}" "${objects[@]}" -lpthread -o "$build/$1"
}

readonly handlers=("$source"/bind/{spmm,bcr,depthwise,program,program_store}.cc)  # all but module.cc, which needs Python
readonly drafts=({programs,random_program,reference,files,looped_files}.cc)
mapfile -t threads < <(grep -lw Threads -- *_test.cc)
readonly threads tests=(main.cc *_test.cc calls.cc)

fuzz() {  # program, for seeds: seconds or runs, for libFuzzer: flags
  local program=$1 libfuzzer=()
  start "$program" "${CXX:-g++}" "${sanitize[@]}" -O1
  if echo 'extern "C" int LLVMFuzzerTestOneInput(const char*, unsigned long) { return 0; }' |
    clang++ -x c++ -fsanitize=fuzzer,address - -o "$build/probe" 2>/dev/null; then
    libfuzzer=(-fsanitize=fuzzer-no-link -DSPARSEJAX_LIBFUZZER -Wno-unknown-warning-option)
    start "$program" clang++ "${sanitize[@]}" -O1 "${libfuzzer[@]}"
  fi
  add_every_kernel
  add_host
  compile_all "${drafts[@]}" "$program.cc" --
  if [ "$program" = fuzz ]; then compile_all "${handlers[@]}" calls.cc --; fi
  if [ "${#libfuzzer[@]}" = 0 ]; then
    link "$program"
    "$build/$program" "$2"
  else
    link "$program" -fsanitize=fuzzer
    mkdir -p "$build/corpus"
    if [ "$program" = fuzz_files ]; then  # whole files, with loops in the newest
      for file in ../compiler/files/version*.safetensors; do
        { printf '\1' && cat "$file"; } >"$build/corpus/$(basename "$file")"
      done
    fi
    "$build/$program" "${@:3}" -print_final_stats=1 -artifact_prefix="$build/" "$build/corpus"
  fi
}

emulated() {  # emulator, objects of the extension
  start emulated aarch64-linux-gnu-g++ -O1 -static
  compile_all "${tests[@]}" "${drafts[@]}" "$source"/runtime/*.cc --
  objects+=("${@:2}")
  link kernel_tests
  "$1" "$build/kernel_tests"
}

alone() {  # as others may build the runtime: without Python, XLA, threads and exceptions
  local isa=neon
  if [ "$(uname -m)" = x86_64 ]; then isa=sse2; fi
  start alone "${CXX:-g++}" -O1 -DSPARSEJAX_THREADS=0 -DSPARSEJAX_NO_TRAINING
  PATH=$PWD/../../.venv/bin:$PATH
  cmake -S "$source" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_COMPILER="$compiler" \
    -DCMAKE_CXX_FLAGS=-fno-exceptions -DSPARSEJAX_RUNTIME=ON -DSPARSEJAX_THREADS=OFF -DSPARSEJAX_ISAS=$isa >/dev/null
  cmake --build "$build" -- --quiet
  local libraries=("$build"/runtime/libsparsejax_runtime.a "$build/libsparsejax_engine.a")
  if nm -C --undefined-only "${libraries[@]}" | grep -E ' U (pthread_|std::thread|__cxa_throw|Py|XLA)'; then
    echo "the runtime alone must not need these" >&2
    exit 1
  fi
  compile_all "${drafts[@]}" engine_main.cc --
  objects+=("${libraries[@]}")
  link engine_main
  "$build/engine_main"
}

checked() {
  ASAN_OPTIONS=malloc_context_size=6 UBSAN_OPTIONS=print_stacktrace=1 "$build/kernel_tests"
}

if [ "${1:-}" = one ]; then
  start one "${CXX:-g++}" "${sanitize[@]}"
  add_every_kernel
  add_host
  compile_all "${handlers[@]}" "${drafts[@]}" main.cc calls.cc "${@:2}" --
  link kernel_tests
  checked
  exit
fi

if [ "${1:-}" = fuzz ]; then
  fuzz fuzz "${2:-600}" -max_total_time="${2:-600}" -max_len=600
  exit
fi

if [ "${1:-}" = fuzz-files ]; then
  fuzz fuzz_files "${2:-1000000}" -runs="${2:-1000000}" -max_len=16384
  exit
fi

if [ "${1:-}" = emulated ]; then
  emulated "${@:2}"
  exit
fi

start sanitize "${CXX:-g++}" "${sanitize[@]}"
add_every_kernel
add_host
compile_all "${handlers[@]}" threads_test.cc --
# What is tested comes first, so that of inline functions that both have its own are linked.
readonly behind=("${tests[@]/#threads_test.cc/}")
compile_all ${behind[@]} "${drafts[@]}" -- -O1 -fno-sanitize=all
link kernel_tests
checked

start sanitize_threads "${CXX:-g++}" "${sanitize_threads[@]}"
if [ "$(uname -m)" = x86_64 ]; then add_kernels sse2 4; else add_kernels neon 4; fi
add_host
compile_all "${drafts[@]}" "${threads[@]}" main.cc --
link kernel_tests
# Without the random addresses that older versions of TSan cannot place their memory among.
TSAN_OPTIONS=halt_on_error=1 setarch -R "$build/kernel_tests"

alone
