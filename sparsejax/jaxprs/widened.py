"""Functions in half precision, computed in float32."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core

from sparsejax.jaxprs.calls import body_of
from sparsejax.jaxprs.read import split, walk

HALVES = (jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float16))


@dataclass(frozen=True)
class InFloat32:
    """A function with bfloat16 or float16 inside, in float32: only its results are rounded.

    Args:
        apply_fn: `apply_fn(params, *inputs)`; its weights may be of any float type.
    """

    apply_fn: Callable

    def __call__(self, *args: Any) -> Any:
        """What apply_fn returns, in the types that it returns."""
        is_array = lambda leaf: isinstance(leaf, jax.Array | np.ndarray)
        arrays, merged = split(args, is_array)
        function = lambda arrays: self.apply_fn(*merged(arrays))
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(arrays)
        leaves, treedef = jax.tree.flatten(shapes)
        results = zip(widened(closed, arrays), leaves, strict=True)
        return jax.tree.unflatten(treedef, [_as(x, shape.dtype) for x, shape in results])


def widened(closed: core.ClosedJaxpr, inputs: Sequence[Any]) -> list[Any]:
    """The outputs of a jaxpr, with float32 in place of all halves."""
    known = lambda v, value: _wide(
        value if hasattr(value, "dtype") else np.array(value, v.aval.dtype)
    )
    return walk(closed.jaxpr, closed.consts, list(map(_wide, inputs)), _step, known)


def _step(equation: Any, inputs: list[Any]) -> Sequence[Any]:
    name = equation.primitive.name
    body = body_of(equation)
    if body is not None:
        return widened(body, inputs)
    if name in _CONTROL:
        return _CONTROL[name](equation.params, inputs)
    if name == "reduce_precision":
        return inputs
    if name == "bitcast_convert_type":  # what it is in bits
        inputs = [_as(x, v.aval.dtype) for x, v in zip(inputs, equation.invars, strict=True)]
        params = equation.params
    else:
        params = {key: _wide_type(value) for key, value in equation.params.items()}
    functions, params = _bound(equation.primitive, params)
    results = equation.primitive.bind(*functions, *inputs, **params)
    return list(map(_wide, results if equation.primitive.multiple_results else [results]))


def _bound(primitive: Any, params: dict) -> tuple[Sequence[Any], dict]:
    """As bind takes them: jax before 0.10 hands functions among its parameters on their own."""
    params = primitive.get_bind_params(params)
    return ((), params) if isinstance(params, dict) else params


def _scan(params: dict, inputs: list[Any]) -> list[Any]:
    first, last = params["num_consts"], params["num_consts"] + params["num_carry"]
    count = params["num_carry"]

    def turn(carried: list, scanned: list) -> tuple[list, list]:
        outputs = widened(params["jaxpr"], [*inputs[:first], *carried, *scanned])
        return _strong(outputs[:count]), outputs[count:]

    options = {name: params[name] for name in ("length", "reverse", "unroll")}
    carried, stacked = lax.scan(turn, _strong(inputs[first:last]), inputs[last:], **options)
    return [*carried, *stacked]


def _while(params: dict, inputs: list[Any]) -> list[Any]:
    first = params["cond_nconsts"]
    last = first + params["body_nconsts"]
    return lax.while_loop(
        lambda carried: widened(params["cond_jaxpr"], [*inputs[:first], *carried])[0],
        lambda carried: _strong(widened(params["body_jaxpr"], [*inputs[first:last], *carried])),
        _strong(inputs[last:]),
    )


def _cond(params: dict, inputs: list[Any]) -> list[Any]:
    branches = [
        lambda *read, branch=branch: _strong(widened(branch, read)) for branch in params["branches"]
    ]
    return lax.switch(inputs[0], branches, *inputs[1:])


_CONTROL: dict[str, Callable[[dict, list[Any]], list[Any]]] = {
    "scan": _scan,
    "while": _while,
    "cond": _cond,
}


def _as(x: Any, dtype: Any) -> Any:
    return x if x.dtype == dtype else lax.convert_element_type(x, dtype)


def _wide(x: Any) -> Any:
    return _as(x, np.dtype(np.float32)) if x.dtype in HALVES else x


def _wide_type(value: Any) -> Any:
    """float32 where a parameter is a half."""
    return np.dtype(np.float32) if isinstance(value, np.dtype) and value in HALVES else value


def _strong(arrays: Sequence[Any]) -> list[Any]:
    """With types that no other array changes."""
    return [lax.convert_element_type(x, x.dtype) for x in map(jnp.asarray, arrays)]
