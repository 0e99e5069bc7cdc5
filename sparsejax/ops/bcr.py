"""Products with matrices packed as BCRC: what `spmm` does with them."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from sparsejax.ops import _ffi, activations, linear
from sparsejax.ops.kernel import Call
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


def activation_axes(channels_last: bool, rank: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the axes of x and y in any product of a matrix with activations."""
    if channels_last:
        images = tuple(f"N{axis}" for axis in range(rank - 1))
        return (*images, "k"), (*images, "m")
    images = tuple(f"N{axis}" for axis in range(rank - 2))
    return (*images, "k", "P"), (*images, "m", "P")


def result(options: Any, x: Array) -> jax.ShapeDtypeStruct:
    """The shape and dtype of a product of a matrix with activations."""
    shape = list(x.shape)
    shape[-1 if options.channels_last else -2] = options.rows
    return jax.ShapeDtypeStruct(tuple(shape), x.dtype)


@partial(jax.jit, static_argnums=0)
def product(options: Options, *operands: Array) -> Array:
    """activation(W x + bias) of values, lists, bias and x, as a kernel on CPU in float32."""
    return _KERNELS.product(Call(options, (result(options, operands[-1]),)), *operands)[0]


class Calls(NamedTuple):
    """The custom calls of one kind of packed matrix.

    Attributes:
        target: the product's; that of the gradient of the values is `target`_grad_values.
        sizes: the options that they have as attributes, beside the layout.
    """

    target: str
    sizes: tuple[str, ...]

    def product(self, call: Call, *operands: Array) -> Sequence[Array]:
        activation = np.int64(call.options.activation)
        return self._call("", call, *operands, activation=activation, transpose=False)

    def transposed(self, call: Call, *operands: Array) -> Sequence[Array]:
        *matrix, grad_y = operands
        bias = jnp.zeros((*(1,) * call.lead, 0), grad_y.dtype)
        operands = (*matrix, bias, grad_y)
        return self._call("", call, *operands, activation=np.int64(0), transpose=True)

    def weights(self, call: Call, *operands: Array) -> Sequence[Array]:
        return self._call("_grad_values", call, *operands)

    def _call(self, which: str, call: Call, *operands: Array, **more: Any) -> Sequence[Array]:
        sizes = {key: np.int64(getattr(call.options, key)) for key in self.sizes}
        layout = {"channels_last": call.options.channels_last}
        return _ffi.custom_call(
            self.target + which, call.results, *operands, **sizes, **layout, **more
        )


_CALLS = Calls("bcr", ("rows", "cols"))


def _weights(call: Call, *operands: Array) -> Sequence[Array]:
    grad_y = operands[-1]
    channels = call.lead + 1
    pixels = tuple(axis for axis in range(call.lead, grad_y.ndim) if axis != channels)
    values, bias = call.results
    grad_bias = jnp.broadcast_to(grad_y.sum(pixels), bias.shape)
    call = call._replace(results=(values,))
    return *_CALLS.weights(call, *operands), grad_bias


def _axes(options: Options, rank: int) -> Sequence[tuple[str, ...]]:
    x, y = activation_axes(options.channels_last, rank)
    return ("n",), *((f"l{i}",) for i in range(len(LISTS))), ("m",), x, y


_KERNELS = linear.Kernels(
    linear.Product(
        num_lists=len(LISTS),
        reference=lambda options, values, lists, bias, x: reference(
            options, values, Structure(*lists), bias, x
        ),
        product=_CALLS.product,
        transposed=_CALLS.transposed,
        weights=_weights,
        tail=lambda options: 1 if options.channels_last else 2,
        axes=_axes,
        supports=lambda call, operands: operands[-1].dtype == jnp.float32,
    )
)
