"""Products with a matrix of weights."""

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
    if batch[0]:
        return edit.refuse(node, "weights differ along the batch")
    if not np.isfinite(array).all():
        return edit.refuse(node, "weights are not finite")
    pairs = sorted(zip(*(contracted[::-1] if on_left else contracted), strict=True))
    return edit.replace(node, *_linear(node, x, weights, pairs, on_left))


def _linear(
    node: Node, x: Value, weights: Value, pairs: Sequence[tuple[int, int]], on_left: bool
) -> list[Node]:
    """Axes to the end, one axis of them, the layer, and back: what changes nothing falls later."""
    axes, along = [int(i) for i, _ in pairs], [int(i) for _, i in pairs]
    free_x = [i for i in range(len(x.shape)) if i not in axes]
    free_weights = [i for i in range(len(weights.shape)) if i not in along]
    matrix = weights.constant.transpose(along + free_weights)
    inputs = int(np.prod([weights.shape[i] for i in along], dtype=int))
    outputs = [weights.shape[i] for i in free_weights]
    matrix = matrix.reshape(inputs, int(np.prod(outputs, dtype=int)))
    leading = [x.shape[i] for i in free_x]
    moved = made(Transpose(tuple(free_x + axes)), [x], [x.shape[i] for i in free_x + axes])
    flat = made(Reshape((*leading, inputs)), moved.outputs, [*leading, inputs])
    op = Linear(matrix, np.zeros(matrix.shape[1]), weights.path)
    layer = made(op, flat.outputs, [*leading, matrix.shape[1]])
    split = made(Reshape((*leading, *outputs)), layer.outputs, [*leading, *outputs])
    nodes = [moved, flat, layer, split]
    # dot_general puts the left operand's free axes first, here those of the weights.
    if on_left:
        k, n = len(free_x), len(free_x) + len(free_weights)
        order = (*range(k, n), *range(k))
        nodes.append(made(Transpose(order), split.outputs, node.outputs[0].shape))
    return nodes


def to_pixels(edit: Edit, node: Node) -> bool:
    """A linear layer over the channels of NHWC images is a 1x1 convolution."""
    op: Any = node.op
    if not isinstance(op, Linear) or len(node.inputs[0].shape) != 4:
        return False
    conv = Conv(op.weights[None, None], op.bias, op.path, activation=op.activation)
    return edit.replace(node, made(conv, node.inputs, node.outputs[0].shape))


RULES = Rules(named=(to_linear,), joined=(to_pixels,))
