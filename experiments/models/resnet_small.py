"""ResNet-20, 32, 56 and wide ResNets for images of about 32x32, in NNX.

Parameter paths are `stem/.../kernel`, `blocks/<i>/...conv1/kernel`, `.../conv2/kernel`, and
`head/kernel`.

Reference: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv:1512.03385,
section 4.2; Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016, arXiv:1605.07146.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

CHANNELS = (16, 32, 64)  # of the three stages
EPSILON = 1e-5


def conv(inputs: int, outputs: int, size: int, stride: int, *, rngs: nnx.Rngs) -> nnx.Conv:
    """A convolution without bias whose output has ceil(input / stride) pixels a side."""
    around = (size // 2, size // 2)
    initial = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")
    return nnx.Conv(
        inputs,
        outputs,
        (size, size),
        stride,
        padding=(around, around),
        use_bias=False,
        kernel_init=initial,
        rngs=rngs,
    )


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions and a shortcut without parameters (option A of the paper)."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, momentum: float, rngs: nnx.Rngs):
        norm = {"momentum": momentum, "epsilon": EPSILON, "rngs": rngs}
        self.stride, self.more = stride, outputs - inputs
        self.conv1 = conv(inputs, outputs, 3, stride, rngs=rngs)
        self.norm1 = nnx.BatchNorm(outputs, **norm)
        self.conv2 = conv(outputs, outputs, 3, 1, rngs=rngs)
        self.norm2 = nnx.BatchNorm(outputs, **norm)

    def __call__(self, x: Float[Array, "batch height width inputs"]) -> Array:
        """The block's output, (batch, height / stride, width / stride, outputs)."""
        y = self.norm2(self.conv2(jax.nn.relu(self.norm1(self.conv1(x)))))
        if self.more or self.stride > 1:
            x = x[:, :: self.stride, :: self.stride]
            x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (self.more // 2, self.more - self.more // 2)))
        return jax.nn.relu(x + y)


class SmallResNet(nnx.Module):
    """A ResNet of 6 n + 2 layers; `model.train()` and `model.eval()` switch batch norm.

    Args:
        depth: 20, 32, 44, 56 or 110.
        in_channels: of the image, 3 for colour.
        num_classes: outputs of the head.
        momentum: of the running statistics of batch norm.
        rngs: as for every NNX module.
    """

    def __init__(
        self,
        depth: int,
        *,
        in_channels: int = 3,
        num_classes: int = 10,
        momentum: float = 0.9,
        rngs: nnx.Rngs,
    ):
        self.stem = conv(in_channels, CHANNELS[0], 3, 1, rngs=rngs)
        self.stem_norm = nnx.BatchNorm(CHANNELS[0], momentum=momentum, epsilon=EPSILON, rngs=rngs)
        blocks, inputs = [], CHANNELS[0]
        for stage, outputs in enumerate(CHANNELS):
            for i in range((depth - 2) // 6):
                stride = 2 if stage and not i else 1
                blocks.append(BasicBlock(inputs, outputs, stride, momentum=momentum, rngs=rngs))
                inputs = outputs
        self.blocks = nnx.List(blocks)
        self.head = nnx.Linear(inputs, num_classes, rngs=rngs)

    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch classes"]:
        """Logits."""
        x = jax.nn.relu(self.stem_norm(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(axis=(1, 2)))


class WideBlock(nnx.Module):
    """Norm, relu and convolution twice, beside them the identity or a 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, momentum: float, rngs: nnx.Rngs):
        norm = {"momentum": momentum, "epsilon": EPSILON, "rngs": rngs}
        self.norm1, self.norm2 = nnx.BatchNorm(inputs, **norm), nnx.BatchNorm(outputs, **norm)
        self.conv1 = conv(inputs, outputs, 3, stride, rngs=rngs)
        self.conv2 = conv(outputs, outputs, 3, 1, rngs=rngs)
        self.projects = stride > 1 or inputs != outputs
        if self.projects:
            self.shortcut = conv(inputs, outputs, 1, stride, rngs=rngs)

    def __call__(self, x: Float[Array, "batch height width inputs"]) -> Array:
        """The block's output, (batch, height / stride, width / stride, outputs)."""
        first = jax.nn.relu(self.norm1(x))
        y = self.conv2(jax.nn.relu(self.norm2(self.conv1(first))))
        return y + (self.shortcut(first) if self.projects else x)


class WideResNet(nnx.Module):
    """WRN-depth-width, without dropout; `model.train()` and `model.eval()` switch batch norm.

    Args:
        depth: 6 n + 4 layers.
        width: multiplier of the channels 16, 32, 64.
        in_channels, num_classes, momentum, rngs: as in `SmallResNet`.
    """

    def __init__(
        self,
        depth: int,
        width: int,
        *,
        in_channels: int = 3,
        num_classes: int = 10,
        momentum: float = 0.9,
        rngs: nnx.Rngs,
    ):
        self.stem = conv(in_channels, CHANNELS[0], 3, 1, rngs=rngs)
        blocks, inputs = [], CHANNELS[0]
        for stage, channels in enumerate(CHANNELS):
            for i in range((depth - 4) // 6):
                stride = 2 if stage and not i else 1
                outputs = channels * width
                blocks.append(WideBlock(inputs, outputs, stride, momentum=momentum, rngs=rngs))
                inputs = outputs
        self.blocks = nnx.List(blocks)
        self.norm = nnx.BatchNorm(inputs, momentum=momentum, epsilon=EPSILON, rngs=rngs)
        self.head = nnx.Linear(inputs, num_classes, rngs=rngs)

    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch classes"]:
        """Logits."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(jax.nn.relu(self.norm(x)).mean(axis=(1, 2)))
