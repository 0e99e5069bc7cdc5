"""`accelerate`: the same function with its depthwise convolutions run by sparsejax's kernel."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

from sparsejax import flax_bridge
from sparsejax.doors import FUNCTION, checked
from sparsejax.jaxprs.read import split
from sparsejax.ops import depthwise_conv2d

P = ParamSpec("P")
R = TypeVar("R")

# (batch, feature, spatial...) positions of the two layouts the kernel takes.
CHANNELS_LAST = (0, 3, 1, 2)
CHANNELS_FIRST = (0, 1, 2, 3)
HWIO = (3, 2, 0, 1)  # (output, input, spatial...) positions in a flax kernel
MOST_OF_GROUP = 16  # input channels of a group, each of which is a call of the kernel


@checked(fn=FUNCTION)
def accelerate(fn: Callable[P, R]) -> Callable[P, R]:
    """The function with every depthwise convolution routed to `sj.depthwise_conv2d`.

    XLA on CPU runs `nn.Conv(feature_group_count=channels)` 25 to 39 times slower than it could.
    This traces `fn`, replaces such convolutions in its jaxpr and evaluates that; `jit`, `scan`,
    `while_loop`, `cond`, `remat`, `custom_jvp` and `custom_vjp` inside stay what they were. Apply
    it before `jax.grad`: only forward convolutions are replaced, and their gradients then run as
    kernels, too. A derivative given by `custom_jvp` or `custom_vjp` is kept as it is. Derivatives
    of any order and in either mode work, and so do meshes (docs, "On a mesh").

    Replaced are float32 two-dimensional convolutions with one filter per channel and no
    dilation, in NHWC (flax) or NCHW (Equinox). Convolutions in groups of up to 16 channels, in
    NHWC, become as many depthwise ones as a group has channels: XLA's gradient of 8x28x28x64 in
    groups of 2 took 7 s, this one 0.016 (groups of 8: 2.0 and 0.10). 1x1 convolutions in NHWC
    become products of two matrices: XLA on CPU takes 2 to 12 times as long for the weight gradient
    of the convolution (128x28x28x16 -> 32: 31 against 2.5 ms; 128x4x4x256 -> 256: 15 against 3.9 ms
    on two cores).
    Everything else is left alone, and so is the inside of a `shard_map`: accelerate the function
    that is given to it.

    Args:
        fn: any function that `jax.jit` could trace; its jax arrays are traced, other arguments
            are handed on as they are. An `nnx.Module` among the arguments is updated as `fn`
            updates it.

    Returns:
        A function with the same arguments and result, to be used inside `jax.jit`.

    Raises:
        TypeError: when called with an `nnx.Module` whose set of variables `fn` changes.

    Example:
        >>> import jax, jax.numpy as jnp, sparsejax as sj
        >>> from flax import linen as nn
        >>> conv = nn.Conv(8, (3, 3), feature_group_count=8)
        >>> x = jnp.ones((1, 14, 14, 8))
        >>> params = conv.init(jax.random.key(0), x)
        >>> loss = lambda params, x: conv.apply(params, x).sum()
        >>> grads = jax.jit(jax.grad(sj.accelerate(loss)))(params, x)
    """

    @functools.wraps(fn)
    def accelerated(*args: P.args, **kwargs: P.kwargs) -> R:
        if flax_bridge.holds_module((args, kwargs)):
            pure, inputs, write_back = flax_bridge.functional(fn, args, kwargs)
            output, new_state = _call(pure, inputs, {})
            write_back(new_state)
            return output
        return _call(fn, args, kwargs)

    return accelerated


def _call(fn: Callable, args: tuple, kwargs: dict) -> Any:
    """fn(*args, **kwargs) through its rewritten jaxpr; only jax arrays are traced."""
    arrays, merged = split((args, kwargs), lambda leaf: isinstance(leaf, jax.Array))

    def flat(*arrays: jax.Array) -> Any:
        args, kwargs = merged(arrays)
        return fn(*args, **kwargs)

    closed, shape = jax.make_jaxpr(flat, return_shape=True)(*arrays)
    outputs = core.jaxpr_as_fun(_rewrite(closed))(*arrays)
    return jax.tree.unflatten(jax.tree.structure(shape), outputs)


def _rewrite(value: Any) -> Any:
    """The value of an equation's parameter, depthwise convolutions replaced in every jaxpr in it.

    Equations are exchanged in place: types, effects, axis names and wrappers stay untouched.
    """
    if type(value) in (tuple, list):  # exact types: a parameter may be a NamedTuple
        new = [_rewrite(item) for item in value]
        return value if all(a is b for a, b in zip(new, value, strict=True)) else type(value)(new)
    if isinstance(value, core.ClosedJaxpr):
        jaxpr = _rewrite(value.jaxpr)
        return value if jaxpr is value.jaxpr else value.replace(jaxpr=jaxpr)
    if isinstance(value, core.Jaxpr):
        eqns = [_rewrite_equation(eqn) for eqn in value.eqns]
        if all(a is b for a, b in zip(eqns, value.eqns, strict=True)):
            return value
        return value.replace(eqns=eqns)
    return value


def _rewrite_equation(eqn: Any) -> Any:
    if is_depthwise(eqn):
        return _replacement(eqn)
    if is_grouped(eqn):
        names = ("window_strides", "padding", "feature_group_count")
        strides, padding, groups = (eqn.params[name] for name in names)
        options = {"strides": tuple(strides), "padding": tuple(padding), "groups": groups}
        return _exchanged(eqn, functools.partial(_grouped, **options))
    if is_pointwise(eqn):
        return _exchanged(eqn, functools.partial(_product, precision=eqn.params["precision"]))
    if eqn.primitive.name == "shard_map":  # its types name mesh axes, which a new jaxpr here lacks
        return eqn
    params = {name: _rewrite(value) for name, value in eqn.params.items()}
    if all(params[name] is eqn.params[name] for name in params):
        return eqn
    return eqn.replace(params=params)


def is_depthwise(eqn: Any) -> bool:
    """Is it a convolution the kernel takes: float32, 2-D, one filter per channel, no dilation?"""
    if not _has_windows_of_kernel(eqn):
        return False
    x, kernel = (v.aval for v in eqn.invars)
    layout = eqn.params["dimension_numbers"]
    channels = x.shape[layout.lhs_spec[1]]
    groups = eqn.params["feature_group_count"]
    return groups == channels == kernel.shape[layout.rhs_spec[0]] and channels > 1


def is_grouped(eqn: Any) -> bool:
    """The same in small groups of channels, NHWC with HWIO?"""
    if not _has_windows_of_kernel(eqn) or is_depthwise(eqn):
        return False
    layout, kernel = eqn.params["dimension_numbers"], eqn.invars[1].aval
    return (
        layout.lhs_spec == CHANNELS_LAST
        and layout.rhs_spec == HWIO
        and eqn.params["feature_group_count"] > 1
        and kernel.shape[2] <= MOST_OF_GROUP
    )


def _has_windows_of_kernel(eqn: Any) -> bool:
    """Is it a float32 convolution in 2-D without dilation, whatever its groups?"""
    if eqn.primitive.name != "conv_general_dilated":
        return False
    x, kernel = (v.aval for v in eqn.invars)
    params, layout = eqn.params, eqn.params["dimension_numbers"]
    return (
        x.ndim == 4
        and layout.lhs_spec == layout.out_spec
        and layout.lhs_spec in (CHANNELS_LAST, CHANNELS_FIRST)
        and x.dtype == kernel.dtype == eqn.outvars[0].aval.dtype == jnp.float32
        and params["batch_group_count"] == 1
        and tuple(params["lhs_dilation"]) == tuple(params["rhs_dilation"]) == (1, 1)
        and all(low >= 0 and high >= 0 for low, high in params["padding"])
        and 0 not in x.shape
        and 0 not in eqn.outvars[0].aval.shape
    )


def is_pointwise(eqn: Any) -> bool:
    """Is it a float32 1x1 convolution of every pixel, NHWC with HWIO, in one group?"""
    if eqn.primitive.name != "conv_general_dilated":
        return False
    x, kernel = (v.aval for v in eqn.invars)
    params, layout = eqn.params, eqn.params["dimension_numbers"]
    return (
        layout.lhs_spec == layout.out_spec == CHANNELS_LAST
        and layout.rhs_spec == HWIO
        and kernel.shape[:2] == (1, 1)
        and x.dtype == kernel.dtype == eqn.outvars[0].aval.dtype == jnp.float32
        and tuple(params["window_strides"]) == tuple(params["lhs_dilation"]) == (1, 1)
        and tuple(params["padding"]) == ((0, 0), (0, 0))
        and params["feature_group_count"] == params["batch_group_count"] == 1
        and 0 not in x.shape
    )


def _replacement(eqn: Any) -> Any:
    """One call of the kernel, as an equation with the same inputs and output."""
    layout = eqn.params["dimension_numbers"]
    out_features, in_features, *spatial = layout.rhs_spec
    call = functools.partial(
        _depthwise,
        to_hwio=(*spatial, in_features, out_features),
        strides=tuple(eqn.params["window_strides"]),
        padding=tuple(eqn.params["padding"]),
        channels_last=layout.lhs_spec == CHANNELS_LAST,
    )
    return _exchanged(eqn, call)


def _exchanged(eqn: Any, call: Callable) -> Any:
    """The equation of one jitted call with the inputs and outputs of `eqn`."""
    with eqn.ctx.manager, jax.disable_jit(False):  # one call, and not what is in it
        jaxpr = jax.make_jaxpr(call)(*(_like(v.aval) for v in eqn.invars)).jaxpr
    (new,) = jaxpr.eqns
    if jaxpr.outvars[0].aval != eqn.outvars[0].aval:  # a mesh that cuts height or width
        return eqn
    return new.replace(
        invars=eqn.invars, outvars=eqn.outvars, source_info=eqn.source_info, ctx=eqn.ctx
    )


def _like(aval: Any) -> jax.ShapeDtypeStruct:
    """The aval as an argument of make_jaxpr, with the axes it varies over inside a shard_map."""
    if not hasattr(aval, "mat"):
        return jax.ShapeDtypeStruct(aval.shape, aval.dtype)
    return jax.ShapeDtypeStruct(
        aval.shape, aval.dtype, sharding=aval.sharding, manual_axis_type=aval.mat
    )


@functools.partial(jax.jit, static_argnames=("to_hwio", "strides", "padding", "channels_last"))
def _depthwise(
    x: jax.Array,
    kernel: jax.Array,
    *,
    to_hwio: tuple[int, ...],
    strides: tuple[int, int],
    padding: tuple[tuple[int, int], ...],
    channels_last: bool,
) -> jax.Array:
    return depthwise_conv2d(
        x,
        lax.transpose(kernel, to_hwio),
        strides=strides,
        padding=padding,
        channels_last=channels_last,
    )


@functools.partial(jax.jit, static_argnames=("strides", "padding", "groups"))
def _grouped(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: tuple[int, int],
    padding: tuple[tuple[int, int], ...],
    groups: int,
) -> jax.Array:
    """A group convolution: for each channel of a group a depthwise one, to all of its outputs."""
    size, outputs = kernel.shape[2:]
    parts = x.reshape(*x.shape[:3], groups, size)
    each = (*x.shape[:3], groups, outputs // groups)

    def depthwise(channel: int) -> jax.Array:
        own = jnp.broadcast_to(parts[..., channel, None], each).reshape(*x.shape[:3], outputs)
        filters = kernel[:, :, channel : channel + 1]
        return depthwise_conv2d(own, filters, strides=strides, padding=padding)

    return functools.reduce(jnp.add, map(depthwise, range(size)))


@functools.partial(jax.jit, static_argnames="precision")
def _product(x: jax.Array, kernel: jax.Array, *, precision: Any) -> jax.Array:
    """A 1x1 convolution as a product of two matrices."""
    pixels = x.reshape(-1, x.shape[-1])
    product = jnp.matmul(pixels, kernel[0, 0], precision=precision)
    return product.reshape(*x.shape[:-1], -1)
