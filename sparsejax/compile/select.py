"""Which kernel runs a layer: decided by the zeros in its folded weights."""

from dataclasses import dataclass

import numpy as np

from sparsejax.compile.graph_old import Layer
from sparsejax.patterns import Block, Pattern, Unstructured

# Times in ns on an AVX2 core, fitted to products of 256x256 to 1024x1024 with 1 to 12544 positions.
# XLA's dense product: a weight costs DENSE_WEIGHT once and DENSE_POSITION at each position.
DENSE_WEIGHT, DENSE_POSITION = 0.11, 0.026
# A weight that blocks of `rows` x 1 store costs WEIGHT[rows] once and POSITION[rows] at each
# position, in eights; an activation that is read or written costs ACTIVATION.
WEIGHT = {1: 0.7, 2: 0.45, 4: 0.3, 8: 0.3}
POSITION = {1: 0.075, 2: 0.054, 4: 0.042, 8: 0.0415}
ACTIVATION = 0.12


@dataclass(frozen=True)
class Choice:
    """How a layer runs.

    Attributes:
        kernel: "spmm", "depthwise_conv2d" or "xla".
        pattern: how the weights are packed for spmm, None for the others.
        reason: why, for the report.
    """

    kernel: str
    pattern: Pattern | None
    reason: str


def select(layer: Layer, positions: int) -> Choice:
    """The fastest kernel for the layer by the measured cost of each.

    Args:
        layer: with everything folded into it.
        positions: pixels or rows that it is applied to, batch included.
    """
    if layer.kind == "depthwise":
        return Choice("depthwise_conv2d", None, "one filter a channel")
    if layer.kind == "convolution":
        return Choice("xla", None, "no sparse kernel for this kernel size")
    matrix = layer.matrix
    if matrix.size == 0 or positions == 0:
        return Choice("xla", None, "nothing to compute")
    dense = matrix.size * (DENSE_WEIGHT + DENSE_POSITION * positions)
    costs = {rows: sparse_cost(matrix, rows, positions) for rows in WEIGHT}
    rows = min(costs, key=lambda rows: costs[rows])
    zeros = f"{np.mean(matrix == 0):.1%} zeros"
    if costs[rows] >= dense:
        return Choice("xla", None, f"{zeros}: dense is faster")
    pattern = Unstructured(output_axis=0) if rows == 1 else Block(rows, 1, output_axis=0)
    return Choice("spmm", pattern, f"{zeros}: about {costs[rows] / dense:.2f} of dense time")


def sparse_cost(matrix: np.ndarray, rows: int, positions: int) -> float:
    """The time in ns of the product with `matrix` stored in blocks of `rows` x 1."""
    eights = -(-positions // 8) * 8
    per_weight = WEIGHT[rows] + POSITION[rows] * eights
    return stored(matrix, rows) * matrix.size * per_weight + sum(matrix.shape) * eights * ACTIVATION


def stored(matrix: np.ndarray, rows: int) -> float:
    """The fraction of weights that blocks of `rows` x 1 store, infinite where they do not fit."""
    outputs, inputs = matrix.shape
    if outputs % rows:
        return np.inf
    return float((matrix != 0).reshape(outputs // rows, rows, inputs).any(1).mean())
