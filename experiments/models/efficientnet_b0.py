"""EfficientNet-B0 as a Flax user writes it, once in linen and once in NNX.

Parameter paths end in `stem/kernel`, `expand/kernel`, `depthwise/kernel`, `squeeze/kernel`,
`excite/kernel`, `project/kernel`, `top/kernel` and `head/kernel` in both. Inference only: neither
dropout nor stochastic depth.

Reference: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
ICML 2019, arXiv:1905.11946, table 1; squeeze-and-excitation at a quarter of a block's inputs as
in the authors' code.
"""

from collections.abc import Iterator
from typing import NamedTuple

import flax.linen as nn
import jax
from flax import nnx
from jaxtyping import Array, Float

from experiments.models.mobilenet_v2 import scaled


class Stage(NamedTuple):
    """A row of table 1: the first of `repeats` blocks has the stride."""

    expansion: int
    channels: int
    repeats: int
    stride: int
    kernel: int


class BlockShape(NamedTuple):
    """One inverted residual with a gate; `squeezed` channels are in the middle of the gate."""

    inputs: int
    hidden: int
    squeezed: int
    outputs: int
    stride: int
    kernel: int


STAGES = (
    Stage(1, 16, 1, 1, 3),
    Stage(6, 24, 2, 2, 3),
    Stage(6, 40, 2, 2, 5),
    Stage(6, 80, 3, 2, 3),
    Stage(6, 112, 3, 1, 5),
    Stage(6, 192, 4, 2, 5),
    Stage(6, 320, 1, 1, 3),
)
STEM_CHANNELS, TOP_CHANNELS = 32, 1280
EPSILON = 1e-3  # of batch norm, as in the authors' code


def blocks(width: float) -> Iterator[BlockShape]:
    """The blocks from the first to the last."""
    inputs = scaled(STEM_CHANNELS, width)
    for stage in STAGES:
        outputs = scaled(stage.channels, width)
        for i in range(stage.repeats):
            hidden, stride = inputs * stage.expansion, 1 if i else stage.stride
            yield BlockShape(inputs, hidden, inputs // 4, outputs, stride, stage.kernel)
            inputs = outputs


class EfficientNetB0Linen(nn.Module):
    """EfficientNet-B0 for linen: `model.apply(variables, x, train=False)` gives logits.

    Args of the module:
        num_classes: outputs of the head.
        width: multiplier of all channel counts.
        momentum: of the running statistics of batch norm.
    """

    num_classes: int = 1000
    width: float = 1.0
    momentum: float = 0.99

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

        x = nn.silu(conv_norm("stem", x, scaled(STEM_CHANNELS, self.width), 3, 2))
        for i, block in enumerate(blocks(self.width)):
            y = x
            if block.hidden != block.inputs:
                y = nn.silu(conv_norm(f"block{i}_expand", y, block.hidden))
            size, hidden = block.kernel, block.hidden
            y = nn.silu(conv_norm(f"block{i}_depthwise", y, hidden, size, block.stride, hidden))
            gate = y.mean(axis=(1, 2), keepdims=True)
            gate = nn.silu(nn.Conv(block.squeezed, (1, 1), name=f"block{i}_squeeze")(gate))
            gate = nn.sigmoid(nn.Conv(hidden, (1, 1), name=f"block{i}_excite")(gate))
            y = conv_norm(f"block{i}_project", y * gate, block.outputs)
            x = x + y if block.stride == 1 and block.inputs == block.outputs else y
        x = nn.silu(conv_norm("top", x, scaled(TOP_CHANNELS, self.width)))
        return nn.Dense(self.num_classes, name="head")(x.mean(axis=(1, 2)))


class GatedResidual(nnx.Module):
    """A 1x1, a depthwise, a gate and a linear 1x1 convolution, beside them the identity."""

    def __init__(self, block: BlockShape, *, momentum: float, rngs: nnx.Rngs):
        def conv(inputs: int, outputs: int, size: int = 1, **options: int) -> nnx.Conv:
            return nnx.Conv(inputs, outputs, (size, size), use_bias=False, rngs=rngs, **options)

        def norm(channels: int) -> nnx.BatchNorm:
            return nnx.BatchNorm(channels, momentum=momentum, epsilon=EPSILON, rngs=rngs)

        hidden = block.hidden
        self.residual = block.stride == 1 and block.inputs == block.outputs
        self.expands = hidden != block.inputs
        if self.expands:
            self.expand, self.expand_norm = conv(block.inputs, hidden), norm(hidden)
        self.depthwise = conv(
            hidden, hidden, block.kernel, strides=block.stride, feature_group_count=hidden
        )
        self.depthwise_norm = norm(hidden)
        self.squeeze = nnx.Conv(hidden, block.squeezed, (1, 1), rngs=rngs)
        self.excite = nnx.Conv(block.squeezed, hidden, (1, 1), rngs=rngs)
        self.project, self.project_norm = conv(hidden, block.outputs), norm(block.outputs)

    def __call__(self, x: Float[Array, "batch height width inputs"]) -> Array:
        """The block's output, (batch, height / stride, width / stride, outputs)."""
        y = jax.nn.silu(self.expand_norm(self.expand(x))) if self.expands else x
        y = jax.nn.silu(self.depthwise_norm(self.depthwise(y)))
        gate = jax.nn.silu(self.squeeze(y.mean(axis=(1, 2), keepdims=True)))
        y = y * jax.nn.sigmoid(self.excite(gate))
        y = self.project_norm(self.project(y))
        return x + y if self.residual else y


class EfficientNetB0(nnx.Module):
    """EfficientNet-B0 for NNX; `model.train()` and `model.eval()` switch batch norm.

    Args:
        in_channels: of the image, 3 for colour.
        num_classes, width, momentum: as in `EfficientNetB0Linen`.
        rngs: as for every NNX module.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        width: float = 1.0,
        momentum: float = 0.99,
        rngs: nnx.Rngs,
    ):
        stem, top = scaled(STEM_CHANNELS, width), scaled(TOP_CHANNELS, width)
        norm = {"momentum": momentum, "epsilon": EPSILON, "rngs": rngs}
        shapes = tuple(blocks(width))
        self.stem = nnx.Conv(in_channels, stem, (3, 3), 2, use_bias=False, rngs=rngs)
        self.stem_norm = nnx.BatchNorm(stem, **norm)
        self.blocks = nnx.List(
            [GatedResidual(shape, momentum=momentum, rngs=rngs) for shape in shapes]
        )
        self.top = nnx.Conv(shapes[-1].outputs, top, (1, 1), use_bias=False, rngs=rngs)
        self.top_norm = nnx.BatchNorm(top, **norm)
        self.head = nnx.Linear(top, num_classes, rngs=rngs)

    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch classes"]:
        """Logits."""
        x = jax.nn.silu(self.stem_norm(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        x = jax.nn.silu(self.top_norm(self.top(x)))
        return self.head(x.mean(axis=(1, 2)))
