"""Convolutions in one and two dimensions."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import lax

from sparsejax.compiler.engine.program import Builder
from sparsejax.compiler.graph.activation import IDENTITY, Activation
from sparsejax.compiler.graph.edit import Edit, constant_of, is_float, made, not_float32
from sparsejax.compiler.graph.graph import Node
from sparsejax.compiler.graph.images import Pairs, of_line
from sparsejax.compiler.nodes.elementwise import BINARY
from sparsejax.compiler.nodes.layer import Layer, lower_product
from sparsejax.compiler.nodes.op import (
    ImageOp,
    Rules,
    along,
    numbers,
    with_activation,
    with_padding,
)
from sparsejax.compiler.nodes.primitive import Primitive
from sparsejax.compiler.nodes.reshape import Reshape

DEPTHWISE = "depthwise"  # in xla_ops/engine/codes.def


@dataclass(frozen=True, eq=False)
class Conv(ImageOp, Layer):
    """activation(conv(x) + bias + residual) in two dimensions; inputs [x] or [x, residual].

    Attributes:
        weights: HWIO, (kernel height, kernel width, inputs / groups, outputs).
        bias: (outputs,).
        path: of the weights in the user's params.
        strides, padding, dilation, groups: of the convolution.
        channels_last: NHWC rather than NCHW.
        activation: of the sum.
    """

    weights: np.ndarray
    bias: np.ndarray
    path: str = ""
    strides: tuple[int, int] = (1, 1)
    padding: Pairs = ((0, 0), (0, 0))
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    channels_last: bool = True
    activation: Activation = IDENTITY

    def __str__(self) -> str:
        """Size, channels and options."""
        height, width, inputs, outputs = self.weights.shape
        text = f"Conv {height}x{width} {inputs * self.groups}->{outputs}"
        text += f" strides {self.strides}" if self.strides != (1, 1) else ""
        text += f" dilation {self.dilation}" if self.dilation != (1, 1) else ""
        text += f" groups {self.groups}" if self.groups != 1 else ""
        options = with_padding(self.padding) + with_activation(self.activation)
        return f"{text}{options} {self.path}".rstrip()

    @property
    def is_depthwise(self) -> bool:
        """One filter for each channel?"""
        return 1 < self.groups == self.weights.shape[3] and self.weights.shape[2] == 1

    @property
    def layer_kind(self) -> str:
        if self.is_depthwise:
            return "depthwise"
        pointwise = self.weights.shape[:2] == (1, 1) and self.groups == 1
        return "pointwise" if pointwise else "convolution"

    @property
    def is_product(self) -> bool:
        return not self.is_depthwise

    @property
    def num_groups(self) -> int:
        return self.groups

    @property
    def gathers(self) -> bool:
        """Has it a window or a stride?"""
        return not (self.weights.shape[:2] == (1, 1) and self.strides == (1, 1))

    def channel_axis(self, rank: int) -> int:
        return self.axis

    def in_order(self, channels_last: bool) -> "Conv | None":
        return self if channels_last == self.channels_last else None

    def matrix(self) -> np.ndarray:
        """With groups, zeros where channels do not meet."""
        height, width, inputs, outputs = self.weights.shape
        blocks = self.weights.transpose(3, 2, 0, 1).astype(np.float32)
        if self.groups == 1:
            return np.ascontiguousarray(blocks.reshape(outputs, -1))
        matrix = np.zeros((outputs, self.groups, inputs, height, width), np.float32)
        group = np.arange(outputs) // (outputs // self.groups)
        matrix[np.arange(outputs), group] = blocks
        return matrix.reshape(outputs, -1)

    def evaluate(self, x: jax.Array, *residual: jax.Array) -> list[jax.Array]:
        order = "NHWC" if self.channels_last else "NCHW"
        y = lax.conv_general_dilated(
            x,
            numbers(self.weights, x),
            self.strides,
            self.padding,
            rhs_dilation=self.dilation,
            dimension_numbers=(order, "HWIO", order),
            feature_group_count=self.groups,
        )
        y = y + along(self.bias, self.axis, y)
        return [self.activation(sum(residual, start=y))]

    def lower(self, node: Node, to: Builder) -> None:
        """A product, or a depthwise step with the residual as a step of its own."""
        window: dict[str, Any] = {
            "window": self.weights.shape[:2],
            "strides": self.strides,
            "dilation": self.dilation,
            "pads": (self.padding[0][0], self.padding[1][0]),
        }
        if self.is_product:
            return lower_product(self, node, to, **window)
        x, *residual = (to.ids[value] for value in node.inputs)
        to.layers[node] = len(to.steps)
        to.add(
            node,
            DEPTHWISE,
            inputs=(x,),
            **window,
            activation=IDENTITY if residual else self.activation,
            weights=to.keep(self.weights.reshape(-1, self.weights.shape[3]).T),
            bias=to.keep(self.bias),
        )
        if residual:
            inputs = (to.ids[node.outputs[0]], *residual)
            to.add(node, BINARY, inputs=inputs, activation=self.activation)
        return None


# The axes of batch, channels and pixels by rank: channels last, channels first.
ORDERS = {3: ((0, 2, 1), (0, 1, 2)), 4: ((0, 3, 1, 2), (0, 1, 2, 3))}


def to_conv(edit: Edit, node: Node) -> bool:
    """A convolution in one or two dimensions with constant weights, channels last or first."""
    if not (isinstance(node.op, Primitive) and node.op.name == "conv_general_dilated"):
        return False
    (x, kernel), params = node.inputs, node.op.equation.params
    weights = constant_of(kernel)
    if weights is None:
        return edit.refuse(node, "its weights are computed")
    if not is_float(*node.inputs, *node.outputs):
        return edit.refuse(node, not_float32(node))
    if len(x.shape) not in ORDERS:
        return edit.refuse(node, f"in {len(x.shape) - 2} dimensions, not in one or two")
    axes, orders = params["dimension_numbers"], ORDERS[len(x.shape)]
    if axes.lhs_spec != axes.out_spec or axes.lhs_spec not in orders:
        return edit.refuse(node, "channels are neither last nor first")
    if any(step != 1 for step in params["lhs_dilation"]) or params["batch_group_count"] != 1:
        return edit.refuse(node, "a transposed or batch-grouped convolution")
    padding: Any = _pair([(int(low), int(high)) for low, high in params["padding"]], (0, 0))
    if any(low < 0 or high < 0 for low, high in padding):
        return edit.refuse(node, "negative padding")
    if not np.isfinite(weights).all():
        return edit.refuse(node, "weights are not finite")
    outputs, inputs, *spatial = axes.rhs_spec
    last = axes.lhs_spec == orders[0]
    filters = weights.transpose(*spatial, inputs, outputs)
    op = Conv(
        weights=filters if filters.ndim == 4 else filters[None],
        bias=np.zeros(weights.shape[outputs]),
        path=kernel.path,
        strides=_pair(list(map(int, params["window_strides"])), 1),
        padding=padding,
        dilation=_pair(list(map(int, params["rhs_dilation"])), 1),
        groups=int(params["feature_group_count"]),
        channels_last=last,
    )
    shape = node.outputs[0].shape
    if len(shape) == 4:
        return edit.replace(node, made(op, [x], shape))
    image = made(Reshape(of_line(x.shape, last)), [x], of_line(x.shape, last))
    conv = made(op, image.outputs, of_line(shape, last))
    return edit.replace(node, image, conv, made(Reshape(shape), conv.outputs, shape))


def _pair(numbers: list, along_height: Any) -> tuple[Any, Any]:
    """Something for height and width; a line has but a width."""
    height, width = numbers if len(numbers) == 2 else (along_height, *numbers)
    return height, width


RULES = Rules(named=(to_conv,))
