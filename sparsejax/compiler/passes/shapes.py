"""Reshapes and transpositions: merged, or moved behind arithmetic."""

import math
from dataclasses import replace
from typing import Any

from sparsejax.compiler.graph.edit import Edit, is_float, made
from sparsejax.compiler.graph.graph import Node
from sparsejax.compiler.nodes.affine import Affine
from sparsejax.compiler.nodes.elementwise import Elementwise
from sparsejax.compiler.nodes.linear import Linear
from sparsejax.compiler.nodes.mean import Mean
from sparsejax.compiler.nodes.norm import Norm
from sparsejax.compiler.nodes.reshape import Reshape
from sparsejax.compiler.nodes.softmax import Softmax
from sparsejax.compiler.nodes.transpose import Transpose

Shape = tuple[int, ...]


def merge(edit: Edit, node: Node) -> bool:
    """Reshapes and transpositions after each other are one; what changes nothing is none."""
    op, x = node.op, node.inputs[0] if node.inputs else None
    if not isinstance(op, Reshape | Transpose) or x is None:
        return False
    if isinstance(op, Reshape) and x.shape == node.outputs[0].shape:
        return edit.bypass(node, x)
    if isinstance(op, Transpose) and op.permutation == tuple(range(len(op.permutation))):
        return edit.bypass(node, x)
    writer = edit.writer.get(x)
    if isinstance(op, Reshape) and writer is not None and isinstance(writer.op, Reshape):
        return edit.replace(node, made(op, writer.inputs, op.shape))
    if not isinstance(op, Transpose):
        return False
    kept = [axis for axis in op.permutation if x.shape[axis] != 1]
    if kept == sorted(kept):  # axes of length 1 alone move
        shape = node.outputs[0].shape
        return edit.replace(node, Node(Reshape(shape), [x], node.outputs))
    if writer is not None and isinstance(writer.op, Transpose):
        order = tuple(writer.op.permutation[axis] for axis in op.permutation)
        return edit.replace(node, Node(Transpose(order), writer.inputs, node.outputs))
    return _merge_around(edit, node)


def _merge_around(edit: Edit, node: Node) -> bool:
    """A transposition of one meets it ahead of a reshape of nothing but axes of length 1."""
    middle = edit.writer.get(node.inputs[0])
    if middle is None or not isinstance(middle.op, Reshape):
        return False
    x, y = middle.inputs[0], middle.outputs[0]
    first = edit.writer.get(x)
    if first is None or not isinstance(first.op, Transpose) or not isinstance(node.op, Transpose):
        return False
    long = [[axis for axis, size in enumerate(v.shape) if size != 1] for v in (x, y)]
    if [x.shape[axis] for axis in long[0]] != [y.shape[axis] for axis in long[1]]:
        return False
    own = dict(zip(long[1], long[0], strict=True))
    ones = [axis for axis, size in enumerate(x.shape) if size == 1]
    order = (*ones, *(own[axis] for axis in node.op.permutation if axis in own))
    turned = made(Transpose(order), [x], [x.shape[axis] for axis in order])
    shape = node.outputs[0].shape
    return edit.replace(node, turned, made(Reshape(shape), turned.outputs, shape))


def sink(edit: Edit, node: Node) -> bool:
    """A reshape or transposition before arithmetic with one input moves behind it."""
    op: Any = node.op
    if not isinstance(op, Affine) and not (isinstance(op, Elementwise) and len(node.inputs) == 1):
        return False
    before = edit.sole_writer(node.inputs[0], Reshape, Transpose)
    if before is None:
        return False
    x = before.inputs[0]
    if isinstance(op, Affine):
        axis = _axis_before(before, op)
        if axis is None:
            return False
        op = replace(op, axis=axis)
    inner = made(op, [x], x.shape)
    return edit.replace(node, inner, made(before.op, inner.outputs, node.outputs[0].shape))


def _axis_before(node: Node, op: Affine) -> int | None:
    """The axis of an Affine ahead of a reshape or transposition."""
    if op.scale.size == 1:
        return -1
    if isinstance(node.op, Transpose):
        return node.op.permutation[op.axis]
    return axis_through(node.inputs[0].shape, node.outputs[0].shape, op.axis)


def axis_through(before: Shape, after: Shape, axis: int) -> int | None:
    """The axis of `before` that a reshape to `after` keeps as `axis`."""
    behind = math.prod(after[axis + 1 :])
    for i, size in enumerate(before):
        if size == after[axis] and size > 1 and math.prod(before[i + 1 :]) == behind:
            return i
    return None


def sink_pair(edit: Edit, node: Node) -> bool:
    """The same reshape or transposition of both inputs of an addition moves behind it."""
    if not isinstance(node.op, Elementwise) or len(node.inputs) != 2:
        return False
    if node.inputs[0] is node.inputs[1] or node.inputs[0].shape != node.inputs[1].shape:
        return False
    pair = [edit.sole_writer(v, Reshape, Transpose) for v in node.inputs]
    if pair[0] is None or pair[1] is None or pair[0].op != pair[1].op:
        return False
    a, b = pair[0].inputs[0], pair[1].inputs[0]
    if a.shape != b.shape or not is_float(a, b):
        return False
    inner = made(node.op, [a, b], a.shape)
    return edit.replace(node, inner, made(pair[0].op, inner.outputs, node.outputs[0].shape))


def sink_rows(edit: Edit, node: Node) -> bool:
    """Rows that were put below each other, as (tokens, channels), are sequences or images again."""
    op: Any = node.op
    if not isinstance(op, Linear | Norm | Softmax) or len(node.inputs) != 1:
        return False
    before = edit.writer.get(node.inputs[0])
    if before is None or not isinstance(before.op, Reshape):
        return False
    x, rows = before.inputs[0], node.inputs[0].shape
    if len(x.shape) != len(rows) + 1 or len(x.shape) > 4 or x.shape[-1] != rows[-1]:
        return False
    if isinstance(op, Norm | Softmax):
        if op.axis != len(rows) - 1:
            return False
        op = replace(op, axis=len(x.shape) - 1)
    shape = node.outputs[0].shape
    inner = made(op, [x], (*x.shape[:-1], shape[-1]))
    return edit.replace(node, inner, made(Reshape(shape), inner.outputs, shape))


def mean_keeps(edit: Edit, node: Node) -> bool:
    """A reshape of (N, C) means to 1x1 images is part of the mean."""
    if not isinstance(node.op, Reshape):
        return False
    mean = edit.sole_writer(node.inputs[0], Mean)
    if mean is None or not isinstance(mean.op, Mean):
        return False
    batch, channels = (mean.inputs[0].shape[axis] for axis in (0, mean.op.axis))
    images = (batch, 1, 1, channels) if mean.op.channels_last else (batch, channels, 1, 1)
    if node.outputs[0].shape not in (images, (batch, channels)):
        return False
    op = Mean(mean.op.channels_last, keepdims=node.outputs[0].shape == images)
    return edit.replace(node, Node(op, mean.inputs, node.outputs))
