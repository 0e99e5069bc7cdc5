"""One file, several readers: what Python saved a C program runs, built as a stranger would."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sparsejax.ops import _ffi
from tests.compiler.files.other_readers import TOLERANCE, cases, difference

ROOT = Path(__file__).parents[3]
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


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
def test_c_computes_what_jax_does(tmp_path):
    # One test, not several: they would build at the same time in the same folder.
    build()
    for case in cases(tmp_path):
        for kind in ("static", "shared"):
            assert difference([BUILD / "example" / f"run_{kind}"], case) <= TOLERANCE
    wrong = subprocess.run([BUILD / "example" / "run_shared", case.file], capture_output=True)
    assert wrong.returncode == 1 and b"aligned floats, got 0" in wrong.stderr
