"""Layers that are several of a known kind: convolutions in three dimensions, and experts.

What cuts and joins them stays in XLA; their products run in regions.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.compiler.graph.edit import Edit, constant_of, is_float, made
from sparsejax.compiler.graph.graph import Node
from sparsejax.compiler.graph.op import MappingType
from sparsejax.compiler.nodes.conv import Conv
from sparsejax.compiler.nodes.linear import Linear
from sparsejax.compiler.nodes.op import Rules
from sparsejax.compiler.nodes.primitive import Primitive
from sparsejax.compiler.nodes.reshape import Reshape
from sparsejax.compiler.nodes.transpose import Transpose

TO_FIRST, TO_LAST = (0, 4, 1, 2, 3), (0, 2, 3, 4, 1)  # NDHWC to NCDHW, and back
ORDERS = ((0, 1, 2, 3, 4), TO_FIRST)  # the axes of batch, channels and sides: NCDHW, NDHWC
MOST_EXPERTS = 64


@dataclass(frozen=True)
class Depths:
    """Images (batch * depths, height, width, window * channels) of what a window sees of depths.

    Attributes:
        window, stride, dilation, padding: along the second axis of (batch, depth, height, width,
            channels).
        groups: of channels; those of one group at all depths lie one behind the other.
    """

    window: int
    stride: int
    dilation: int
    padding: tuple[int, int]
    groups: int = 1
    effects = False
    name = "Depths"

    def __str__(self) -> str:
        """Window and stride."""
        return f"Depths {self.window} stride {self.stride}"

    def evaluate(self, x: jax.Array) -> list[jax.Array]:
        x = jnp.pad(x, ((0, 0), self.padding, (0, 0), (0, 0), (0, 0)))
        reach = (self.window - 1) * self.dilation
        taken = [
            x[:, i * self.dilation : x.shape[1] - reach + i * self.dilation : self.stride]
            for i in range(self.window)
        ]
        batch, depths, *sides, channels = taken[0].shape
        own = channels // self.groups
        in_groups = [y.reshape(batch * depths, *sides, self.groups, own) for y in taken]
        columns = jnp.concatenate(in_groups, axis=-1)
        return [columns.reshape(batch * depths, *sides, self.window * channels)]

    def mapping(self, node: Node) -> MappingType:
        return MappingType.ONE_TO_MANY


@dataclass(frozen=True)
class Part:
    """The i-th along the first axis."""

    index: int
    effects = False
    name = "Part"

    def __str__(self) -> str:
        """Which."""
        return f"Part {self.index}"

    def evaluate(self, x: jax.Array) -> list[jax.Array]:
        return [x[self.index]]

    def mapping(self, node: Node) -> MappingType:
        return MappingType.ONE_TO_ONE


@dataclass(frozen=True)
class Stack:
    """All inputs along a new first axis."""

    effects = False
    name = "Stack"

    def __str__(self) -> str:
        """The kind."""
        return self.name

    def evaluate(self, *parts: jax.Array) -> list[jax.Array]:
        return [jnp.stack(parts)]

    def mapping(self, node: Node) -> MappingType:
        return MappingType.ONE_TO_ONE


def to_images(edit: Edit, node: Node) -> bool:
    """A convolution in three dimensions, of images that hold all depths of its window."""
    if not (isinstance(node.op, Primitive) and node.op.name == "conv_general_dilated"):
        return False
    (x, kernel), params = node.inputs, node.op.equation.params
    weights, spec = constant_of(kernel), params["dimension_numbers"]
    if weights is None or len(x.shape) != 5 or not is_float(*node.inputs, *node.outputs):
        return False
    if spec.lhs_spec != spec.out_spec or spec.lhs_spec not in ORDERS:
        return edit.refuse(node, "in 3 dimensions, and channels are neither last nor first")
    if params["batch_group_count"] != 1 or any(d != 1 for d in params["lhs_dilation"]):
        return edit.refuse(node, "in 3 dimensions, and batch-grouped or transposed")
    pads = [(int(low), int(high)) for low, high in params["padding"]]
    if min(map(min, pads)) < 0 or not np.isfinite(weights).all():
        return edit.refuse(node, "in 3 dimensions, with negative padding or weights not finite")
    strides, dilation = (tuple(map(int, params[n])) for n in ("window_strides", "rhs_dilation"))
    groups, first = int(params["feature_group_count"]), spec.lhs_spec == ORDERS[0]
    last = lambda shape: tuple(shape[axis] for axis in TO_LAST) if first else shape
    own_outputs, own_inputs, *sides = spec.rhs_spec
    weights = weights.transpose(*sides, own_inputs, own_outputs)
    depth, height, width, inputs, outputs = weights.shape
    x_shape, y_shape = last(x.shape), last(node.outputs[0].shape)
    turned = [made(Transpose(TO_LAST), [x], x_shape)] if first else []
    columns = Depths(depth, strides[0], dilation[0], pads[0], groups)
    shape = (y_shape[0] * y_shape[1], *x_shape[2:4], depth * x_shape[4])
    moved = made(columns, turned[0].outputs if first else [x], shape)
    op = Conv(
        weights.transpose(1, 2, 0, 3, 4).reshape(height, width, depth * inputs, outputs),
        np.zeros(outputs),
        kernel.path,
        (strides[1], strides[2]),
        (pads[1], pads[2]),
        (dilation[1], dilation[2]),
        groups,
    )
    conv = made(op, moved.outputs, (shape[0], *y_shape[2:]))
    volume = made(Reshape(y_shape), conv.outputs, y_shape)
    back = [made(Transpose(TO_FIRST), volume.outputs, node.outputs[0].shape)] if first else []
    return edit.replace(node, *turned, moved, conv, volume, *back)


def to_experts(edit: Edit, node: Node) -> bool:
    """A product of stacks (experts, rows, in) @ (experts, in, out), an expert after the other."""
    if not (isinstance(node.op, Primitive) and node.op.name == "dot_general"):
        return False
    (contracted, batch), (x, stack) = node.op.equation.params["dimension_numbers"], node.inputs
    weights = constant_of(stack)
    if weights is None or x.constant is not None or not is_float(*node.inputs, *node.outputs):
        return False
    if weights.ndim != 3 or len(x.shape) != 3 or not 0 < len(weights) <= MOST_EXPERTS:
        return False
    own, other = (tuple(int(axis) for axis in axes) for axes in contracted)
    if batch != ((0,), (0,)) or own != (2,) or other not in ((1,), (2,)):
        return False
    if not np.isfinite(weights).all():
        return edit.refuse(node, "weights are not finite")
    matrices = weights if other == (1,) else weights.swapaxes(1, 2)
    nodes, products = [], []
    for index, matrix in enumerate(matrices):
        part = made(Part(index), [x], x.shape[1:])
        op = Linear(matrix, np.zeros(matrix.shape[1]), stack.path and f"{stack.path}[{index}]")
        product = made(op, part.outputs, (x.shape[1], matrix.shape[1]))
        nodes += [part, product]
        products += product.outputs
    return edit.replace(node, *nodes, made(Stack(), products, node.outputs[0].shape))


RULES = Rules(named=(to_images, to_experts))
