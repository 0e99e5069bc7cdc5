"""Reshapes, transpositions and moves of channels: merged, moved behind arithmetic, or named."""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from sparsejax.compiler.edit import Edit, constant_of, is_float, made
from sparsejax.compiler.graph import (
    Affine,
    Channels,
    Concat,
    Elementwise,
    Mean,
    Node,
    Pad,
    Primitive,
    Reshape,
    Transpose,
)

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
    return False


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


def mean_keeps(edit: Edit, node: Node) -> bool:
    """A reshape of (N, C) means to 1x1 images is part of the mean."""
    if not isinstance(node.op, Reshape):
        return False
    mean = edit.sole_writer(node.inputs[0], Mean)
    if mean is None or not isinstance(mean.op, Mean):
        return False
    batch, channels = _channels(mean)
    images = (batch, 1, 1, channels) if mean.op.channels_last else (batch, channels, 1, 1)
    if node.outputs[0].shape not in (images, (batch, channels)):
        return False
    op = Mean(mean.op.channels_last, keepdims=node.outputs[0].shape == images)
    return edit.replace(node, Node(op, mean.inputs, node.outputs))


def _channels(mean: Node) -> tuple[int, int]:
    shape = mean.inputs[0].shape
    return shape[0], shape[3 if mean.op.channels_last else 1]  # type: ignore[union-attr]


def to_channels(edit: Edit, node: Node) -> bool:
    """slice, rev and split along the one axis that they change."""
    if not isinstance(node.op, Primitive) or not is_float(*node.inputs[:1], *node.outputs):
        return False
    if node.op.name not in ("slice", "rev", "split") or node.inputs[0].constant is not None:
        return False
    x, params = node.inputs[0], node.op.equation.params
    if node.op.name == "split":
        return _split(edit, node, int(params["axis"]))
    changed = _changes(node.op.name, params, x.shape)
    if len(changed) != 1 or not is_channel(changed[0][0], len(x.shape)):
        return False
    axis, index = changed[0]
    return edit.replace(node, Node(Channels(index, axis), [x], node.outputs))


def is_channel(axis: int, rank: int) -> bool:
    """May the axis be that of channels?"""
    return rank > 1 and (axis == rank - 1 or (rank == 4 and axis == 1))


def _changes(name: str, params: dict, shape: Shape) -> list[tuple[int, np.ndarray]]:
    """The axes that a slice or reversal changes, and which of their elements it takes."""
    if name == "rev":
        return [(int(d), np.arange(shape[d])[::-1]) for d in params["dimensions"]]
    steps = params["strides"] or (1,) * len(shape)
    bounds = zip(params["start_indices"], params["limit_indices"], steps, strict=True)
    taken = [np.arange(first, last, step) for first, last, step in bounds]
    return [(axis, index) for axis, index in enumerate(taken) if index.size != shape[axis]]


def _split(edit: Edit, node: Node, axis: int) -> bool:
    x, first = node.inputs[0], 0
    if not is_channel(axis, len(x.shape)):
        return False
    parts = []
    for output in node.outputs:
        index = np.arange(first, first + output.shape[axis])
        parts.append(Node(Channels(index, axis), [x], [output]))
        first += len(index)
    return edit.replace(node, *parts)


def to_shuffle(edit: Edit, node: Node) -> bool:
    """Channels split in two axes, transposed and merged: a shuffle."""
    if not isinstance(node.op, Reshape):
        return False
    middle = edit.sole_writer(node.inputs[0], Transpose)
    first = middle and edit.sole_writer(middle.inputs[0], Reshape)
    if not middle or not first or not isinstance(middle.op, Transpose):
        return False
    before, after, split = first.inputs[0].shape, node.outputs[0].shape, middle.inputs[0].shape
    if before != after or len(before) not in (2, 4) or not is_float(*node.outputs):
        return False
    rank, parts = len(before), len(split) - len(before) + 1
    for axis in (rank - 1, 1):
        order = middle.op.permutation
        inside = order[axis : axis + parts]
        fixed = [i for i in range(len(split)) if not axis <= i < axis + parts]
        kept = [*order[:axis], *order[axis + parts :]] == fixed
        sizes = split[axis : axis + parts]
        same = (*split[:axis], math.prod(sizes), *split[axis + parts :]) == before
        if kept and same and sorted(inside) == list(range(axis, axis + parts)):
            index = np.arange(before[axis]).reshape(sizes)
            index = index.transpose([i - axis for i in inside]).ravel()
            return edit.replace(node, Node(Channels(index, axis), first.inputs, node.outputs))
    return False


def to_concat(edit: Edit, node: Node) -> bool:
    """concatenate along the channels."""
    if not isinstance(node.op, Primitive) or node.op.name != "concatenate":
        return False
    axis = int(node.op.equation.params["dimension"])
    if not is_channel(axis, len(node.outputs[0].shape)) or not is_float(*node.inputs):
        return False
    if any(value.constant is not None for value in node.inputs):
        return False
    return edit.replace(node, Node(Concat(axis), node.inputs, node.outputs))


def to_pad(edit: Edit, node: Node) -> bool:
    """pad with zeros over height and width."""
    if not isinstance(node.op, Primitive) or node.op.name != "pad":
        return False
    value = constant_of(node.inputs[1])
    sides = [tuple(map(int, side)) for side in node.op.equation.params["padding_config"]]
    if value is None or np.any(value) or np.signbit(value).any() or len(sides) != 4:
        return False
    plain = all(low >= 0 and high >= 0 and inside == 0 for low, high, inside in sides)
    padded = [axis for axis, side in enumerate(sides) if any(side)]
    last = set(padded) <= {1, 2}
    if not plain or not is_float(*node.outputs) or not (last or set(padded) <= {2, 3}):
        return False
    (top, bottom, _), (left, right, _) = sides[1:3] if last else sides[2:4]
    op = Pad(((top, bottom), (left, right)), channels_last=last)
    return edit.replace(node, Node(op, node.inputs[:1], node.outputs))
