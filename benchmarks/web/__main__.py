"""WebAssembly in Node and in a browser, one thread: sparse and dense networks against others.

    make web && python -m benchmarks.web --json FILE

MobileNet-v1 and v2 1.0/224, batch 1, float32, random weights, zeros in the 1x1 convolutions. The
peers, onnxruntime-web and TensorFlow.js on WebAssembly (XNNPACK) and in plain JavaScript, are
installed by npm into build/web-peers and run the same dense network, as is a Node that has what
browsers have. Outputs are compared first;
calls take turns, a figure is the median of 30, a ratio the median within a turn, to the fastest
peer; the first result counts from the file's bytes on, with all that has to be compiled for it.
"""

import argparse
import json
import shutil
import subprocess
import sys
import urllib.parse
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

import sparsejax as sj
from benchmarks import publish
from benchmarks.peers.nets import BLOCK, DENSE, NETS, UNSTRUCTURED, input_of, variables_of
from benchmarks.peers.onnx_export import export as export_onnx
from benchmarks.web.browser import BROWSER, ROOT, browsed
from benchmarks.web.layers import export as export_layers
from experiments.runs.cores import cpu_name
from sparsejax.compiler.passes.rewrite import rewrite
from sparsejax.compiler.passes.trace import trace

HERE, FOLDER = Path(__file__).parent, ROOT / "build" / "web-peers"
TENSORFLOW = [f"@tensorflow/tfjs-{part}@^4.22" for part in ("core", "backend-wasm", "backend-cpu")]
PEERS = ["onnxruntime-web@^1.20", *TENSORFLOW]
NODE = "node@^24"  # older ones do not fuse multiplications and additions
CASES = ((DENSE, 0.0), (UNSTRUCTURED, 0.8), (UNSTRUCTURED, 0.9), (UNSTRUCTURED, 0.95), (BLOCK, 0.9))
TOLERANCE = 1e-5  # of the largest output
PATIENCE = 600  # seconds for a page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", help="file for the results")
    parser.add_argument("--nets", nargs="+", choices=NETS, default=["mobilenet_v1", "mobilenet_v2"])
    options = parser.parse_args()
    if shutil.which("node") is None or shutil.which("npm") is None:
        sys.exit("benchmarks.web needs node and npm on PATH.")
    if len(list((ROOT / "web" / "src").glob("*.wasm"))) < 2:
        sys.exit("benchmarks.web needs the modules: run `make web`.")
    FOLDER.mkdir(parents=True, exist_ok=True)
    install = ["npm", "install", "--silent", "--prefix", str(FOLDER), NODE, *PEERS]
    subprocess.run(install, check=True)
    results = {name: of_net(name) for name in options.nets}
    for name, places in results.items():
        for place, found in places.items():
            print(table(f"{name}, {place}", found))
    publish({"cpu": cpu_name(), "node": NODE, "peers": PEERS, **results}, options.json)


def of_net(name: str) -> dict[str, Any]:
    """Milliseconds of each case and of the peers, and ratios, by where they ran."""
    files = write(name)
    node = FOLDER / "node_modules" / ".bin" / "node"
    command = [str(node), str(HERE / "run.mjs"), str(FOLDER), *files]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    places = {"node": json.loads(done.stdout.splitlines()[-1])}
    if BROWSER is not None:
        query = urllib.parse.urlencode({"name": files}, doseq=True)
        places["browser"] = browsed(f"benchmarks/web/page.html?{query}", FOLDER, seconds=PATIENCE)
    for place, found in places.items():
        if "error" in found:
            sys.exit(f"{name} in {place}: {found['error']}")
        worst = max(row["error"] for row in found.values() if isinstance(row, dict))
        if not worst <= TOLERANCE:
            sys.exit(f"{name} in {place}: outputs differ by {worst:.1e}; nothing is published.")
    return places


def write(name: str) -> list[str]:
    """What all run, in FOLDER; the names of our files, the dense one first."""
    net = NETS[name]()
    x = input_of(net, 1)
    np.asarray(x).tofile(FOLDER / "input")
    np.asarray(x).transpose(0, 3, 1, 2).tofile(FOLDER / "input.nchw")
    files = []
    for pattern, sparsity in CASES:
        variables = variables_of(net, pattern, sparsity)
        fast = sj.compile(net.apply, variables, x, tune=False)
        files.append(f"{name} {pattern} {100 * sparsity:g}")
        sj.save(fast, FOLDER / files[-1])
        np.asarray(fast(x)).tofile(FOLDER / f"{files[-1]}.expected")
        if pattern == DENSE:
            graph, _ = trace(net.apply, variables, (jnp.zeros(x.shape),))
            graph = rewrite(graph)
            export_onnx(graph, FOLDER / "dense.onnx")
            export_layers(graph, FOLDER / "layers")
    return files


def table(title: str, found: dict[str, Any]) -> str:
    """Rows of milliseconds, ratios to the fastest peer, and from the bytes to the first result."""
    lines = [f"{title:<36}{'ms':>9}{'of ' + found['best_peer']:>20}{'first ms':>10}"]
    for name, row in found.items():
        if isinstance(row, dict):
            ratio, first = f"{row['of_best_peer']:.3f}", f"{row['first_ms']:.0f}"
            lines.append(f"{name:<36}{row['ms']:>9.2f}{ratio:>20}{first:>10}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
