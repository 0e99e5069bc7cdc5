"""What the kernels cost on this machine: a few small products in each layout, timed once."""

import itertools
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from sparsejax.compiler.engine.lower import lower
from sparsejax.compiler.graph.graph import FLOAT32, Node, Region, Value
from sparsejax.compiler.layouts.profile import profile
from sparsejax.compiler.layouts.select import (
    FEW_PIXELS,
    Cost,
    Costs,
    Traits,
    key_of,
    stored,
    traits_of,
    work,
)
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
from sparsejax.patterns.layout import BLOCKS, LAYOUTS, MASKS, Layout

# Outputs, inputs, height and width: small and large maps, short and long rows, few and many chunks,
# and a vector.
SHAPES = (
    (128, 64, 56),
    (64, 48, 28),
    (256, 128, 28),
    (192, 160, 14),
    (512, 512, 14),
    (256, 512, 7),
    (256, 384, 1),
)
FEW = (256, 384, 8)  # outputs, inputs, rows
DENSITIES = (0.1, 0.4)
RUNS = 3
MOST_MEASURED = 2  # processes that measure, should the first have met a busy machine


def costs() -> Costs:
    """The costs of each storage and block, measured at the first call (0.1 s) and remembered."""
    return _costs(str(cache_path()), instruction_set())


@cache
def _costs(_path: str, _instruction_set: str) -> Costs:
    known = read_cache()
    measured: dict[str, Sample] = {}
    found: dict[Layout, dict[Traits, float]] = {}
    for layout in LAYOUTS:
        times = found[layout] = {}
        for region in regions(layout):
            keys = {n: (each := traits_of(n, region), key_of(each, layout)) for n in region.nodes}
            if any(known.get(key, UNKNOWN).repeats < MOST_MEASURED for _, key in keys.values()):
                program = lower(region, dict.fromkeys(region.nodes, layout))
                seconds = profile(program, RUNS)
                for node, (_, key) in keys.items():
                    micros = max(seconds[program.steps[node]] * 1e6, SHORTEST)
                    known[key] = measured[key] = known.get(key, UNKNOWN).and_then(micros)
            times |= {traits: known[key].micros for traits, key in keys.values()}
    if measured:
        write_cache(measured)
    return {(y.storage, y.block): fit(y, micros) for y, micros in found.items()}


def regions(layout: Layout) -> list[Region]:
    """What is timed: each shape by itself, so that its values are in the cache as in a network.

    Mask groups are timed side by side: the CPU would learn the branches of one layer, which it
    cannot of a network's (8 layers take 1.25 times as long each as one).

    Args:
        layout: whose blocks the zeros are, if it has any.
    """
    apart = [SHAPES] if layout.storage == MASKS else [(shape,) for shape in SHAPES]
    return [*(products(layout, shapes) for shapes in apart), few_rows(layout)]


def products(layout: Layout, shapes: Sequence[tuple[int, int, int]]) -> Region:
    """One layer of each shape and density, with zeros that the layout can leave out."""
    nodes = []
    for (outputs, inputs, side), density in itertools.product(shapes, DENSITIES):
        sides = (side, side) if side > 1 else ()
        weights, bias = _weights(layout, outputs, inputs, density)
        op = Conv(weights[None, None], bias) if sides else Linear(weights, bias)
        nodes.append(_node(op, (1, *sides), inputs, outputs))
    return Region(nodes, [n.inputs[0] for n in nodes], [n.outputs[0] for n in nodes])


def few_rows(layout: Layout) -> Region:
    """The same for few rows."""
    outputs, inputs, rows = FEW
    linear = [Linear(*_weights(layout, outputs, inputs, density)) for density in DENSITIES]
    nodes = [_node(op, (rows,), inputs, outputs) for op in linear]
    inner = [n.inputs[0] for n in nodes], [n.outputs[0] for n in nodes]
    return Region(nodes, *inner, rows=True)


def _weights(
    layout: Layout, outputs: int, inputs: int, density: float
) -> tuple[np.ndarray, np.ndarray]:
    """Weights with blocks of zeros, and a bias."""
    rng = np.random.default_rng(0)
    block = layout.block if layout.storage == BLOCKS else 1
    kept = rng.random((inputs, outputs // block), np.float32) < density
    weights = np.repeat(kept, block, 1) * (1 + rng.random((inputs, outputs), np.float32))
    return weights, np.zeros(outputs, np.float32)


def _node(op: Any, leading: tuple[int, ...], inputs: int, outputs: int) -> Node:
    x, y = (Value((*leading, size), FLOAT32) for size in (inputs, outputs))
    return Node(op, [x], [y])


def fit(layout: Layout, micros: Mapping[Traits, float]) -> Cost:
    """The costs that err least, relatively, on the times of layers in a layout.

    Args:
        layout: which one.
        micros: the times.
    """
    rows: list[np.ndarray] = []
    of_weight: dict[bool, list[float]] = {True: [], False: []}  # one pixel, few
    for traits, time in micros.items():
        fraction = stored(traits, layout)
        if traits.pixels <= FEW_PIXELS:
            weights = max(fraction * traits.rows * traits.cols, 1)
            of_weight[traits.pixels == 1].append(time * 1e3 / weights)
            continue
        rows.append(np.array(work(traits, layout, fraction)) / (time * 1e3))
    few, alone = (float(np.median(of_weight[one])) for one in (False, True))
    weight, pixel, place, activation = _least_squares(np.array(rows))
    return Cost(weight, pixel, place, activation, few, alone)


def _least_squares(rows: np.ndarray) -> list[float]:
    """The x >= 0 for which rows @ x is nearest to 1: the best of those with some 0."""
    best, least = np.zeros(rows.shape[1]), np.inf
    wanted = np.ones(len(rows))
    for used in itertools.product((False, True), repeat=rows.shape[1]):
        x = np.zeros(rows.shape[1])
        if any(used):
            x[list(used)] = np.linalg.lstsq(rows[:, used], wanted, rcond=None)[0]
        error = float(np.sum((rows @ x - wanted) ** 2))
        if (x >= 0).all() and error < least:
            best, least = x, error
    return best.tolist()
