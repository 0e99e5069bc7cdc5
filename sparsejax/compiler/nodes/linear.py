"""Products with a matrix of weights."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from sparsejax.compiler.engine.program import Builder
from sparsejax.compiler.graph.activation import IDENTITY, Activation
from sparsejax.compiler.graph.edit import Edit, constant_of, is_float, made, not_float32
from sparsejax.compiler.graph.graph import Node, Value
from sparsejax.compiler.nodes.conv import Conv
from sparsejax.compiler.nodes.layer import Layer, lower_product
from sparsejax.compiler.nodes.op import Rules, last_axis, numbers, with_activation
from sparsejax.compiler.nodes.primitive import Primitive
from sparsejax.compiler.nodes.reshape import Reshape
from sparsejax.compiler.nodes.transpose import Transpose


@dataclass(frozen=True, eq=False)
class Linear(Layer):
    """activation(x @ weights + bias + residual); inputs [x (..., in)] or [x, residual].

    Attributes:
        weights: (inputs, outputs).
        bias: (outputs,).
        path: of the weights in the user's params.
        activation: of the sum.
    """

    weights: np.ndarray
    bias: np.ndarray
    path: str = ""
    activation: Activation = IDENTITY

    def __str__(self) -> str:
        """Size and activation."""
        inputs, outputs = self.weights.shape
        return f"Linear {inputs}->{outputs}{with_activation(self.activation)} {self.path}".rstrip()

    @property
    def layer_kind(self) -> str:
        return "linear"

    @property
    def is_product(self) -> bool:
        return True

    @property
    def num_groups(self) -> int:
        return 1

    @property
    def gathers(self) -> bool:
        return False

    def channel_axis(self, rank: int) -> int:
        return rank - 1

    def matrix(self) -> np.ndarray:
        return np.ascontiguousarray(self.weights.T, np.float32)

    def channel_axes(self, node: Node) -> frozenset[int]:
        return last_axis(node)

    def before_change(self, to_last: bool) -> None:
        """None: on images it is a convolution."""

    def evaluate(self, x: jax.Array, *residual: jax.Array) -> list[jax.Array]:
        y = x @ numbers(self.weights, x) + numbers(self.bias, x)
        return [self.activation(sum(residual, start=y))]

    def lower(self, node: Node, to: Builder) -> None:
        """A product."""
        lower_product(self, node, to)


def to_linear(edit: Edit, node: Node) -> bool:
    """x @ weights with any number of contracted and leading axes; weights may be on the left."""
    if not (isinstance(node.op, Primitive) and node.op.name == "dot_general"):
        return False
    (contracted, batch) = node.op.equation.params["dimension_numbers"]
    on_left = constant_of(node.inputs[0]) is not None
    (weights, x) = node.inputs if on_left else node.inputs[::-1]
    array = constant_of(weights)
    if array is None or x.constant is not None:
        return edit.refuse(node, "both sides are computed")
    if not is_float(x, weights, *node.outputs):
        return edit.refuse(node, not_float32(node))
    if batch[0] and len(x.shape) - len(batch[0]) - len(contracted[0]) != 3:
        return edit.refuse(node, "weights differ along the batch")
    if not np.isfinite(array).all():
        return edit.refuse(node, "weights are not finite")
    own, other = (1, 0) if on_left else (0, 1)
    pairs = sorted(zip(contracted[own], contracted[other], strict=True))  # as they lie in x
    summed = [i for i, _ in pairs], [i for _, i in pairs]
    axes = Axes(x, summed[0], batch[own]), Axes(weights, summed[1], batch[other])
    return edit.replace(node, *_layer(node, *axes, on_left))


class Axes:
    """The axes of one side of a product: those of its sums, of its batch, and the others.

    Attributes:
        value: the side.
        summed, batch, free: its axes.
    """

    def __init__(self, value: Value, summed: Sequence[int], batch: Sequence[int]):
        self.value, self.summed, self.batch = value, list(map(int, summed)), list(map(int, batch))
        self.free = [i for i in range(len(value.shape)) if i not in (*self.summed, *self.batch)]

    def sizes(self, axes: Sequence[int]) -> list[int]:
        """Along these axes."""
        return [self.value.shape[axis] for axis in axes]


def _layer(node: Node, x: Axes, weights: Axes, on_left: bool) -> list[Node]:
    """Axes to the end, one axis of them, the layer, and back: what changes nothing falls later.

    Of a batch the layer is a convolution in groups.
    """
    groups, inputs = (math.prod(x.sizes(axes)) for axes in (x.batch, x.summed))
    outputs, leading = weights.sizes(weights.free), x.sizes(x.free)
    array = weights.value.constant.transpose(weights.summed + weights.batch + weights.free)
    matrix = array.reshape(inputs, groups * math.prod(outputs))
    order = x.free + x.batch + x.summed
    moved = made(Transpose(tuple(order)), [x.value], x.sizes(order))
    flat = made(Reshape((*leading, groups * inputs)), moved.outputs, [*leading, groups * inputs])
    bias, path = np.zeros(matrix.shape[1]), weights.value.path
    op: Any = Linear(matrix, bias, path)
    if x.batch:
        op = Conv(matrix[None, None], bias, path, groups=groups)
    layer = made(op, flat.outputs, [*leading, matrix.shape[1]])
    sizes = (*leading, *x.sizes(x.batch), *outputs)
    split = made(Reshape(sizes), layer.outputs, sizes)
    # dot_general puts the batch first, then the free axes of its left operand.
    k, n = len(leading), len(leading) + len(x.batch)
    own, other = [*range(k)], [*range(n, len(sizes))]
    back = (*range(k, n), *(other + own if on_left else own + other))
    return [moved, flat, layer, split, made(Transpose(back), split.outputs, node.outputs[0].shape)]


def to_pixels(edit: Edit, node: Node) -> bool:
    """A linear layer over the channels of NHWC images is a 1x1 convolution."""
    op: Any = node.op
    if not isinstance(op, Linear) or len(node.inputs[0].shape) != 4:
        return False
    conv = Conv(op.weights[None, None], op.bias, op.path, activation=op.activation)
    return edit.replace(node, made(conv, node.inputs, node.outputs[0].shape))


RULES = Rules(named=(to_linear,), joined=(to_pixels,))
