"""A row of each item put into its place in a cache, by dynamic_update_slice or scatter."""

from typing import NamedTuple

import jax
import numpy as np
from jax import lax

from sparsejax.compiler.graph.edit import Edit
from sparsejax.compiler.graph.graph import Node, Value
from sparsejax.compiler.nodes.primitive import Primitive


class Index(NamedTuple):
    """Whose place a row takes.

    Attributes:
        value: that holds it.
        column: which of the numbers along its last axis it is, None of a scalar.
        each: is it one for each item of the cache's first axis, rather than one for all?
        clips: does one outside of the cache mean the nearest place, rather than none?
    """

    value: Value
    column: int | None
    each: bool
    clips: bool

    def as_float(self, x: jax.Array, length: int) -> jax.Array:
        """The place among `length`, NaN for none: a number, or one for each item."""
        one = x if self.column is None else x[..., self.column]
        there = lax.convert_element_type(one, np.float32)
        if self.clips:
            return there
        inside = lax.bitwise_and(one >= 0, one < length)
        return lax.select(inside, there, lax.full_like(there, np.nan))


class Update(NamedTuple):
    """An array before one row of each item took its place.

    Attributes:
        cache: as it was.
        row: what the cache's axes but this one hold at the place, in their order.
        axis: of the cache, along which the place is counted.
        at: the place.
    """

    cache: Value
    row: Value
    axis: int
    at: Index


def update_of(edit: Edit, value: Value) -> Update | None:
    """The update that makes a value."""
    node = edit.writer.get(value)
    if node is None or not isinstance(node.op, Primitive):
        return None
    if node.op.name == "dynamic_update_slice":
        return _of_slice(node)
    return _of_scatter(edit, node) if node.op.name == "scatter" else None


def _of_slice(node: Node) -> Update | None:
    cache, row, *starts = node.inputs
    axes = [axis for axis, size in enumerate(cache.shape) if row.shape[axis] != size]
    if len(axes) != 1 or row.shape[axes[0]] != 1:
        return None
    return Update(cache, row, axes[0], Index(starts[axes[0]], None, each=False, clips=True))


def _of_scatter(edit: Edit, node: Node) -> Update | None:
    cache, indices, row = node.inputs
    params = node.op.equation.params  # type: ignore[attr-defined]
    numbers, clips = params["dimension_numbers"], params["mode"] == lax.GatherScatterMode.CLIP
    batch = [int(axis) for axis in numbers.operand_batching_dims]
    single = [int(axis) for axis in numbers.inserted_window_dims]
    kept = [axis for axis in range(len(cache.shape)) if axis not in {*batch, *single}]
    window = [int(axis) for axis in numbers.update_window_dims]
    sizes = dict(zip(kept, (row.shape[axis] for axis in window), strict=True))
    places, items = [], batch
    for column, axis in enumerate(map(int, numbers.scatter_dims_to_operand_dims)):
        known = _known_column(edit, indices, column)
        length, size = cache.shape[axis], sizes.get(axis, 1)
        if axis in single and known is not None and np.array_equal(known, np.arange(length)):
            items = [*items, axis]  # the row of each item goes to it
        elif size != length:
            places.append((column, axis, size))
        elif not clips and (known is None or known.any()):
            return None
    in_order = window == [*range(len(items), len(row.shape))] and items in ([], [0])
    if len(places) != 1 or not in_order or len(indices.shape) != 1 + len(items):
        return None
    column, axis, size = places[0]
    index = Index(indices, column, each=bool(items), clips=clips)
    return Update(cache, row, axis, index) if size == 1 else None


def _known_column(edit: Edit, indices: Value, column: int) -> np.ndarray | None:
    """One of the numbers along the last axis of indices, where it is known beforehand."""
    node, value = edit.writer.get(indices), indices
    if node is not None and isinstance(node.op, Primitive) and node.op.name == "concatenate":
        for part in node.inputs:
            value = part
            if column < part.shape[-1]:
                break
            column -= part.shape[-1]
    array = value.constant
    return np.asarray(array)[..., column] if isinstance(array, np.ndarray) else None
