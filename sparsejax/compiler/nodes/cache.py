"""Attention of one query told in a graph: its keys and values lie in a cache, or in a few rows."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax

from sparsejax.compiler.graph.edit import Edit, is_float, made
from sparsejax.compiler.graph.graph import Node, Value
from sparsejax.compiler.nodes.cached_attention import CachedAttention
from sparsejax.compiler.nodes.masks import mask_rows
from sparsejax.compiler.nodes.pairs import Layout, Operand
from sparsejax.compiler.nodes.primitive import equations
from sparsejax.compiler.nodes.rows import Rows, farthest, sources_of
from sparsejax.compiler.nodes.scores import Told
from sparsejax.compiler.nodes.updates import Index, update_of

OF_ONE_QUERY = ("none", "add_queries", "select_queries", "choose_queries")


class Kept(NamedTuple):
    """Keys or values that lie in the rows of items.

    Attributes:
        value: with as many items as there are queries.
        first: the channels of an item where heads begin.
        step: channels from one key to the next.
        factor: of all.
    """

    value: Value
    first: np.ndarray
    step: int
    factor: float


class Added(NamedTuple):
    """A cache before one row of each item took its place, and where heads begin in that row."""

    cache: Value
    row: Value
    first: np.ndarray
    at: Index


def is_kept(edit: Edit, operand: Operand) -> bool:
    """Does an operand come from a cache that has been added to?"""
    return update_of(edit, farthest(edit, operand.value)) is not None


def of_one_query(told: Told, layout: Layout) -> tuple[list[Node], int, float] | None:
    """Attention of one query, the size of a value's head, and what is left to multiply by."""
    batch, heads, length = told.sizes(layout.batch), told.sizes(layout.heads), told.shape[-1]
    alone = told.lone and len(batch) > 0  # as the rows of layers beside it are
    rows = Rows(told.edit, batch if alone else (*batch, 1), alone=alone)
    others = Rows(told.edit, (*batch, length))
    ends = [(*layout.batch, *layout.heads, *end) for end in told.ends(layout)]
    q = rows.of(told.operands[0], ends[0], heads)
    k, v = (_kept(others, told.operands[i], ends[i], heads) for i in (1, 2))
    if q is None or k is None or v is None:
        return None
    mask = mask_rows(told.scores, layout, told.shape, rows, q.rows)
    if mask is None or mask[0] not in OF_ONE_QUERY:
        return None
    size, value_size = told.head_sizes(layout)
    inputs, newest = _inputs(rows, (k, v), (size, value_size), length)
    first = np.stack([q.first, k.first, v.first])
    numbers = (size, value_size, length, mask[0])
    scale = told.scores.scale * q.factor * k.factor
    op = CachedAttention(first, (k.step, v.step), newest, *numbers, scale, told.scores.fill)
    node = made(op, [q.rows, *inputs, *mask[1]], (*rows.lead, len(q.first) * value_size))
    return [*rows.nodes, node], value_size, v.factor


def _kept(
    others: Rows, operand: Operand, order: Sequence[Any], heads: Sequence[int]
) -> Kept | None:
    for source, laid, factor in others.laid(operand, order, heads):
        items, _, length, size = laid.shape
        channels, odd = divmod(source.size, items)
        first = laid[0, :, 0, 0]
        step = int(laid[0, 0, 1, 0] - first[0]) if length > 1 else size
        item = np.arange(items)[:, None, None, None] * channels + first[:, None, None]
        expected = item + np.arange(length)[:, None] * step + np.arange(size)
        if not odd and step >= 0 and np.array_equal(laid, expected):
            return Kept(source, first, step, factor)
    return None


def _inputs(
    rows: Rows, kept: tuple[Kept, Kept], sizes: tuple[int, int], length: int
) -> tuple[list[Value], np.ndarray | None]:
    """Keys and values as rows, with the new ones behind them, and where heads begin in these."""
    row = lambda value: rows.shaped(value, (*rows.lead, -1))
    items = math.prod(rows.lead)
    both = [
        _added(rows.edit, each, size, length, items) for each, size in zip(kept, sizes, strict=True)
    ]
    added = [each for each in both if each is not None]
    if len(added) < 2:
        return [row(each.value) for each in kept], None
    inputs = [row(each.cache) for each in added]
    for each in added:
        inputs += [row(each.row), _as_rows(each.at, rows, length)]
    return inputs, np.stack([each.first for each in added])


def _added(edit: Edit, kept: Kept, size: int, length: int, items: int) -> Added | None:
    """A cache before it was given one row of each item."""
    update = update_of(edit, kept.value)
    if update is None:
        return None
    cache, row, axis, at = update
    leading = [i for i in range(len(cache.shape)) if math.prod(cache.shape[:i]) == items]
    if not leading or leading[0] > axis or not is_float(cache, row):
        return None
    item = leading[0]
    places = np.unravel_index(kept.first, cache.shape[item:])
    inside = (kept.first % kept.step + size <= kept.step).all() if kept.step else False
    follows = kept.step == math.prod(cache.shape[axis + 1 :])
    apart = not at.each or cache.shape[0] == items
    if not (inside and follows and apart) or cache.shape[axis] != length:
        return None
    if places[axis - item].any():
        return None
    one = (*cache.shape[item:axis], 1, *cache.shape[axis + 1 :])
    first = np.ravel_multi_index(places, one)
    return Added(cache, *_followed(edit, row, first, size, items), at)


def _followed(
    edit: Edit, row: Value, first: np.ndarray, size: int, items: int
) -> tuple[Value, np.ndarray]:
    """The rows that a row of each item was moved from, and where heads begin in these."""
    index = first[:, None] + np.arange(size)
    for source, places, factor in sources_of(edit, row):
        each = places.reshape(items, -1)[:, index]
        item = np.arange(items)[:, None, None] * (source.size // items)
        expected = item + each[:1, :, :1] + np.arange(size)
        if factor == 1 and source.size % items == 0 and np.array_equal(each, expected):
            return source, each[0, :, 0]
    return row, first


def _as_rows(index: Index, rows: Rows, length: int) -> Value:
    """The number of a key as a float of each row."""

    def function(x: jax.Array) -> jax.Array:
        place = index.as_float(x, length)
        if index.each:
            return lax.reshape(place, (*rows.lead, 1))
        return lax.broadcast_in_dim(place, (*rows.lead, 1), ())

    return equations(function, [index.value], rows.nodes)[0]
