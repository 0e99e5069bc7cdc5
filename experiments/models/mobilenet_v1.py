"""MobileNet-v1 as a Flax user writes it, once in linen and once in NNX.

Parameter paths end in `stem/kernel`, `depthwise/kernel`, `pointwise/kernel` and `head/kernel` in
both, so that a rule such as `r"pointwise/kernel"` claims the 1x1 convolutions of either.

Reference: Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision
Applications", 2017, arXiv:1704.04861, table 1.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

import sparsejax as sj
from experiments.models.attention import Attention, attention_at


class BlockShape(NamedTuple):
    """Channels at width 1.0 and stride of one depthwise-separable block."""

    channels: int
    stride: int


BLOCKS = (
    BlockShape(64, 1),
    BlockShape(128, 2),
    BlockShape(128, 1),
    BlockShape(256, 2),
    BlockShape(256, 1),
    BlockShape(512, 2),
    *(BlockShape(512, 1),) * 5,
    BlockShape(1024, 2),
    BlockShape(1024, 1),
)
STEM_CHANNELS = 32
EPSILON = 1e-3  # of batch norm, as in the authors' TF-Slim code


def shifted_depthwise(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "kernel_height kernel_width 1 channels"],
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    **_: object,
) -> Array:
    """The depthwise convolution as shifted multiply-adds, the fast way in plain JAX on CPU.

    Takes the place of `jax.lax.conv_general_dilated` in a flax Conv.
    """
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    height, width = (
        (x.shape[i + 1] + sum(padding[i]) - kernel.shape[i]) // strides[i] + 1 for i in (0, 1)
    )
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    y = jnp.zeros((), x.dtype)
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            rows = slice(i, i + (height - 1) * strides[0] + 1, strides[0])
            cols = slice(j, j + (width - 1) * strides[1] + 1, strides[1])
            y = y + x[:, rows, cols] * kernel[i, j, 0]
    return y


def relu6() -> Callable[[Array], Array]:
    """The activation of the paper."""
    return jax.nn.relu6


def scaled(channels: int, width: float) -> int:
    """Channels at a width multiplier, at least 8 as in TF-Slim."""
    return max(8, int(channels * width))


def depthwise_groups(channels: int) -> int:
    """Each channel is a group."""
    return channels


def groups_of(size: int) -> Callable[[int], int]:
    """Groups of so many channels, or one of fewer."""
    return lambda channels: max(channels // size, 1)


def at_most(number: int) -> Callable[[int], int]:
    """So many groups, or as many as there are channels."""
    return lambda channels: min(number, channels)


class MobileNetV1Linen(nn.Module):
    """MobileNet-v1 for linen: `model.apply(variables, x, train=False)` gives logits.

    Args of the module:
        num_classes: outputs of the head.
        width: multiplier of all channel counts.
        small_images: True for 28x28 or 32x32 inputs; the first convolution then has stride 1.
        momentum: of the running statistics of batch norm.
        depthwise: what the depthwise convolutions call; `shifted_depthwise` for a fast baseline.
        attention: subspace attention after some blocks, counted from 0, or in their place.
        groups: (channels) -> groups of the 3x3 convolution of a block, by default depthwise.
    """

    num_classes: int = 1000
    width: float = 1.0
    small_images: bool = False
    momentum: float = 0.99
    depthwise: Callable[..., Array] = lax.conv_general_dilated
    attention: Sequence[Attention] = ()
    groups: Callable[[int], int] = depthwise_groups

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool = False
    ) -> Float[Array, "batch classes"]:
        """Logits; with `train` the batch's own statistics are used and collected."""

        def conv_norm(
            name: str, x: Array, features: int, size: int, stride: int = 1, groups: int = 1
        ):
            x = nn.Conv(
                features,
                (size, size),
                stride,
                feature_group_count=groups,
                use_bias=False,
                conv_general_dilated=self.depthwise if groups > 1 else None,
                name=name,
            )(x)
            norm = nn.BatchNorm(
                use_running_average=not train,
                momentum=self.momentum,
                epsilon=EPSILON,
                name=f"{name}_norm",
            )
            return nn.relu6(norm(x))

        channels = scaled(STEM_CHANNELS, self.width)
        x = conv_norm("stem", x, channels, 3, 1 if self.small_images else 2)
        for i, block in enumerate(BLOCKS):
            inputs, channels = channels, scaled(block.channels, self.width)
            keeps_shape = block.stride == 1 and inputs == channels
            attention = attention_at(self.attention, i, keeps_shape=keeps_shape)
            if not attention or not attention.replaces:
                groups = self.groups(inputs)
                x = conv_norm(f"block{i}_depthwise", x, inputs, 3, block.stride, groups)
                x = conv_norm(f"block{i}_pointwise", x, channels, 1)
            if attention:
                x = sj.nn.ULSAMLinen(attention.groups, name=f"block{i}_attention")(x, train=train)
        return nn.Dense(self.num_classes, name="head")(x.mean(axis=(1, 2)))


class DepthwiseSeparable(nnx.Module):
    """A 3x3 depthwise and a 1x1 convolution, each followed by batch norm and relu6."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        *,
        momentum: float,
        depthwise: Callable[..., Array],
        activation: Callable[[], Callable[[Array], Array]] = relu6,
        groups: Callable[[int], int] = depthwise_groups,
        rngs: nnx.Rngs,
    ):
        self.depthwise = nnx.Conv(
            inputs,
            inputs,
            (3, 3),
            stride,
            feature_group_count=groups(inputs),
            use_bias=False,
            conv_general_dilated=depthwise,
            rngs=rngs,
        )
        self.depthwise_norm = nnx.BatchNorm(inputs, momentum=momentum, epsilon=EPSILON, rngs=rngs)
        self.pointwise = nnx.Conv(inputs, outputs, (1, 1), use_bias=False, rngs=rngs)
        self.pointwise_norm = nnx.BatchNorm(outputs, momentum=momentum, epsilon=EPSILON, rngs=rngs)
        self.depthwise_activation, self.pointwise_activation = activation(), activation()

    def __call__(self, x: Float[Array, "batch height width inputs"]) -> Array:
        """The block's output, (batch, height / stride, width / stride, outputs)."""
        x = self.depthwise_activation(self.depthwise_norm(self.depthwise(x)))
        return self.pointwise_activation(self.pointwise_norm(self.pointwise(x)))


class MobileNetV1(nnx.Module):
    """MobileNet-v1 for NNX; `model.train()` and `model.eval()` switch batch norm.

    Args:
        in_channels: of the image, 3 for colour.
        num_classes, width, small_images, momentum, depthwise, groups: as in `MobileNetV1Linen`.
        activation: makes what follows each batch norm, such as a module that learns a limit.
        attention: subspace attention after some blocks, counted from 0, or in their place.
        rngs: as for every NNX module.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        width: float = 1.0,
        small_images: bool = False,
        momentum: float = 0.99,
        depthwise: Callable[..., Array] = lax.conv_general_dilated,
        activation: Callable[[], Callable[[Array], Array]] = relu6,
        attention: Sequence[Attention] = (),
        groups: Callable[[int], int] = depthwise_groups,
        rngs: nnx.Rngs,
    ):
        channels = scaled(STEM_CHANNELS, width)
        stride = 1 if small_images else 2
        self.stem = nnx.Conv(in_channels, channels, (3, 3), stride, use_bias=False, rngs=rngs)
        self.stem_norm = nnx.BatchNorm(channels, momentum=momentum, epsilon=EPSILON, rngs=rngs)
        self.stem_activation = activation()
        blocks: list[nnx.Module] = []
        for i, block in enumerate(BLOCKS):
            inputs, channels = channels, scaled(block.channels, width)
            keeps_shape = block.stride == 1 and inputs == channels
            own = attention_at(attention, i, keeps_shape=keeps_shape)
            if not own or not own.replaces:
                separable = DepthwiseSeparable(
                    inputs,
                    channels,
                    block.stride,
                    momentum=momentum,
                    depthwise=depthwise,
                    activation=activation,
                    groups=groups,
                    rngs=rngs,
                )
                blocks.append(separable)
            if own:
                blocks.append(sj.nn.ULSAM(channels, groups=own.groups, rngs=rngs))
        self.blocks = nnx.List(blocks)
        self.head = nnx.Linear(channels, num_classes, rngs=rngs)

    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch classes"]:
        """Logits."""
        return self.head(self.maps(x)[-1].mean(axis=(1, 2)))

    def maps(self, x: Float[Array, "batch height width channels"]) -> list[Array]:
        """What each block gives."""
        x = self.stem_activation(self.stem_norm(self.stem(x)))
        made = []
        for block in self.blocks:
            x = block(x)
            made.append(x)
        return made
