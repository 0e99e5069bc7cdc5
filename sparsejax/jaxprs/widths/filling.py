"""A program run on fills, loops until they are settled: what sees that channels are gone."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.extend import core

from sparsejax.jaxprs.kinds import ELEMENTWISE
from sparsejax.jaxprs.moves import SAME
from sparsejax.jaxprs.widths.fill_rules import RULES, elementwise
from sparsejax.jaxprs.widths.fills import Fill, Removal, constant_of, joined
from sparsejax.jaxprs.widths.folding import SUMS, Owed, absorbed, array_of
from sparsejax.jaxprs.widths.program import Program, Step, Value
from sparsejax.jaxprs.widths.spans import Spans


def run(removal: Removal, program: Program, inputs: Sequence[Fill]) -> list[Fill]:
    """The fills of the outputs."""
    env = dict(zip(program.jaxpr.invars, inputs, strict=True))
    known = lambda v: Fill({}, float(v.val) if np.ndim(v.val) == 0 else None)

    def read(v: Any) -> Fill:
        return known(v) if isinstance(v, core.Literal) else env.get(v, Fill({}))

    for step in program.steps:
        results = _step(removal, step, [read(v) for v in step.equation.invars])
        env.update(zip(step.equation.outvars, results, strict=True))
    return [read(v) for v in program.jaxpr.outvars]


def _step(removal: Removal, step: Step, fills: list[Fill]) -> list[Fill]:
    name = step.equation.primitive.name
    if name in CONTROL:
        removal.charge(owed for fill in fills for owed in fill.owed)
        return CONTROL[name](removal, step, [fill._replace(array=None, owed=()) for fill in fills])
    if step.bodies:
        return run(removal, step.bodies[0], fills)
    if name in SAME and not _rounds(step):
        return fills[: len(step.results)]
    constant = constant_of(step.equation, [fill.constant for fill in fills])
    array = array_of(step.equation, [fill.array for fill in fills])
    owed = _still_owed(removal, step, fills)
    return [
        own._replace(constant=constant, array=array, owed=own.owed + owed)
        for own in _results(removal, step, fills)
    ]


def _rounds(step: Step) -> bool:
    return not np.issubdtype(step.equation.outvars[0].aval.dtype, np.floating)


def _results(removal: Removal, step: Step, fills: list[Fill]) -> list[Fill]:
    name = step.equation.primitive.name
    if all(removal.removed(a) is None for v in (*step.operands, *step.results) for a in v.axes):
        return [Fill({})] * len(step.results)
    if name in ELEMENTWISE:
        return [elementwise(removal, step, fills)] * len(step.results)
    if name in RULES:
        return RULES[name](removal, step, fills)
    return [removal.fill(value, lambda axis: np.nan) for value in step.results]


def _still_owed(removal: Removal, step: Step, fills: list[Fill]) -> tuple[Owed, ...]:
    """What the equation's results owe; params take what they can."""
    name, params = step.equation.primitive.name, step.equation.params
    whose = [value.leaves for value in step.operands]
    if None in whose:
        removal.uses.update(path for leaves in whose for path in leaves or ())
    left: list[Owed] = []
    for side, fill in enumerate(fills):
        for owed in fill.owed:
            if name == "transpose":
                left.append(owed._replace(axis=params["permutation"].index(owed.axis)))
                continue
            # The next bias is where the constant goes; where none follows, the function pays it.
            taken = absorbed(step, side, fills[1 - side].array, owed) if name in SUMS else None
            if taken is None:
                removal.charge([owed])
            else:
                removal.folded.setdefault(taken[0], []).append((taken[1], owed))
    return tuple(left)


def _scan(removal: Removal, step: Step, fills: list[Fill]) -> list[Fill]:
    params, (program,) = step.equation.params, step.bodies
    first, num_carry = params["num_consts"], params["num_carry"]
    rows = [
        Fill({axis - 1: own for axis, own in fill.along.items()}, fill.constant)
        for fill in fills[first + num_carry :]
    ]
    turn = lambda carry: run(removal, program, [*fills[:first], *carry, *rows])
    values = program.inputs[first : first + num_carry]
    carry, results = _settled(removal, turn, values, fills[first : first + num_carry])
    ys = [
        Fill({axis + 1: own for axis, own in fill.along.items()}, fill.constant)
        for fill in results[num_carry:]
    ]
    return [*carry, *ys]


def _while(removal: Removal, step: Step, fills: list[Fill]) -> list[Fill]:
    skip, (asked, program) = step.equation.params["cond_nconsts"], step.bodies
    first = skip + step.equation.params["body_nconsts"]
    turn = lambda carry: run(removal, program, [*fills[skip:first], *carry])
    carry, _ = _settled(removal, turn, step.results, fills[first:])
    run(removal, asked, [*fills[:skip], *carry])
    return carry


def _settled(
    removal: Removal, turn: Callable[..., list[Fill]], values: Sequence[Value], carry: list[Fill]
) -> tuple[list[Fill], list[Fill]]:
    """What a loop carries at the start of any turn, and what a turn gives then."""
    while True:
        results = turn(carry)
        new = [
            joined(removal, value, pair)
            for value, *pair in zip(values, carry, results, strict=False)
        ]
        if all(_equal(one, other) for one, other in zip(carry, new, strict=True)):
            return new, results
        carry = new


def _equal(one: Fill, other: Fill) -> bool:
    along = other.along
    if one.constant != other.constant or one.along.keys() != along.keys():
        return False
    return all(np.array_equal(x, along[a], equal_nan=True) for a, x in one.along.items())


def _cond(removal: Removal, step: Step, fills: list[Fill]) -> list[Fill]:
    branches = [run(removal, program, fills[1:]) for program in step.bodies]
    own = zip(step.results, *branches, strict=True)
    return [joined(removal, value, results) for value, *results in own]


CONTROL: dict[str, Callable[[Removal, Step, list[Fill]], list[Fill]]] = {
    "cond": _cond,
    "scan": _scan,
    "while": _while,
}


def folded_or_seen(
    program: Program,
    removal: Removal,
    leaves: Mapping[str, Value],
    arrays: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """What params take for the removed channels; `removal.seen` then has the units that must stay.

    Args:
      program: that was read.
      removal: the units that go.
      leaves: the values of the params.
      arrays: the params, pruned weights at zero.
    """

    def filled(path: str, value: Value) -> Fill:
        along = lambda axis: _alike(np.moveaxis(arrays[path], axis, 0))
        return removal.fill(value, along)._replace(array=arrays[path])

    own = [filled(path, value) for path, value in leaves.items()]
    outputs = run(removal, program, [*own, *[Fill({})] * (len(program.inputs) - len(own))])
    removal.charge(owed for fill in outputs for owed in fill.owed)
    for path, taken in removal.folded.items():
        if removal.uses[path] > 1:
            removal.charge(owed for _, owed in taken)
    return {path: sum(amounts for amounts, _ in own) for path, own in removal.folded.items()}  # type: ignore[misc]


def _alike(rows: np.ndarray) -> np.ndarray:
    """The number that each row holds everywhere."""
    rows = rows.reshape(len(rows), -1).astype(np.float64)
    return np.where((rows == rows[:, :1]).all(1), rows[:, 0], np.nan)


def counted(
    program: Program, spans: Spans, leaves: Mapping[str, Value], runs: Sequence[int]
) -> dict[int, tuple[str, bool]]:
    """For each run what would see that units are gone that are all zero, and is it summed."""
    found: dict[int, tuple[str, bool]] = {}
    for apart in _apart(spans, leaves, runs):
        removal = Removal(spans, {run: np.zeros(spans.size(run), bool) for run in apart})
        zeros = [removal.fill(value, lambda axis: 0.0) for value in leaves.values()]
        rest = [Fill({})] * (len(program.inputs) - len(zeros))
        run(removal, program, [*zeros, *rest])
        found |= {run: (seen.reason, seen.sums) for run, seen in removal.seen.items()}
    return found


def _apart(spans: Spans, leaves: Mapping[str, Value], runs: Sequence[int]) -> list[list[int]]:
    """The runs that can go, in sets of which no two are nested in each other."""
    rivals: dict[int, set[int]] = {}
    for value in leaves.values():
        for span in value.axes:
            for factors in _products(spans, span):
                for run in factors:
                    rivals.setdefault(run, set()).update(factors - {run})
    sets: list[list[int]] = []
    for run in runs:
        if spans.reason(run) or spans.size(run) < 2:
            continue
        free = (own for own in sets if not rivals.get(run, set()) & {*own})
        own = next(free, None)
        if own is None:
            sets.append([run])
        else:
            own.append(run)
    return sets


def _products(spans: Spans, span: int) -> list[set[int]]:
    """The runs of each part that is nested."""
    parts = spans.parts(span)
    return [{*spans.runs(part)} for part in parts if len(spans.factors(part)) > 1]
