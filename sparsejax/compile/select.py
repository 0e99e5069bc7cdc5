"""Which kernel runs a layer: decided by the zeros in its folded weights."""

from dataclasses import dataclass

import numpy as np

from sparsejax.compile.graph import Layer
from sparsejax.patterns import Block, Pattern, Unstructured

# Time of a packed product over that of XLA's dense one: OVERHEAD + SLOPES[rows] * stored fraction,
# fitted to 512x512x196 and 256x256x784 at 50, 80 and 90 % on an AVX2 core.
OVERHEAD = 0.13
SLOPES = {1: 2.25, 2: 1.7, 4: 1.4, 8: 1.6}


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


def select(layer: Layer) -> Choice:
    """The fastest kernel for the layer by the measured cost of each."""
    if layer.kind == "depthwise":
        return Choice("depthwise_conv2d", None, "one filter a channel")
    if layer.kind == "convolution":
        return Choice("xla", None, "no sparse kernel for this kernel size")
    matrix = layer.matrix
    if matrix.size == 0:
        return Choice("xla", None, "no weights")
    costs = {rows: OVERHEAD + SLOPES[rows] * stored(matrix, rows) for rows in SLOPES}
    rows = min(costs, key=lambda rows: costs[rows])
    zeros = f"{np.mean(matrix == 0):.1%} zeros"
    if costs[rows] >= 1:
        return Choice("xla", None, f"{zeros}: dense is faster")
    pattern = Unstructured(output_axis=0) if rows == 1 else Block(rows, 1, output_axis=0)
    return Choice("spmm", pattern, f"{zeros}: about {costs[rows]:.2f} of dense time")


def stored(matrix: np.ndarray, rows: int) -> float:
    """The fraction of weights that blocks of `rows` x 1 store, infinite where they do not fit."""
    outputs, inputs = matrix.shape
    if outputs % rows:
        return np.inf
    return float((matrix != 0).reshape(outputs // rows, rows, inputs).any(1).mean())
