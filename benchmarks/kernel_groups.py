"""SparseByteNN's claim on our terms: MobileNet-v1 with 30 % of its kernel groups zero, and dense.

    python -m benchmarks.kernel_groups --mnn FOLDER --json FILE

The paper has 1.27x over its dense engine on a Snapdragon 855, and 1.29x over MNN's sparse one. Here
the 1x1 convolutions have 4x1 blocks of outputs (the pattern that `sj.structured.rearrange` has for
them), and two things are reported, beside MNN's: instructions that a run of the C runtime executes
on aarch64 on one thread, counted under emulation without noise (`benchmarks.arm`), and milliseconds
on this machine, in turns. An executed instruction is no time, and this machine is no telephone.

MNN is counted when `--mnn` names a checkout of it, which is cross-built. Its converter marks 1x1
convolutions as sparse (`--detectSparseSpeedUp`) when more than 60 % of their weights are zero, or
more than 30 % where it is told that the zeros are in blocks of 4; MNN has it both ways.

Reference: Xu et al., "SparseByteNN: A Novel Mobile Inference Acceleration Framework Based on
Fine-Grained Group Sparsity", 2023, arXiv:2310.19509.
"""

import argparse
import pickle
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

import sparsejax as sj
from benchmarks import publish
from benchmarks.arm import count, mnn
from benchmarks.arm.tools import (
    FOLDER,
    ROOT,
    MissingError,
    cmake,
    compiler,
    cross_options,
    emulator,
)
from benchmarks.peers.bars import BLOCK, DENSE
from benchmarks.peers.case import Case, Files, write
from benchmarks.peers.environments import Format
from benchmarks.peers.nets import NETS
from benchmarks.peers.rounds import TOLERANCE, measure
from experiments.runs.cores import cpu_name

NET = "mobilenet_v1"
ZEROS = "30 % in 4x1"
CASES = {"dense": (DENSE, 0.0), ZEROS: (BLOCK, 0.3)}
RUNTIME = ROOT / "build" / "arm" / "runtime"  # where tests/arm/run.sh builds it, too


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", help="file for the results")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each engine in a round")
    parser.add_argument("--counts-only", action="store_true", help="without milliseconds")
    parser.add_argument("--mnn", type=Path, metavar="FOLDER", help=f"MNN: {mnn.HINT}")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cases = {name: _written(Path(folder) / name, *case) for name, case in CASES.items()}
        found: dict[str, Any] = {"aarch64": instructions(cases, options.mnn)}
        for name, files in {} if options.counts_only else cases.items():
            limits = {"rounds": options.rounds, "seconds": options.seconds}
            found[f"ms, {name}"] = measure(files, ["ours", mnn.ENGINE], **limits)
    publish({"cpu": cpu_name(), **found}, options.json)


def _written(folder: Path, pattern: str, sparsity: float) -> Files:
    folder.mkdir()
    return write(Case(NET, pattern, sparsity), folder)


def instructions(cases: dict[str, Files], checkout: Path | None) -> dict[str, Any] | str:
    """Millions that a run of ours executes, the dense network over the sparse one, and MNN's."""
    try:
        bench = build()
    except MissingError as reason:
        return f"SKIPPED, {reason}"
    millions = {name: _ours(bench, files) for name, files in cases.items()}
    ours = {f"ours, {name}": value for name, value in millions.items()}
    ratio = millions["dense"] / millions[ZEROS]
    return {**ours, "dense over sparse": ratio, "MNN": mnn_rows(bench, cases, millions, checkout)}


def _ours(bench: count.Bench, files: Files) -> float:
    model = files.variables.with_name("network.sjx")
    variables = pickle.loads(files.variables.read_bytes())
    x = np.load(files.channels_last)
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    sj.save(sj.compile(NETS[NET]().apply, variables, shape, tune=False), model)
    return _millions(bench, "network", model, x, files.expected)


def mnn_rows(
    bench: count.Bench, cases: dict[str, Files], ours: dict[str, float], checkout: Path | None
) -> dict[str, Any] | str:
    """The same of MNN, over ours with the same weights, and how many layers it runs as sparse."""
    if checkout is None:
        return f"not counted, --mnn names no checkout: {mnn.HINT}"
    try:
        mnn.build(checkout)
        rows = {name: _row(bench, cases[name], ours[name], mnn.SPARSE) for name in cases}
        flags = (mnn.SPARSE, mnn.blocks_of(4, cases[ZEROS].variables.parent))
        told = _row(bench, cases[ZEROS], ours[ZEROS], *flags)
    except MissingError as reason:
        return f"not counted, {reason}"
    return {"version": mnn.WANTED, **rows, f"{ZEROS}, told of blocks": told}


def _row(bench: count.Bench, files: Files, ours: float, *flags: str) -> dict[str, float]:
    onnx = files.models[Format.ONNX]
    assert isinstance(onnx, Path), onnx
    model = onnx.with_suffix(".mnn")
    layers = mnn.convert(onnx, model, *flags)
    millions = _millions(bench, "mnn", model, np.load(files.channels_first), files.expected)
    return {"millions": millions, "over ours": millions / ours, "sparse layers": layers}


def _millions(
    bench: count.Bench, program: str, model: Path, x: np.ndarray, expected: np.ndarray
) -> float:
    """Millions of instructions of one more run, once the output is found right."""
    given, got = model.with_name("input"), model.with_name("output")
    x.tofile(given)
    executed = count.executed(bench, count.Case(program, tuple(map(str, (model, given, got)))))
    error = np.abs(np.fromfile(got, x.dtype) - expected.ravel()).max() / np.abs(expected).max()
    if not error <= TOLERANCE:
        raise SystemExit(f"{program}: its output differs by {error:.1e} of the largest")
    return executed / 1e6


def build() -> count.Bench:
    """The C runtime for aarch64, and the program that runs a file on it.

    Raises:
        MissingError: when a tool cannot be had.
    """
    prefix, qemu = compiler(), emulator()
    FOLDER.mkdir(parents=True, exist_ok=True)
    runtime = (*cross_options(), "-DSPARSEJAX_RUNTIME=ON")
    cmake("-S", str(ROOT / "xla_ops"), "-B", str(RUNTIME), *runtime)
    cmake("--build", str(RUNTIME), "--parallel", "2")
    libraries = sorted(map(str, RUNTIME.rglob("*.a")), reverse=True)  # the runtime, the engine
    source, program = count.HERE / "network.cc", FOLDER / "network"
    flags = ("-std=c++17", "-O2", "-static", f"-I{ROOT / 'xla_ops'}", "-Wl,--start-group")
    count.compiled(f"{prefix}g++", *flags, str(source), *libraries, "-o", str(program))
    count.build_plugin()
    return count.Bench(qemu, None, {})


if __name__ == "__main__":
    main()
