"""What stands between the first product of attention and the softmax: a factor and a mask."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from sparsejax.compiler.graph.edit import Edit
from sparsejax.compiler.graph.graph import Node, Value
from sparsejax.compiler.nodes.pairs import Layout, Operand, is_product, number, operands_of
from sparsejax.compiler.nodes.primitive import Primitive
from sparsejax.compiler.nodes.reshape import Reshape
from sparsejax.compiler.nodes.rows import MOST_MOVES
from sparsejax.compiler.nodes.transpose import Transpose


class Bias(NamedTuple):
    """Numbers that are added to the scores, or subtracted."""

    value: Value
    subtracted: bool


@dataclass
class Scores:
    """What stands between the first product and the softmax: a factor, then biases, then a mask.

    Attributes:
        scale: of the scores.
        biases: that are added.
        mask: that selects where it is not 0.
        inverted: does it select where it is 0?
        fill: of what it leaves out.
        places: of the scores' axes among those of mask and biases, None for one they do not have.
    """

    scale: float = 1.0
    biases: tuple[Bias, ...] = ()
    mask: Value | None = None
    inverted: bool = False
    fill: float = 0.0
    places: tuple[int | None, ...] = ()


class Told(NamedTuple):
    """What is attended to, and how.

    Attributes:
        edit: the graph.
        scores: between the two products.
        operands: queries, keys and values.
        shape: of the scores.
        order: of the axes of the second product's output.
        factors: of what the softmax gives, by axis.
        lone: is there a single query, which has no axis in the graph?
    """

    edit: Edit
    scores: Scores
    operands: tuple[Operand, Operand, Operand]
    shape: Sequence[int]
    order: Sequence[Any]
    factors: dict[Any, np.ndarray]
    lone: bool = False

    @property
    def known_queries(self) -> bool:
        return self.operands[0].value.constant is not None

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


def with_query(told: Told) -> Told:
    """The same with an axis of one query, the last but that of the keys."""
    keys, places = len(told.shape) - 1, told.scores.places
    later = lambda axes: [axis + 1 if axis == keys else axis for axis in axes]
    scores = replace(told.scores, places=(*places[:-1], None, *places[-1:]) if places else ())
    q, k, v = (Operand(each.value, later(each.axes)) for each in told.operands)
    shape = (*told.shape[:-1], 1, told.shape[-1])
    return told._replace(scores=scores, operands=(q, k, v), shape=shape, lone=True)


def scores_before(edit: Edit, value: Value) -> tuple[Scores, Operand, Operand] | None:
    """The product behind a softmax's input, with what is done to it: queries and keys.

    Queries may be known: a layer's weights would be the keys, so these may not.
    """
    scores, order = Scores(), list(range(len(value.shape)))  # type: Scores, list[int | None]
    while True:
        node = edit.sole_writer(value, Primitive, Transpose, Reshape)
        if node is None:
            return None
        if is_product(node, known=1):
            q, k = operands_of(node, order)
            if len(order) - 1 in q.axes:
                q, k = k, q
            return (_unshifted(scores), q, k) if k.value.constant is None else None
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
            before = _one_back(edit, node, scores, order)
            if before is None:
                return None
            value = before


def _unshifted(scores: Scores) -> Scores:
    """Without biases that are one number: a softmax takes no notice of them."""
    biases, fill = [], scores.fill
    for bias in scores.biases:
        shift = number(bias.value)
        if shift is None or not math.isfinite(shift):
            biases.append(bias)
        else:
            fill -= -shift if bias.subtracted else shift
    return replace(scores, biases=tuple(biases), fill=fill)


def _places_before(before: Sequence[int], after: Sequence[int]) -> list[int | None] | None:
    """The axes before a reshape of axes of length 1 alone; None for those that were not there."""
    long = [axis for axis, size in enumerate(before) if size != 1]
    if [before[axis] for axis in long] != [size for size in after if size != 1]:
        return None
    kept = iter(long)
    return [None if size == 1 else next(kept) for size in after]


def _one_back(edit: Edit, node: Node, scores: Scores, order: Sequence[int | None]) -> Value | None:
    """The scores before a factor or a mask, which is noted.

    Args:
        edit, node: the factor or the mask in its graph.
        scores: those behind it, which are changed.
        order: their axes among those of the node's output.
    """
    name, shape = node.op.name, node.outputs[0].shape
    if name in ("mul", "div") and len(node.inputs) == 2:
        return _before_factor(node, scores)
    if scores.scale != 1:  # of which biases and masks are no part
        return None
    places = tuple(axis for axis in order if axis is not None)
    laid = scores.biases or scores.mask
    if sorted(places) != [*range(len(shape))] or (laid and scores.places != places):
        return None
    scores.places = places
    if name in ("add", "sub"):
        for x, other in (node.inputs, node.inputs[::-1]) if name == "add" else (node.inputs,):
            if x.constant is None and x.shape == shape and _leads_to_product(edit, x):
                scores.biases = (*scores.biases, Bias(other, name == "sub"))
                return x
    if not laid and name == "select_n" and len(node.inputs) == 3:
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


def _leads_to_product(edit: Edit, value: Value, moves: int = MOST_MOVES) -> bool:
    node = edit.writer.get(value)
    if node is None or not moves or not isinstance(node.op, Primitive | Transpose | Reshape):
        return False
    if is_product(node, known=1):
        return True
    computed = (v for v in node.inputs if v.constant is None)
    return any(_leads_to_product(edit, v, moves - 1) for v in computed)
