"""SparseByteNN's claim on our terms: MobileNet-v1 with 30 % of its kernel groups zero, and dense.

    python -m benchmarks.kernel_groups --json FILE

The paper has 1.27x over its dense engine on a Snapdragon 855, and 1.29x over MNN's sparse one. Here
the 1x1 convolutions have 4x1 blocks of outputs (the pattern that `sj.structured.rearrange` has for
them), and two things are reported: instructions that the C runtime executes on aarch64, counted
under emulation without noise (`benchmarks.arm`), and milliseconds on this machine beside MNN, in
turns. An executed instruction is no time, and this machine is no telephone.

Reference: Xu et al., "SparseByteNN: A Novel Mobile Inference Acceleration Framework Based on
Fine-Grained Group Sparsity", 2023, arXiv:2310.19509.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax

import sparsejax as sj
from benchmarks import publish
from benchmarks.arm import count
from benchmarks.arm.tools import FOLDER, PREFIX, ROOT, MissingError, compiler, emulator
from benchmarks.peers.bars import BLOCK, DENSE
from benchmarks.peers.case import Case, write
from benchmarks.peers.environments import ENGINES
from benchmarks.peers.nets import NETS, input_of, variables_of
from benchmarks.peers.rounds import measure
from experiments.runs.cores import cpu_name

NET = "mobilenet_v1"
CASES = {"dense": (DENSE, 0.0), "30 % in 4x1": (BLOCK, 0.3)}
RUNTIME = ROOT / "build" / "arm" / "runtime"  # where tests/arm/run.sh builds it, too
(MNN,) = (engine for engine in ENGINES if engine.name == "mnn")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", help="file for the results")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each engine in a round")
    options = parser.parse_args()
    found: dict[str, Any] = {"instructions on aarch64": instructions()}
    with tempfile.TemporaryDirectory() as folder:
        for name, (pattern, sparsity) in CASES.items():
            files = write(Case(NET, pattern, sparsity), Path(folder))
            limits = {"rounds": options.rounds, "seconds": options.seconds}
            found[f"ms, {name}"] = measure(files, ["ours", MNN], **limits)
    publish({"cpu": cpu_name(), **found}, options.json)


def instructions() -> dict[str, Any] | str:
    """That one run executes, in millions, and the dense network's over the sparse one's."""
    try:
        bench = build()
    except MissingError as reason:
        return f"SKIPPED, {reason}"
    millions = {}
    for name, (pattern, sparsity) in CASES.items():
        file = FOLDER / "network.sjx"
        net = NETS[NET]()
        variables = variables_of(net, pattern, sparsity)
        shape = jax.ShapeDtypeStruct(input_of(net, 1).shape, "float32")
        sj.save(sj.compile(net.apply, variables, shape, tune=False), file)
        millions[name] = count.executed(bench, count.Case("network", (str(file),))) / 1e6
    dense, sparse = millions.values()
    return {**millions, "dense over sparse": dense / sparse}


def build() -> count.Bench:
    """The C runtime for aarch64, and the program that runs a file on it.

    Raises:
        MissingError: when a tool cannot be had.
    """
    prefix, qemu = compiler(), emulator()
    FOLDER.mkdir(parents=True, exist_ok=True)
    cross = ["SYSTEM_NAME=Linux", "SYSTEM_PROCESSOR=aarch64", f"CXX_COMPILER={PREFIX}g++"]
    options = [f"-DCMAKE_{each}" for each in (*cross, "BUILD_TYPE=Release")]
    _cmake("-S", str(ROOT / "xla_ops"), "-B", str(RUNTIME), *options, "-DSPARSEJAX_RUNTIME=ON")
    _cmake("--build", str(RUNTIME), "--parallel", "2")
    libraries = sorted(map(str, RUNTIME.rglob("*.a")), reverse=True)  # the runtime, the engine
    source, program = count.HERE / "network.cc", FOLDER / "network"
    flags = ("-std=c++17", "-O2", "-static", f"-I{ROOT / 'xla_ops'}", "-Wl,--start-group")
    count.compiled(f"{prefix}g++", *flags, str(source), *libraries, "-o", str(program))
    count.build_plugin()
    return count.Bench(qemu, None, {})


def _cmake(*arguments: str) -> None:
    own = Path(sys.prefix) / "bin" / "cmake"
    program = str(own) if own.exists() else shutil.which("cmake")
    if program is None:
        raise MissingError("no cmake: pip install cmake")
    done = subprocess.run([program, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"cmake {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    main()
