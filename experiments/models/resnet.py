"""ResNet-18 and ResNet-50 as a Flax user writes them, once in linen and once in NNX.

Parameter paths end in `stem/kernel`, `conv1/kernel` to `conv3/kernel`, `shortcut/kernel` and
`head/kernel` in both. A block's stride is in its 3x3 convolution.

Reference: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv:1512.03385,
table 1.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
from flax import nnx
from jaxtyping import Array, Float


class BlockShape(NamedTuple):
    """One residual block; `channels` inside it, four times as many outputs of a bottleneck."""

    inputs: int
    channels: int
    outputs: int
    stride: int
    bottleneck: bool

    @property
    def convolutions(self) -> tuple[tuple[int, int, int], ...]:
        """Outputs, kernel size and stride of each convolution."""
        if self.bottleneck:
            return (self.channels, 1, 1), (self.channels, 3, self.stride), (self.outputs, 1, 1)
        return (self.channels, 3, self.stride), (self.outputs, 3, 1)

    @property
    def projects(self) -> bool:
        """Has the shortcut a convolution?"""
        return self.stride != 1 or self.inputs != self.outputs


STAGES_18, STAGES_50 = (2, 2, 2, 2), (3, 4, 6, 3)
STEM_CHANNELS = 64
EPSILON = 1e-5  # of batch norm
AROUND_STEM, AROUND_POOL = ((3, 3), (3, 3)), ((1, 1), (1, 1))


def blocks(stages: Sequence[int], bottleneck: bool, width: float) -> Iterator[BlockShape]:
    """The blocks from the first to the last."""
    inputs = int(STEM_CHANNELS * width)
    for stage, repeats in enumerate(stages):
        channels = int(STEM_CHANNELS * 2**stage * width)
        outputs = channels * 4 if bottleneck else channels
        for i in range(repeats):
            stride = 2 if stage and not i else 1
            yield BlockShape(inputs, channels, outputs, stride, bottleneck)
            inputs = outputs


class ResNetLinen(nn.Module):
    """ResNet for linen: `model.apply(variables, x, train=False)` gives logits.

    Args of the module:
        stages: blocks in each of the four stages.
        bottleneck: 1x1, 3x3, 1x1 convolutions in a block rather than two 3x3.
        num_classes: outputs of the head.
        width: multiplier of all channel counts.
        momentum: of the running statistics of batch norm.
    """

    stages: Sequence[int] = STAGES_50
    bottleneck: bool = True
    num_classes: int = 1000
    width: float = 1.0
    momentum: float = 0.9

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool = False
    ) -> Float[Array, "batch classes"]:
        """Logits; with `train` the batch's own statistics are used and collected."""

        def conv_norm(name: str, x: Array, features: int, size: int, stride: int):
            padding = AROUND_STEM if size == 7 else "SAME" if size == 1 else AROUND_POOL
            x = nn.Conv(features, (size, size), stride, padding, use_bias=False, name=name)(x)
            norm = nn.BatchNorm(
                use_running_average=not train,
                momentum=self.momentum,
                epsilon=EPSILON,
                name=f"{name}_norm",
            )
            return norm(x)

        x = nn.relu(conv_norm("stem", x, int(STEM_CHANNELS * self.width), 7, 2))
        x = nn.max_pool(x, (3, 3), (2, 2), AROUND_POOL)
        for i, block in enumerate(blocks(self.stages, self.bottleneck, self.width)):
            y = x
            for j, (features, size, stride) in enumerate(block.convolutions):
                y = conv_norm(
                    f"block{i}_conv{j + 1}", nn.relu(y) if j else y, features, size, stride
                )
            if block.projects:
                x = conv_norm(f"block{i}_shortcut", x, block.outputs, 1, block.stride)
            x = nn.relu(x + y)
        return nn.Dense(self.num_classes, name="head")(x.mean(axis=(1, 2)))


ResNet18Linen = partial(ResNetLinen, stages=STAGES_18, bottleneck=False)
ResNet50Linen = partial(ResNetLinen, stages=STAGES_50, bottleneck=True)


class ConvNorm(nnx.Module):
    """A convolution and its batch norm."""

    def __init__(
        self, inputs: int, outputs: int, size: int, stride: int, *, momentum: float, rngs: nnx.Rngs
    ):
        padding = AROUND_STEM if size == 7 else "SAME" if size == 1 else AROUND_POOL
        self.conv = nnx.Conv(
            inputs, outputs, (size, size), stride, padding=padding, use_bias=False, rngs=rngs
        )
        self.norm = nnx.BatchNorm(outputs, momentum=momentum, epsilon=EPSILON, rngs=rngs)

    def __call__(self, x: Float[Array, "batch height width inputs"]) -> Array:
        """The normalised images."""
        return self.norm(self.conv(x))


class Residual(nnx.Module):
    """Two or three convolutions, beside them the identity or a 1x1 convolution."""

    def __init__(self, block: BlockShape, *, momentum: float, rngs: nnx.Rngs):
        inputs, convs = block.inputs, []
        for outputs, size, stride in block.convolutions:
            convs.append(ConvNorm(inputs, outputs, size, stride, momentum=momentum, rngs=rngs))
            inputs = outputs
        self.convs = nnx.List(convs)
        self.projects = block.projects
        if self.projects:
            self.shortcut = ConvNorm(
                block.inputs, block.outputs, 1, block.stride, momentum=momentum, rngs=rngs
            )

    def __call__(self, x: Float[Array, "batch height width inputs"]) -> Array:
        """The block's output, (batch, height / stride, width / stride, outputs)."""
        y = self.convs[0](x)
        for conv in self.convs[1:]:
            y = conv(jax.nn.relu(y))
        return jax.nn.relu((self.shortcut(x) if self.projects else x) + y)


class ResNet(nnx.Module):
    """ResNet for NNX; `model.train()` and `model.eval()` switch batch norm.

    Args:
        stages, bottleneck, num_classes, width, momentum: as in `ResNetLinen`.
        in_channels: of the image, 3 for colour.
        rngs: as for every NNX module.
    """

    def __init__(
        self,
        *,
        stages: Sequence[int] = STAGES_50,
        bottleneck: bool = True,
        in_channels: int = 3,
        num_classes: int = 1000,
        width: float = 1.0,
        momentum: float = 0.9,
        rngs: nnx.Rngs,
    ):
        stem, shapes = int(STEM_CHANNELS * width), tuple(blocks(stages, bottleneck, width))
        self.stem = ConvNorm(in_channels, stem, 7, 2, momentum=momentum, rngs=rngs)
        self.blocks = nnx.List([Residual(s, momentum=momentum, rngs=rngs) for s in shapes])
        self.head = nnx.Linear(shapes[-1].outputs, num_classes, rngs=rngs)

    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch classes"]:
        """Logits."""
        x = nnx.max_pool(jax.nn.relu(self.stem(x)), (3, 3), (2, 2), AROUND_POOL)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(axis=(1, 2)))


ResNet18 = partial(ResNet, stages=STAGES_18, bottleneck=False)
ResNet50 = partial(ResNet, stages=STAGES_50, bottleneck=True)
