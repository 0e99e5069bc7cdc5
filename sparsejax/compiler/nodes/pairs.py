"""Products of two computed arrays: which axis of one is which of the other."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sparsejax.compiler.graph.edit import is_float, number_of
from sparsejax.compiler.graph.graph import Node, Value
from sparsejax.compiler.nodes.primitive import Primitive

ONE = "one"  # an axis of length 1


class Operand(NamedTuple):
    """An array of a product, and the axis of the scores that each of its axes is, or a name."""

    value: Value
    axes: list[Any]


class Layout(NamedTuple):
    """Which axes of the scores are what; the last is that of the keys.

    Attributes:
        batch: in front of all.
        heads: any number of axes, in the order that queries have them.
        query: one axis.
    """

    batch: tuple[int, ...]
    heads: tuple[int, ...]
    query: int


def is_product(node: Node, *, known: int = 0) -> bool:
    """Is it a product of two computed arrays, or of so many that are known and others?"""
    if not isinstance(node.op, Primitive) or node.op.name != "dot_general":
        return False
    constants = sum(value.constant is not None for value in node.inputs)
    return constants <= known and is_float(*node.inputs, *node.outputs)


def operands_of(node: Node, order: Sequence[int | None]) -> tuple[Operand, Operand]:
    """Both operands: their axes by where the product's output, in `order`, has them.

    "sum" for the axis that is summed over, ONE for those that the order leaves out.
    """
    label = lambda place: order.index(place) if place in order else ONE
    _, batch = node.op.equation.params["dimension_numbers"]  # type: ignore[attr-defined]
    found = []
    begin = len(batch[0])
    for side, value in enumerate(node.inputs):
        axes: list[Any] = ["sum"] * len(value.shape)
        for place, axis in enumerate(map(int, batch[side])):
            axes[axis] = label(place)
        for place, axis in enumerate(_free(node, side), begin):
            axes[axis] = label(place)
        begin += len(_free(node, side))
        found.append(Operand(value, axes))
    return found[0], found[1]


def values_of(
    weights: Value, labels: Sequence[Any], product: Node
) -> tuple[Operand, list[Any]] | None:
    """The values, by the labels of the weights' axes or "size"; and so the output's axes.

    Args:
        weights: one side of the product, which is summed over the axis with the last label.
        labels: of its axes; the axis of the keys has the largest number.
        product: of weights and values.
    """
    side = product.inputs.index(weights)
    contracted, batch = product.op.equation.params["dimension_numbers"]  # type: ignore[attr-defined]
    keys = max(label for label in labels if label != ONE)
    if [labels[int(i)] for i in contracted[side]] != [keys] or weights is product.inputs[1 - side]:
        return None
    axes: list[Any] = ["size"] * len(product.inputs[1 - side].shape)
    axes[int(contracted[1 - side][0])] = keys
    for own, other in zip(batch[side], batch[1 - side], strict=True):
        axes[int(other)] = labels[int(own)]
    if axes.count("size") != 1:
        return None
    free: list[list[Any]] = [[labels[axis] for axis in _free(product, side)], ["size"]]
    order = [labels[int(axis)] for axis in batch[side]]
    order += free[0] + free[1] if side == 0 else free[1] + free[0]
    return Operand(product.inputs[1 - side], axes), order


def _free(node: Node, side: int) -> list[int]:
    """The axes of an operand that the product neither sums nor pairs."""
    contracted, batch = node.op.equation.params["dimension_numbers"]  # type: ignore[attr-defined]
    taken = {*map(int, contracted[side]), *map(int, batch[side])}
    return [axis for axis in range(len(node.inputs[side].shape)) if axis not in taken]


def layouts(rank: int, q: Operand, k: Operand) -> Iterator[Layout]:
    """What the axes of the scores may be, but for those of length 1 that no operand has."""
    keys = rank - 1
    there = sorted(a for a in {*q.axes, *k.axes} if isinstance(a, int) and a != keys)
    known = q.value.constant is not None  # then all items may share the queries
    shared = [axis for axis in range(keys) if axis in k.axes and (known or axis in q.axes)]
    own = [axis for axis in range(keys) if axis in q.axes and axis not in k.axes]
    if keys in q.axes or q.axes.count("sum") != 1 or sorted([*shared, *own]) != there:
        return
    # The only axis that both have is that of the heads where a batch of 1 is left out.
    counts = ((0,), (0, 1), (1, 0))[min(len(shared), 2)]
    for query, count in itertools.product(own, counts):
        batch = tuple(shared[:count])
        yield Layout(
            batch, tuple(a for a in _by_query(q, there) if a not in (*batch, query)), query
        )


def layouts_of_one(rank: int, q: Operand, k: Operand) -> Iterator[Layout]:
    """The same of one query, whose axis is the last but that of the keys: no operand has it."""
    query, keys = rank - 2, rank - 1
    there = sorted(a for a in {*q.axes, *k.axes} if isinstance(a, int) and a != keys)
    if keys in q.axes or query in there or q.axes.count("sum") != 1:
        return
    for count in (1, 0):
        batch = tuple(there[:count])
        if all(axis in q.axes and axis in k.axes for axis in batch):
            yield Layout(batch, tuple(a for a in _by_query(q, there) if a not in batch), query)


def _by_query(q: Operand, axes: Sequence[int]) -> list[int]:
    """Axes of the scores in the order in which queries have them, the others last."""
    return sorted(axes, key=lambda axis: q.axes.index(axis) if axis in q.axes else len(q.axes))


def number(value: Value) -> float | None:
    """The one number that a constant holds."""
    one = number_of(value)
    return None if one is None else float(one[0])
