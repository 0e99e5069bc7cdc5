"""A jaxpr read once: the axes of every value, equation by equation, calls and loops opened."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.extend import core

from sparsejax.jaxprs.calls import body_of
from sparsejax.jaxprs.products import PRODUCTS
from sparsejax.jaxprs.read import walk
from sparsejax.jaxprs.widths.rules import RULES, Axes, freeze, fresh, numbers_of, unify, unknown
from sparsejax.jaxprs.widths.spans import Spans

CUSTOM_JVP = "custom_jvp_call"


class Value(NamedTuple):
    """A variable: the span of each axis, and the params that it is made of; None with data."""

    axes: Axes
    leaves: frozenset[str] | None = frozenset()


class Step(NamedTuple):
    """An equation with its operands and results, what it calls, and its custom derivative.

    `said` is the equation in a reason: its primitive and the user's path to it.
    """

    equation: Any
    operands: list[Value]
    results: list[Value]
    bodies: "tuple[Program, ...]" = ()
    derivative: "Callable[[], Derivative] | None" = None
    said: str = ""


class Program(NamedTuple):
    """A jaxpr whose equations have been read, as it is called at one place."""

    jaxpr: core.Jaxpr
    consts: Sequence[Any]
    inputs: list[Value]
    steps: list[Step]
    outputs: list[Value]


class Derivative(NamedTuple):
    """What a custom rule makes of primals and tangents.

    Attributes:
      program: of the primals and those tangents that there are.
      moves: which operands, but for constants of the function, have a tangent.
      moved: which results have one.
    """

    program: Program
    moves: list[bool]
    moved: list[bool]


class Reader:
    """Reads jaxprs into programs, and notes what the params make in products."""

    def __init__(self) -> None:
        self.spans = Spans()
        self.made: list[tuple[int, str]] = []  # the span of a product's outputs, and whose they are
        self._in_derivative = False
        self._scopes: tuple[str, ...] = ()

    def read(self, jaxpr: core.Jaxpr, consts: Sequence[Any], inputs: Sequence[Value]) -> Program:
        """The program of a jaxpr with these inputs."""
        steps: list[Step] = []

        def known(v: Any, value: Any) -> Value:
            return Value(fresh(self.spans, v.aval.shape, "a constant"))

        def step(equation: Any, operands: list[Value]) -> list[Value]:
            own = self._step(equation, operands)
            steps.append(own)
            return own.results

        outputs = walk(jaxpr, consts, inputs, step, known)
        return Program(jaxpr, consts, list(inputs), steps, outputs)

    def _step(self, equation: Any, operands: list[Value]) -> Step:
        outer = self._scopes
        scope = str(equation.source_info.name_stack)
        self._scopes = (*outer, scope) if scope else outer
        path = "/".join(self._scopes)
        said = f"`{equation.primitive.name}`" + (f" in {path}" if path else "")
        self.spans.because = said
        step = self._read_step(equation, operands)._replace(said=said)
        self._scopes = outer
        return step

    def _read_step(self, equation: Any, operands: list[Value]) -> Step:
        name = equation.primitive.name
        if name in CONTROL:
            return CONTROL[name](self, equation, operands)
        if (body := body_of(equation)) is not None:
            return self._call(equation, operands, body)
        rule = RULES.get(name, unknown)
        axes = rule(self.spans, equation, [value.axes for value in operands])
        self._note_made(equation, operands)
        leaves = [value.leaves for value in operands]
        own = None if None in leaves else frozenset().union(*leaves)  # type: ignore[arg-type]
        return Step(equation, operands, [Value(one, own) for one in axes])

    def _note_made(self, equation: Any, operands: list[Value]) -> None:
        """The outputs of a product of params with data are what the params make, and look-ups."""
        name, params = equation.primitive.name, equation.params
        if name == "conv_general_dilated":
            self._make(operands[1], [params["dimension_numbers"].rhs_spec[0]])
        elif name == "gather" and operands[0].leaves:
            self._make(operands[0], range(len(operands[0].axes)))
        elif name in PRODUCTS and (operands[0].leaves is None) != (operands[1].leaves is None):
            side = int(operands[0].leaves is None)
            (contracted, batch), groups = numbers_of(equation)
            used = (*contracted[side], *batch[side], *(groups if side else ()))
            rank = len(operands[side].axes)
            self._make(operands[side], [axis for axis in range(rank) if axis not in used])

    def _make(self, kernel: Value, axes: Sequence[int]) -> None:
        for path in sorted(kernel.leaves or ()):
            self.made.extend((kernel.axes[axis], path) for axis in axes)

    def _call(self, equation: Any, operands: list[Value], body: core.ClosedJaxpr) -> Step:
        program = self.read(body.jaxpr, body.consts, operands)
        if equation.primitive.name != CUSTOM_JVP:
            return Step(equation, operands, program.outputs, (program,))
        rule = functools.cache(lambda: self._derivative(equation, operands, program))
        if not self._in_derivative:  # a rule calls its own function: what it does is known then
            rule()
        return Step(equation, operands, program.outputs, (program,), rule)

    def _derivative(self, equation: Any, operands: list[Value], program: Program) -> Derivative:
        """Both of a primal and its tangent have the same axes."""
        start = equation.params["num_consts"]
        own = equation.invars[start:]
        moves = [jnp.issubdtype(v.aval.dtype, jnp.inexact) for v in own]
        zeros = [not flag for flag in moves]
        jaxpr, consts, out_zeros = equation.params["jvp_jaxpr_fun"].call_wrapped(*zeros)
        tangents = [value for value, flag in zip(operands[start:], moves, strict=True) if flag]
        outer, self._in_derivative = self._in_derivative, True
        rule = self.read(jaxpr, consts, [*operands[start:], *tangents])
        self._in_derivative = outer
        moving = [v for v, zero in zip(program.outputs, out_zeros, strict=True) if not zero]
        for one, other in zip([*program.outputs, *moving], rule.outputs, strict=True):
            unify(self.spans, one.axes, other.axes)
        return Derivative(rule, moves, [not zero for zero in out_zeros])


def _scan(reader: Reader, equation: Any, operands: list[Value]) -> Step:
    params, spans, because = equation.params, reader.spans, reader.spans.because
    first, num_carry = params["num_consts"], params["num_carry"]
    xs = operands[first + num_carry :]
    freeze(spans, [value.axes[0] for value in xs])
    rows = [Value(value.axes[1:], value.leaves) for value in xs]
    carry = [Value(value.axes, None) for value in operands[first : first + num_carry]]
    body = params["jaxpr"]
    program = reader.read(body.jaxpr, body.consts, [*operands[:first], *carry, *rows])
    spans.because = because
    for one, other in zip(carry, program.outputs, strict=False):
        unify(spans, one.axes, other.axes)
    length = params["length"]
    ys = [
        Value((spans.new(length, because), *value.axes), value.leaves)
        for value in program.outputs[num_carry:]
    ]
    return Step(equation, operands, [*carry, *ys], (program,))


def _while(reader: Reader, equation: Any, operands: list[Value]) -> Step:
    params, because = equation.params, reader.spans.because
    skip = params["cond_nconsts"]
    first = skip + params["body_nconsts"]
    carry = [Value(value.axes, None) for value in operands[first:]]
    test, body = params["cond_jaxpr"], params["body_jaxpr"]
    asked = reader.read(test.jaxpr, test.consts, [*operands[:skip], *carry])
    program = reader.read(body.jaxpr, body.consts, [*operands[skip:first], *carry])
    reader.spans.because = because
    for one, other in zip(carry, program.outputs, strict=True):
        unify(reader.spans, one.axes, other.axes)
    return Step(equation, operands, carry, (asked, program))


def _cond(reader: Reader, equation: Any, operands: list[Value]) -> Step:
    because = reader.spans.because
    programs = [
        reader.read(branch.jaxpr, branch.consts, operands[1:])
        for branch in equation.params["branches"]
    ]
    reader.spans.because = because
    for program in programs[1:]:
        for one, other in zip(programs[0].outputs, program.outputs, strict=True):
            unify(reader.spans, one.axes, other.axes)
    results = [Value(value.axes, None) for value in programs[0].outputs]
    return Step(equation, operands, results, tuple(programs))


CONTROL: dict[str, Callable[[Reader, Any, list[Value]], Step]] = {
    "cond": _cond,
    "scan": _scan,
    "while": _while,
}
