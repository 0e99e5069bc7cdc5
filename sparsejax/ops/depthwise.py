"""Depthwise convolution, a filter for each channel: a custom call on CPU that also trains."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float

from sparsejax.ops import _ffi, activations, linear
from sparsejax.ops.kernel import Call

Padding = str | Sequence[tuple[int, int]]
Pair = tuple[int, int]

MAX_TAPS = 32  # an axis of the kernel, in the custom call


class _Options(NamedTuple):
    """What is static: y before x in every pair."""

    strides: Pair
    padding: tuple[Pair, Pair]
    dilation: Pair
    activation: int
    channels_last: bool
    taps: Pair


def depthwise_conv2d(
    x: Float[Array, "..."],
    kernel: Float[Array, "kh kw 1 channels"],
    bias: Float[Array, "channels"] | None = None,
    *,
    strides: Pair = (1, 1),
    padding: Padding = "SAME",
    dilation: Pair = (1, 1),
    activation: activations.Activation | None = None,
    channels_last: bool = True,
) -> Float[Array, "..."]:
    """The depthwise convolution of `x`: activation(sum of kernel[i, j] * x at (i, j) + bias).

    On CPU and in float32 this is a custom call, in its gradients (for `x`, `kernel` and `bias`)
    too; they do not depend on the number of threads. On other platforms, for other dtypes and for
    kernels of more than 32 taps on an axis it is `depthwise_conv2d_reference`, XLA's grouped
    convolution. On a mesh each device convolves its own images (docs, "On a mesh"). Derivatives of
    any order, in forward and in reverse mode.

    Args:
        x: (..., height, width, channels), or (..., channels, height, width) with
            `channels_last=False`.
        kernel: (height, width, 1, channels), as flax stores it.
        bias: one number a channel.
        strides, dilation: of height and width, at least 1.
        padding: "SAME", "VALID" or ((low, high), (low, high)); negative numbers crop.
        activation: None, `jax.nn.relu` and `jax.nn.relu6` run inside the kernel (gradient 0 where
            the output is at a bound), any other function behind it.
        channels_last: whether channels are the last axis of `x`, or the one before height.

    Returns:
        `x` convolved, in the same layout.

    Raises:
        ValueError, TypeError: a shape, dtype or option does not fit.

    Example:
        >>> x, kernel = jnp.ones((1, 14, 14, 8)), jnp.ones((3, 3, 1, 8))
        >>> y = sj.depthwise_conv2d(x, kernel, strides=(2, 2), activation=jax.nn.relu6)
    """
    code, then = activations.split(activation)
    options = _checked(x, kernel, bias, strides, padding, dilation, code, channels_last)
    bias = jnp.zeros((0,), jnp.result_type(x)) if bias is None else bias
    dtype = jnp.result_type(x, kernel, bias)
    operands = [jnp.asarray(array, dtype) for array in (kernel, bias, x)]
    y = _forward(options, *operands)
    return then(y) if then else y


@partial(jax.jit, static_argnums=0)
def _forward(options: _Options, kernel: Array, bias: Array, x: Array) -> Array:
    result = jax.ShapeDtypeStruct(_out_shape(options, kernel.shape, x.shape), x.dtype)
    return _KERNELS.product(Call(options, (result,)), kernel[:, :, 0], bias, x)[0]


def depthwise_conv2d_reference(
    x: Float[Array, "..."],
    kernel: Float[Array, "kh kw 1 channels"],
    bias: Float[Array, "channels"] | None = None,
    *,
    strides: Pair = (1, 1),
    padding: Padding = "SAME",
    dilation: Pair = (1, 1),
    activation: activations.Activation | None = None,
    channels_last: bool = True,
) -> Float[Array, "..."]:
    """What `depthwise_conv2d` returns, by XLA's grouped convolution."""
    code, then = activations.split(activation)
    options = _checked(x, kernel, bias, strides, padding, dilation, code, channels_last)
    bias = jnp.zeros((0,), jnp.result_type(x)) if bias is None else bias
    y = _reference(options, kernel[:, :, 0], bias, x)
    return then(y) if then else y


def _reference(
    options: _Options,
    kernel: Float[Array, "kh kw channels"],
    bias: Float[Array, "channels_or_0"],
    x: Float[Array, "..."],
) -> Float[Array, "..."]:
    shape = _out_shape(options, kernel.shape, x.shape)
    layout = "NHWC" if options.channels_last else "NCHW"
    if 0 in shape or 0 in x.shape:
        y = jnp.zeros(shape, x.dtype)
    else:
        y = lax.conv_general_dilated(
            x.reshape(math.prod(x.shape[:-3]), *x.shape[-3:]),
            kernel[:, :, None],
            options.strides,
            options.padding,
            rhs_dilation=options.dilation,
            dimension_numbers=(layout, "HWIO", layout),
            feature_group_count=kernel.shape[-1],
        ).reshape(shape)
    bias_at = bias if options.channels_last else bias[:, None, None]
    return activations.apply(options.activation, y + bias_at if bias.size else y)


def _product(call: Call, *operands: Array) -> Sequence[Array]:
    activation = np.int64(call.options.activation)
    return _custom_call("depthwise", call, *operands, activation=activation)


def _transposed(call: Call, *operands: Array) -> Sequence[Array]:
    return _custom_call("depthwise_grad_x", call, *operands)


def _weights(call: Call, *operands: Array) -> Sequence[Array]:
    return _custom_call("depthwise_grad_kernel", call, *operands)


def _custom_call(name: str, call: Call, *operands: Array, **attributes: Any) -> Sequence[Array]:
    options = call.options
    return _ffi.custom_call(
        name,
        call.results,
        *operands,
        strides=np.array(options.strides, np.int64),
        dilation=np.array(options.dilation, np.int64),
        pads=np.array([low for low, _ in options.padding], np.int64),
        channels_last=options.channels_last,
        **attributes,
    )


def _axes(options: _Options, rank: int) -> Sequence[tuple[str, ...]]:
    images = tuple(f"N{axis}" for axis in range(rank - 3))
    x, y = ("h", "w"), ("u", "v")
    if options.channels_last:
        return ("i", "j", "c"), ("c",), (*images, *x, "c"), (*images, *y, "c")
    return ("i", "j", "c"), ("c",), (*images, "c", *x), (*images, "c", *y)


def _supports(call: Call, operands: Sequence[Any]) -> bool:
    return operands[0].dtype == jnp.float32 and max(call.options.taps) <= MAX_TAPS


_KERNELS = linear.Kernels(
    linear.Product(
        num_lists=0,
        reference=lambda options, kernel, lists, bias, x: _reference(options, kernel, bias, x),
        product=_product,
        transposed=_transposed,
        weights=_weights,
        tail=lambda options: 3,
        axes=_axes,
        supports=_supports,
    )
)


def _out_shape(
    options: _Options, kernel_shape: tuple[int, ...], x_shape: tuple[int, ...]
) -> tuple[int, ...]:
    first = len(x_shape) - (3 if options.channels_last else 2)
    out = list(x_shape)
    for axis in (0, 1):
        reach = (kernel_shape[axis] - 1) * options.dilation[axis] + 1
        padded = x_shape[first + axis] + sum(options.padding[axis])
        out[first + axis] = max(0, (padded - reach) // options.strides[axis] + 1)
    return tuple(out)


def _checked(x, kernel, bias, strides, padding, dilation, code, channels_last):  # type: ignore[no-untyped-def]
    """The static options, with every shape, dtype and number checked."""
    for name, array in (("x", x), ("kernel", kernel), ("bias", bias)):
        if array is not None and not jnp.issubdtype(array.dtype, jnp.floating):
            raise TypeError(
                f"depthwise_conv2d needs floating-point {name}, got {array.dtype}; cast it."
            )
    _need(x.ndim >= 3, "x", "height, width and channels", x.shape)
    channels = x.shape[-1 if channels_last else -3]
    good = kernel.ndim == 4 and kernel.shape[2:] == (1, channels) and 0 not in kernel.shape[:2]
    _need(good, "kernel", f"shape (height, width, 1, {channels})", kernel.shape)
    _need(bias is None or bias.shape == (channels,), "bias", f"shape ({channels},)", np.shape(bias))
    strides = _pair("strides", strides, 1)
    dilation = _pair("dilation", dilation, 1)
    spatial = x.shape[-3:-1] if channels_last else x.shape[-2:]
    if isinstance(padding, str):
        reach = [(size - 1) * step + 1 for size, step in zip(kernel.shape, dilation, strict=False)]
        if padding.upper() not in ("SAME", "VALID"):
            raise ValueError(
                'depthwise_conv2d needs padding "SAME", "VALID" or two pairs, '
                f"got {padding!r}; choose one."
            )
        padding = lax.padtype_to_pads(spatial, reach, strides, padding.upper())
    pads = tuple(_pair("padding", pair, -(2**31) + 1) for pair in padding)
    if len(pads) != 2:
        raise ValueError(
            f"depthwise_conv2d needs padding for two axes, got {padding}; give two pairs."
        )
    return _Options(strides, pads, dilation, code, channels_last, kernel.shape[:2])


def _pair(name, pair, least):  # type: ignore[no-untyped-def]
    pair = tuple(int(number) for number in pair)
    if len(pair) != 2 or min(pair) < least or max(pair) >= 2**31:
        raise ValueError(
            f"depthwise_conv2d needs {name} of two numbers of at least {least}, got {pair}; "
            "change them."
        )
    return pair


def _need(condition: bool, name: str, needed: str, got: tuple[int, ...]) -> None:
    if not condition:
        raise ValueError(
            f"depthwise_conv2d needs {name} with {needed}, got shape {got}; reshape it."
        )
