"""A program run on smaller arrays: its equations with shapes adapted to the channels that stay."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.custom_derivatives import zero_from_primal
from jax.extend import core

from sparsejax.jaxprs.calls import bound
from sparsejax.jaxprs.widths.fills import Removal
from sparsejax.jaxprs.widths.program import CUSTOM_JVP, Program, Step, Value


def narrowed(removal: Removal, program: Program, inputs: Sequence[Any]) -> list[Any]:
    """The outputs of a program whose inputs have only the positions that stay."""
    jaxpr = program.jaxpr
    env = dict(zip(jaxpr.constvars, program.consts, strict=True))
    env |= dict(zip(jaxpr.invars, inputs, strict=True))
    read = lambda v: v.val if isinstance(v, core.Literal) else env[v]
    for step in program.steps:
        results = _run(removal, step, [read(v) for v in step.equation.invars])
        env.update(zip(step.equation.outvars, results, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _run(removal: Removal, step: Step, inputs: list[Any]) -> Sequence[Any]:
    name = step.equation.primitive.name
    values = (*step.operands, *step.results)
    if all(removal.removed(span) is None for value in values for span in value.axes):
        return bound(step.equation, inputs)
    if name in CALLS:
        return CALLS[name](removal, step, inputs)
    if step.bodies:
        return narrowed(removal, step.bodies[0], inputs)
    changes = CHANGES[name](removal, step) if name in CHANGES else {}
    return bound(step.equation, inputs, **changes)


def stays(removal: Removal, span: int) -> np.ndarray:
    """Which positions do."""
    gone = removal.removed(span)
    return np.ones(removal.spans.size(span), bool) if gone is None else ~gone


def width(removal: Removal, span: int) -> int:
    """How many positions stay."""
    gone = removal.removed(span)
    return removal.spans.size(span) - (0 if gone is None else int(gone.sum()))


def shape(removal: Removal, value: Value) -> tuple[int, ...]:
    """The shape that is left of a value."""
    return tuple(width(removal, span) for span in value.axes)


def _slice(removal: Removal, step: Step) -> dict[str, Any]:
    params, (operand,), (result,) = step.equation.params, step.operands, step.results
    strides = params["strides"] or (1,) * len(operand.axes)
    starts, limits = [], []
    for span, new, start, stride in zip(
        operand.axes, result.axes, params["start_indices"], strides, strict=True
    ):
        within = start % stride  # of a block, which stays or goes
        starts.append(int(stays(removal, span)[: start - within].sum()) + within)
        limits.append(starts[-1] + max((width(removal, new) - 1) * stride + 1, 0))
    return {"start_indices": tuple(starts), "limit_indices": tuple(limits)}


def _split(removal: Removal, step: Step) -> dict[str, Any]:
    axis = step.equation.params["axis"]
    return {"sizes": tuple(width(removal, value.axes[axis]) for value in step.results)}


def _pad(removal: Removal, step: Step) -> dict[str, Any]:
    config = []
    for span, (low, high, inner) in zip(
        step.results[0].axes, step.equation.params["padding_config"], strict=True
    ):
        if removal.removed(span) is not None:
            own = stays(removal, span)
            low, high = int(own[:low].sum()), int(own[len(own) - high :].sum())
        config.append((low, high, inner))
    return {"padding_config": tuple(config)}


def _window(removal: Removal, step: Step) -> dict[str, Any]:
    """Windows over whole axes are as wide as these."""
    pairs = zip(step.operands[0].axes, step.equation.params["slice_sizes"], strict=True)
    size = removal.spans.size
    return {"slice_sizes": tuple(width(removal, s) if n == size(s) else n for s, n in pairs)}


def _tile(removal: Removal, step: Step) -> dict[str, Any]:
    wide, narrow = (shape(removal, value) for value in (step.results[0], step.operands[0]))
    return {"reps": tuple(a // b if b else 1 for a, b in zip(wide, narrow, strict=True))}


def _convolution(removal: Removal, step: Step) -> dict[str, Any]:
    groups = step.equation.params["feature_group_count"]
    if groups == 1:
        return {}
    layout = step.equation.params["dimension_numbers"]
    images, kernel = step.operands
    inner = removal.spans.size(kernel.axes[layout.rhs_spec[1]])
    outer, _ = removal.spans.divided(images.axes[layout.lhs_spec[1]], (groups, inner))
    return {"feature_group_count": width(removal, outer)}


CHANGES: dict[str, Callable[[Removal, Step], dict[str, Any]]] = {
    "broadcast_in_dim": lambda removal, step: {"shape": shape(removal, step.results[0])},
    "conv_general_dilated": _convolution,
    "dynamic_slice": _window,
    "gather": _window,
    "iota": lambda removal, step: {"shape": shape(removal, step.results[0])},
    "pad": _pad,
    "reshape": lambda removal, step: {"new_sizes": shape(removal, step.results[0])},
    "slice": _slice,
    "split": _split,
    "tile": _tile,
}


def _custom_jvp(removal: Removal, step: Step, inputs: list[Any]) -> Sequence[Any]:
    start = step.equation.params["num_consts"]
    function = jax.custom_jvp(lambda *own: narrowed(removal, step.bodies[0], own))

    @function.defjvp
    def rule(primals: Any, tangents: Any) -> Any:
        assert step.derivative is not None
        program, moves, moved = step.derivative()
        own = [t for t, flag in zip(tangents[start:], moves, strict=True) if flag]
        results = narrowed(removal, program, [*primals[start:], *own])
        outputs, found = results[: len(moved)], iter(results[len(moved) :])
        pairs = zip(outputs, moved, strict=True)
        return outputs, [next(found) if flag else zero_from_primal(x) for x, flag in pairs]

    return function(*inputs)


def _custom_vjp(removal: Removal, step: Step, inputs: list[Any]) -> Sequence[Any]:
    function = jax.custom_jvp(lambda *own: narrowed(removal, step.bodies[0], own))

    @function.defjvp
    def rule(primals: Any, tangents: Any) -> Any:
        raise NotImplementedError(
            f"a shrunk function cannot be differentiated through a jax.custom_vjp, got {step.said} "
            "on channels that were cut; write it as a jax.custom_jvp, or keep these channels."
        )

    return function(*inputs)


def _remat(removal: Removal, step: Step, inputs: list[Any]) -> Sequence[Any]:
    options = {name: step.equation.params[name] for name in ("prevent_cse", "policy")}
    body = lambda *own: narrowed(removal, step.bodies[0], own)
    return jax.checkpoint(body, **options)(*inputs)


def _scan(removal: Removal, step: Step, inputs: list[Any]) -> Sequence[Any]:
    params, (program,) = step.equation.params, step.bodies
    first, num_carry = params["num_consts"], params["num_carry"]

    def turn(carry: list[Any], xs: list[Any]) -> tuple[list[Any], list[Any]]:
        results = narrowed(removal, program, [*inputs[:first], *carry, *xs])
        return results[:num_carry], results[num_carry:]

    options = {name: params[name] for name in ("length", "reverse", "unroll")}
    start, xs = inputs[first : first + num_carry], inputs[first + num_carry :]
    carry, ys = lax.scan(turn, start, xs, **options)
    return [*carry, *ys]


def _while(removal: Removal, step: Step, inputs: list[Any]) -> Sequence[Any]:
    skip, (asked, program) = step.equation.params["cond_nconsts"], step.bodies
    first = skip + step.equation.params["body_nconsts"]
    return lax.while_loop(
        lambda carry: narrowed(removal, asked, [*inputs[:skip], *carry])[0],
        lambda carry: narrowed(removal, program, [*inputs[skip:first], *carry]),
        inputs[first:],
    )


def _cond(removal: Removal, step: Step, inputs: list[Any]) -> Sequence[Any]:
    def runs(program: Program) -> Callable[..., list[Any]]:
        return lambda *own: narrowed(removal, program, own)

    return lax.switch(inputs[0], [runs(program) for program in step.bodies], *inputs[1:])


CALLS: dict[str, Callable[[Removal, Step, list[Any]], Sequence[Any]]] = {
    CUSTOM_JVP: _custom_jvp,
    "checkpoint": _remat,
    "cond": _cond,
    "custom_vjp_call": _custom_vjp,
    "custom_vjp_call_jaxpr": _custom_vjp,
    "remat": _remat,
    "remat2": _remat,
    "scan": _scan,
    "while": _while,
}
