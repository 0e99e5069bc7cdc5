"""Equations that call a function with their own operands."""

from collections.abc import Iterator, Sequence
from typing import Any

from jax.extend import core

INLINED = (
    *("jit", "pjit", "closed_call", "core_call", "composite", "remat", "remat2", "checkpoint"),
)
CUSTOM = ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")


def body_of(equation: Any) -> core.ClosedJaxpr | None:
    """The function that a call runs, None for other equations."""
    if equation.primitive.name not in INLINED + CUSTOM:
        return None
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        body = equation.params.get(name)
        if isinstance(body, core.ClosedJaxpr):
            return body
        if isinstance(body, core.Jaxpr):
            return core.ClosedJaxpr(body, ())
    return None


def functions_of(equation: Any) -> Iterator[core.Jaxpr]:
    """Whatever functions an equation runs: bodies, branches, conditions."""
    for parameter in equation.params.values():
        for part in parameter if isinstance(parameter, tuple | list) else (parameter,):
            if isinstance(part, core.ClosedJaxpr):
                yield part.jaxpr
            elif isinstance(part, core.Jaxpr):
                yield part


def bound(equation: Any, inputs: Sequence[Any], **changes: Any) -> list[Any]:
    """The outputs of an equation, some of its parameters changed."""
    params = {**equation.params, **changes}
    outputs = equation.primitive.bind(*inputs, **equation.primitive.get_bind_params(params))
    return list(outputs) if equation.primitive.multiple_results else [outputs]
