"""Sparse weights times dense activations: a custom call on CPU that also trains."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from sparsejax.ops import activations, bcr, linear
from sparsejax.ops.kernel import Call
from sparsejax.patterns import BCRC, BSR, CSR

BLOCK_ROWS = (2, 4, 8)


class _Options(NamedTuple):
    """What is static: the matrix is `rows` x `cols` in blocks of `block` x 1."""

    rows: int
    cols: int
    block: int
    activation: int
    channels_last: bool


def spmm(
    packed: CSR | BSR | BCRC,
    x: Float[Array, "..."],
    bias: Float[Array, "rows"] | None = None,
    *,
    activation: activations.Activation | None = None,
    channels_last: bool = True,
) -> Float[Array, "..."]:
    """The product of a packed matrix with activations: activation(W x + bias) at every pixel.

    On CPU and in float32 this is a custom call, in its gradients (for `packed.values`, `x` and
    `bias`) too; they do not depend on the number of threads. On other platforms and for other
    dtypes it is `spmm_reference`, a dense product. On a mesh each device multiplies its own part of
    the batch (docs, "On a mesh"). Derivatives of any order, in forward and in reverse mode.

    Args:
        packed: CSR, BSR in blocks of 2, 4 or 8 output channels x 1 input, or BCRC;
            `matrix_shape` is (rows, cols) = (outputs, inputs). Indices and starts are checked when
            it runs.
        x: (..., cols), or (..., cols, pixels) with `channels_last=False`.
        bias: one number an output channel.
        activation: None, `jax.nn.relu` and `jax.nn.relu6` run inside the kernel (gradient 0 where
            the output is at a bound), any other function behind it.
        channels_last: whether channels are the last axis of `x`, or the one before it.

    Returns:
        (..., rows), or (..., rows, pixels).

    Raises:
        ValueError, TypeError: a shape or dtype does not fit. Indices that do not make a matrix
            raise `jax.errors.JaxRuntimeError` (INVALID_ARGUMENT) on CPU.

    Example:
        >>> packed = sj.Unstructured().pack(weights)      # (in, out), mostly zeros
        >>> y = jax.jit(sj.spmm)(packed, x)               # x: (batch, in)
    """
    code, then = activations.split(activation)
    options, bias = _checked(packed, x, bias, code, channels_last)
    values = packed.values if isinstance(packed, BCRC) else packed.values.reshape(-1, options.block)
    dtype = jnp.result_type(values, x, bias)
    values, bias, x = (jnp.asarray(array, dtype) for array in (values, bias, x))
    if isinstance(packed, BCRC):
        y = bcr.product(_of_runs(options), values, *bcr.structure_of(packed), bias, x)
    else:
        indices, row_starts = jnp.asarray(packed.indices), jnp.asarray(packed.row_starts)
        y = _forward(options, values, indices, row_starts, bias, x)
    return then(y) if then else y


def spmm_reference(
    packed: CSR | BSR | BCRC,
    x: Float[Array, "..."],
    bias: Float[Array, "rows"] | None = None,
    *,
    activation: activations.Activation | None = None,
    channels_last: bool = True,
) -> Float[Array, "..."]:
    """What `spmm` returns, by a dense product in plain JAX."""
    code, then = activations.split(activation)
    options, bias = _checked(packed, x, bias, code, channels_last)
    values = jnp.asarray(packed.values)
    if isinstance(packed, BCRC):
        y = bcr.reference(_of_runs(options), values, bcr.structure_of(packed), bias, x)
    else:
        indices, row_starts = jnp.asarray(packed.indices), jnp.asarray(packed.row_starts)
        y = _reference(options, values.reshape(-1, options.block), indices, row_starts, bias, x)
    return then(y) if then else y


def _reference(
    options: _Options,
    values: Float[Array, "nonzeros block"],
    indices: Int[Array, "nonzeros"],
    row_starts: Int[Array, "block_rows_plus_1"],
    bias: Float[Array, "rows_or_0"],
    x: Float[Array, "..."],
) -> Float[Array, "..."]:
    block_rows = options.rows // options.block
    positions = jnp.arange(len(indices), dtype=row_starts.dtype)
    row = jnp.searchsorted(row_starts, positions, side="right") - 1
    blocks = jnp.zeros((block_rows, options.cols, options.block), values.dtype)
    blocks = blocks.at[row, indices].set(values)
    matrix = blocks.transpose(0, 2, 1).reshape(options.rows, options.cols)
    if options.channels_last:
        y = x @ matrix.T
        bias_at = bias
    else:
        y = jnp.einsum("mk,...kp->...mp", matrix, x)
        bias_at = bias[:, None]
    return activations.apply(options.activation, y + bias_at if bias.size else y)


_CALLS = bcr.Calls("spmm", ("rows", "cols", "block"))


def _axes(options: _Options, rank: int) -> Sequence[tuple[str, ...]]:
    x, y = bcr.activation_axes(options.channels_last, rank)
    return ("n", "b"), ("n",), ("r",), ("m",), x, y


_KERNELS = linear.Kernels(
    linear.Product(
        num_lists=2,
        reference=lambda options, values, lists, bias, x: _reference(
            options, values, lists[0], lists[1], bias, x
        ),
        product=_CALLS.product,
        transposed=_CALLS.transposed,
        weights=_CALLS.weights,
        tail=lambda options: 1 if options.channels_last else 2,
        axes=_axes,
        supports=lambda call, operands: operands[-1].dtype == jnp.float32,
    )
)


@partial(jax.jit, static_argnums=0)
def _forward(options: _Options, *operands: Array) -> Array:
    call = Call(options, (bcr.result(options, operands[-1]),))
    return _KERNELS.product(call, *operands)[0]


def _checked(packed, x, bias, code, channels_last):  # type: ignore[no-untyped-def]
    """The static options and the bias, with every shape and dtype checked."""
    if not isinstance(packed, CSR | BSR | BCRC):
        got = type(packed).__name__
        raise TypeError(f"spmm needs weights packed as CSR, BSR or BCRC, got {got}; pack them.")
    block = packed.block if isinstance(packed, BSR) else (1, 1)
    rows, cols = packed.matrix_shape
    if isinstance(packed, BSR) and (block[0] not in BLOCK_ROWS or block[1] != 1 or rows % block[0]):
        raise ValueError(
            f"spmm needs blocks of 2, 4 or 8 rows x 1 column that divide {rows} rows, got {block}; "
            "pack with those."
        )
    axis = -1 if channels_last else -2
    fits = x.ndim >= -axis and x.shape[axis] == cols
    _need(fits, "x", f"{cols} channels on axis {axis}", x.shape)
    if isinstance(packed, BCRC):
        _need(packed.values.ndim == 1, "values", "one axis", packed.values.shape)
    else:
        _check_lists(packed, block)
    for name, array in (("values", packed.values), ("x", x), ("bias", bias)):
        if array is not None and not jnp.issubdtype(array.dtype, jnp.floating):
            raise TypeError(f"spmm needs floating-point {name}, got {array.dtype}; cast them.")
    if bias is None:
        bias = jnp.zeros((0,), jnp.result_type(x))
    else:
        _need_shape("bias", bias, (rows,))
    return _Options(rows, cols, block[0], code, channels_last), bias


def _of_runs(options: _Options) -> bcr.Options:
    return bcr.Options(options.rows, options.cols, options.activation, options.channels_last)


def _check_lists(packed: CSR | BSR, block: tuple[int, int]) -> None:
    num = packed.indices.shape
    _need(len(num) == 1, "indices", "one axis", num)
    _need_shape("values", packed.values, (*num, *block) if isinstance(packed, BSR) else num)
    _need_shape("row_starts", packed.row_starts, (packed.matrix_shape[0] // block[0] + 1,))
    for name, array in (("indices", packed.indices), ("row_starts", packed.row_starts)):
        if array.dtype != jnp.int32:
            raise TypeError(f"spmm needs int32 {name}, got {array.dtype}; cast them.")


def _need_shape(name, array, shape):  # type: ignore[no-untyped-def]
    _need(array.shape == shape, name, f"shape {shape}", array.shape)


def _need(condition: bool, name: str, needed: str, got: tuple[int, ...]) -> None:
    if not condition:
        raise ValueError(f"spmm needs {name} with {needed}, got shape {got}; reshape it.")
