"""Products that skip zero activations against dense ones, for each layer and density.

    taskset -c 0 python -m benchmarks.zero_activations --json zero_activations.json

Georgiadis (CVPR 2019) counts a speed-up of sparse activation maps as the ratio of their densities.
Here it is timed: for the 1x1 layers of MobileNet-v1, the 3x3 layers of a ResNet-18, and layers of
1024 features on 1, 16 and 128 rows. A map that is known to be sparse is stored as rows of nonzeros,
one a pixel (of a 3x3 layer the nonzeros of the pixel's window), and multiplied with dense weights
by the kernel of `spmm`, which runs over all outputs of a pixel for each nonzero: that is how a
product skips zeros that differ from pixel to pixel. Finding and gathering the nonzeros is not
timed, so that what is printed is a bound: where even that is slower than the faster dense product,
that of `compile` or of jax.jit, skipping cannot win. Each density's column is the time of the dense
product over that of the one that skips, above 1 where skipping is faster. `with finding` is the
largest density at which it still is after one pass of NumPy over the map, about what the fastest
search for nonzeros takes; 0 for none. Maps are random: real ones have zeros in about the same
places, by which this kernel gains nothing.
"""

import argparse
import functools
import os
import time
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Shape:
    """A layer: rows or pixels of a map, and its channels; a window of 3x3 or none.

    Attributes:
        rows: of a product, or the side of a square map with a window.
        inputs, outputs: channels.
        window: 3, or 1 for a product of rows.
    """

    rows: int
    inputs: int
    outputs: int
    window: int = 1

    def __str__(self) -> str:
        """Rows or map, and channels."""
        rows = f"{self.rows}" if self.window == 1 else f"3x3, {self.rows}x{self.rows}"
        return f"{rows} x {self.inputs} -> {self.outputs}"

    def map(self, density: float) -> np.ndarray:
        """A map behind a ReLU that lets so many through."""
        if self.window == 1:
            return sparse_map(self.rows, self.inputs, density)
        image = sparse_map(self.rows**2, self.inputs, density)
        return image.reshape(1, self.rows, self.rows, self.inputs)

    def columns(self, x: np.ndarray) -> np.ndarray:
        """What each output pixel sees: (pixels, window * window * inputs)."""
        if self.window == 1:
            return x
        padded = np.pad(x[0], ((1, 1), (1, 1), (0, 0)))
        seen = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))
        return seen.transpose(0, 1, 3, 4, 2).reshape(self.rows**2, -1)

    def layer(self, weights: jax.Array, x: jax.Array) -> jax.Array:
        """The dense layer, of weights (window * window * inputs, outputs)."""
        if self.window == 1:
            return x @ weights
        kernel = weights.reshape(self.window, self.window, self.inputs, self.outputs)
        order = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=order)


def shapes(side: int) -> list[Shape]:
    """All layers: pointwise ones, those with windows, and those of rows."""
    quarter = side // 4
    return [
        *(Shape(*layer) for layer in layers(side)),
        *(Shape(quarter >> i, 64 << i, 64 << i, 3) for i in range(4)),
        *(Shape(rows, 1024, 1024) for rows in (1, 16, 128)),
    ]


def sparse_map(pixels: int, inputs: int, density: float) -> np.ndarray:
    """Random numbers behind a ReLU that lets so many through, at random places."""
    rng = np.random.default_rng(0)
    values = rng.uniform(0.5, 1, (pixels, inputs)).astype(np.float32)
    return values * (rng.random((pixels, inputs)) < density)


def compare(shape: Shape, repeats: int, tune: bool) -> dict[str, Any]:
    """Milliseconds of the dense products, and at each density of the one that skips zeros."""
    rng, taps = np.random.default_rng(1), shape.window**2
    weights = rng.standard_normal((taps * shape.inputs, shape.outputs)).astype(np.float32)
    x = jnp.asarray(shape.map(1.0))
    ours = jax.jit(sj.compile(shape.layer, weights, x, tune=tune))
    theirs = jax.jit(functools.partial(shape.layer, weights))
    skipping = jax.jit(lambda packed: sj.spmm(packed, jnp.asarray(weights), channels_last=False))
    calls = {"compile": functools.partial(ours, x), "jit": functools.partial(theirs, x)}
    for density in DENSITIES:
        columns = shape.columns(shape.map(density))
        packed = jax.device_put(sj.Unstructured().pack(columns.T, columns.T != 0))
        error = relative_error(skipping(packed), jnp.asarray(columns @ weights))
        if not error <= TOLERANCE:
            raise SystemExit(f"The product that skips zeros differs by {error}; nothing is timed.")
        calls[f"{density:g}"] = functools.partial(skipping, packed)
    times = warm_ms(calls, repeats)
    finding = _pass_ms(shape.map(1.0))
    dense = min(times["compile"], times["jit"])
    return {
        "ms": times,
        "speedup": {f"{d:g}": round(dense / times[f"{d:g}"], 3) for d in DENSITIES},
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
        str(shape): compare(shape, options.repeats, not options.no_tune)
        for shape in shapes(options.side)
    }
    rows = [
        (
            name,
            f"{min(row['ms']['compile'], row['ms']['jit']):.3f}",
            *(f"{speedup:.2f}" for speedup in row["speedup"].values()),
            f"{row['with finding']:g}",
        )
        for name, row in results.items()
    ]
    columns = ("layer", "dense ms", *(f"{d:g}" for d in DENSITIES), "with finding")
    print(table("Speed-up by skipping zero activations, by density", columns, rows))
    publish({"layers": results}, options.json)


if __name__ == "__main__":
    main()
