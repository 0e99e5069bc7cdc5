"""A scale and a shift for each channel, drawn into the layers around them where that goes."""

import math
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from sparsejax.compiler.engine.program import Builder
from sparsejax.compiler.graph.activation import IDENTITY, Activation
from sparsejax.compiler.graph.edit import Edit, constant_of, is_float, made
from sparsejax.compiler.graph.graph import Node, Value
from sparsejax.compiler.graph.images import EITHER
from sparsejax.compiler.nodes.conv import Conv
from sparsejax.compiler.nodes.elementwise import AFFINE
from sparsejax.compiler.nodes.layer import Layer
from sparsejax.compiler.nodes.op import (
    RegionOp,
    Rules,
    along,
    axis_before,
    last_axis,
    with_activation,
)
from sparsejax.compiler.nodes.primitive import Primitive
from sparsejax.compiler.nodes.reshape import Reshape
from sparsejax.compiler.nodes.transpose import Transpose

MAX_COMPARED = 1 << 20  # elements of a constant that are looked at for equal rows
LARGEST = np.finfo(np.float32).max


@dataclass(frozen=True, eq=False)
class Affine(RegionOp):
    """activation(scale * x + shift), scale and shift one number a channel.

    Attributes:
        scale, shift: (channels,), float64; one number for all while a graph is rewritten.
        axis: of the channels.
        activation: of the sum.
    """

    scale: np.ndarray
    shift: np.ndarray
    axis: int = -1
    activation: Activation = IDENTITY

    def __str__(self) -> str:
        """Axis and activation."""
        return f"Affine axis {self.axis}{with_activation(self.activation)}"

    def channel_axes(self, node: Node) -> frozenset[int]:
        if self.scale.size > 1:
            return frozenset((self.axis,))
        return EITHER if len(node.outputs[0].shape) == 4 else last_axis(node)

    def settled(self, axis: int, shape: tuple[int, ...]) -> "Affine":
        """One number a channel."""
        axis = self.axis if self.scale.size > 1 else axis
        channels = shape[axis] if shape else 1
        scale, shift = (np.broadcast_to(a, channels) for a in (self.scale, self.shift))
        return replace(self, scale=scale, shift=shift, axis=axis)

    def before_change(self, to_last: bool) -> "Affine":
        if self.scale.size == 1:
            return self
        return replace(self, axis=axis_before(self.axis, to_last))

    def evaluate(self, x: jax.Array) -> list[jax.Array]:
        scale, shift = (along(array, self.axis, x) for array in (self.scale, self.shift))
        return [self.activation(x * scale + shift)]

    def lower(self, node: Node, to: Builder) -> None:
        """One step."""
        weights, bias = to.keep(self.scale), to.keep(self.shift)
        to.add(node, AFFINE, activation=self.activation, weights=weights, bias=bias)


def to_affine(edit: Edit, node: Node) -> bool:
    """x +, -, *, / a constant that varies along one axis at most; and -x."""
    if not isinstance(node.op, Primitive) or not is_float(*node.inputs, *node.outputs):
        return False
    if not node.outputs[0].shape:
        return False
    if node.op.name == "neg":
        return edit.replace(node, _affine(node.inputs[0], -np.ones(1), -np.zeros(1), -1))
    if node.op.name not in ("add", "sub", "mul", "div") or len(node.inputs) != 2:
        return False
    first = node.inputs[0].constant is not None
    x, other = node.inputs[::-1] if first else node.inputs
    array = constant_of(other)
    if array is None or x.constant is not None or x.shape != node.outputs[0].shape:
        return False
    if node.op.name == "div" and first:
        return False
    nodes = _nodes(edit, node.op.name, x, array, first)
    return nodes is not None and edit.replace(node, *nodes)


def _nodes(edit: Edit, name: str, x: Value, array: np.ndarray, first: bool) -> list[Node] | None:
    """x and a constant added, multiplied, ...; the constant may be the first of both."""
    found = along_one_axis(array, x.shape)
    before = edit.sole_writer(x, Reshape)
    earlier = None if found and found[0] < 0 else _before_split(array, x.shape, before)
    if not (earlier or found):
        return None
    axis, numbers = earlier or found  # type: ignore[misc]
    with np.errstate(all="ignore"):  # what is not finite is left to XLA below
        scale, shift = _scale_and_shift(name, numbers.astype(np.float64), first)
    if not (_fits(scale) and _fits(shift)):
        return None
    if before is None or not earlier:
        return [_affine(x, scale, shift, axis)]
    inner = _affine(before.inputs[0], scale, shift, axis)
    return [inner, made(before.op, inner.outputs, x.shape)]


def to_scaled(edit: Edit, node: Node) -> bool:
    """A product that sums over nothing, with numbers for axes of x: `einsum("bhqk,h->bhqk")`."""
    if not isinstance(node.op, Primitive) or node.op.name != "dot_general":
        return False
    (contracted, batch) = node.op.equation.params["dimension_numbers"]
    own = 0 if constant_of(node.inputs[0]) is not None else 1
    other, x = node.inputs[own], node.inputs[1 - own]
    array = constant_of(other)
    if contracted[0] or array is None or len(batch[own]) != array.ndim:
        return False
    if x.constant is not None or not is_float(x, *node.outputs) or array.dtype.kind not in "fi":
        return False
    axes = [int(axis) for axis in batch[1 - own]]
    as_in_x = [int(axis) for _, axis in sorted(zip(axes, batch[own], strict=True))]
    sides = [size if axis in axes else 1 for axis, size in enumerate(x.shape)]
    nodes = _nodes(edit, "mul", x, array.transpose(as_in_x).reshape(sides), False)
    if nodes is None:
        return False
    order = (*axes, *(axis for axis in range(len(x.shape)) if axis not in axes))
    turned = made(Transpose(order), nodes[-1].outputs, node.outputs[0].shape)
    return edit.replace(node, *nodes, turned)


def factor_of(node: Node) -> tuple[int, np.ndarray] | None:
    """The numbers that a node multiplies by and the axis that they are of, -1 for a single one."""
    op: Any = node.op
    if isinstance(op, Affine):
        return None if op.activation or op.shift.any() else (op.axis, op.scale)
    if not isinstance(op, Primitive) or op.name != "mul" or not is_float(*node.inputs):
        return None
    for x, other in (node.inputs, node.inputs[::-1]):
        array = constant_of(other)
        if array is not None and x.constant is None and x.shape == node.outputs[0].shape:
            found = along_one_axis(array, x.shape)
            return found if found and _fits(found[1]) else None
    return None


def _affine(x: Value, scale: np.ndarray, shift: np.ndarray, axis: int) -> Node:
    return made(Affine(scale, shift, axis), [x], x.shape)


def along_one_axis(array: np.ndarray, shape: tuple) -> tuple[int, np.ndarray] | None:
    """The axis that a constant varies along and its numbers there; (-1, one number) for none."""
    if (array.ndim and array.ndim != len(shape)) or 0 in array.shape:
        return None
    varies = [
        axis
        for axis, (size, stride) in enumerate(zip(array.shape, array.strides, strict=True))
        if size != 1 and stride != 0
    ]
    if len(varies) > 1 and array.size <= MAX_COMPARED:  # a folded product repeats its rows
        varies = [axis for axis in varies if (array != array.take([0], axis)).any()]
    if len(varies) > 1:
        return None
    index = tuple(slice(None) if axis in varies else 0 for axis in range(array.ndim))
    return (varies[0] if varies else -1), np.atleast_1d(array[index])


def _before_split(
    array: np.ndarray, shape: tuple, before: Node | None
) -> tuple[int, np.ndarray] | None:
    """The same where a reshape has split the last axis in several (the bias of several heads)."""
    if before is None or array.ndim != len(shape):
        return None
    last = before.inputs[0].shape[-1] if before.inputs[0].shape else 0
    if last == shape[-1]:
        return None
    for axis in range(len(shape)):
        if math.prod(shape[axis:]) == last and all(n == 1 for n in array.shape[:axis]):
            numbers = np.broadcast_to(array, (*array.shape[:axis], *shape[axis:]))
            return len(before.inputs[0].shape) - 1, numbers.reshape(-1)
    return None


def _scale_and_shift(name: str, numbers: np.ndarray, first: bool) -> tuple[Any, Any]:
    ones, zeros = np.ones_like(numbers), np.zeros_like(numbers)
    if name == "add":
        return ones, numbers
    if name == "sub":
        return (-ones, numbers) if first else (ones, -numbers)
    return (1 / numbers if name == "div" else numbers), -zeros  # -0 added keeps the sign of 0


def _fits(array: np.ndarray) -> bool:
    """Finite in float32?"""
    return bool((np.abs(array) <= LARGEST).all())


def merge_affine(edit: Edit, node: Node) -> bool:
    """Two Affine after each other are one; one that changes nothing is none."""
    op: Any = node.op
    if not isinstance(op, Affine):
        return False
    if not op.activation and (op.scale == 1).all() and not op.shift.any():
        return edit.bypass(node, node.inputs[0])
    before = edit.sole_writer(node.inputs[0], Affine)
    if before is None or not isinstance(before.op, Affine) or before.op.activation:
        return False
    axes = {o.axis for o in (op, before.op) if o.scale.size > 1}
    if len(axes) > 1:
        return False
    scale, first = before.op.scale * op.scale, before.op.shift
    shift = np.where((first == 0) & np.signbit(first), op.shift, first * op.scale + op.shift)
    scale = np.where(np.abs(scale - 1) < 1e-7, 1.0, scale)  # x * (1 / n) * n
    if not (_fits(scale) and _fits(shift)):
        return False
    scale, shift = np.broadcast_arrays(scale, shift)
    merged = replace(op, scale=scale, shift=shift, axis=axes.pop() if axes else -1)
    return edit.replace(node, made(merged, before.inputs, node.outputs[0].shape))


def into_layer_before(edit: Edit, node: Node) -> bool:
    """Scale and shift of a layer's outputs go into its weights and bias; a zero stays 0.0."""
    op = node.op
    if not isinstance(op, Affine):
        return False
    layer = edit.sole_writer(node.inputs[0], Layer)
    if layer is None or not isinstance(layer.op, Layer):
        return False
    if layer.op.activation or (len(layer.inputs) > 1 and (op.scale != 1).any()):
        return False
    if op.scale.size > 1 and op.axis != layer.op.channel_axis(len(node.outputs[0].shape)):
        return False
    weights = scaled(layer.op.weights, op.scale)
    bias = layer.op.bias * op.scale + op.shift
    if weights is None or not _fits(bias):
        return False
    changed = layer.op.changed(weights=weights, bias=bias, activation=op.activation)
    return edit.replace(node, made(changed, layer.inputs, node.outputs[0].shape))


def scaled(weights: np.ndarray, scale: np.ndarray) -> np.ndarray | None:
    """The product in float64, rounded once to float32, without -0.0; None if it overflows."""
    if (scale == 1).all():
        return weights
    with np.errstate(over="ignore"):
        product = np.multiply(weights, scale, dtype=np.float64).astype(np.float32)
    return product + np.float32(0) if np.isfinite(product).all() else None


def into_layer_behind(edit: Edit, node: Node) -> bool:
    """Scale and shift of a layer's inputs go into its weights; a shift not through padding."""
    op = node.op
    if not isinstance(op, Layer):
        return False
    before = edit.sole_writer(node.inputs[0], Affine)
    if before is None or not isinstance(before.op, Affine) or before.op.activation:
        return False
    x, affine = before.inputs[0], before.op
    axis = op.channel_axis(len(x.shape))
    if affine.scale.size > 1 and affine.axis != axis:
        return False
    if isinstance(op, Conv) and any(map(any, op.padding)) and affine.shift.any():
        return False
    channels = x.shape[axis]
    scale, shift = (np.broadcast_to(a, channels) for a in (affine.scale, affine.shift))
    weights = scaled(op.weights, _of_inputs(op, scale))
    if weights is None:
        return False
    bias = op.bias + (op.weights * _of_inputs(op, shift)).sum(tuple(range(op.weights.ndim - 1)))
    if not _fits(bias):
        return False
    changed = op.changed(weights=weights, bias=bias)
    return edit.replace(node, made(changed, [x, *node.inputs[1:]], node.outputs[0].shape))


def _of_inputs(op: Layer, numbers: np.ndarray) -> np.ndarray:
    """One number an input channel, laid beside the weights that meet it: (inputs, outputs)."""
    by_group = numbers.reshape(op.num_groups, -1).T
    return np.repeat(by_group, op.weights.shape[-1] // op.num_groups, axis=1)


MERGED = (merge_affine, into_layer_before)
RULES = Rules((to_affine, merge_affine), MERGED, (*MERGED, into_layer_behind), sampled=(to_scaled,))
