"""One file, several readers: what Python saved a C program runs, built as a stranger would."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sparsejax.ops import _ffi
from tests.compiler.files.other_readers import TOLERANCE, cases, difference

ROOT = Path(__file__).parents[3]
TABLE_OF_KERNELS = {
    "sparsejax::usable_kernels()::usable",
    "sparsejax::(anonymous namespace)::chosen",
}
BUILD = ROOT / "build" / "runtime"  # kept for the next time


def cmake(*arguments):
    program = Path(sys.prefix) / "bin" / "cmake"
    program = program if program.exists() else shutil.which("cmake")
    done = subprocess.run([program, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def build():
    """The runtime for this CPU's kernels, installed, and the example that finds it there."""
    release = "-DCMAKE_BUILD_TYPE=Release"
    kernels = f"-DSPARSEJAX_ISAS={_ffi.instruction_set()}"
    cmake("-S", ROOT / "xla_ops", "-B", BUILD, release, kernels, "-DSPARSEJAX_RUNTIME=ON")
    cmake("--build", BUILD, "--parallel", "2")
    cmake("--install", BUILD, "--prefix", BUILD / "installed")
    found = f"-DCMAKE_PREFIX_PATH={BUILD / 'installed'}"
    cmake("-S", ROOT / "examples" / "runtime", "-B", BUILD / "example", release, found)
    cmake("--build", BUILD / "example")


def globals_of(library):
    """What of it can change while it runs, but for what the compiler and its libraries add."""
    symbols = subprocess.run(["objdump", "-tC", library], capture_output=True, text=True).stdout
    changing = [line for line in symbols.splitlines() if " .bss" in line or " .data\t" in line]
    names = {line.split("\t")[1].split(maxsplit=1)[1] for line in changing if " O " in line}
    return {name for name in names if name.startswith("sparsejax")}


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
def test_c_computes_what_jax_does(tmp_path):
    # One test, not several: they would build at the same time in the same folder.
    build()
    for case in cases(tmp_path):
        for kind in ("static", "shared"):
            assert difference([BUILD / "example" / f"run_{kind}"], case) <= TOLERANCE
    assert globals_of(next(BUILD.glob("installed/lib*/*.so"))) <= TABLE_OF_KERNELS
    wrong = subprocess.run([BUILD / "example" / "run_shared", case.file], capture_output=True)
    assert wrong.returncode == 1 and b"aligned floats, got 0" in wrong.stderr
