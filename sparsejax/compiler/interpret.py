"""Every kind of node in plain JAX: the oracle, the way on GPU and TPU, and the gradient."""

import math
from collections.abc import Callable, Sequence
from functools import singledispatch
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sparsejax.compiler import fold
from sparsejax.compiler.graph import (
    Affine,
    Channels,
    Concat,
    Conv,
    Elementwise,
    Linear,
    Mean,
    Node,
    Op,
    Pad,
    Pool,
    Primitive,
    Reshape,
    Transpose,
    Value,
)


def interpreter(
    nodes: Sequence[Node], inputs: Sequence[Value], outputs: Sequence[Value]
) -> Callable[..., list[jax.Array]]:
    """The function of the arrays for `inputs` that returns those for `outputs`."""

    def run(*arrays: jax.Array) -> list[jax.Array]:
        env: dict[Value, Any] = dict(zip(inputs, arrays, strict=True))
        for node in nodes:
            read = (env[v] if v.constant is None else v.constant for v in node.inputs)
            env.update(zip(node.outputs, evaluate(node.op, *read), strict=True))
        return [env[v] if v.constant is None else jnp.asarray(v.constant) for v in outputs]

    return run


@singledispatch
def evaluate(op: Op, *inputs: jax.Array) -> list[jax.Array]:
    """The outputs of one node, for any batch size and also in float64."""
    raise TypeError(f"evaluate needs a kind of node, got {type(op).__name__}.")


def _numbers(array: np.ndarray, like: jax.Array) -> jax.Array:
    """Weights in the precision of what they meet."""
    return jnp.asarray(np.asarray(array, like.dtype))


def _along(array: np.ndarray, axis: int, like: jax.Array) -> jax.Array:
    shape = [1] * like.ndim
    shape[axis] = -1
    return _numbers(array, like).reshape(shape)


@evaluate.register
def _(op: Conv, x: jax.Array, *residual: jax.Array) -> list[jax.Array]:
    layout = "NHWC" if op.channels_last else "NCHW"
    y = lax.conv_general_dilated(
        x,
        _numbers(op.weights, x),
        op.strides,
        op.padding,
        rhs_dilation=op.dilation,
        dimension_numbers=(layout, "HWIO", layout),
        feature_group_count=op.groups,
    )
    y = y + _along(op.bias, 3 if op.channels_last else 1, y)
    return [op.activation(sum(residual, start=y))]


@evaluate.register
def _(op: Linear, x: jax.Array, *residual: jax.Array) -> list[jax.Array]:
    y = x @ _numbers(op.weights, x) + _numbers(op.bias, x)
    return [op.activation(sum(residual, start=y))]


@evaluate.register
def _(op: Affine, x: jax.Array) -> list[jax.Array]:
    return [op.activation(x * _along(op.scale, op.axis, x) + _along(op.shift, op.axis, x))]


@evaluate.register
def _(op: Elementwise, a: jax.Array, *b: jax.Array) -> list[jax.Array]:
    if op.kind == "identity":
        return [op.activation(a)]
    function = {"add": jnp.add, "sub": jnp.subtract, "mul": jnp.multiply, "max": jnp.maximum}
    return [op.activation(function[op.kind](a, *b))]


def _spatial(pair: Sequence, rest: Any, channels_last: bool) -> tuple:
    """Numbers for height and width in their place among four axes."""
    return (rest, *pair, rest) if channels_last else (rest, rest, *pair)


@evaluate.register
def _(op: Pool, x: jax.Array) -> list[jax.Array]:
    window = _spatial(op.window, 1, op.channels_last)
    strides = _spatial(op.strides, 1, op.channels_last)
    padding = _spatial(op.padding, (0, 0), op.channels_last)
    if op.kind == "max":
        return [lax.reduce_window(x, -jnp.inf, lax.max, window, strides, padding)]
    total = lax.reduce_window(x, 0.0, lax.add, window, strides, padding)
    if op.counts:
        return [total / np.asarray(op.window[0] * op.window[1], x.dtype)]
    height, width = x.shape[1:3] if op.channels_last else x.shape[2:]
    ones = jnp.ones(_spatial((height, width), 1, op.channels_last), x.dtype)
    return [total / lax.reduce_window(ones, 0.0, lax.add, window, strides, padding)]


@evaluate.register
def _(op: Mean, x: jax.Array) -> list[jax.Array]:
    return [x.mean((1, 2) if op.channels_last else (2, 3), keepdims=op.keepdims)]


@evaluate.register
def _(op: Concat, *inputs: jax.Array) -> list[jax.Array]:
    return [jnp.concatenate(inputs, op.axis)]


@evaluate.register
def _(op: Channels, x: jax.Array) -> list[jax.Array]:
    return [jnp.take(x, np.asarray(op.index, np.int32), axis=op.axis, mode="clip")]


@evaluate.register
def _(op: Pad, x: jax.Array) -> list[jax.Array]:
    return [jnp.pad(x, _spatial(op.padding, (0, 0), op.channels_last))]


@evaluate.register
def _(op: Reshape, x: jax.Array) -> list[jax.Array]:
    same_size = math.prod(op.shape) == x.size  # a region keeps axis 0, which may be another batch
    return [x.reshape(op.shape if same_size else (x.shape[0], *op.shape[1:]))]


@evaluate.register
def _(op: Transpose, x: jax.Array) -> list[jax.Array]:
    return [x.transpose(op.permutation)]


@evaluate.register
def _(op: Primitive, *inputs: jax.Array) -> list[jax.Array]:
    outputs = fold.bind(op.equation.primitive, op.equation.params, *inputs)
    return list(outputs) if op.equation.primitive.multiple_results else [outputs]
