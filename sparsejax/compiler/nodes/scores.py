"""What stands between the first product of attention and the softmax: a factor and a mask."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jax import lax

from sparsejax.compiler.graph.edit import Edit, constant_of, is_float
from sparsejax.compiler.graph.graph import Node, Value
from sparsejax.compiler.nodes.pairs import Layout, Operand, is_product, number, operands_of
from sparsejax.compiler.nodes.primitive import Primitive
from sparsejax.compiler.nodes.rows import MOST_MOVES, Rows
from sparsejax.compiler.nodes.transpose import Transpose


@dataclass
class Scores:
    """What stands between the first product and the softmax.

    Attributes:
        scale: of the scores.
        mask: that is added, or selects where it is not 0.
        adds: is it added?
        inverted: does it select where it is 0?
        fill: of what it leaves out.
    """

    scale: float = 1.0
    mask: Value | None = None
    adds: bool = False
    inverted: bool = False
    fill: float = 0.0


def scores_before(edit: Edit, value: Value) -> tuple[Scores, Operand, Operand] | None:
    """The product behind a softmax's input, with what is done to it: queries and keys."""
    scores, order = Scores(), list(range(len(value.shape)))
    while True:
        node = edit.sole_writer(value, Primitive, Transpose)
        if node is None:
            return None
        if is_product(node):
            q, k = operands_of(node, order)
            last = len(order) - 1
            return (scores, k, q) if last in q.axes else (scores, q, k)
        if isinstance(node.op, Transpose):
            if scores.mask is not None:  # whose axes are those of the softmax
                return None
            order = [node.op.permutation[axis] for axis in order]
            value = node.inputs[0]
            continue
        before = _one_back(edit, node, scores)
        if before is None:
            return None
        value = before


def _one_back(edit: Edit, node: Node, scores: Scores) -> Value | None:
    """The scores before a factor or a mask, which is noted."""
    name, shape = node.op.name, node.outputs[0].shape
    if name in ("mul", "div") and len(node.inputs) == 2:
        return _before_factor(node, scores)
    if scores.mask is not None or scores.scale != 1:  # one mask, which is not scaled
        return None
    if name == "add":
        for x, other in (node.inputs, node.inputs[::-1]):
            if x.constant is None and x.shape == shape and _leads_to_product(edit, x):
                scores.mask, scores.adds = other, True
                return x
    if name == "select_n" and len(node.inputs) == 3:
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
        if node is None or not isinstance(node.op, Primitive | Transpose):
            return False
        if is_product(node):
            return True
        computed = [v for v in node.inputs if v.constant is None]
        if len(computed) != 1:
            return False
        value = computed[0]
    return False


def mask_rows(
    scores: Scores, layout: Layout, shape: Sequence[int], rows: Rows
) -> tuple[str, list[Value]] | None:
    """The kind of a mask and its rows."""
    if scores.mask is None:
        return "none", []
    array = constant_of(scores.mask)
    length = shape[layout.query]
    if array is not None:
        return _known_mask(scores, np.broadcast_to(array, tuple(shape)), layout)
    value = _unrepeated(rows.edit, scores.mask, len(shape))
    if value is None or any(value[1][axis] != 1 for axis in layout.heads):
        return None
    source, laid = value
    if laid[-1] != length:
        return None
    kind = "add" if scores.adds else "select"
    wide = laid[layout.query] == length and length > 1
    batch = rows.lead[:-1]
    kept = tuple(laid[axis] for axis in layout.batch)
    numbers = _as_numbers(source, scores, rows)
    ends = (length, length) if wide else (length, 1)
    numbers = rows.shaped(numbers, (*kept, *ends))
    if kept != batch:
        repeat = lambda x: lax.broadcast_in_dim(x, (*batch, *ends), tuple(range(len(ends) + 1)))
        numbers = _equations(repeat, numbers, rows.nodes)
    return f"{kind}_{'queries' if wide else 'keys'}", [numbers]


def _known_mask(
    scores: Scores, array: np.ndarray, layout: Layout
) -> tuple[str, list[Value]] | None:
    """A constant mask: that of causal attention, or one that does nothing."""
    if scores.adds:
        return None
    kept = ~array if scores.inverted else array
    if kept.all():
        return "none", []
    last = np.moveaxis(kept, layout.query, -2)
    return ("causal", []) if (last == np.tri(last.shape[-1], dtype=bool)).all() else None


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
        return lax.convert_element_type(x, np.float32)

    return value if is_float(value) else _equations(function, value, rows.nodes)


def _equations(function: Callable, value: Value, nodes: list[Node]) -> Value:
    """The output of a function of one value, whose equations become nodes."""
    closed = jax.make_jaxpr(function)(jax.ShapeDtypeStruct(value.shape, value.dtype))
    values = {closed.jaxpr.invars[0]: value}
    for equation in closed.jaxpr.eqns:
        output = equation.outvars[0]
        values[output] = Value(output.aval.shape, output.aval.dtype)
        nodes.append(Node(Primitive(equation), [values[equation.invars[0]]], [values[output]]))
    return values[closed.jaxpr.outvars[0]]
