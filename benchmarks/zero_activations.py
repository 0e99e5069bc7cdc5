"""Products that skip zero activations against dense ones, for each layer and density.

    taskset -c 0 python -m benchmarks.zero_activations --json zero_activations.json

Georgiadis (CVPR 2019) counts a speed-up of sparse activation maps as the ratio of their densities.
Here it is timed: for the 1x1 layers of MobileNet-v1, the 3x3 layers of a ResNet-18, and layers of
1024 features on 1, 16 and 128 rows, with dense weights. Each column is the time of the fastest of
the engine's dense products over that of the fastest of its products that skip zeros, whose search
for nonzeros is part of it: above 1 skipping is faster. `compile(skip_zeros=True)` chooses between
the two in this way. One row is bound by the weights' way from memory, of which skipping reads only
those that it needs. Steps of a program are timed, on one core; maps are random: real ones have
zeros in about the same places, by which nothing is gained.
"""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # before jax makes its thread pool
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import as_markdown, publish
from experiments.models.mobilenet_v1 import BLOCKS, STEM_CHANNELS
from experiments.runs.cores import bind, cpu_name, usable_cores
from experiments.runs.timing import relative_error
from sparsejax.compiler.engine.call import Programs, region_call
from sparsejax.compiler.engine.lower import lower
from sparsejax.compiler.graph.graph import Region
from sparsejax.compiler.layouts.profile import profile
from sparsejax.compiler.passes.rewrite import rewrite
from sparsejax.compiler.passes.trace import trace
from sparsejax.compiler.regions.split import split
from sparsejax.patterns.layout import BLOCKS as IN_BLOCKS
from sparsejax.patterns.layout import COLUMNS, Layout
from sparsejax.text import table

DENSITIES = (1.0, 0.6, 0.4, 0.3, 0.2, 0.1, 0.05)
TOLERANCE = 3e-5
DENSE = [Layout(IN_BLOCKS, rows, chunk_cols=cols) for rows in (4, 8) for cols in (0, 128, 256)]
SKIPPING = [Layout(COLUMNS, 1, chunk_cols=cols) for cols in (0, 64, 128)]


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


def compare(shape: Shape, repeats: int) -> dict[str, Any]:
    """Milliseconds of the fastest dense product, and at each density of one that skips zeros."""
    rng = np.random.default_rng(1)
    size = (shape.window**2 * shape.inputs, shape.outputs)
    weights = rng.standard_normal(size).astype(np.float32)
    region = region_of(shape, weights)
    dense = fastest(region, DENSE, shape.map(1.0), repeats)
    skipping = {}
    for density in DENSITIES:
        x = shape.map(density)
        check(region, shape.layer(jnp.asarray(weights), jnp.asarray(x)), x)
        skipping[f"{density:g}"] = fastest(region, SKIPPING, x, repeats)
    speedup = {density: round(dense / ms, 3) for density, ms in skipping.items()}
    return {
        "dense ms": dense,
        "skipping ms": skipping,
        "speedup": speedup,
        "pays below": pays_below(speedup),
    }


def region_of(shape: Shape, weights: np.ndarray) -> Region:
    """The layer as a region of its own."""
    graph, _ = trace(shape.layer, weights, (jnp.asarray(shape.map(1.0)),))
    (region,) = split(rewrite(graph))
    assert isinstance(region, Region)
    return region


def fastest(region: Region, layouts: Sequence[Layout], x: np.ndarray, repeats: int) -> float:
    """Milliseconds of the product in the fastest of these layouts."""
    (node,) = region.nodes
    times = []
    for layout in layouts:
        program = lower(region, {node: layout})
        times.append(profile(program, repeats, operands=[x.ravel()])[program.steps[node]])
    return 1e3 * min(times)


def check(region: Region, wanted: jax.Array, x: np.ndarray) -> None:
    """End the benchmark where a product is wrong: nothing is timed then."""
    (node,) = region.nodes
    for layout in (DENSE[0], SKIPPING[0]):
        (got,) = region_call(region, Programs(region, {node: layout}))(jnp.asarray(x))
        error = relative_error(got, wanted)
        if not error <= TOLERANCE:
            raise SystemExit(f"A product in {layout} differs by {error}; nothing is timed.")


def pays_below(speedup: dict[str, float]) -> float:
    """The largest density that was tried at which skipping is faster, 0 for none."""
    return max((density for density in DENSITIES if speedup[f"{density:g}"] > 1), default=0.0)


def markdown(results: dict[str, dict[str, Any]]) -> str:
    """The table of the page."""
    rows = (
        [name, f"{row['dense ms']:.3f}", *(f"{s:.2f}" for s in row["speedup"].values())]
        for name, row in results.items()
    )
    head = ["layer", "dense ms", *(f"{d:g}" for d in DENSITIES)]
    return as_markdown(head, rows, right=True) + "\n"


def main() -> None:
    """Prints and writes the densities."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    bind(usable_cores()[:1])
    results = {str(shape): compare(shape, options.repeats) for shape in shapes(options.side)}
    rows = [
        (
            name,
            f"{row['dense ms']:.3f}",
            *(f"{speedup:.2f}" for speedup in row["speedup"].values()),
            f"{row['pays below']:g}",
        )
        for name, row in results.items()
    ]
    columns = ("layer", "dense ms", *(f"{d:g}" for d in DENSITIES), "pays below")
    print(table("Speed-up by skipping zero activations, by density", columns, rows))
    publish({"cpu": cpu_name(), "layers": results}, options.json)
    if options.json:
        Path(options.json).with_suffix(".md").write_text(markdown(results))


if __name__ == "__main__":
    main()
