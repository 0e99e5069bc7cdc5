"""Lookups by numbers that the inputs say: the last state of a sequence, flips, embeddings."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jax import lax

from sparsejax.compiler.files.arithmetic import DTYPES, INT32
from sparsejax.compiler.graph.graph import FLOAT32, Node, Value
from sparsejax.compiler.nodes.primitive import Primitive


class Taken(NamedTuple):
    """A gather of whole rows along one axis of a table, by one number each.

    Attributes:
        node: with the gather.
        table: that is looked up in.
        places: of the rows, with a last axis of length 1.
        axis: of the table that the places count.
        pairs: axes of the table and of the places along which each has its own of the other.
        fill: is a row outside NaN, rather than the nearest?
    """

    node: Node
    table: Value
    places: Value
    axis: int
    pairs: tuple[tuple[int, int], ...]
    fill: bool

    @property
    def inputs(self) -> list[Value]:
        """What it reads."""
        return [self.table, self.places]

    @property
    def outputs(self) -> list[Value]:
        """What it makes."""
        return self.node.outputs

    @property
    def of_places(self) -> list[int]:
        """The axes of the places, those of pairs first."""
        paired = [axis for _, axis in self.pairs]
        return [*paired, *(a for a in range(len(self.places.shape) - 1) if a not in paired)]

    @property
    def of_row(self) -> list[int]:
        """The axes of the table that a row has."""
        own = {self.axis, *(axis for axis, _ in self.pairs)}
        return [axis for axis in range(len(self.table.shape)) if axis not in own]

    @property
    def order(self) -> tuple[int, ...]:
        """Where each axis of the output is among those of the places and of a row."""
        offsets = _numbers(self.node).offset_dims
        count, made, row = len(self.of_places), 0, 0
        order = []
        for axis in range(len(self.node.outputs[0].shape)):
            if axis in offsets:
                order.append(count + row)
                row += 1
            else:
                order.append(self.of_places.index(made))
                made += 1
        return tuple(order)


def taken_of(node: Node, writer: Mapping[Value, Node]) -> Taken | None:
    """A node as a lookup, None where it is no such one.

    Args:
        node: of a graph.
        writer: of the graph's values.
    """
    if not isinstance(node.op, Primitive) or node.op.name != "gather":
        return None
    (table, index), numbers = node.inputs, _numbers(node)
    fill = "FILL" in str(node.op.equation.params["mode"])
    columns = _columns(index, writer)
    if table.dtype not in ((FLOAT32,) if fill else DTYPES) or columns is None:
        return None
    pairs = list(
        zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True)
    )
    moving = []
    for axis, column in zip(numbers.start_index_map, columns, strict=True):
        counted = _counted(column, table.shape[axis])
        if column.constant is None:
            moving.append((axis, column))
        elif counted is not None:
            pairs.append((axis, counted))
        else:
            return None
    if len(moving) != 1 or moving[0][1].dtype != INT32:
        return None
    made = Taken(node, table, moving[0][1], moving[0][0], tuple(pairs), fill)
    return made if _is_whole(made) and (table.constant is None or not pairs) else None


def _numbers(node: Node) -> lax.GatherDimensionNumbers:
    return node.op.equation.params["dimension_numbers"]  # type: ignore[attr-defined]


def _columns(index: Value, writer: Mapping[Value, Node]) -> list[Value] | None:
    """The numbers along each axis of the table that an index says, by itself or put together."""
    if index.constant is not None:
        return None
    if index.shape[-1] == 1:
        return [index]
    node = writer.get(index)
    if node is None or node.op.name != "concatenate":
        return None
    params: Any = node.op.equation.params  # type: ignore[attr-defined]
    last = params["dimension"] == len(index.shape) - 1
    return node.inputs if last and all(v.shape[-1] == 1 for v in node.inputs) else None


def _counted(column: Value, size: int) -> int | None:
    """The axis along which a constant counts from 0 to a size, and does nothing else."""
    if column.constant is None:
        return None
    array = np.asarray(column.constant)[..., 0]
    for axis, count in enumerate(array.shape):
        shape = [1] * array.ndim
        shape[axis] = -1
        if count == size and (array == np.arange(size).reshape(shape)).all():
            return axis
    return None


def _is_whole(taken: Taken) -> bool:
    """Are rows taken whole, one at a time?"""
    numbers, shape = _numbers(taken.node), taken.table.shape
    sizes = taken.node.op.equation.params["slice_sizes"]  # type: ignore[attr-defined]
    gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    rows = taken.of_row
    return gone == set(range(len(shape))) - set(rows) and all(sizes[a] == shape[a] for a in rows)
