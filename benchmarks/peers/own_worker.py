"""A process that runs ours or XLA alone: `python -m benchmarks.peers.own_worker WAY`.

It speaks what `worker.py` speaks. Ways: "ours" (`sj.compile` under jax.jit), "jax" (the function
as written), "jax shifted" (depthwise convolutions as shifted multiply-adds). Arrays go in and come
out as jax.Array.
"""

import json
import os
import pickle
import sys
import time
from typing import Any

import jax
import numpy as np

import sparsejax as sj
from benchmarks.peers.nets import NETS
from benchmarks.peers.worker import serve


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    order = json.loads(sys.stdin.readline())
    net = NETS[order["net"]]()
    with open(order["model"], "rb") as file:
        variables = jax.tree.map(jax.numpy.asarray, pickle.load(file))
    x = jax.numpy.asarray(np.load(order["input"]))
    jax.block_until_ready((variables, x))
    start = time.perf_counter()
    run = function(sys.argv[1], net, variables, x)
    y = np.asarray(run(x))
    first: dict[str, Any] = {"version": version(sys.argv[1])}
    first["first result s"] = round(time.perf_counter() - start, 3)
    np.save(order["output"], y)
    serve(lambda: run(x).block_until_ready(), answers, first)


def function(way: str, net: Any, variables: Any, x: jax.Array) -> Any:
    """The jitted function of x; its weights are constants for ours and arguments for XLA."""
    if way == "ours":
        return jax.jit(sj.compile(net.apply, variables, x))
    run = jax.jit(net.apply if way == "jax" else net.shifted)
    return lambda x: run(variables, x)


def version(way: str) -> str:
    """Of the library that computes."""
    return sj.__version__ if way == "ours" else jax.__version__


if __name__ == "__main__":
    main()
