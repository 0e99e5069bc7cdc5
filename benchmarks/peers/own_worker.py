"""A process that runs ours or XLA alone: `python -m benchmarks.peers.own_worker WAY`.

It speaks what `worker.py` speaks. Ways: "ours" (`sj.compile` under jax.jit), "jax" (the function
as written), "jax shifted" (depthwise convolutions as shifted multiply-adds). Arrays go in and come
out as jax.Array.
"""

import json
import os
import pickle
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import sparsejax as sj
from benchmarks.peers.nets import NETS, Net
from benchmarks.peers.worker import serve

# What is kept of a layer's report.
KEPT = ("path", "pattern", "sparsity", "microseconds", "multiply_adds", "sparse_multiply_adds")


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    order = json.loads(sys.stdin.readline())
    net = NETS[order["net"]]()
    with open(order["model"], "rb") as file:
        variables = jax.tree.map(jax.numpy.asarray, pickle.load(file))
    x = jax.numpy.asarray(np.load(order["input"]))
    jax.block_until_ready((variables, x))
    way, first = sys.argv[1], {}
    if way == "ours":
        run, first = ours(net, variables, x)
    else:
        jitted = jax.jit(net.apply if way == "jax" else net.shifted)
        run, first = lambda x: jitted(variables, x), {"version": jax.__version__}
    np.save(order["output"], run(x))
    serve(lambda: run(x).block_until_ready(), answers, first)


def ours(net: Net, variables: Any, x: jax.Array) -> tuple[Callable, dict[str, Any]]:
    """The jitted function of x, and what is to be known of it.

    It is made twice: with an empty cache of measurements, and with the one that this left.
    """
    known: dict[str, Any] = {"version": sj.__version__}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SPARSEJAX_CACHE"] = str(Path(folder, "times.json"))
        for cache in ("empty", "warm"):
            start = time.perf_counter()
            compiled = sj.compile(net.apply, variables, x)
            run = jax.jit(compiled)
            run(x).block_until_ready()
            seconds = time.perf_counter() - start
            known[f"first result, {cache} cache, s"] = round(seconds, 3)
    report = compiled.report().to_dict()["layers"]
    return run, known | {"layers": [{name: layer[name] for name in KEPT} for layer in report]}


if __name__ == "__main__":
    main()
