"""Products with matrices packed as BCRC: what `spmm` does with them."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from sparsejax.ops import _ffi, activations
from sparsejax.patterns import BCRC

LISTS = ("rows", "run_starts", "columns", "column_starts", "value_starts")


class Options(NamedTuple):
    """What is static."""

    rows: int
    cols: int
    activation: int
    channels_last: bool


class Structure(NamedTuple):
    """The lists of a BCRC, in the order in which the kernels take them."""

    rows: Int[Array, "num_rows"]
    run_starts: Int[Array, "runs_plus_1"]
    columns: Int[Array, "num_columns"]
    column_starts: Int[Array, "runs_plus_1"]
    value_starts: Int[Array, "runs_plus_1"]


def structure_of(packed: BCRC) -> Structure:
    """The lists, with every shape and dtype checked."""
    lists = Structure(*(jnp.asarray(getattr(packed, name)) for name in LISTS))
    num_starts = max(lists.run_starts.size, 1)
    for name, array in lists._asdict().items():
        if array.dtype != jnp.int32:
            raise TypeError(f"spmm needs int32 {name}, got {array.dtype}; cast them.")
        if array.ndim != 1 or (name.endswith("_starts") and array.shape != (num_starts,)):
            needed = f"shape ({num_starts},)" if name.endswith("_starts") else "one axis"
            raise ValueError(f"spmm needs {name} with {needed}, got {array.shape}; pack it anew.")
    return lists


def reference(
    options: Options,
    values: Float[Array, "num_values"],
    lists: Structure,
    bias: Float[Array, "rows_or_0"],
    x: Float[Array, "..."],
) -> Float[Array, "..."]:
    """The product in plain JAX, by way of the dense matrix."""
    shape = (options.rows, options.cols)
    packed = BCRC(values, **lists._asdict(), matrix_shape=shape, leaf_shape=shape, output_axis=0)
    matrix = packed.todense()
    if options.channels_last:
        y, bias_at = x @ matrix.T, bias
    else:
        y, bias_at = jnp.einsum("mk,...kp->...mp", matrix, x), bias[:, None]
    return activations.apply(options.activation, y + bias_at if bias.size else y)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def product(options, values, lists, bias, x):  # type: ignore[no-untyped-def]
    """activation(W x + bias), as a kernel on CPU in float32."""
    return _forward(options, values, lists, bias, x)


def _product_forward(options, values, lists, bias, x):  # type: ignore[no-untyped-def]
    y = _forward(options, values, lists, bias, x)
    return y, (values, lists, bias, x, y if options.activation else None)


def _product_backward(options, residuals, grad_y):  # type: ignore[no-untyped-def]
    values, lists, bias, x, y = residuals
    if options.activation:
        grad_y = activations.grad(options.activation, y, grad_y)
    pixels = tuple(axis for axis in range(grad_y.ndim) if axis != 1)
    grad_bias = grad_y.sum(pixels) if bias.size else jnp.zeros_like(bias)
    grad_values = _grad_values(options, values.shape, lists, x, grad_y)
    return grad_values, None, grad_bias, _grad_x(options, values, lists, grad_y)


product.defvjp(_product_forward, _product_backward)


@partial(jax.jit, static_argnums=0)
def _forward(options, values, lists, bias, x):  # type: ignore[no-untyped-def]
    return _call(options, options.rows, False, values, lists, bias, x)


@partial(jax.jit, static_argnums=0)
def _grad_x(options, values, lists, grad_y):  # type: ignore[no-untyped-def]
    options = options._replace(activation=0)
    no_bias = jnp.zeros((0,), values.dtype)
    return _call(options, options.cols, True, values, lists, no_bias, grad_y)


@partial(jax.jit, static_argnums=(0, 1))
def _grad_values(options, shape, lists, x, grad_y):  # type: ignore[no-untyped-def]
    result = jax.ShapeDtypeStruct(shape, x.dtype)

    def in_plain_jax(*operands: Any) -> Any:
        *lists, x, grad_y = operands
        linear, no_bias = options._replace(activation=0), jnp.zeros((0,), x.dtype)
        forward = lambda values: reference(linear, values, Structure(*lists), no_bias, x)
        return jax.vjp(forward, _ffi.zeros(result, grad_y))[1](grad_y)[0]

    operands = (*lists, x, grad_y)
    if x.dtype != jnp.float32:
        return in_plain_jax(*operands)
    return _ffi.call("bcr_grad_values", in_plain_jax, result, *operands, **_attributes(options))


def _call(options, channels, transpose, values, lists, bias, x):  # type: ignore[no-untyped-def]
    """W x, or the transpose of W times x, as a kernel or by the reference."""

    def in_plain_jax(values: Any, *operands: Any) -> Any:
        *lists, bias, x = operands
        forward = partial(reference, options, values, Structure(*lists), bias)
        return jax.vjp(forward, _ffi.zeros(result, x))[1](x)[0] if transpose else forward(x)

    shape = (x.shape[0], channels) if options.channels_last else (x.shape[0], channels, x.shape[2])
    result = jax.ShapeDtypeStruct(shape, x.dtype)
    if x.dtype != jnp.float32:
        return in_plain_jax(values, *lists, bias, x)
    return _ffi.call(
        "bcr",
        in_plain_jax,
        result,
        *(values, *lists, bias, x),
        **_attributes(options),
        activation=np.int64(options.activation),
        transpose=transpose,
    )


def _attributes(options: Options) -> dict[str, np.int64 | bool]:
    sizes = {"rows": np.int64(options.rows), "cols": np.int64(options.cols)}
    return {**sizes, "channels_last": options.channels_last}
