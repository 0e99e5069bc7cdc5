"""What stands between the first product of attention and the softmax: a factor and a mask."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax

from sparsejax.compiler.graph.edit import Edit, constant_of, is_float, made
from sparsejax.compiler.graph.graph import Node, Value
from sparsejax.compiler.nodes.known import known_beside
from sparsejax.compiler.nodes.pairs import Layout, Operand, is_product, number, operands_of
from sparsejax.compiler.nodes.primitive import Primitive, equations
from sparsejax.compiler.nodes.reshape import Reshape
from sparsejax.compiler.nodes.rows import MOST_MOVES, Rows
from sparsejax.compiler.nodes.transpose import Transpose

MAX_KNOWN = 1 << 22  # numbers of a mask


@dataclass
class Scores:
    """What stands between the first product and the softmax.

    Attributes:
        scale: of the scores.
        mask: that is added, or selects where it is not 0.
        adds: is it added?
        subtracted: is it added with the other sign?
        inverted: does it select where it is 0?
        fill: of what it leaves out.
        bias: that is added before a mask selects.
    """

    scale: float = 1.0
    mask: Value | None = None
    adds: bool = False
    subtracted: bool = False
    inverted: bool = False
    fill: float = 0.0
    bias: Value | None = None


class Told(NamedTuple):
    """What is attended to, and how.

    Attributes:
        edit: the graph.
        scores: between the two products.
        operands: queries, keys and values.
        shape: of the scores.
        order: of the axes of the second product's output.
        factors: of what the softmax gives, by axis.
    """

    edit: Edit
    scores: Scores
    operands: tuple[Operand, Operand, Operand]
    shape: Sequence[int]
    order: Sequence[Any]
    factors: dict[Any, np.ndarray]

    def sizes(self, axes: Sequence[int]) -> tuple[int, ...]:
        """Of axes of the scores."""
        return tuple(self.shape[axis] for axis in axes)

    def ends(self, layout: Layout) -> tuple[tuple[Any, str], ...]:
        """The axes of rows, and of a head's channels, of queries, keys and values."""
        keys = len(self.shape) - 1
        return (layout.query, "sum"), (keys, "sum"), (keys, "size")

    def head_sizes(self, layout: Layout) -> tuple[int, int]:
        """Channels of a head of queries and keys, and of values."""
        each = zip(self.operands, self.ends(layout), strict=True)
        sizes = [operand.value.shape[operand.axes.index(end[1])] for operand, end in each]
        return sizes[0], sizes[2]


def scores_before(edit: Edit, value: Value) -> tuple[Scores, Operand, Operand] | None:
    """The product behind a softmax's input, with what is done to it: queries and keys."""
    scores, order = Scores(), list(range(len(value.shape)))  # type: Scores, list[int | None]
    while True:
        node = edit.sole_writer(value, Primitive, Transpose, Reshape)
        if node is None:
            return None
        if is_product(node):
            q, k = operands_of(node, order)
            scores = _unshifted(scores)
            last = len(order) - 1
            return (scores, k, q) if last in q.axes else (scores, q, k)
        if isinstance(node.op, Transpose):
            order = [None if axis is None else node.op.permutation[axis] for axis in order]
            value = node.inputs[0]
        elif isinstance(node.op, Reshape):
            places = _places_before(node.inputs[0].shape, value.shape)
            if places is None:
                return None
            order = [None if axis is None else places[axis] for axis in order]
            value = node.inputs[0]
        else:
            # A mask is laid out as the softmax is.
            before = _one_back(edit, node, scores, may_mask=order == [*range(len(order))])
            if before is None:
                return None
            value = before


def _unshifted(scores: Scores) -> Scores:
    """Without a bias that is one number: a softmax takes no notice of it."""
    shift = None if scores.bias is None else number(scores.bias)
    if shift is None or not math.isfinite(shift):
        return scores
    return replace(scores, bias=None, fill=scores.fill - shift)


def _places_before(before: Sequence[int], after: Sequence[int]) -> list[int | None] | None:
    """The axes before a reshape of axes of length 1 alone; None for those that were not there."""
    long = [axis for axis, size in enumerate(before) if size != 1]
    if [before[axis] for axis in long] != [size for size in after if size != 1]:
        return None
    kept = iter(long)
    return [None if size == 1 else next(kept) for size in after]


def _one_back(edit: Edit, node: Node, scores: Scores, *, may_mask: bool) -> Value | None:
    """The scores before a factor or a mask, which is noted."""
    name, shape = node.op.name, node.outputs[0].shape
    if name in ("mul", "div") and len(node.inputs) == 2:
        return _before_factor(node, scores)
    if scores.adds or scores.bias or scores.scale != 1 or not may_mask:  # one, which is not scaled
        return None
    if name in ("add", "sub"):
        for x, other in (node.inputs, node.inputs[::-1]) if name == "add" else (node.inputs,):
            if x.constant is None and x.shape == shape and _leads_to_product(edit, x):
                if scores.mask is None:
                    scores.mask, scores.adds, scores.subtracted = other, True, name == "sub"
                elif name == "sub":
                    return None
                else:
                    scores.bias = other
                return x
    if scores.mask is None and name == "select_n" and len(node.inputs) == 3:
        which, *cases = node.inputs
        for x, other, inverted in ((cases[1], cases[0], False), (cases[0], cases[1], True)):
            fill = number(other)
            if x.constant is None and fill is not None and which.dtype == bool:
                scores.mask, scores.inverted, scores.fill = which, inverted, fill
                return x
    return None


def _before_factor(node: Node, scores: Scores) -> Value | None:
    for x, other in (node.inputs, node.inputs[::-1]):
        factor = number(other)
        if x.constant is None and factor:
            if node.op.name == "div" and x is not node.inputs[0]:
                return None
            scores.scale *= factor if node.op.name == "mul" else 1 / factor
            return x
    return None


def _leads_to_product(edit: Edit, value: Value) -> bool:
    for _ in range(MOST_MOVES):
        node = edit.writer.get(value)
        if node is None or not isinstance(node.op, Primitive | Transpose | Reshape):
            return False
        if is_product(node):
            return True
        computed = [v for v in node.inputs if v.constant is None]
        if len(computed) != 1:
            return False
        value = computed[0]
    return False


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
    array = constant_of(scores.mask)
    if scores.bias is not None:
        return _biased_mask(scores, scores.bias, layout, shape, rows, like)
    if array is not None:
        array = -array if scores.subtracted else array
        return _known_mask(scores, np.broadcast_to(array, tuple(shape)), layout, rows, like)
    value = _unrepeated(rows.edit, scores.mask, len(shape))
    if value is None or value[1][-1] != shape[-1]:
        return None
    source, laid = value
    kind = "add" if scores.adds else "select"
    wide = _of_queries(laid, layout, shape)
    numbers = _laid_out(_as_numbers(source, scores, rows), laid, layout, shape, rows)
    return f"{kind}_{'queries' if wide else 'keys'}", [numbers]


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
    return rows.shaped(numbers, (*rows.lead[: rows.ones], *rows.batch, *ends))


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
    table = known_beside(each.reshape(len(each), -1).astype(np.float32), like)
    rows.nodes.append(table)
    return f"{'add' if scores.adds else 'select'}_queries", table.outputs


def _biased_mask(
    scores: Scores, bias: Value, layout: Layout, shape: Sequence[int], rows: Rows, like: Value
) -> tuple[str, list[Value]] | None:
    """The rows of known numbers that are added before the mask of causal attention selects."""
    unbiased = replace(scores, bias=None)
    mask = mask_rows(unbiased, layout, shape, rows, like)
    numbers = constant_of(bias)
    if mask is None or mask[0] != "causal" or numbers is None:
        return None
    added = Scores(mask=bias, adds=True)
    found = _known_mask(added, np.broadcast_to(numbers, tuple(shape)), layout, rows, like)
    return found and ("add_causal", found[1])


def _unrepeated(edit: Edit, value: Value, rank: int) -> tuple[Value, list[int]] | None:
    """What a mask is repeated from, and its sizes along the axes of the scores."""
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
