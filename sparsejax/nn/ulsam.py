"""Ultra-lightweight subspace attention (ULSAM): each group of channels has a map of its own."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

EPSILON = 1e-5  # of batch norm, as in the authors' code
_KERNEL = jax.nn.initializers.lecun_normal(in_axis=-1, out_axis=-2)
_SCALE = jax.nn.initializers.normal(1.0)


class ULSAMLinen(nn.Module):
    """`ULSAM` for linen: `module.apply(variables, x, train=False)`.

    Args of the module:
        groups, faithful, momentum: as in `ULSAM`.
    """

    groups: int = 4
    faithful: bool = True
    momentum: float = 0.1

    @nn.compact
    def __call__(
        self, x: Float[Array, "*batch height width channels"], *, train: bool = False
    ) -> Float[Array, "*batch height width channels"]:
        """The attended maps; with `train` the batch's own statistics are used and collected."""
        channels, size = x.shape[-1], _subspace(x.shape[-1], self.groups)

        def norm_relu(name: str, x: Array) -> Array:
            x = x + self.param(f"{name}_bias", jax.nn.initializers.zeros, x.shape[-1:])
            norm = nn.BatchNorm(
                use_running_average=not train,
                momentum=self.momentum,
                epsilon=EPSILON,
                name=f"{name}_norm",
            )
            return nn.relu(norm(x))

        y = x * self.param("depthwise_scale", _SCALE, (channels,))
        y = _pooled(norm_relu("depthwise", y) if self.faithful else y)
        logits = _logits(y, self.param("pointwise_kernel", _KERNEL, (self.groups, size)))
        return _attended(x, norm_relu("pointwise", logits) if self.faithful else logits)


class ULSAM(nnx.Module):
    """Subspace attention: y = x + A x, with a map A over the pixels for each group of channels.

    The channels are cut into `groups` runs F_n, and each gets A_n = softmax over the pixels of
    PW(maxpool 3x3(DW(F_n))): DW scales each channel, PW sums the channels of a run to one. Output
    and input have the same shape (..., height, width, channels); runs do not see each other. As A
    sums to 1 over the pixels, y is close to x: the module is added after a layer, or put in the
    place of a whole block that keeps its shape, which is where it saves.

    Args:
      channels: of the input, in multiples of `groups`.
      groups: runs of channels. The cost does not depend on it.
      faithful: as the authors' code has it, DW and PW are followed by bias, batch norm and ReLU, 5
        channels + 3 groups parameters in all; False for the module of the paper's count, 2 channels
        parameters, with neither of them.
      momentum: of the running statistics; the code's 0.9 is PyTorch's, which is 0.1 in flax.
      rngs: as for every NNX module.

    Raises:
      ValueError: the channels are no multiple of `groups`.

    Example:
      >>> from flax import nnx
      >>> attention = sj.nn.ULSAM(8, groups=2, rngs=nnx.Rngs(0))
      >>> attention(jnp.ones((1, 4, 4, 8))).shape
      (1, 4, 4, 8)

    Reference: Saini et al., "ULSAM: Ultra-Lightweight Subspace Attention Module for Compact
    Convolutional Neural Networks", WACV 2020, arXiv 2006.15102, and the authors' code, which has
    the ReLU before the softmax.
    """

    def __init__(
        self,
        channels: int,
        *,
        groups: int = 4,
        faithful: bool = True,
        momentum: float = 0.1,
        rngs: nnx.Rngs,
    ):
        size = _subspace(channels, groups)
        self.depthwise_scale = nnx.Param(_SCALE(rngs.params(), (channels,)))
        self.pointwise_kernel = nnx.Param(_KERNEL(rngs.params(), (groups, size)))
        self.faithful = faithful
        if faithful:
            norm = partial(nnx.BatchNorm, momentum=momentum, epsilon=EPSILON, rngs=rngs)
            self.depthwise_bias = nnx.Param(jnp.zeros(channels))
            self.depthwise_norm = norm(channels)
            self.pointwise_bias = nnx.Param(jnp.zeros(groups))
            self.pointwise_norm = norm(groups)

    def __call__(
        self, x: Float[Array, "*batch height width channels"]
    ) -> Float[Array, "*batch height width channels"]:
        """The attended maps."""
        y = x * self.depthwise_scale[...]
        if self.faithful:
            y = nnx.relu(self.depthwise_norm(y + self.depthwise_bias[...]))
        logits = _logits(_pooled(y), self.pointwise_kernel[...])
        if self.faithful:
            logits = nnx.relu(self.pointwise_norm(logits + self.pointwise_bias[...]))
        return _attended(x, logits)


def _subspace(channels: int, groups: int) -> int:
    """The channels of one group."""
    if groups < 1 or channels % groups:
        raise ValueError(
            f"ULSAM needs channels in multiples of groups={groups}, got {channels} channels; "
            "choose a number of groups that divides them."
        )
    return channels // groups


def _pooled(x: Float[Array, "*batch height width channels"]) -> Array:
    return nn.max_pool(x, (3, 3), (1, 1), "SAME")


def _logits(
    x: Float[Array, "*batch height width channels"], kernel: Float[Array, "groups size"]
) -> Float[Array, "*batch height width groups"]:
    """One number for each group of channels."""
    split = x.reshape(*x.shape[:-1], *kernel.shape)
    return jnp.einsum("...gc,gc->...g", split, kernel)


def _attended(
    x: Float[Array, "*batch height width channels"],
    logits: Float[Array, "*batch height width groups"],
) -> Array:
    maps = jax.nn.softmax(logits, axis=(-3, -2))
    return x + jnp.repeat(maps, x.shape[-1] // maps.shape[-1], axis=-1) * x
