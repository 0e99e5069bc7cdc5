"""Equations evaluated on constants, in NumPy where it has the operation."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from sparsejax.jaxprs import body_of
from sparsejax.jaxprs.in_numpy import ELEMENTWISE
from sparsejax.jaxprs.read import walk

_BOOLEAN = ("and", "not", "or")  # bitwise on integers in JAX: left to it
_NATIVE = (np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.int32), np.dtype(bool))


def fold(equation: Any, constants: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs of an equation whose inputs are all constants."""
    outputs = in_numpy(equation, constants)
    if outputs is not None:
        return outputs
    primitive, params = equation.primitive, equation.params
    with jax.ensure_compile_time_eval():
        results = bind(primitive, params, *constants)
    return [_plain(r) for r in (results if primitive.multiple_results else [results])]


def _plain(array: jax.Array) -> Any:
    """A NumPy array, but for keys, which only JAX has."""
    is_key = jax.dtypes.issubdtype(array.dtype, jax.dtypes.extended)
    return array if is_key else np.asarray(array)


def bind(primitive: Any, params: dict, *inputs: Any) -> Any:
    """The equation again; jax before 0.10 hands functions among its parameters on their own."""
    params = primitive.get_bind_params(params)
    if isinstance(params, dict):
        return primitive.bind(*inputs, **params)
    functions, params = params
    return primitive.bind(*functions, *inputs, **params)


def in_numpy(
    equation: Any, constants: Sequence[np.ndarray], *, double: bool = False
) -> list[np.ndarray] | None:
    """The outputs as NumPy computes them, None where it cannot.

    Args:
        equation: of a jaxpr.
        constants: its inputs.
        double: compute in float64 what the equation has in float32.
    """
    name, params = equation.primitive.name, equation.params
    if any(np.dtype(c.dtype) not in _NATIVE for c in constants):
        return None
    if (body := body_of(equation)) is not None:
        return _body_in_numpy(body, constants, double)
    shape_only = _reshaped(name, params, constants)
    if shape_only is not None:
        return [shape_only]
    with np.errstate(all="ignore"):  # XLA has no warnings either
        if name == "integer_pow":
            return [np.asarray(np.power(constants[0], params["y"]))]
        if name == "convert_element_type":
            return _converted(constants[0], _wide(params["new_dtype"], double))
        if name not in ELEMENTWISE or (name in _BOOLEAN and constants[0].dtype != bool):
            return None
        dtype = _wide(equation.outvars[0].aval.dtype, double)
        return [np.asarray(ELEMENTWISE[name](*constants), dtype)]


def _wide(dtype: Any, double: bool) -> np.dtype:
    """float64 in place of float32 if asked for."""
    return np.dtype(np.float64 if double and dtype == np.float32 else dtype)


def _converted(array: np.ndarray, dtype: np.dtype) -> list[np.ndarray] | None:
    """The cast, but for floats to integers, where XLA saturates and NumPy wraps."""
    if dtype not in _NATIVE or (array.dtype.kind == "f" and dtype.kind == "i"):
        return None
    return [array.astype(dtype)]


def _reshaped(name: str, params: dict, constants: Sequence[np.ndarray]) -> np.ndarray | None:
    """Views, so that they cost no memory and that "varies over one axis only" stays visible."""
    if name == "broadcast_in_dim":
        if len(constants) > 1:
            return None
        dims = [int(d) for d in params["broadcast_dimensions"]]
        shape = params["shape"]
        index = tuple(slice(None) if d in dims else None for d in range(len(shape)))
        return np.broadcast_to(constants[0][index], shape)
    if name == "transpose":
        return constants[0].transpose(params["permutation"])
    if name == "squeeze":
        return constants[0].squeeze(tuple(int(d) for d in params["dimensions"]))
    if name == "reshape" and params.get("dimensions") is None:
        return constants[0].reshape(params["new_sizes"])
    return None


def _body_in_numpy(
    body: Any, constants: Sequence[np.ndarray], double: bool
) -> list[np.ndarray] | None:
    """A call's body, all of it or not at all."""
    if any(np.dtype(np.asarray(c).dtype) not in _NATIVE for c in body.consts):
        return None

    def step(equation: Any, inputs: list[Any]) -> Sequence[Any]:
        outputs = None
        if all(x is not None for x in inputs):
            outputs = in_numpy(equation, inputs, double=double)
        return [None] * len(equation.outvars) if outputs is None else outputs

    known = lambda v, value: np.asarray(value, v.aval.dtype)  # a literal may hold a Python number
    outputs = walk(body.jaxpr, body.consts, constants, step, known)
    return None if any(output is None for output in outputs) else outputs
