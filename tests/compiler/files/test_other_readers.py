"""One file, five readers: Python, C built as a stranger would, C on ARM, Node, a browser."""

import fcntl
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import sparsejax as sj
from benchmarks.web.browser import BROWSER, browsed
from sparsejax.ops import _ffi
from tests.compiler.files.functions import CALLS, recurrent
from tests.compiler.files.other_readers import TOLERANCE, Case, cases, difference

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
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other tests build it, too
        build_alone()


def build_alone():
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
    build()
    for case in cases(tmp_path):
        for kind in ("static", "shared"):
            assert difference([BUILD / "example" / f"run_{kind}"], case) <= TOLERANCE
    assert globals_of(next(BUILD.glob("installed/lib*/*.so"))) <= TABLE_OF_KERNELS
    wrong = subprocess.run([BUILD / "example" / "run_shared", case.file], capture_output=True)
    assert wrong.returncode == 1 and b"aligned floats, got 0" in wrong.stderr


def of_command(*command):
    return lambda case: difference(command, case)


def of_python(case):
    x = np.fromfile(case.inputs[0], np.float32).reshape(sj.load(case.file).inputs[0].sizes(1))
    return by(case, np.ravel(sj.load(case.file)(x)))


def of_c(case):
    build()
    return difference([BUILD / "example" / "run_shared"], case)


def of_browser(case):
    found, *_ = browsed("tests/web/page.html", case.file.parent)
    return by(case, np.array(found["outputs"][0], np.float32))


def by(case, actual):
    return np.abs(actual - case.expected).max() / np.abs(case.expected).max()


ARM, QEMU = ROOT / "build/arm/runtime/example/run_static", shutil.which("qemu-aarch64-static")
CROSS = "/usr/aarch64-linux-gnu"  # the libraries of the cross compiler
NODE, RUN = shutil.which("node"), ROOT / "tests" / "web" / "run.mjs"
WEB = len(list((ROOT / "web" / "src").glob("*.wasm"))) >= 2
READERS = {
    "Python": (of_python, True, ""),
    "C": (of_c, shutil.which("c++"), "a C++ compiler"),
    "C on aarch64": (of_command(QEMU, "-L", CROSS, ARM), QEMU and ARM.exists(), "make test-arm"),
    "Node": (of_command(NODE, RUN), NODE and WEB, "node and make web"),
    "browser": (of_browser, BROWSER and WEB, "chromium and make web"),
}


FILES = {
    "images": CALLS["images"],
    "loops": (lambda p, x: recurrent(p, x)["all"], *CALLS["loops"][1:]),
}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    "reader",
    [pytest.param(name, marks=[pytest.mark.browser] * (name == "browser")) for name in READERS],
)
def test_one_file_is_the_same_in_five_readers(reader, file, tmp_path):
    read, here, needed = READERS[reader]
    if not here:
        pytest.skip(f"needs {needed}")
    function, params, inputs = FILES[file]
    (x,) = inputs(1)
    fast = sj.compile(function, params, x, tune=False)
    sj.save(fast, tmp_path / "net")
    x.tofile(tmp_path / "input")
    assert read(Case(tmp_path / "net", [tmp_path / "input"], np.ravel(fast(x)))) <= TOLERANCE


def without_end(path):
    """A file with a loop of more turns than its values have; and what is said of it."""
    file = (Path(__file__).parent / "version3.safetensors").read_bytes()
    path.write_bytes(re.sub(rb'loop\\":\d', rb'loop\\":9', file))
    return path, "inputs are not those that are given"


COMMANDS = {"C": [BUILD / "example" / "run_shared"], "Node": [NODE, RUN]}


@pytest.mark.parametrize("reader", COMMANDS)
def test_a_loop_that_is_none_is_refused_in_a_sentence(reader, tmp_path):
    _, here, needed = READERS[reader]
    if not here:
        pytest.skip(f"needs {needed}")
    if reader == "C":
        build()
    file, said = without_end(tmp_path / "net")
    done = subprocess.run([*COMMANDS[reader], file], capture_output=True, text=True)
    assert done.returncode == 1 and said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
