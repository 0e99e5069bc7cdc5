"""Equations that no region holds, as programs: arithmetic on single numbers, and reductions.

In a file all numbers are float32: whole numbers are exact up to 2^24, truth values are 0 and 1.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from sparsejax.compiler.graph.activation import Activation
from sparsejax.compiler.graph.edit import made
from sparsejax.compiler.graph.graph import FLOAT32, Node, Region, Value
from sparsejax.compiler.nodes.affine import Affine
from sparsejax.compiler.nodes.elementwise import Elementwise
from sparsejax.compiler.nodes.mean import Mean
from sparsejax.compiler.nodes.pool import Pool
from sparsejax.compiler.nodes.primitive import Primitive

INT32, BOOL = np.dtype(np.int32), np.dtype(np.bool_)
DTYPES = (FLOAT32, INT32, BOOL)
ROUNDS = 1.5 * 2.0**23  # what is below 2^22 becomes whole where this is added
REDUCTIONS = {
    "reduce_sum": "sum",
    "reduce_max": "max",
    "reduce_or": "max",
    "reduce_min": "min",
    "reduce_and": "min",
}


@dataclass
class Numbers:
    """The nodes of a program, all of whose values have one shape."""

    shape: tuple[int, ...] = (1, 1)
    nodes: list[Node] = field(default_factory=list)

    def add(self, op: Any, *inputs: Value) -> Value:
        """The output of a node."""
        self.nodes.append(made(op, list(inputs), self.shape))
        return self.nodes[-1].outputs[0]

    def __call__(self, kind: str, *inputs: Value) -> Value:
        return self.add(Elementwise(kind), *inputs)

    def beside(self, x: Value, number: float) -> Value:
        """The number, wherever x is one."""
        return self.add(Elementwise("identity", Activation("clamp", number, number)), x)


Formula = Callable[..., Value]


@dataclass(frozen=True)
class _Step:
    """One step."""

    op: Any

    def __call__(self, to: Numbers, *inputs: Value) -> Value:
        return to.add(self.op, *inputs)


def _step(kind: str) -> Formula:
    return _Step(Elementwise(kind))


def _equal(to: Numbers, a: Value, b: Value) -> Value:
    return to("mul", to("less_equal", a, b), to("less_equal", b, a))


def _not_equal(to: Numbers, a: Value, b: Value) -> Value:
    return _not(to, _equal(to, a, b))


def _less(to: Numbers, a: Value, b: Value) -> Value:
    return to("sub", to("less_equal", a, b), _equal(to, a, b))


def _not(to: Numbers, a: Value) -> Value:
    return to("less_equal", a, to("sub", a, a))


def _negative(to: Numbers, a: Value) -> Value:
    return to("mul", a, to.beside(a, -1.0))


def _smaller(to: Numbers, a: Value, b: Value) -> Value:
    return _negative(to, to("max", _negative(to, a), _negative(to, b)))


def _chosen(to: Numbers, which: Value, no: Value, yes: Value) -> Value:
    return to("add", to("keep", yes, which), to("keep", no, _not(to, which)))


def _remainder(to: Numbers, a: Value, b: Value) -> Value:
    return to("sub", a, to("mul", to("quotient", a, b), b))


def _cut(to: Numbers, a: Value) -> Value:
    return to("quotient", a, to.beside(a, 1.0))


def _is_some(to: Numbers, a: Value) -> Value:
    return _not_equal(to, a, to.beside(a, 0.0))


# Of numbers, by the names of JAX.
FORMULAS: dict[str, Formula] = {
    **{name: _step(name) for name in ("add", "sub", "mul", "max", "div")},
    "min": _smaller,
    "neg": _negative,
    "abs": lambda to, a: to("max", a, _negative(to, a)),
    "square": lambda to, a: to("mul", a, a),
    "clamp": lambda to, low, x, high: to("max", low, _smaller(to, x, high)),
    "le": _step("less_equal"),
    "lt": _less,
    "ge": lambda to, a, b: to("less_equal", b, a),
    "gt": lambda to, a, b: _less(to, b, a),
    "eq": _equal,
    "ne": _not_equal,
    "select_n": _chosen,
}
OF_WHOLE_NUMBERS: dict[str, Formula] = {"div": _step("quotient"), "rem": _remainder}
OF_TRUTHS: dict[str, Formula] = {
    "and": _step("mul"),
    "or": _step("max"),
    "xor": _not_equal,
    "not": _not,
}


def formula_of(node: Node) -> Formula | None:
    """What a node does to each number, None where it is not told so."""
    (output, *others), op = node.outputs, node.op
    computed = [value for value in node.inputs if value.constant is None]
    if others or 0 in output.shape or not all(_fits(v.shape, output.shape) for v in computed):
        return None
    if any(value.dtype not in DTYPES for value in (*node.inputs, output)):
        return None
    if isinstance(op, Elementwise) and computed:
        return _Step(op)
    if isinstance(op, Affine) and len({*op.scale}) == len({*op.shift}) == 1:
        return _Step(Affine(op.scale[:1], op.shift[:1], 1, op.activation))
    return _of_primitive(node) if isinstance(op, Primitive) and computed else None


def _fits(shape: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    """Is an array of the shape one of the whole, or one number along some of its axes, or all?"""
    if len(shape) not in (0, len(whole)):
        return False
    return all(n in (1, size) for n, size in zip(shape, whole, strict=False))


def _of_primitive(node: Node) -> Formula | None:
    name, first, output = node.op.name, node.inputs[0].dtype, node.outputs[0].dtype
    if name == "convert_element_type":
        if output == BOOL:
            return _is_some
        return _cut if (first, output) == (FLOAT32, INT32) else _step("identity")
    if name == "select_n" and (first != BOOL or len(node.inputs) != 3):
        return None
    own: dict[str, Formula] = {INT32: OF_WHOLE_NUMBERS, BOOL: OF_TRUTHS}.get(first, {})
    return own.get(name) or FORMULAS.get(name)


@lru_cache
def numbers(formula: Formula, count: int) -> Region:
    """A region of rows of one number: the formula of so many."""
    to = Numbers()
    inputs = [Value(to.shape, FLOAT32) for _ in range(count)]
    return Region(to.nodes, inputs, [formula(to, *inputs)], rows=True)


def is_reduction(node: Node) -> bool:
    """Is it a sum, maximum or minimum over axes?"""
    if not isinstance(node.op, Primitive) or node.op.name not in REDUCTIONS:
        return False
    x = node.inputs[0]
    return x.constant is None and x.dtype in DTYPES and 0 not in x.shape


@lru_cache
def reduction(kind: str, length: int, channels: int, whole: bool) -> Region:
    """A region of images of so many rows of one pixel, whose rows it reduces to one.

    Args:
        kind: "sum", "max" or "min".
        length: of what is reduced.
        channels: of each.
        whole: are the numbers whole ones?
    """
    rows, to = Numbers((1, length, 1, channels)), Numbers((1, 1, 1, channels))
    x = Value(rows.shape, FLOAT32)
    if kind == "sum":
        mean = to.add(Mean(keepdims=True), x)
        found = to("mul", mean, to.beside(mean, float(length)))
        if whole:
            rounds = to.beside(found, ROUNDS)
            found = to("sub", to("add", found, rounds), rounds)
    elif kind == "max":
        found = to.add(Pool("max", (length, 1)), x)
    else:
        found = _negative(to, to.add(Pool("max", (length, 1)), _negative(rows, x)))
    return Region([*rows.nodes, *to.nodes], [x], [found])
