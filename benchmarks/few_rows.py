"""Products of few rows: a linear layer of 1024x1024 against jax.jit, for 1 to 64 rows.

    taskset -c 0 python -m benchmarks.few_rows --json few_rows.json

The same layer follows itself ten times in one call, so that what a call itself costs is a tenth;
its weights stay in the cache that they fit into, for both sides alike. Weights are dense, or 90 %
of them zero: anywhere, or in blocks of 4 or 8 outputs. The ratio is jit's time over ours, the
median over turns of the ratio within a turn; outputs are compared first. One row is a question of
how fast weights are read: its share of the bandwidth is that of the packed weights' bytes, with
as many bytes read by NumPy's dot product in the same process taken as all of it.
"""

import argparse
import functools
import gc
import os
import time
from collections.abc import Callable
from typing import Any

if __name__ == "__main__":  # before jax makes its thread pool
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"

import jax
import jax.numpy as jnp
import numpy as np

import sparsejax as sj
from benchmarks import publish
from experiments.runs.cores import bind, usable_cores
from experiments.runs.timing import relative_error, rows_of
from sparsejax.ops import _ffi

SIZE, TURNS = 1024, 10
ROWS = (1, 2, 4, 8, 16, 32, 50, 64)
WEIGHTS = {"dense": 0, "unstructured 90 %": 1, "4x1 90 %": 4, "8x1 90 %": 8}


def weights_of(block: int) -> np.ndarray:
    """(inputs, outputs), orthogonal on average; blocks of so many outputs, dense for 0."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((SIZE, SIZE)) / np.sqrt(SIZE * (0.1 if block else 1))
    if block:
        weights *= np.repeat(rng.random((SIZE, SIZE // block)) < 0.1, block, 1)
    return weights.astype(np.float32)


def repeated(layer: Callable) -> Callable:
    return jax.jit(lambda x: jax.lax.fori_loop(0, TURNS, lambda _, x: layer(x), x))


def compare(block: int, num_rows: int, repeats: int) -> dict[str, Any]:
    """Microseconds of one product by both, and how often ours fits into jit's."""
    weights = weights_of(block)
    layer = lambda weights, x: x @ weights
    x = jnp.asarray(np.random.default_rng(1).standard_normal((num_rows, SIZE)), jnp.float32)
    jax.clear_caches()
    gc.collect()  # what was compiled before would be freed in between
    before = _ffi.packed_bytes()
    fast = sj.compile(layer, weights, x)
    packed = _ffi.packed_bytes() - before
    ways = {"jit": functools.partial(layer, jnp.asarray(weights)), "compile": fast}
    errors = {name: relative_error(way(x), ways["jit"](x)) for name, way in ways.items()}
    calls = {name: functools.partial(repeated(way), x) for name, way in ways.items()}
    times = rows_of(calls, errors, repeats, baseline="jit")
    micros = {row["name"]: round(1e3 * row["wall_ms"] / TURNS, 1) for row in times}
    (layer_row,) = fast.report().layers
    ratio = round(times[1]["wall_speedup"], 2)
    found = {"stored": layer_row.pattern, **micros, "jit / compile": ratio}
    if num_rows > 1 or layer_row.kernel == "xla":
        return found
    gigabytes = round(packed / micros["compile"] / 1e3, 1)
    return found | {"GB/s": gigabytes, "of bandwidth": round(gigabytes / bandwidth(packed), 2)}


def bandwidth(num_bytes: int) -> float:
    """GB/s at which so many bytes are read again and again."""
    array = np.ones(num_bytes // 4, np.float32)
    times = []
    for _ in range(20):
        start = time.perf_counter()
        np.dot(array, array)
        times.append(time.perf_counter() - start)
    return num_bytes / min(times) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", help="file for the results")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--rows", type=int, nargs="*", default=list(ROWS))
    options = parser.parse_args()
    bind(usable_cores()[:1])
    results = {
        name: {f"{n} rows": compare(block, n, options.repeats) for n in options.rows}
        for name, block in WEIGHTS.items()
    }
    publish(results, options.json)


if __name__ == "__main__":
    main()
