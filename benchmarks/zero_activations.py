"""Products that skip zero activations against dense ones, for each 1x1 layer of MobileNet-v1.

    taskset -c 0 python -m benchmarks.zero_activations --json zero_activations.json

Georgiadis (CVPR 2019) counts a speed-up of sparse activation maps as the ratio of their densities.
Here it is timed. A map that is known to be sparse is stored as rows of nonzeros, one a pixel, and
multiplied with dense weights by the kernel of `spmm`, which runs over all outputs of a pixel for
each nonzero: that is how a product skips zeros that differ from pixel to pixel. Finding the
nonzeros is not timed, so that what is printed is a bound: where even that is slower than the faster
dense product, that of `compile` or of jax.jit, skipping cannot win. `pays below` is the largest
density at which it is faster, of those that were tried; 0 for none. `with finding` adds the time of
one pass of NumPy over the map, about what the fastest search for nonzeros takes. Maps are random:
real ones have zeros in about the same places, by which this kernel gains nothing.
"""

import argparse
import functools
import os
import time
from typing import Any

if __name__ == "__main__":  # before jax makes its thread pool
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"

import jax
import jax.numpy as jnp
import numpy as np

import sparsejax as sj
from benchmarks import publish
from experiments.models.mobilenet_v1 import BLOCKS, STEM_CHANNELS
from experiments.runs.cores import bind, usable_cores
from experiments.runs.timing import relative_error, warm_ms
from sparsejax.text import table

DENSITIES = (1.0, 0.6, 0.4, 0.3, 0.2, 0.1, 0.05)
TOLERANCE = 3e-5


def layers(side: int) -> list[tuple[int, int, int]]:
    """Pixels, inputs and outputs of each distinct 1x1 layer behind a depthwise one."""
    found, inputs, side = [], STEM_CHANNELS, side // 2
    for block in BLOCKS:
        side = -(-side // block.stride)
        found.append((side * side, inputs, block.channels))
        inputs = block.channels
    return list(dict.fromkeys(found))


def sparse_map(pixels: int, inputs: int, density: float) -> np.ndarray:
    """Random numbers behind a ReLU that lets so many through, at random places."""
    rng = np.random.default_rng(0)
    values = rng.uniform(0.5, 1, (pixels, inputs)).astype(np.float32)
    return values * (rng.random((pixels, inputs)) < density)


def compare(pixels: int, inputs: int, outputs: int, repeats: int, tune: bool) -> dict[str, Any]:
    """Milliseconds of the dense products, and at each density of the one that skips zeros."""
    weights = np.random.default_rng(1).standard_normal((inputs, outputs)).astype(np.float32)
    maps = {density: sparse_map(pixels, inputs, density) for density in DENSITIES}
    layer = lambda w, x: x @ w
    ours = jax.jit(sj.compile(layer, weights, maps[1.0], tune=tune))
    theirs = jax.jit(functools.partial(layer, weights))
    skipping = jax.jit(lambda packed: sj.spmm(packed, jnp.asarray(weights), channels_last=False))
    x = jnp.asarray(maps[1.0])
    calls = {"compile": functools.partial(ours, x), "jit": functools.partial(theirs, x)}
    for density, x in maps.items():
        packed = jax.device_put(sj.Unstructured().pack(x.T, x.T != 0))
        error = relative_error(skipping(packed), jnp.asarray(x @ weights))
        if not error <= TOLERANCE:
            raise SystemExit(f"The product that skips zeros differs by {error}; nothing is timed.")
        calls[f"{density:g}"] = functools.partial(skipping, packed)
    times = warm_ms(calls, repeats)
    finding = _pass_ms(maps[1.0])
    return {
        "ms": times,
        "pays below": pays_below(times, 0.0),
        "with finding": pays_below(times, finding),
    }


def pays_below(times: dict[str, float], finding: float) -> float:
    """The largest density that was tried at which skipping is faster, 0 for none."""
    dense = min(times["compile"], times["jit"])
    faster = [d for d in DENSITIES if times[f"{d:g}"] + finding < dense]
    return max(faster, default=0.0)


def _pass_ms(x: np.ndarray) -> float:
    """The fastest of some comparisons of a map with zero."""
    out = np.empty(x.shape, bool)
    times = []
    for _ in range(9):
        start = time.perf_counter()
        np.not_equal(x, 0, out=out)
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def main() -> None:
    """Prints and writes the densities."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--no-tune", action="store_true", help="choose layouts by the model")
    options = parser.parse_args()
    bind(usable_cores()[:1])
    results = {
        f"{pixels} x {inputs} -> {outputs}": compare(
            pixels, inputs, outputs, options.repeats, not options.no_tune
        )
        for pixels, inputs, outputs in layers(options.side)
    }
    rows = [
        (
            name,
            *(f"{row['ms'][way]:.3f}" for way in ("compile", "jit")),
            *(f"{row[when]:g}" for when in ("pays below", "with finding")),
        )
        for name, row in results.items()
    ]
    columns = ("layer", "compile ms", "jit ms", "pays below", "with finding")
    print(table("Zero activations", columns, rows))
    publish({"layers": results}, options.json)


if __name__ == "__main__":
    main()
