#!/usr/bin/env bash
# Runs the NEON tests on the real extension inside an emulated aarch64 Python: arm64 Debian packages and aarch64
# wheels unpacked under build/arm (no root, no foreign architecture in dpkg), a cross compiler, qemu's user emulation.
# The C runtime is cross-built, too, and runs what this machine's Python saves.
# Arguments go to pytest in place of the tests below; without any, the executed instructions are counted, too, and
# compared with those of benchmarks/arm/baseline.json. Emulated times say nothing about a real ARM core.
set -euo pipefail
cd "$(dirname "$0")/../.."
readonly tests=(tests/arm/test_neon.py)
readonly bin=.venv/bin cache=$PWD/build/arm
readonly root=$cache/root site=$cache/site package=$cache/package python=$cache/python
counts=no
if [ $# = 0 ]; then
  counts=yes
  set -- "${tests[@]}"
fi

say() { echo "test-arm: $*" >&2; }

run_tests() {  # the Python to run, then pytest's arguments; -P keeps the sources here from hiding the built package
  SPARSEJAX_ISA=neon XLA_FLAGS=--xla_force_host_platform_device_count=2 PYTHONDONTWRITEBYTECODE=1 \
    "$1" -P -m pytest -p no:cacheprovider -p no:xdist "${@:2}"
}

find_qemu() { command -v qemu-aarch64-static || command -v qemu-aarch64; }

install_host_tools() {
  local packages="g++-aarch64-linux-gnu qemu-user-static"
  if command -v aarch64-linux-gnu-g++ >/dev/null && find_qemu >/dev/null; then return; fi
  if [ "$(id -u)" != 0 ]; then
    say "needs a cross compiler and qemu: sudo apt-get install $packages"
    exit 1
  fi
  say "installing $packages"
  apt-get update -qq || say "some package sources could not be read"
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null
}

private_apt() {  # apt-get for arm64 with a state of its own
  apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Install-Recommends=false \
    -o APT::Sandbox::User=root -o Acquire::Languages=none -o Dir::State="$cache/apt/state" \
    -o Dir::State::status="$cache/apt/status" -o Dir::Cache="$cache/apt/cache" \
    -o Dir::Cache::archives="$cache/apt/debs" "$@"
}

unpack() {
  local deb
  for deb in "$cache"/apt/debs/*.deb; do dpkg-deb -x "$deb" "$root"; done
  rm "$cache"/apt/debs/*.deb
}

python_name() { basename "$(ls "$root"/usr/bin/python3.*[0-9])"; }

fetch_python() {
  say "fetching an arm64 Python"
  rm -rf "$cache"
  mkdir -p "$cache"/apt/{state/lists/partial,cache,debs/partial} "$root"
  touch "$cache/apt/status"
  private_apt update || say "some package sources have nothing for arm64"
  private_apt install -y --download-only python3-minimal libpython3-stdlib libstdc++6 >/dev/null
  unpack
  (cd "$cache/apt/debs" && private_apt download "lib$(python_name)-dev" >/dev/null)  # headers
  unpack
  rm -r "$cache/apt"
}

write_launcher() {  # one program that is the emulated Python, for CMake and for the tests
  cat >"$python" <<LAUNCHER
#!/bin/sh
export PYTHONHOME="$root/usr" PYTHONPATH="$package:$site" OPENBLAS_NUM_THREADS=1
exec $(find_qemu) -L "$root" "$root/usr/bin/$(python_name)" "\$@"
LAUNCHER
  chmod +x "$python"
}

project() { "$bin/python" -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['$1'], sep='$2')"; }

fetch_wheels() {
  local glibc platforms=() requirements
  for glibc in 17 24 26 27 28; do platforms+=(--platform "manylinux_2_${glibc}_aarch64"); done
  mapfile -t requirements < <(project dependencies '\n')
  say "fetching aarch64 wheels for $(python_name)"
  "$bin/python" -m pip install -qq --disable-pip-version-check --no-compile --target "$site" \
    --only-binary=:all: --python-version "$(python_name | tr -d a-z)" "${platforms[@]}" --platform manylinux2014_aarch64 \
    "${requirements[@]}" nanobind pytest hypothesis beartype
}

build_package() {  # a copy of the Python files, the version's metadata, the extension by the project's CMakeLists.txt
  local version info
  version=$(project version '')
  info=$package/sparsejax-$version.dist-info
  rm -rf "$package"
  mkdir -p "$info"
  cp -r sparsejax "$package"
  printf 'Metadata-Version: 2.1\nName: sparsejax\nVersion: %s\n' "$version" >"$info/METADATA"
  "$bin/cmake" -S xla_ops -B "$cache/cmake" -G Ninja -DCMAKE_MAKE_PROGRAM="$PWD/$bin/ninja" -DCMAKE_BUILD_TYPE=Release \
    -DCMAKE_TOOLCHAIN_FILE="$PWD/tests/arm/toolchain.cmake" -DEMULATED_PYTHON="$python" \
    -DPYTHON_INCLUDE="$root/usr/include/$(python_name)" --log-level=WARNING >/dev/null
  "$bin/cmake" --build "$cache/cmake" -- --quiet
  "$bin/cmake" --install "$cache/cmake" --prefix "$package" --strip >/dev/null
}

compile_modules() {  # by this machine's Python of the same version: the emulated one would take a minute
  local same
  same=$(command -v "$(python_name)") || return 0
  "$bin/python" tests/arm/imported.py "$package" "$site" "$root/usr/lib/$(python_name)" |
    "$same" -m compileall -q -i - || say "not all modules could be compiled here"
}

test_in_cpp() {  # the C++ tests, linked with what the extension was linked from
  local objects
  "$bin/ninja" -C "$cache/cmake" -t cleandead >/dev/null
  mapfile -t objects < <(find "$cache/cmake" -name '*.cc.o' ! -name module.cc.o)
  tests/cpp/run.sh emulated "$(find_qemu)" "${objects[@]}"
}

test_runtime() {  # the C runtime, and files that this machine's Python writes
  local build=$cache/runtime
  local options=(-G Ninja "-DCMAKE_MAKE_PROGRAM=$PWD/$bin/ninja" -DCMAKE_BUILD_TYPE=Release -DCMAKE_SYSTEM_NAME=Linux
    -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ --log-level=WARNING)
  "$bin/cmake" -S xla_ops -B "$build" "${options[@]}" -DSPARSEJAX_RUNTIME=ON >/dev/null
  "$bin/cmake" --build "$build" -- --quiet
  "$bin/cmake" --install "$build" --prefix "$build/installed" --strip >/dev/null
  "$bin/cmake" -S examples/runtime -B "$build/example" "${options[@]}" -DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc \
    -DCMAKE_PREFIX_PATH="$build/installed" -DCMAKE_FIND_ROOT_PATH_MODE_PACKAGE=BOTH >/dev/null
  "$bin/cmake" --build "$build/example" -- --quiet
  local text
  text=$(size "$build/installed/lib/libsparsejax_runtime.so" | awk 'END { print $1 }')
  say "the runtime: $text bytes of text"
  [ "$text" -lt 600000 ]  # what docs/other-machines.md promises
  SPARSEJAX_CACHE=off "$bin/python" -m tests.compiler.files.other_readers "$(find_qemu)" -L "$root" "$build/example/run_static"
}

case $(uname -sm) in
  *arm64 | *aarch64)
    say "this machine is ARM: no emulation"
    run_tests "$bin/python" "$@"
    exit ;;
esac
if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
  say "SKIPPED: the emulated Python is made of Debian packages, and this machine has no apt-get and dpkg-deb"
  exit 0
fi
install_host_tools
stamp=$({ declare -f private_apt fetch_python fetch_wheels; project dependencies ' '; cat /etc/os-release; } | sha256sum)
if [ "$(cat "$cache/stamp" 2>/dev/null)" != "$stamp" ]; then
  fetch_python
  fetch_wheels
  echo "$stamp" >"$cache/stamp"
fi
write_launcher
build_package
compile_modules
run_tests "$python" "$@"
if [ $counts = yes ]; then
  test_in_cpp
  test_runtime
  "$bin/python" -m benchmarks.arm --counts-only
fi
