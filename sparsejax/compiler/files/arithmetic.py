"""Equations that no region holds, as programs: arithmetic on single numbers, and reductions."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from sparsejax.compiler.graph.activation import Activation
from sparsejax.compiler.graph.edit import is_float, made
from sparsejax.compiler.graph.graph import FLOAT32, Node, Region, Value
from sparsejax.compiler.nodes.affine import Affine
from sparsejax.compiler.nodes.elementwise import IN_JAX, Elementwise
from sparsejax.compiler.nodes.mean import Mean
from sparsejax.compiler.nodes.pool import Pool
from sparsejax.compiler.nodes.primitive import Primitive

REDUCTIONS = {"reduce_sum": "sum", "reduce_max": "max", "reduce_min": "min"}
Formula = Callable[..., Value]


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

    def times(self, x: Value, factor: float) -> Value:
        """x times a number, that x cut off at both sides to the number is."""
        cut = Elementwise("identity", Activation("clamp", factor, factor))
        return self("mul", x, self.add(cut, x))


def _smaller(to: Numbers, a: Value, b: Value) -> Value:
    return to.times(to("max", to.times(a, -1.0), to.times(b, -1.0)), -1.0)


# Of numbers, by the names of JAX, beside what a step does.
FORMULAS: dict[str, Formula] = {
    "min": _smaller,
    "neg": lambda to, a: to.times(a, -1.0),
    "abs": lambda to, a: to("max", a, to.times(a, -1.0)),
    "square": lambda to, a: to("mul", a, a),
    "clamp": lambda to, low, x, high: to("max", low, _smaller(to, x, high)),
}


@dataclass(frozen=True)
class _Step:
    op: Any

    def __call__(self, to: Numbers, *inputs: Value) -> Value:
        return to.add(self.op, *inputs)


def formula_of(node: Node) -> Formula | None:
    """What a node does to each number of arrays of one shape, None where it is no such node."""
    (output, *others), op = node.outputs, node.op
    computed = [value for value in node.inputs if value.constant is None]
    if others or 0 in output.shape or not is_float(*node.inputs, output):
        return None
    if not computed or any(value.shape != output.shape for value in computed):
        return None
    if isinstance(op, Elementwise):
        return _Step(op)
    if isinstance(op, Affine) and len({*op.scale}) == len({*op.shift}) == 1:
        return _Step(Affine(op.scale[:1], op.shift[:1], 1, op.activation))
    if not isinstance(op, Primitive):
        return None
    step = _Step(Elementwise(op.name)) if op.name in IN_JAX else None
    return step or FORMULAS.get(op.name)


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
    (x,) = node.inputs
    return x.constant is None and is_float(x) and 0 not in x.shape


@lru_cache
def reduction(kind: str, length: int, channels: int) -> Region:
    """A region of images of so many rows of one pixel, whose rows it reduces to one.

    Args:
        kind: "sum", "max" or "min".
        length: of what is reduced.
        channels: of each.
    """
    rows, to = Numbers((1, length, 1, channels)), Numbers((1, 1, 1, channels))
    x = Value(rows.shape, FLOAT32)
    if kind == "sum":
        found = to.times(to.add(Mean(keepdims=True), x), float(length))
    elif kind == "max":
        found = to.add(Pool("max", (length, 1)), x)
    else:
        found = to.times(to.add(Pool("max", (length, 1)), rows.times(x, -1.0)), -1.0)
    return Region([*rows.nodes, *to.nodes], [x], [found])
