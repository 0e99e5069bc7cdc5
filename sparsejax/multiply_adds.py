"""Multiply-adds of each parameter, counted in the jaxpr of the function that uses it."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.extend import core

from sparsejax import tree
from sparsejax.doors import FUNCTION, check_examples, checked, tracing

# Equations through which a weight stays the same weights: its values move or change, none mix.
CARRIES = (
    "broadcast_in_dim",
    "convert_element_type",
    "copy",
    "mul",
    "optimization_barrier",
    "pvary",
    "reshape",
    "select_n",
    "sharding_constraint",
    "squeeze",
    "stop_gradient",
    "transpose",
)
Paths = dict[Any, str]


@checked(apply_fn=FUNCTION)
def multiply_adds(apply_fn: Callable, params: Any, *example: Any) -> dict[str, int]:
    """The multiply-adds that each leaf of the params takes part in, by normalised path.

    Counts convolutions and matrix products in one call `apply_fn(params, *example)`, batch
    included, wherever they are nested; the body of a `scan` counts once a turn, that of a
    `while_loop` once. Leaves without any, such as biases, are left out. Pass the function as it was
    before `accelerate`: custom calls cannot be looked into.
    """
    check_examples("multiply_adds", apply_fn, params, example)
    arrays = {path: x for path, x in tree.leaves_with_paths(params) if hasattr(x, "shape")}
    traced = lambda values, *inputs: apply_fn(
        tree.map_with_paths(lambda path, x: values.get(path, x), params), *inputs
    )
    with tracing("multiply_adds"):
        closed = jax.make_jaxpr(traced)(arrays, *example)
    names = sorted(arrays)  # a dict's leaves come first and in the order of its keys
    counts: dict[str, int] = {}
    _walk(closed.jaxpr, dict(zip(closed.jaxpr.invars, names, strict=False)), 1, counts)
    return counts


def _walk(jaxpr: Any, paths: Paths, times: int, counts: dict[str, int]) -> Paths:
    """Count the equations, `times` over; `paths` names the variables that hold a weight."""
    for eqn in jaxpr.eqns:
        held = [None if isinstance(v, core.Literal) else paths.get(v) for v in eqn.invars]
        weights = {path for path in held if path is not None}
        if not weights:
            continue
        name = eqn.primitive.name
        if name in ("conv_general_dilated", "dot_general"):
            for path in weights:
                counts[path] = counts.get(path, 0) + times * _size(eqn)
        elif name in CARRIES and len(weights) == 1:
            paths |= dict.fromkeys(eqn.outvars, *weights)
        else:
            paths |= _walk_bodies(eqn, held, times, counts)
    return paths


def _walk_bodies(eqn: Any, held: list, times: int, counts: dict[str, int]) -> Paths:
    """Count the functions among an equation's parameters; the weights that they return."""
    found: Paths = {}
    if eqn.primitive.name == "scan":
        times *= eqn.params["length"]
    for body in jax.tree.leaves(list(_bodies(eqn.params)), is_leaf=lambda b: hasattr(b, "eqns")):
        # A branch of a cond lacks the index; conditions of while_loop do not align and are skipped.
        own = held[len(held) - len(body.invars) :]
        if len(own) != len(body.invars):
            continue
        inside = _walk(
            body,
            {v: path for v, path in zip(body.invars, own, strict=True) if path is not None},
            times,
            counts,
        )
        if len(body.outvars) == len(eqn.outvars):
            results = zip(eqn.outvars, body.outvars, strict=True)
            found |= {v: inside[o] for v, o in results if isinstance(o, core.Var) and o in inside}
    return found


def _bodies(params: Mapping[str, Any]) -> Any:
    """The jaxprs among an equation's parameters."""
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, core.Jaxpr):
                yield item


def _size(eqn: Any) -> int:
    """Multiply-adds of a convolution (padding counts) or of a matrix product."""
    left, right = (v.aval.shape for v in eqn.invars)
    output = math.prod(eqn.outvars[0].aval.shape)
    if eqn.primitive.name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        return output * math.prod(left[axis] for axis in contracted)
    out_features = right[eqn.params["dimension_numbers"].rhs_spec[0]]
    return output * math.prod(right) // max(out_features, 1)
