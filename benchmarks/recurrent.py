"""Recurrent networks against jax.jit: cells of 256 units over 64 steps, at batches of 1 and 8.

    taskset -c 0 python -m benchmarks.recurrent --json recurrent.json

Linen's LSTM, optimized LSTM and GRU under nn.RNN, with 90 % of all kernels' weights zero and dense;
256 inputs. The ratio is jit's time over ours, the median over turns of the ratio within a turn;
outputs are compared first. `--steps` asks for other lengths: compiling takes as long for each.
"""

import argparse
import functools
import os
import time
from typing import Any

if __name__ == "__main__":  # before jax makes its thread pool
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import sparsejax as sj
from benchmarks import publish
from experiments.runs.cores import bind, usable_cores
from experiments.runs.timing import relative_error, rows_of

UNITS, BATCHES = 256, (1, 8)
CELLS = {"LSTM": nn.LSTMCell, "optimized LSTM": nn.OptimizedLSTMCell, "GRU": nn.GRUCell}


def params_of(model: nn.Module, x: jax.Array, sparsity: float) -> Any:
    """Weights of the size that init draws, a fraction of the kernels' zero."""
    rng = np.random.default_rng(0)

    def drawn(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        array = rng.standard_normal(leaf.shape).astype(np.float32)
        if leaf.ndim < 2:
            return 0.1 * array
        kept = rng.random(leaf.shape) >= sparsity
        return np.float32(array * kept / np.sqrt(leaf.shape[0] * max(1 - sparsity, 0.01)))

    return jax.tree.map(drawn, jax.eval_shape(model.init, jax.random.key(0), x))


def compare(cell: Any, batch: int, steps: int, sparsity: float, repeats: int) -> dict[str, Any]:
    """Milliseconds of a sequence by both, and how often ours fits into jit's."""
    model = nn.RNN(cell(UNITS))
    x = jnp.asarray(np.random.default_rng(1).standard_normal((batch, steps, UNITS)), jnp.float32)
    params = params_of(model, x, sparsity)
    start = time.perf_counter()
    fast = sj.compile(model.apply, params, x)
    seconds = time.perf_counter() - start
    plain = functools.partial(model.apply, jax.tree.map(jnp.asarray, params))
    ways = {"jit": jax.jit(plain), "compile": jax.jit(fast)}
    expected = ways["jit"](x)
    errors = {name: relative_error(way(x), expected) for name, way in ways.items()}
    calls = {name: functools.partial(way, x) for name, way in ways.items()}
    times = rows_of(calls, errors, repeats, baseline="jit", tolerance=1e-3)
    return {
        **{row["name"]: round(row["wall_ms"], 3) for row in times},
        "jit / compile": round(times[1]["wall_speedup"], 2),
        "seconds to compile": round(seconds, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", help="file for the results")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--sparsities", type=float, nargs="*", default=[0.9, 0.0])
    options = parser.parse_args()
    bind(usable_cores()[:1])
    results = {
        f"{name}, batch {batch}, {sparsity:.0%} zeros": compare(
            cell, batch, options.steps, sparsity, options.repeats
        )
        for name, cell in CELLS.items()
        for batch in BATCHES
        for sparsity in options.sparsities
    }
    publish(results, options.json)


if __name__ == "__main__":
    main()
