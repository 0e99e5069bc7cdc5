"""The mask of attention as rows: one number for each key, or for each query and key."""

import functools
import math
import operator
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax import lax

from sparsejax.compiler.graph.edit import Edit, constant_of, is_float, made
from sparsejax.compiler.graph.graph import Value
from sparsejax.compiler.nodes.attention import LEFT_OUT
from sparsejax.compiler.nodes.known import known_beside
from sparsejax.compiler.nodes.pairs import Layout
from sparsejax.compiler.nodes.primitive import Primitive, equations
from sparsejax.compiler.nodes.rows import Rows
from sparsejax.compiler.nodes.scores import Scores
from sparsejax.compiler.nodes.transpose import Transpose

MAX_KNOWN = 1 << 22  # numbers of a mask
CHOSEN = "choose"  # some keys are left out, among others than causal attention leaves out


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
    kept = None if scores.mask is None else _known(scores, scores.mask, shape)
    if kept is not None and scores.inverted:
        kept = _on_thin(operator.invert, kept)
    kind = "none" if scores.mask is None else _kind_of(kept, layout)
    if kind and not scores.biases:
        return kind, []
    name = "select"
    if scores.biases:
        name = CHOSEN if kind is None else "add" if kind == "none" else "add_causal"
    table = _known_numbers(scores, name, kept, shape)
    if table is not None:
        return _table(name, table, layout, rows, like)
    numbers = _computed(scores, name, rows)
    if numbers is None or numbers.shape[-1] != shape[-1]:
        return None
    wide = name in (CHOSEN, "add_causal") or _of_queries(numbers.shape, layout, shape)
    return _kind(name, wide), [_laid_out(numbers, layout, shape, rows, wide)]


def _known_numbers(
    scores: Scores, name: str, kept: np.ndarray | None, shape: Sequence[int]
) -> np.ndarray | None:
    """What a mask and biases come to for all scores; None if any of them is computed."""
    added = []
    for bias in scores.biases:
        array = _known(scores, bias.value, shape)
        if array is None:
            return None
        added.append(_on_thin(operator.neg, array) if bias.subtracted else array)
    if name in (CHOSEN, "select") and kept is None:
        return None
    if not added:
        return kept
    numbers = functools.reduce(functools.partial(_on_thin, operator.add), added)
    if name != CHOSEN or kept is None:
        return numbers
    return _on_thin(lambda kept, x: np.where(kept, x, LEFT_OUT), kept, numbers)


def _kind(name: str, wide: bool) -> str:
    return name if name == "add_causal" else f"{name}_{'queries' if wide else 'keys'}"


def _known(scores: Scores, value: Value, shape: Sequence[int]) -> np.ndarray | None:
    """A constant mask or bias, repeated over all scores; None if it is computed."""
    array = constant_of(value)
    if array is None:
        return None
    places = _axes_of(scores)
    whole = [shape[scores.places.index(axis)] for axis in range(len(places))]
    missing = tuple(axis for axis, place in enumerate(scores.places) if place is None)
    return np.expand_dims(np.broadcast_to(array, whole).transpose(places), missing)


def _on_thin(function: Callable, *arrays: np.ndarray) -> np.ndarray:
    """Of arrays of one shape; where all are repeated, it is computed once."""
    repeated = [not any(array.strides[axis] for array in arrays) for axis in range(arrays[0].ndim)]
    thin = tuple(slice(0, 1 if again else None) for again in repeated)
    return np.broadcast_to(function(*(array[thin] for array in arrays)), arrays[0].shape)


def _kind_of(kept: np.ndarray | None, layout: Layout) -> str | None:
    """Does a known mask keep all, or what causal attention does? None for others."""
    if kept is None:
        return None
    if kept.all():
        return "none"
    last = np.moveaxis(kept, layout.query, -2)
    queries, keys = last.shape[-2:]
    causal = queries == keys and (last == np.tri(queries, dtype=bool)).all()
    return "causal" if causal else None


def _table(
    name: str, array: np.ndarray, layout: Layout, rows: Rows, like: Value
) -> tuple[str, list[Value]] | None:
    """Known numbers for each row of queries, if they are the same for each item."""
    order = (*layout.batch, *(a for a in range(array.ndim) if array.shape[a] == 1))
    rest = [a for a in (layout.query, *layout.heads, array.ndim - 1) if a not in order]
    others = [a for a in range(array.ndim) if a not in rest]
    numbers = array.transpose(*others, *rest).reshape(-1, *(array.shape[a] for a in rest))
    if not _same(numbers, numbers[:1]) or numbers[0].size > MAX_KNOWN:
        return None
    each = numbers[0].reshape(array.shape[layout.query], -1, array.shape[-1])
    if _same(each, each[:, :1]):
        each = each[:, :1]
    again = like.shape[-2] if rows.alone else 1
    table = known_beside(np.tile(each.reshape(len(each), -1).astype(np.float32), (again, 1)), like)
    rows.nodes.append(table)
    return _kind(name, wide=True), table.outputs


def _same(numbers: np.ndarray, others: np.ndarray) -> bool:
    """Are all equal? So are NaN."""
    return bool(((numbers == others) | ((numbers != numbers) & (others != others))).all())


def _computed(scores: Scores, name: str, rows: Rows) -> Value | None:
    """What a mask and biases come to: all axes of the scores, some of length 1."""
    added = [_laid_along(scores, each.value, rows, each.subtracted) for each in scores.biases]
    which = None
    if name in (CHOSEN, "select"):
        assert scores.mask is not None
        which = _laid_along(scores, scores.mask, rows, scores.inverted)
    own = [value for value in added if value is not None]
    if len(own) < len(added) or (which is None and name in (CHOSEN, "select")):
        return None
    if not own:
        return which
    total = lambda *x: functools.reduce(operator.add, x)
    numbers = own[0] if len(own) == 1 else equations(total, own, rows.nodes)[0]
    if which is None:
        return numbers
    return equations(_chosen, [which, numbers], rows.nodes)[0]


def _chosen(which: jax.Array, numbers: jax.Array) -> jax.Array:
    """Numbers, and LEFT_OUT where `which` is 0: no call of jnp.where, which would be one in XLA."""
    shape = np.broadcast_shapes(which.shape, numbers.shape)
    which, numbers = (lax.broadcast_in_dim(x, shape, range(x.ndim)) for x in (which, numbers))
    return lax.select(which != 0, numbers, lax.full_like(numbers, LEFT_OUT))


def _laid_along(scores: Scores, value: Value, rows: Rows, negated: bool) -> Value | None:
    """A mask or bias, negated or not, as float32, where it is not repeated yet."""
    places = _axes_of(scores)
    found = _unrepeated(rows.edit, value, len(places))
    if found is None:
        return None
    source, own = found
    numbers = rows.shaped(_as_numbers(source, negated, rows), own)
    turned = made(Transpose(places), [numbers], [own[place] for place in places])
    rows.nodes.append(turned)
    laid = [1 if place is None else own[place] for place in scores.places]
    return rows.shaped(turned.outputs[0], laid)


def _axes_of(scores: Scores) -> tuple[int, ...]:
    """The axes of a mask in the order of those of the scores."""
    return tuple(place for place in scores.places if place is not None)


def _of_queries(laid: Sequence[int], layout: Layout, shape: Sequence[int]) -> bool:
    """Are a mask's numbers rows of queries, with one for each key? Those of a single query are."""
    one = shape[layout.query] == 1
    return one or laid[layout.query] > 1 or any(laid[axis] > 1 for axis in layout.heads)


def _laid_out(
    numbers: Value, layout: Layout, shape: Sequence[int], rows: Rows, wide: bool
) -> Value:
    """Numbers of the scores as rows of queries, for each head if they differ, or as rows of keys.

    Args:
        numbers: all axes of the scores, some of length 1.
        layout, shape: of the scores.
        rows: of the queries.
        wide: of queries?
    """
    laid = numbers.shape
    batch = [laid[axis] for axis in layout.batch]
    heads, keys = [laid[axis] for axis in layout.heads], shape[-1]
    apart = any(size > 1 for size in heads)
    query = shape[layout.query] if wide else 1
    order = (*layout.batch, layout.query, *layout.heads, len(shape) - 1)
    order = (*order, *(axis for axis in range(len(shape)) if axis not in order))
    turned = made(Transpose(order), [numbers], [laid[axis] for axis in order])
    rows.nodes.append(turned)
    own = [shape[axis] for axis in layout.heads] if apart else [1] * len(heads)
    numbers = rows.shaped(turned.outputs[0], (*batch, laid[layout.query], *heads, keys))
    whole = (*rows.batch, query, *own, keys)
    if numbers.shape != whole:
        repeat = lambda x: lax.broadcast_in_dim(x, whole, tuple(range(len(whole))))
        numbers = equations(repeat, [numbers], rows.nodes)[0]
    ends = (query, math.prod(own) * keys) if wide else (keys, 1)
    return rows.shaped(numbers, (*rows.lead[: rows.ones], *rows.batch, *ends[rows.alone :]))


def _unrepeated(edit: Edit, value: Value, rank: int) -> tuple[Value, list[int]] | None:
    """What a mask is repeated from, and its sizes along the axes that it is repeated to."""
    node = edit.writer.get(value)
    if node is not None and isinstance(node.op, Primitive) and node.op.name == "broadcast_in_dim":
        dims = [int(d) for d in node.op.equation.params["broadcast_dimensions"]]
        source = node.inputs[0]
        laid = [source.shape[dims.index(i)] if i in dims else 1 for i in range(rank)]
        return source, laid
    return (value, list(value.shape)) if len(value.shape) == rank else None


def _as_numbers(value: Value, negated: bool, rows: Rows) -> Value:
    """A mask in float32, 1 where it selects, or a bias."""

    def function(x: jax.Array) -> jax.Array:
        if negated:
            x = lax.bitwise_not(x) if x.dtype == bool else lax.neg(x)
        return lax.convert_element_type(x, np.float32)

    as_it_is = is_float(value) and not negated
    return value if as_it_is else equations(function, [value], rows.nodes)[0]
