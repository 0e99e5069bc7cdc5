"""Attention told in a graph: a softmax between two products of computed arrays."""

from collections.abc import Iterator, Sequence
from itertools import starmap
from typing import Any

import numpy as np

from sparsejax.compiler.graph.edit import Edit, made
from sparsejax.compiler.graph.graph import Node, Value
from sparsejax.compiler.graph.images import MIN_ROWS
from sparsejax.compiler.nodes.affine import Affine, factor_of
from sparsejax.compiler.nodes.attention import Attention
from sparsejax.compiler.nodes.cache import is_kept, of_one_query
from sparsejax.compiler.nodes.masks import mask_rows
from sparsejax.compiler.nodes.op import Rules
from sparsejax.compiler.nodes.pairs import (
    ONE,
    Layout,
    is_product,
    layouts,
    layouts_of_one,
    values_of,
)
from sparsejax.compiler.nodes.primitive import Primitive
from sparsejax.compiler.nodes.reshape import Reshape
from sparsejax.compiler.nodes.rows import MOST_MOVES, Found, Rows, leading_ones
from sparsejax.compiler.nodes.sampled import functions_to
from sparsejax.compiler.nodes.scores import Told, scores_before, with_query
from sparsejax.compiler.nodes.softmax import Softmax, is_softmax
from sparsejax.compiler.nodes.transpose import Transpose


def turn_softmax(edit: Edit, node: Node) -> bool:
    """A softmax along any other axis than the last, between two products: its axis comes last."""
    if _weights(edit, node.outputs[0]) is None:
        return False
    for x, axis in _softmaxes(edit, node):
        rank = len(x.shape)
        order = (*(other for other in range(rank) if other != axis), axis)
        turned = [x.shape[place] for place in order]
        last = made(Transpose(order), [x], turned)
        weights = made(Softmax(rank - 1), last.outputs, turned)
        back = Transpose(tuple(order.index(place) for place in range(rank)))
        return edit.replace(node, last, weights, made(back, weights.outputs, x.shape))
    return False


def _softmaxes(edit: Edit, node: Node) -> Iterator[tuple[Value, int]]:
    """What a node makes the softmax of, along any axis but the last, if a product is behind it."""
    shape = node.outputs[0].shape
    if isinstance(node.op, Softmax):
        if node.op.axis < len(shape) - 1 and _after_product(edit, node.inputs[0]):
            yield node.inputs[0], node.op.axis
        return
    for function in functions_to(edit, node):
        x, axis = function.source, function.axis
        inside = x.shape == shape and 0 <= axis < len(shape) - 1
        if inside and _after_product(edit, x) and is_softmax(function):
            yield x, axis


def _after_product(edit: Edit, value: Value) -> bool:
    """Is a product of computed arrays a few steps back?"""
    values = {value}
    for _ in range(MOST_MOVES):
        nodes = [edit.writer[v] for v in values if v in edit.writer]
        if any(is_product(node, known=1) for node in nodes):
            return True
        followed = [n for n in nodes if isinstance(n.op, Primitive | Transpose | Reshape)]
        values = {v for n in followed for v in n.inputs if v.constant is None}
    return False


def to_attention(edit: Edit, node: Node) -> bool:
    """A softmax between two products of computed arrays, whose heads are channels of rows."""
    if not isinstance(node.op, Softmax) or node.op.axis != len(node.outputs[0].shape) - 1:
        return False
    found = scores_before(edit, node.inputs[0])
    weights = _weights(edit, node.outputs[0])
    if found is None or weights is None:
        return False
    scores, q, k = found
    product, factors = weights[2:]
    values = values_of(*weights[:3])
    if values is None:
        return False
    v, order = values
    shape = node.inputs[0].shape
    there = {*q.axes, *k.axes}
    order = [axis if axis == "size" or axis in there else ONE for axis in order]
    told = Told(edit, scores, (q, k, v), shape, order, factors)
    nodes = next(filter(None, starmap(_attention, _readings(told))), None)
    if nodes is None:
        return False
    out = product.outputs[0].shape
    nodes.append(made(Reshape(out), nodes[-1].outputs, out))
    return edit.replace(product, *nodes)


def _readings(told: Told) -> Iterator[tuple[Told, Layout]]:
    """What the axes may be; last, that there is a single query which has none."""
    q, k, _ = told.operands
    kept, shape = is_kept(told.edit, k), told.shape
    # An axis of length 1 is one query to a cache, elsewhere mostly none at all.
    by_query = lambda layout: kept != (shape[layout.query] == 1)
    for layout in sorted(layouts(len(shape), q, k), key=by_query):
        yield told, layout
    of_one = with_query(told)
    for layout in layouts_of_one(len(of_one.shape), *of_one.operands[:2]):
        yield of_one, layout


def _weights(
    edit: Edit, value: Value
) -> tuple[Value, list[Any], Node, dict[Any, np.ndarray]] | None:
    """What the second product reads of a softmax's output.

    Returns:
        the value, the axes of the scores that its own are, the product, and what it is multiplied
        by before, by axis.
    """
    labels: list[Any] = list(range(len(value.shape)))
    factors: dict[Any, np.ndarray] = {}
    while (node := _sole_reader(edit, value)) is not None:
        if is_product(node):
            return value, labels, node, factors
        shape = node.outputs[0].shape
        if isinstance(node.op, Transpose):
            labels = [labels[axis] for axis in node.op.permutation]
        elif isinstance(node.op, Reshape) and _same(value.shape, shape):
            long = iter([a for a, size in zip(labels, value.shape, strict=True) if size != 1])
            labels = [ONE if size == 1 else next(long) for size in shape]
        elif (factor := factor_of(node)) is not None:
            axis, numbers = factor
            label = labels[axis] if numbers.size > 1 else ONE
            factors[label] = factors.get(label, 1.0) * numbers
        else:
            return None
        value = node.outputs[0]
    return None


def _same(shape: Sequence[int], other: Sequence[int]) -> bool:
    """Are shapes the same but for axes of length 1?"""
    return [size for size in shape if size != 1] == [size for size in other if size != 1]


def _sole_reader(edit: Edit, value: Value) -> Node | None:
    readers = edit.readers.get(value, [])
    alone = len(readers) == 1 and value not in edit.outputs
    return readers[0] if alone and len(readers[0].outputs) == 1 else None  # a callback has none


def _attention(told: Told, layout: Layout) -> list[Node] | None:
    """The nodes that compute the second product's output, None if the axes are others."""
    if 0 in told.shape or not {*told.factors} <= {ONE, *layout.heads}:
        return None
    of_one = told.shape[layout.query] == 1 and not told.known_queries
    made_heads = of_one_query(told, layout) if of_one else _of_rows(told, layout)
    if made_heads is None:
        return None
    nodes, value_size, factor = made_heads
    batch, heads = told.sizes(layout.batch), told.sizes(layout.heads)
    times = _times(told.factors, layout.heads, heads, value_size) * factor
    if (times != 1).any():
        shape = nodes[-1].outputs[0].shape
        affine = Affine(times, -np.zeros(times.shape), len(shape) - 1)
        nodes.append(made(affine, nodes[-1].outputs, shape))
    have = [*layout.batch, layout.query, *layout.heads, "size"]
    sizes = (*batch, told.shape[layout.query], *heads, value_size)
    split = dict(zip(have, sizes, strict=True))
    back = _in_order(nodes[-1], split, [axis for axis in told.order if axis != ONE])
    return back and [*nodes, *back]


def _of_rows(told: Told, layout: Layout) -> tuple[list[Node], int, float] | None:
    """Attention of rows of queries, the size of a value's head, and what is left to multiply by."""
    shape, edit = told.shape, told.edit
    keys, length, heads = len(shape) - 1, shape[layout.query], told.sizes(layout.heads)
    batch = told.sizes(layout.batch)
    if shape[keys] != length and (len(batch) != 1 or max(length, shape[keys]) < MIN_ROWS):
        return None
    known = told.known_queries
    own = told.operands[known].value, shape[keys] if known else length
    ones = 0 if batch else leading_ones(edit, *own)
    lead = (*(1,) * ones, *batch)
    rows = Rows(edit, (*lead, length), ones)
    others = Rows(edit, (*lead, shape[keys]), ones, rows.nodes)
    ends = told.ends(layout)
    found: list[Found] = []
    for i, of in reversed([*enumerate((rows, others, others))]):
        order = (*layout.batch, *layout.heads, *ends[i])
        if i == 0 and known:
            each = of.known(told.operands[i], order, heads, beside=found[0].rows)
        else:
            each = of.of(told.operands[i], order, heads)
        if each is None:
            return None
        found.insert(0, each)
    mask = mask_rows(told.scores, layout, shape, rows, found[0].rows)
    if mask is None:
        return None
    size, value_size = told.head_sizes(layout)
    first = np.stack([each.first for each in found])
    scale = told.scores.scale * found[0].factor * found[1].factor
    op = Attention(first, size, value_size, length, mask[0], scale, told.scores.fill)
    inputs = [*(each.rows for each in found), *mask[1]]
    node = made(op, inputs, (*rows.lead, first.shape[1] * value_size))
    return [*rows.nodes, node], value_size, found[2].factor


def _times(
    factors: dict[Any, np.ndarray], axes: Sequence[int], heads: Sequence[int], size: int
) -> np.ndarray:
    """The factors of the output's channels: `size` for each of the heads, or a single one."""
    times = np.ones((1,) * len(axes))
    for label, numbers in factors.items():
        shape = [-1 if axis == label else 1 for axis in axes]
        times = times * np.asarray(numbers, np.float64).reshape(shape)
    if times.size == 1:
        return times.reshape(1)
    return np.repeat(np.broadcast_to(times, heads).reshape(-1), size)


def _in_order(heads: Node, split: dict[Any, int], order: Sequence[Any]) -> list[Node] | None:
    """The output cut into axes of these sizes, which come in another order, or not if of length 1.

    Args:
        heads: whose output it is.
        split: size of each axis.
        order: of the axes.
    """
    if any(size != 1 for axis, size in split.items() if axis not in order):
        return None
    have = [axis for axis in split if axis in order]
    shape = [split[axis] for axis in have]
    parts = made(Reshape(tuple(shape)), heads.outputs, shape)
    turn = Transpose(tuple(have.index(axis) for axis in order))
    return [parts, made(turn, parts.outputs, [split[axis] for axis in order])]


RULES = Rules(sampled=(turn_softmax, to_attention))
