"""Between which numbers the values of a graph lie, as far as its equations tell."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from sparsejax.compiler.graph.edit import Edit, constant_of
from sparsejax.compiler.graph.graph import Node, Value
from sparsejax.compiler.nodes.primitive import Primitive
from sparsejax.jaxprs import calls
from sparsejax.jaxprs.read import walk

INFINITY = math.inf


class Range(NamedTuple):
    """Where the elements of a value lie, those that are no NaN.

    Attributes:
        low, high: the bounds.
        sign: 1 where no element has a minus, not even a zero, -1 where each has, 0 for all else.
    """

    low: float
    high: float
    sign: int = 0

    @property
    def size(self) -> float:
        """The largest magnitude."""
        return max(abs(self.low), abs(self.high))


UNKNOWN = Range(-INFINITY, INFINITY)
_MOVES = "broadcast_in_dim reshape transpose squeeze expand_dims slice rev copy Reshape"
KEEPS = frozenset((*_MOVES.split(), "reduce_max", "reduce_min", "stop_gradient"))


def between(low: float, high: float, sign: int = 0) -> Range:
    """A range whose sign is told by its bounds where these tell it."""
    return Range(low, high, 1 if low > 0 else -1 if high < 0 else sign)


def add(a: Range, b: Range) -> Range:
    """The range of sums."""
    return between(a.low + b.low, a.high + b.high, a.sign if a.sign == b.sign else 0)


def neg(a: Range) -> Range:
    """The range with the other sign."""
    return Range(-a.high, -a.low, -a.sign)


def mul(a: Range, b: Range) -> Range:
    """The range of products."""
    sign = a.sign * b.sign
    if not math.isfinite(a.size * b.size):
        low, high = (0 if sign > 0 else -INFINITY), (0 if sign < 0 else INFINITY)
        return Range(low, high, sign)
    corners = [x * y for x in (a.low, a.high) for y in (b.low, b.high)]
    return between(min(corners), max(corners), sign)


def reciprocal(a: Range) -> Range:
    """The range of 1 / a; unknown if that may be infinite."""
    if a.low > 0 or a.high < 0:
        return between(1 / a.high, 1 / a.low, 1 if a.low > 0 else -1)
    return UNKNOWN._replace(sign=a.sign)


def square(a: Range) -> Range:
    """The range of squares."""
    nearest = 0.0 if a.low <= 0 <= a.high else min(abs(a.low), abs(a.high))
    return Range(nearest * nearest, a.size * a.size, 1)


def sqrt(a: Range) -> Range:
    """The range of roots; that of a number below 0 is NaN."""
    low, high = (math.sqrt(max(bound, 0)) for bound in (a.low, a.high))
    return between(low, high, max(a.sign, 0))


def absolute(a: Range) -> Range:
    """The range of magnitudes."""
    return sqrt(square(a))._replace(sign=1)


def exp(a: Range) -> Range:
    """The range of exponentials."""
    return Range(_exp(a.low), _exp(a.high), 1)


def maximum(a: Range, b: Range) -> Range:
    """The range of the larger."""
    return between(max(a.low, b.low), max(a.high, b.high), a.sign if a.sign == b.sign else 0)


def minimum(a: Range, b: Range) -> Range:
    """The range of the smaller."""
    return neg(maximum(neg(a), neg(b)))


def union(*ranges: Range) -> Range:
    """The range of what lies in any of these."""
    signs = {each.sign for each in ranges}
    low, high = min(each.low for each in ranges), max(each.high for each in ranges)
    return between(low, high, signs.pop() if len(signs) == 1 else 0)


def times(a: Range, count: int) -> Range:
    """The range of sums of so many elements."""
    return mul(a, Range(count, count, 1)) if count else Range(0, 0, 1)


OF: dict[str, Callable[..., Range]] = {
    "abs": absolute,
    "add": add,
    "add_any": add,
    "clamp": lambda low, a, high: minimum(maximum(low, a), high),
    "concatenate": union,
    "cos": lambda a: Range(-1, 1),
    "div": lambda a, b: mul(a, reciprocal(b)),
    "erf": lambda a: Range(-1, 1, a.sign),
    "exp": exp,
    "logistic": lambda a: Range(0, 1, 1),
    "max": maximum,
    "min": minimum,
    "mul": mul,
    "neg": neg,
    "reciprocal": reciprocal,
    "rsqrt": lambda a: sqrt(reciprocal(a)) if a.low > 0 else UNKNOWN,
    "select_n": lambda which, *cases: union(*cases),
    "sin": lambda a: Range(-1, 1),
    "sqrt": sqrt,
    "square": square,
    "sub": lambda a, b: add(a, neg(b)),
    "tanh": lambda a: Range(-1, 1, a.sign),
}


class Ranges:
    """The ranges of a graph's values, each found once."""

    def __init__(self, edit: Edit):
        self._edit = edit
        self._known: dict[Value, Range] = {}

    def __call__(self, value: Value) -> Range:
        """The range of a value."""
        pending = [value]
        while pending:
            last = pending[-1]
            writer = self._edit.writer.get(last)
            missing = [v for v in writer.inputs if v not in self._known] if writer else []
            if missing and last not in self._known:
                pending += missing
                continue
            self._known.setdefault(last, self._found(last, writer))
            pending.pop()
        return self._known[value]

    def _found(self, value: Value, writer: Node | None) -> Range:
        """What a value's writer says, whose inputs are known."""
        if not np.issubdtype(value.dtype, np.floating):
            return UNKNOWN
        array = constant_of(value)
        if array is not None:
            return of_array(array)
        if writer is None:
            return UNKNOWN
        ranges = [self._known[v] for v in writer.inputs]
        if isinstance(writer.op, Primitive):
            return _of_equation(writer.op.equation, ranges)
        return ranges[0] if writer.op.name in KEEPS else UNKNOWN


def of_array(array: np.ndarray) -> Range:
    """The range of numbers that are known; unknown of what are no floats."""
    if not np.issubdtype(array.dtype, np.floating):
        return UNKNOWN
    real = array[~np.isnan(array)]
    if not real.size:
        return UNKNOWN
    signs = np.signbit(real)
    sign = -1 if signs.all() else 0 if signs.any() else 1
    return Range(float(real.min()), float(real.max()), sign)


def _of_equation(equation: Any, inputs: list[Range]) -> Range:
    """The range of an equation's result, that of an activation by the function that it is."""
    name, params = equation.primitive.name, equation.params
    if name in KEEPS and len(inputs) == 1:
        return inputs[0]
    if name in OF:
        return OF[name](*inputs)
    if name == "integer_pow" and params["y"] in (2, -1):
        return OF["square" if params["y"] == 2 else "reciprocal"](*inputs)
    if name == "reduce_sum":
        before, after = (math.prod(v[0].aval.shape) for v in (equation.invars, equation.outvars))
        return times(inputs[0], before // max(after, 1))
    body = calls.body_of(equation)
    if body is None or len(body.jaxpr.outvars) != 1:
        return UNKNOWN
    step = lambda inner, ranges: [_of_equation(inner, ranges)] * len(inner.outvars)
    known = lambda variable, array: of_array(np.asarray(array, variable.aval.dtype))
    return walk(body.jaxpr, body.consts, inputs, step, known)[0]


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else INFINITY
