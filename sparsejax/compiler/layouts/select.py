"""How the weights of each layer are stored: what can hold them, and a model of what is fastest."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sparsejax.compiler.graph.graph import Node, Region
from sparsejax.compiler.nodes.layer import Layer
from sparsejax.patterns import Pattern
from sparsejax.patterns.layout import BLOCKS, LAYOUTS, MASKS, ROWS, Layout

BLOCK_ROWS = (1, 2, 4, 8)


class Cost(NamedTuple):
    """Times in ns on one AVX2 core, as `python -m benchmarks.layouts` fits them.

    Attributes:
        weight: a stored weight, once.
        pixel: a stored weight at each pixel, in eights.
        activation: a value that is read or written, at each pixel, in eights.
        alone: a stored weight where there is but one pixel.
    """

    weight: float
    pixel: float
    activation: float
    alone: float


COSTS = {
    (ROWS, 1): Cost(0.254, 0.0270, 0.059, 1.2),
    (ROWS, 2): Cost(0.196, 0.0260, 0.074, 0.62),
    (ROWS, 4): Cost(0.292, 0.0280, 0.098, 0.40),
    (ROWS, 8): Cost(0.336, 0.0510, 0.180, 0.31),
    (MASKS, 4): Cost(0.418, 0.0230, 0.123, 0.33),
    (BLOCKS, 2): Cost(0.112, 0.0240, 0.067, 0.62),
    (BLOCKS, 4): Cost(0.160, 0.0210, 0.077, 0.22),
    (BLOCKS, 8): Cost(0.358, 0.0210, 0.076, 0.20),
}
WORTH_MEASURING = 1.5  # times the best estimate; the model errs by 10 %, at worst by 30


class Traits(NamedTuple):
    """What the time of a layer depends on.

    Attributes:
        rows, cols: of its matrix.
        pixels: of one output image, or rows.
        gathers: are its columns copied together first (a window, a stride, a gate)?
        stored: what fraction of the weights groups of 1, 2, 4 and 8 rows keep.
    """

    rows: int
    cols: int
    pixels: int
    gathers: bool
    stored: tuple[float, ...]


@dataclass(frozen=True)
class Choice:
    """How a layer's weights are stored, and why.

    Attributes:
        layout: of the packed weights.
        name: "CSR", "2x1", "4x1", "8x1", "mask groups" or "dense".
        is_dense: are all weights stored?
        microseconds: what the layer takes for one image, nan when it was not measured.
        break_even: the sparsity from which on the layer is faster than dense, in this pattern.
        reason: for the report.
    """

    layout: Layout
    name: str
    is_dense: bool
    microseconds: float
    break_even: float
    reason: str


def is_product(node: Node) -> bool:
    """Does the node multiply by a packed matrix?"""
    return isinstance(node.op, Layer) and node.op.is_product


def traits_of(node: Node, region: Region) -> Traits:
    """The traits of a product."""
    assert isinstance(node.op, Layer)
    matrix = node.op.matrix()
    _, height, width = region.size(node.outputs[0])
    stored = tuple(stored_fraction(matrix, rows) for rows in BLOCK_ROWS)
    return Traits(len(matrix), matrix.shape[1], height * width, node.op.gathers, stored)


def stored_fraction(matrix: np.ndarray, rows: int) -> float:
    """The fraction of weights that is stored when groups of `rows` rows have columns in common."""
    nonzero = matrix != 0
    if rows > 1:
        padded = -(-len(matrix) // rows) * rows
        nonzero = np.concatenate([nonzero, np.zeros((padded - len(matrix), matrix.shape[1]), bool)])
        nonzero = nonzero.reshape(-1, rows, matrix.shape[1]).any(1)
    return float(nonzero.mean()) if nonzero.size else 0.0


def stored(traits: Traits, layout: Layout) -> float:
    """The fraction of weights that a layout keeps."""
    rows = layout.block if layout.storage == BLOCKS else 1
    return traits.stored[BLOCK_ROWS.index(rows)]


def is_dense(traits: Traits, layout: Layout) -> bool:
    """Does the layout keep all weights, as the dense kernel does?"""
    return layout.storage == BLOCKS and stored(traits, layout) > 0.999


def name_of(traits: Traits, layout: Layout) -> str:
    """What the report calls the layout."""
    if layout.storage == BLOCKS:
        return "dense" if is_dense(traits, layout) else f"{layout.block}x1"
    return "CSR" if layout.storage == ROWS else "mask groups"


def estimate(traits: Traits, layout: Layout, fraction: float | None = None) -> float:
    """The time of a product in microseconds by the model, with `fraction` of the weights stored."""
    fraction = stored(traits, layout) if fraction is None else fraction
    weights = fraction * traits.rows * traits.cols
    cost = COSTS[layout.storage, layout.block]
    if traits.pixels == 1:
        return weights * cost.alone / 1e3
    pixels = math.ceil(traits.pixels / 8) * 8
    moved = (traits.rows + traits.cols * (1 + traits.gathers)) * pixels * cost.activation
    return (weights * (cost.weight + cost.pixel * pixels) + moved) / 1e3


def dense_layouts(traits: Traits) -> list[Layout]:
    """Blocks of any height, to be filled with all weights."""
    return [Layout(BLOCKS, rows) for rows in (4, 8) if rows <= max(traits.rows, 4)]


def candidates(traits: Traits, pattern: Pattern | None = None) -> list[Layout]:
    """The layouts that are worth a measurement, by the model the fastest first.

    Args:
        traits: of the layer.
        pattern: that the weights were trained with, which names its layouts.
    """
    sparse = LAYOUTS if pattern is None else pattern.layouts()
    layouts = list(dict.fromkeys([*sparse, *dense_layouts(traits)]))
    layouts.sort(key=lambda layout: estimate(traits, layout))
    bound = WORTH_MEASURING * estimate(traits, layouts[0])
    return [layout for layout in layouts if estimate(traits, layout) <= bound]


def choose(traits: Traits, microseconds: Sequence[tuple[Layout, float]], measured: bool) -> Choice:
    """The fastest of the layouts with their times, and what a dense layer would take."""
    layout, best = min(microseconds, key=lambda pair: pair[1])
    dense_layout = min(dense_layouts(traits), key=lambda dense: estimate(traits, dense, 1.0))
    full = is_dense(traits, layout)
    # What was measured for blocks that are nearly full is dense; else scale the model to what was.
    scale = best / max(estimate(traits, layout), 1e-9) if measured else 1.0
    dense = best if full else estimate(traits, dense_layout, 1.0) * scale
    even = break_even(traits, Layout(ROWS, 2) if full else layout, dense / scale)
    zeros = f"{1 - traits.stored[0]:.1%} zeros"
    if full:
        reason = f"{zeros}: dense is faster" if traits.stored[0] < 1 else "no zeros"
    else:
        reason = f"{zeros}: {best / dense:.2f} of dense time"
    took = best if measured else math.nan
    return Choice(layout, name_of(traits, layout), full, took, even, reason)


def break_even(traits: Traits, layout: Layout, dense_microseconds: float) -> float:
    """The sparsity at which the model takes as long as the dense layer does; 1 if none does."""
    fixed, full = estimate(traits, layout, 0.0), estimate(traits, layout, 1.0)
    if full <= dense_microseconds:
        return 0.0
    return float(np.clip((full - dense_microseconds) / (full - fixed), 0.0, 1.0))
