"""What the kernels cost on this machine: a few small products in each layout, timed once."""

import itertools
from collections.abc import Mapping
from functools import cache

import numpy as np

from sparsejax.compiler.engine.lower import lower
from sparsejax.compiler.graph.graph import FLOAT32, Node, Region, Value
from sparsejax.compiler.layouts.profile import profile
from sparsejax.compiler.layouts.select import Cost, Costs, Traits, key_of, stored, traits_of, work
from sparsejax.compiler.layouts.times import (
    SHORTEST,
    UNKNOWN,
    Sample,
    cache_path,
    read_cache,
    write_cache,
)
from sparsejax.compiler.nodes.conv import Conv
from sparsejax.compiler.nodes.linear import Linear
from sparsejax.ops._ffi import instruction_set
from sparsejax.patterns.layout import BLOCKS, LAYOUTS, Layout

# Outputs, inputs, height (and width): activations in the first-level cache, and in the second.
SHAPES = ((64, 48, 28), (256, 192, 14), (384, 512, 7), (512, 384, 1))
DENSITIES = (0.1, 0.4)


def costs() -> Costs:
    """The costs of each storage and block, measured at the first call (0.1 s) and remembered."""
    return _costs(str(cache_path()), instruction_set())


@cache
def _costs(_path: str, _instruction_set: str) -> Costs:
    known, fitted = read_cache(), {}
    measured: dict[str, Sample] = {}
    for layout in LAYOUTS:
        region = products(layout)
        traits = [traits_of(node, region) for node in region.nodes]
        keys = [key_of(each, layout) for each in traits]
        if any(key not in known for key in keys):
            program = lower(region, dict.fromkeys(region.nodes, layout))
            seconds = profile(program)
            for node, key in zip(region.nodes, keys, strict=True):
                micros = max(seconds[program.steps[node]] * 1e6, SHORTEST)
                known[key] = measured[key] = known.get(key, UNKNOWN).and_then(micros)
        times = {each: known[key].micros for each, key in zip(traits, keys, strict=True)}
        fitted[layout.storage, layout.block] = fit(layout, times)
    if measured:
        write_cache(measured)
    return fitted


def products(layout: Layout) -> Region:
    """One layer of each shape and density side by side, with zeros that the layout can leave out.

    Args:
        layout: whose blocks they are, if it has any.
    """
    block = layout.block if layout.storage == BLOCKS else 1
    rng = np.random.default_rng(0)
    nodes = []
    for (outputs, inputs, side), density in itertools.product(SHAPES, DENSITIES):
        kept = rng.random((inputs, outputs // block)) < density
        weights = np.repeat(kept, block, 1) * rng.uniform(0.5, 1, (inputs, outputs))
        weights, bias = weights.astype(np.float32), np.zeros(outputs, np.float32)
        sides = (side, side) if side > 1 else ()
        op = Conv(weights[None, None], bias) if sides else Linear(weights, bias)
        x, y = (Value((1, *sides, size), FLOAT32) for size in (inputs, outputs))
        nodes.append(Node(op, [x], [y]))
    return Region(nodes, [n.inputs[0] for n in nodes], [n.outputs[0] for n in nodes])


def fit(layout: Layout, micros: Mapping[Traits, float]) -> Cost:
    """The costs that err least, relatively, on the times of layers in a layout."""
    rows, alone = [], []
    for traits, time in micros.items():
        weights = stored(traits, layout) * traits.rows * traits.cols
        if traits.pixels == 1:
            alone.append(time * 1e3 / max(weights, 1))
            continue
        pixels, moved = work(traits)
        rows.append(np.array([weights, weights * pixels, moved]) / (time * 1e3))
    weight, pixel, activation = _least_squares(np.array(rows))
    return Cost(weight, pixel, activation, float(np.median(alone)))


def _least_squares(rows: np.ndarray) -> list[float]:
    """The x >= 0 for which rows @ x is nearest to 1: the best of those with some of them 0."""
    best, least = np.zeros(rows.shape[1]), np.inf
    for used in itertools.product((False, True), repeat=rows.shape[1]):
        x = np.zeros(rows.shape[1])
        if any(used):
            x[list(used)] = np.linalg.lstsq(rows[:, used], np.ones(len(rows)), rcond=None)[0]
        error = float(np.sum((rows @ x - 1) ** 2))
        if (x >= 0).all() and error < least:
            best, least = x, error
    return best.tolist()
