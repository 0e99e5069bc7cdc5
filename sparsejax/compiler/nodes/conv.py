"""Convolutions in one and two dimensions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax

from sparsejax.compiler.engine.program import Builder
from sparsejax.compiler.graph.activation import IDENTITY, Activation
from sparsejax.compiler.graph.edit import Edit, constant_of, is_float, made, not_float32
from sparsejax.compiler.graph.graph import Node, Value
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
        matrix = self.weights.transpose(3, 2, 0, 1).reshape(self.weights.shape[3], -1)
        return np.ascontiguousarray(matrix, np.float32)

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
            return lower_product(self, node, to, groups=self.groups, **window)
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


class Read(NamedTuple):
    """A convolution, what is between the pixels that it reads, and how to put others in its place.

    Attributes:
        op: as if nothing lay between the pixels.
        apart: pixels of the input are so far from each other, with zeros between them.
        x, shape: input and shape of the output, as images.
        placed: the nodes that take the place of the equation: those given, between reshapes where
            it is of lines.
    """

    op: Conv
    apart: tuple[int, int]
    x: Value
    shape: tuple[int, ...]
    placed: Callable[..., list[Node]]


def read(edit: Edit, node: Node) -> Read | None:
    """A convolution in one or two dimensions with constant weights, channels last or first."""
    if not (isinstance(node.op, Primitive) and node.op.name == "conv_general_dilated"):
        return None
    (x, kernel), params = node.inputs, node.op.equation.params
    refused = _why_not(node)
    if refused:
        edit.refuse(node, refused)
        return None
    weights, axes = kernel.constant, params["dimension_numbers"]
    outputs, inputs, *spatial = axes.rhs_spec
    filters = weights.transpose(*spatial, inputs, outputs)
    pair = lambda name: _pair([int(number) for number in params[name]], 1)
    op = Conv(
        weights=filters if filters.ndim == 4 else filters[None],
        bias=np.zeros(weights.shape[outputs]),
        path=kernel.path,
        strides=pair("window_strides"),
        padding=_pair([(int(low), int(high)) for low, high in params["padding"]], (0, 0)),
        dilation=pair("rhs_dilation"),
        groups=int(params["feature_group_count"]),
        channels_last=axes.lhs_spec == ORDERS[len(x.shape)][0],
    )
    return _placed(node, op, pair("lhs_dilation"))


def _why_not(node: Node) -> str:
    """Why a convolution is none for the engine, "" if it is."""
    assert isinstance(node.op, Primitive)
    (x, kernel), params = node.inputs, node.op.equation.params
    axes, weights = params["dimension_numbers"], constant_of(kernel)
    if weights is None:
        return "its weights are computed"
    if not is_float(*node.inputs, *node.outputs):
        return not_float32(node)
    if len(x.shape) not in ORDERS:
        return f"in {len(x.shape) - 2} dimensions, not in one or two"
    if axes.lhs_spec != axes.out_spec or axes.lhs_spec not in ORDERS[len(x.shape)]:
        return "channels are neither last nor first"
    if params["batch_group_count"] != 1:
        return "a batch-grouped convolution"
    if any(int(pad) < 0 for pads in params["padding"] for pad in pads):
        return "negative padding"
    return "" if np.isfinite(weights).all() else "weights are not finite"


def _placed(node: Node, op: Conv, apart: tuple[int, int]) -> Read:
    x, shape = node.inputs[0], node.outputs[0].shape
    if len(shape) == 4:
        return Read(op, apart, x, shape, lambda *nodes: list(nodes))
    last = op.channels_last
    image = made(Reshape(of_line(x.shape, last)), [x], of_line(x.shape, last))

    def between(*nodes: Node) -> list[Node]:
        return [image, *nodes, made(Reshape(shape), nodes[-1].outputs, shape)]

    return Read(op, apart, image.outputs[0], of_line(shape, last), between)


def to_conv(edit: Edit, node: Node) -> bool:
    """A convolution with nothing between the pixels of its input."""
    found = read(edit, node)
    if found is None or found.apart != (1, 1):
        return False
    return edit.replace(node, *found.placed(made(found.op, [found.x], found.shape)))


def _pair(numbers: list, along_height: Any) -> tuple[Any, Any]:
    """Something for height and width; a line has but a width."""
    height, width = numbers if len(numbers) == 2 else (along_height, *numbers)
    return height, width


RULES = Rules(named=(to_conv,))
