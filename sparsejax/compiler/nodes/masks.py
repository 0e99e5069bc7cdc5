"""The mask of attention as rows: one number for each key, or for each query and key."""

import math
from collections.abc import Sequence
from dataclasses import replace

import jax
import numpy as np
from jax import lax

from sparsejax.compiler.graph.edit import Edit, constant_of, is_float, made
from sparsejax.compiler.graph.graph import Value
from sparsejax.compiler.nodes.known import known_beside
from sparsejax.compiler.nodes.pairs import Layout
from sparsejax.compiler.nodes.primitive import Primitive, equations
from sparsejax.compiler.nodes.rows import Rows
from sparsejax.compiler.nodes.scores import Scores
from sparsejax.compiler.nodes.transpose import Transpose

MAX_KNOWN = 1 << 22  # numbers of a mask


def mask_rows(
    scores: Scores, layout: Layout, shape: Sequence[int], rows: Rows, like: Value
) -> tuple[str, list[Value]] | None:
    """The kind of a mask and its rows.

    Args:
        scores: with the mask.
        layout: of the scores' axes.
        shape: of the scores.
        rows: of the queries.
        like: rows of the queries.
    """
    if scores.mask is None:
        return "none", []
    if scores.bias is not None:
        return _biased_mask(scores, scores.bias, layout, shape, rows, like)
    array = _known(scores, scores.mask, shape)
    if array is not None:
        array = -array if scores.subtracted else array
        return _known_mask(scores, array, layout, rows, like)
    places = _axes_of(scores)
    value = _unrepeated(rows.edit, scores.mask, len(places))
    if value is None or value[1][places[-1]] != shape[-1]:
        return None
    source, own = value
    laid = [1 if place is None else own[place] for place in scores.places]
    kind = "add" if scores.adds else "select"
    wide = _of_queries(laid, layout, shape)
    numbers = rows.shaped(_as_numbers(source, scores, rows), own)
    turned = made(Transpose(places), [numbers], [own[place] for place in places])
    rows.nodes.append(turned)
    numbers = _laid_out(turned.outputs[0], laid, layout, shape, rows)
    return f"{kind}_{'queries' if wide else 'keys'}", [numbers]


def _known(scores: Scores, value: Value, shape: Sequence[int]) -> np.ndarray | None:
    """A constant mask or bias, repeated over all scores; None if it is computed."""
    array = constant_of(value)
    if array is None:
        return None
    places = _axes_of(scores)
    whole = [shape[scores.places.index(axis)] for axis in range(len(places))]
    missing = tuple(axis for axis, place in enumerate(scores.places) if place is None)
    return np.expand_dims(np.broadcast_to(array, whole).transpose(places), missing)


def _axes_of(scores: Scores) -> tuple[int, ...]:
    """The axes of a mask in the order of those of the scores."""
    return tuple(place for place in scores.places if place is not None)


def _of_queries(laid: Sequence[int], layout: Layout, shape: Sequence[int]) -> bool:
    """Are a mask's numbers rows of queries, with one for each key? Those of a single query are."""
    one = shape[layout.query] == 1
    return one or laid[layout.query] > 1 or any(laid[axis] > 1 for axis in layout.heads)


def _laid_out(
    numbers: Value, laid: Sequence[int], layout: Layout, shape: Sequence[int], rows: Rows
) -> Value:
    """Numbers of the scores as rows of queries, for each head if they differ, or as rows of keys.

    Args:
        numbers: any axes of the scores, the others being of length 1.
        laid: their sizes along all axes of the scores.
        layout, shape: of the scores.
        rows: of the queries.
    """
    batch = [laid[axis] for axis in layout.batch]
    heads, keys = [laid[axis] for axis in layout.heads], shape[-1]
    apart = any(size > 1 for size in heads)
    wide = _of_queries(laid, layout, shape)
    query = shape[layout.query] if wide else 1
    order = (*layout.batch, layout.query, *layout.heads, len(shape) - 1)
    order = (*order, *(axis for axis in range(len(shape)) if axis not in order))
    turned = made(Transpose(order), [rows.shaped(numbers, laid)], [laid[axis] for axis in order])
    rows.nodes.append(turned)
    own = [shape[axis] for axis in layout.heads] if apart else [1] * len(heads)
    numbers = rows.shaped(turned.outputs[0], (*batch, laid[layout.query], *heads, keys))
    whole = (*rows.batch, query, *own, keys)
    if numbers.shape != whole:
        repeat = lambda x: lax.broadcast_in_dim(x, whole, tuple(range(len(whole))))
        numbers = equations(repeat, [numbers], rows.nodes)[0]
    ends = (query, math.prod(own) * keys) if wide else (keys, 1)
    return rows.shaped(numbers, (*rows.lead[: rows.ones], *rows.batch, *ends[rows.alone :]))


def _known_mask(
    scores: Scores, array: np.ndarray, layout: Layout, rows: Rows, like: Value
) -> tuple[str, list[Value]] | None:
    """A constant mask: that of causal attention, one that does nothing, or numbers for each row."""
    kept = array if scores.adds or not scores.inverted else ~array
    if not scores.adds:
        if kept.all():
            return "none", []
        last = np.moveaxis(kept, layout.query, -2)
        queries, keys = last.shape[-2:]
        if queries == keys and (last == np.tri(queries, dtype=bool)).all():
            return "causal", []
    order = (*layout.batch, *(a for a in range(array.ndim) if array.shape[a] == 1))
    rest = [a for a in (layout.query, *layout.heads, array.ndim - 1) if a not in order]
    others = [a for a in range(array.ndim) if a not in rest]
    numbers = kept.transpose(*others, *rest).reshape(-1, *(array.shape[a] for a in rest))
    if not (numbers == numbers[:1]).all() or numbers[0].size > MAX_KNOWN:
        return None
    each = numbers[0].reshape(array.shape[layout.query], -1, array.shape[-1])
    if (each == each[:, :1]).all():
        each = each[:, :1]
    again = like.shape[-2] if rows.alone else 1
    table = known_beside(np.tile(each.reshape(len(each), -1).astype(np.float32), (again, 1)), like)
    rows.nodes.append(table)
    return f"{'add' if scores.adds else 'select'}_queries", table.outputs


def _biased_mask(
    scores: Scores, bias: Value, layout: Layout, shape: Sequence[int], rows: Rows, like: Value
) -> tuple[str, list[Value]] | None:
    """The rows of known numbers that are added before the mask of causal attention selects."""
    unbiased = replace(scores, bias=None)
    mask = mask_rows(unbiased, layout, shape, rows, like)
    numbers = _known(scores, bias, shape)
    if mask is None or mask[0] != "causal" or numbers is None:
        return None
    added = Scores(mask=bias, adds=True)
    found = _known_mask(added, numbers, layout, rows, like)
    return found and ("add_causal", found[1])


def _unrepeated(edit: Edit, value: Value, rank: int) -> tuple[Value, list[int]] | None:
    """What a mask is repeated from, and its sizes along the axes that it is repeated to."""
    node = edit.writer.get(value)
    if node is not None and isinstance(node.op, Primitive) and node.op.name == "broadcast_in_dim":
        dims = [int(d) for d in node.op.equation.params["broadcast_dimensions"]]
        source = node.inputs[0]
        laid = [source.shape[dims.index(i)] if i in dims else 1 for i in range(rank)]
        return source, laid
    return (value, list(value.shape)) if len(value.shape) == rank else None


def _as_numbers(value: Value, scores: Scores, rows: Rows) -> Value:
    """A mask in float32, not 0 where it selects."""

    def function(x: jax.Array) -> jax.Array:
        x = lax.bitwise_not(x) if scores.inverted else x
        x = lax.convert_element_type(x, np.float32)
        return lax.neg(x) if scores.subtracted else x

    as_it_is = is_float(value) and not scores.subtracted
    return value if as_it_is else equations(function, [value], rows.nodes)[0]
