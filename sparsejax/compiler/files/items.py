"""Where the items of a batch lie in an array, and what keeps each of them whole.

An array of a batch holds, for some `outer`, `inner` and batch size B, number (o, b, i) of B items
at (o B + b) inner + i. Nothing else of its shape matters to a file, whose values are (o, i) of one
item after the other; so an array of times, items and channels is as good as one of items, times
and channels.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sparsejax.compiler.graph.graph import Node, Value
from sparsejax.compiler.nodes.primitive import Primitive
from sparsejax.compiler.nodes.transpose import Transpose

VIEWS = ("rev", "slice", "broadcast_in_dim")
JOINS = ("concatenate", "stack")


class Apart(Exception):
    """Items meet, or one is not told from the other; says where."""


class Digit(NamedTuple):
    """A part of an axis: how many there are, and how far apart they lie in an item."""

    size: int
    stride: int


THE_BATCH = Digit(0, 0)
Axes = list[list[Digit]]


class View(NamedTuple):
    """What of an item another value is.

    Attributes:
        begin: the first float.
        digits: of what follows.
        outer: of the new value.
    """

    begin: int
    digits: list[Digit]
    outer: int


def item_floats(value: Value, batch: int) -> int:
    """Of one item."""
    if value.size % batch:
        raise Apart(f"an array of shape {value.shape} is not one for each item")
    return value.size // batch


def check_whole(value: Value, outer: int, batch: int, unit: int) -> None:
    """Raise where `unit` floats that belong together are of several items."""
    if (item_floats(value, batch) // outer) % unit:
        raise Apart(f"the items of an array of shape {value.shape} meet")


def alike(value: Value, outer: int, batch: int) -> np.ndarray:
    """One item of a constant that is the same for all."""
    items = value.constant.reshape(outer, batch, -1)
    if not (items == items[:, :1]).all():
        raise Apart(f"a constant of shape {value.shape} differs from item to item")
    return items[:, 0].ravel()


def is_view(node: Node) -> bool:
    """Is the output made of numbers of the input, as a view?"""
    primitive = isinstance(node.op, Primitive) and node.op.name in VIEWS
    return isinstance(node.op, Transpose) or primitive


def is_join(node: Node) -> bool:
    """Does the output hold all inputs, along an axis?"""
    computed = all(value.constant is None for value in node.inputs)
    return isinstance(node.op, Primitive) and node.op.name in JOINS and computed


class Join(NamedTuple):
    """Arrays along an axis.

    Attributes:
        parts: how often parts of all of them follow each other.
        outer: of the new value.
    """

    parts: int
    outer: int


def join_of(node: Node, outers: Sequence[int], batch: int) -> Join:
    """What of its inputs, whose items lie so, a node's output is."""
    params = node.op.equation.params  # type: ignore[attr-defined]
    axis = params["dimension"] if node.op.name == "concatenate" else params["axis"]
    found = set()
    for value, outer in zip(node.inputs, outers, strict=True):
        shape = value.shape if node.op.name == "concatenate" else _with_axis(value.shape, axis)
        axes = _axes(Value(shape, value.dtype), outer, batch)
        if THE_BATCH in axes[axis]:
            raise Apart(f"{node.op.name} goes along the axis of the items")
        front = [digit for own in axes[:axis] for digit in own]
        parts = math.prod(digit.size for digit in front if digit is not THE_BATCH)
        behind = batch > 1 and THE_BATCH not in front
        found.add(
            Join(parts, outer // shape[axis] * node.outputs[0].shape[axis] if behind else outer)
        )
    if len(found) > 1:
        raise Apart(f"{node.op.name} takes arrays with items along different axes")
    return found.pop()


def _with_axis(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return (*shape[:axis], 1, *shape[axis:])


def view_of(node: Node, outer: int, batch: int) -> View:
    """What of its input a node's output is."""
    axes = _axes(node.inputs[0], outer, batch)
    begin, changed = _changed(node, axes)
    return _view(node.op.name, begin, changed, batch)


def spread(value: Value, shape: tuple[int, ...], outer: int, batch: int) -> View:
    """A value along the axes of a shape of which it has one number, or all where it is one."""
    axes = _axes(value, outer, batch) if value.shape else [[]] * len(shape)
    sizes = value.shape or (1,) * len(shape)
    wide = [
        [Digit(n, 0)] if n != own else axis for n, own, axis in zip(shape, sizes, axes, strict=True)
    ]
    return _view("broadcasting", 0, wide, batch)


def _view(name: str, begin: int, axes: Axes, batch: int) -> View:
    digits = [digit for axis in axes for digit in axis]
    if batch == 1:
        return View(begin, _joined(digits), 1)
    if THE_BATCH not in digits:
        raise Apart(f"{name} leaves items out")
    place = digits.index(THE_BATCH)
    before = math.prod(digit.size for digit in digits[:place])
    return View(begin, _joined([*digits[:place], *digits[place + 1 :]]), before)


def axis_of_items(value: Value, outer: int, batch: int) -> int | None:
    """The axis that items lie along, None where there is one item."""
    found = [axis for axis, digits in enumerate(_axes(value, outer, batch)) if THE_BATCH in digits]
    return found[0] if found else None


def is_all(view: View, floats: int) -> bool:
    """Is it the whole input, as it is?"""
    return view.begin == 0 and view.digits in ([Digit(floats, 1)], [])


def _axes(value: Value, outer: int, batch: int) -> Axes:
    """The digits of each axis; of that with the batch what is before and behind it."""
    inner, axes = item_floats(value, batch) // outer, []  # type: tuple[int, Axes]
    for axis, count in enumerate(value.shape):
        stride = math.prod(value.shape[axis + 1 :])
        if count == 1:
            axes.append([])
        elif batch > 1 and stride < inner * batch and stride * count > inner:
            if inner % stride or stride * count % (inner * batch):
                raise Apart(f"the axis of the items is cut in an array of shape {value.shape}")
            front = Digit(stride * count // (inner * batch), inner)
            axes.append([front, THE_BATCH, Digit(inner // stride, stride)])
        else:
            axes.append([Digit(count, stride // batch if stride >= inner * batch else stride)])
    return axes


def _changed(node: Node, axes: Axes) -> tuple[int, Axes]:
    """Where the output begins in the input, and its axes."""
    if isinstance(node.op, Transpose):
        return 0, [axes[axis] for axis in node.op.permutation]
    params, name = node.op.equation.params, node.op.name  # type: ignore[attr-defined]
    if name == "broadcast_in_dim":
        return 0, _broadcast(node, axes, params["broadcast_dimensions"])
    begin = 0
    changed = list(axes)
    for axis, count in enumerate(node.inputs[0].shape):
        start, stop, step = 0, count, 1
        if name == "slice":
            start, stop = params["start_indices"][axis], params["limit_indices"][axis]
            step = (params["strides"] or (1,) * len(axes))[axis]
        elif axis in params["dimensions"]:
            start, stop, step = count - 1, -1, -1
        if count == 1 or (start, stop, step) == (0, count, 1):
            continue
        if THE_BATCH in axes[axis]:
            raise Apart(f"{name} goes along the axis of the items")
        ((_, stride),) = axes[axis]
        begin += start * stride
        changed[axis] = [Digit(len(range(start, stop, step)), step * stride)]
    return begin, changed


def _broadcast(node: Node, axes: Axes, dimensions: Sequence[int]) -> Axes:
    source = dict(zip(dimensions, range(len(axes)), strict=True))
    shape = node.inputs[0].shape
    return [
        axes[source[axis]] if axis in source and shape[source[axis]] == count else [Digit(count, 0)]
        for axis, count in enumerate(node.outputs[0].shape)
    ]


def _joined(digits: Sequence[Digit]) -> list[Digit]:
    """The same with as few digits as may be."""
    joined: list[Digit] = []
    for digit in digits:
        if digit.size == 1:
            continue
        if joined and joined[-1].stride == digit.size * digit.stride:
            digit = Digit(joined.pop().size * digit.size, digit.stride)
        joined.append(digit)
    return joined
