"""WebAssembly in Node, one thread: sparse and dense networks against onnxruntime-web.

    make web && python -m benchmarks.web --json FILE

MobileNet-v1 and v2 1.0/224, batch 1, float32, random weights, zeros in the 1x1 convolutions. The
peer is installed by npm into build/web-peers and runs the same dense network as ONNX. Outputs are
compared first; calls take turns, a figure is the median of 30, a ratio the median within a turn.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

import sparsejax as sj
from benchmarks import publish
from benchmarks.peers.nets import BLOCK, DENSE, NETS, UNSTRUCTURED, input_of, variables_of
from benchmarks.peers.onnx_export import export
from experiments.runs.cores import cpu_name
from sparsejax.compiler.passes.rewrite import rewrite
from sparsejax.compiler.passes.trace import trace

HERE = Path(__file__).parent
FOLDER = HERE.parents[1] / "build" / "web-peers"
PEER = "onnxruntime-web@^1.20"
CASES = ((DENSE, 0.0), (UNSTRUCTURED, 0.8), (UNSTRUCTURED, 0.9), (UNSTRUCTURED, 0.95), (BLOCK, 0.9))
TOLERANCE = 1e-5  # of the largest output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", help="file for the results")
    parser.add_argument("--nets", nargs="+", choices=NETS, default=["mobilenet_v1", "mobilenet_v2"])
    options = parser.parse_args()
    if shutil.which("node") is None or shutil.which("npm") is None:
        sys.exit("benchmarks.web needs node and npm on PATH.")
    if len(list((HERE.parents[1] / "web" / "src").glob("*.wasm"))) < 2:
        sys.exit("benchmarks.web needs the modules: run `make web`.")
    FOLDER.mkdir(parents=True, exist_ok=True)
    subprocess.run(["npm", "install", "--silent", "--prefix", str(FOLDER), PEER], check=True)
    results = {name: of_net(name) for name in options.nets}
    publish({"cpu": cpu_name(), "peer": PEER, **results}, options.json)


def of_net(name: str) -> dict[str, Any]:
    """Milliseconds of each case and of the peer, and ratios to the peer."""
    net = NETS[name]()
    x = input_of(net, 1)
    np.asarray(x).tofile(FOLDER / "input")
    np.asarray(x).transpose(0, 3, 1, 2).tofile(FOLDER / "input.nchw")
    files = []
    for pattern, sparsity in CASES:
        variables = variables_of(net, pattern, sparsity)
        fast = sj.compile(net.apply, variables, x, tune=False)
        file = FOLDER / f"{name} {pattern} {100 * sparsity:g}"
        sj.save(fast, file)
        np.asarray(fast(x)).tofile(f"{file}.expected")
        files.append(str(file))
        if pattern == DENSE:
            graph, _ = trace(net.apply, variables, (jnp.zeros(x.shape),))
            export(rewrite(graph), FOLDER / "dense.onnx")
    command = ["node", str(HERE / "run.mjs"), str(FOLDER), *files]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    worst = max(row["error"] for row in found.values())
    if not worst <= TOLERANCE:
        sys.exit(f"{name}: outputs differ by {worst:.1e} of the largest; nothing is published.")
    return found


if __name__ == "__main__":
    main()
