"""MobileNet-v2 as a Flax user writes it, once in linen and once in NNX.

Parameter paths end in `stem/kernel`, `expand/kernel`, `depthwise/kernel`, `project/kernel`,
`top/kernel` and `head/kernel` in both.

Reference: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018,
arXiv:1801.04381, table 2.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
from flax import nnx
from jaxtyping import Array, Float

import sparsejax as sj
from experiments.models.attention import Attention, attention_at


class Stage(NamedTuple):
    """A row of table 2: the first of `repeats` blocks has the stride."""

    expansion: int
    channels: int
    repeats: int
    stride: int


class BlockShape(NamedTuple):
    """One inverted residual; `hidden` channels are what the depthwise convolution works on."""

    inputs: int
    hidden: int
    outputs: int
    stride: int

    @property
    def keeps_shape(self) -> bool:
        """Is the identity beside it?"""
        return self.stride == 1 and self.inputs == self.outputs


STAGES = (
    Stage(1, 16, 1, 1),
    Stage(6, 24, 2, 2),
    Stage(6, 32, 3, 2),
    Stage(6, 64, 4, 2),
    Stage(6, 96, 3, 1),
    Stage(6, 160, 3, 2),
    Stage(6, 320, 1, 1),
)
STEM_CHANNELS, TOP_CHANNELS = 32, 1280
EPSILON = 1e-3  # of batch norm, as in the authors' TF-Slim code


def scaled(channels: int, width: float) -> int:
    """Channels at a width multiplier: a multiple of 8, at least 8, not below 90 %."""
    exact = channels * width
    rounded = max(8, int(exact + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * exact else rounded


def blocks(width: float) -> Iterator[BlockShape]:
    """The blocks from the first to the last."""
    inputs = scaled(STEM_CHANNELS, width)
    for stage in STAGES:
        outputs = scaled(stage.channels, width)
        for i in range(stage.repeats):
            yield BlockShape(inputs, inputs * stage.expansion, outputs, 1 if i else stage.stride)
            inputs = outputs


class MobileNetV2Linen(nn.Module):
    """MobileNet-v2 for linen: `model.apply(variables, x, train=False)` gives logits.

    Args of the module:
        num_classes: outputs of the head.
        width: multiplier of all channel counts.
        momentum: of the running statistics of batch norm.
        attention: subspace attention after some blocks, counted from 0, or in their place.
    """

    num_classes: int = 1000
    width: float = 1.0
    momentum: float = 0.99
    attention: Sequence[Attention] = ()

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool = False
    ) -> Float[Array, "batch classes"]:
        """Logits; with `train` the batch's own statistics are used and collected."""

        def conv_norm(
            name: str, x: Array, features: int, size: int = 1, stride: int = 1, groups: int = 1
        ):
            x = nn.Conv(
                features,
                (size, size),
                stride,
                feature_group_count=groups,
                use_bias=False,
                name=name,
            )(x)
            norm = nn.BatchNorm(
                use_running_average=not train,
                momentum=self.momentum,
                epsilon=EPSILON,
                name=f"{name}_norm",
            )
            return norm(x)

        x = nn.relu6(conv_norm("stem", x, scaled(STEM_CHANNELS, self.width), 3, 2))

        def residual(i: int, block: BlockShape, x: Array) -> Array:
            y = x
            if block.hidden != block.inputs:
                y = nn.relu6(conv_norm(f"block{i}_expand", y, block.hidden))
            y = conv_norm(f"block{i}_depthwise", y, block.hidden, 3, block.stride, block.hidden)
            y = conv_norm(f"block{i}_project", nn.relu6(y), block.outputs)
            return x + y if block.keeps_shape else y

        for i, block in enumerate(blocks(self.width)):
            attention = attention_at(self.attention, i, keeps_shape=block.keeps_shape)
            if not attention or not attention.replaces:
                x = residual(i, block, x)
            if attention:
                x = sj.nn.ULSAMLinen(attention.groups, name=f"block{i}_attention")(x, train=train)
        x = nn.relu6(conv_norm("top", x, scaled(TOP_CHANNELS, max(1.0, self.width))))
        return nn.Dense(self.num_classes, name="head")(x.mean(axis=(1, 2)))


class InvertedResidual(nnx.Module):
    """A 1x1, a depthwise 3x3 and a linear 1x1 convolution, beside them the identity."""

    def __init__(self, block: BlockShape, *, momentum: float, rngs: nnx.Rngs):
        def conv(inputs: int, outputs: int, size: int = 1, **options: int) -> nnx.Conv:
            return nnx.Conv(inputs, outputs, (size, size), use_bias=False, rngs=rngs, **options)

        def norm(channels: int) -> nnx.BatchNorm:
            return nnx.BatchNorm(channels, momentum=momentum, epsilon=EPSILON, rngs=rngs)

        hidden = block.hidden
        self.residual = block.keeps_shape
        self.expands = hidden != block.inputs
        if self.expands:
            self.expand, self.expand_norm = conv(block.inputs, hidden), norm(hidden)
        self.depthwise = conv(hidden, hidden, 3, strides=block.stride, feature_group_count=hidden)
        self.depthwise_norm = norm(hidden)
        self.project, self.project_norm = conv(hidden, block.outputs), norm(block.outputs)

    def __call__(self, x: Float[Array, "batch height width inputs"]) -> Array:
        """The block's output, (batch, height / stride, width / stride, outputs)."""
        y = jax.nn.relu6(self.expand_norm(self.expand(x))) if self.expands else x
        y = jax.nn.relu6(self.depthwise_norm(self.depthwise(y)))
        y = self.project_norm(self.project(y))
        return x + y if self.residual else y


class MobileNetV2(nnx.Module):
    """MobileNet-v2 for NNX; `model.train()` and `model.eval()` switch batch norm.

    Args:
        in_channels: of the image, 3 for colour.
        num_classes, width, momentum, attention: as in `MobileNetV2Linen`.
        rngs: as for every NNX module.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        width: float = 1.0,
        momentum: float = 0.99,
        attention: Sequence[Attention] = (),
        rngs: nnx.Rngs,
    ):
        stem, top = scaled(STEM_CHANNELS, width), scaled(TOP_CHANNELS, max(1.0, width))
        norm = {"momentum": momentum, "epsilon": EPSILON, "rngs": rngs}
        shapes = tuple(blocks(width))
        self.stem = nnx.Conv(in_channels, stem, (3, 3), 2, use_bias=False, rngs=rngs)
        self.stem_norm = nnx.BatchNorm(stem, **norm)
        layers: list[nnx.Module] = []
        for i, block in enumerate(shapes):
            own = attention_at(attention, i, keeps_shape=block.keeps_shape)
            if not own or not own.replaces:
                layers.append(InvertedResidual(block, momentum=momentum, rngs=rngs))
            if own:
                layers.append(sj.nn.ULSAM(block.outputs, groups=own.groups, rngs=rngs))
        self.blocks = nnx.List(layers)
        self.top = nnx.Conv(shapes[-1].outputs, top, (1, 1), use_bias=False, rngs=rngs)
        self.top_norm = nnx.BatchNorm(top, **norm)
        self.head = nnx.Linear(top, num_classes, rngs=rngs)

    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch classes"]:
        """Logits."""
        x = jax.nn.relu6(self.stem_norm(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        x = jax.nn.relu6(self.top_norm(self.top(x)))
        return self.head(x.mean(axis=(1, 2)))
