"""VGG-16 as a Flax user writes it, once in linen and once in NNX.

Parameter paths end in `conv0/kernel` to `conv12/kernel`, `hidden0/kernel`, `hidden1/kernel` and
`head/kernel` in linen, `convs/0/kernel`, `hidden/0/kernel` and `head/kernel` in NNX. Inference
only: without dropout.

Reference: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
Recognition", ICLR 2015, arXiv:1409.1556, table 1, D.
"""

import flax.linen as nn
import jax
from flax import nnx
from jaxtyping import Array, Float

STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels, convolutions
HIDDEN = 4096


class VGG16Linen(nn.Module):
    """VGG-16 for linen: `model.apply(variables, x)` gives logits.

    Args of the module:
        num_classes: outputs of the head.
        width: multiplier of all channel counts, those of the hidden layers too.
    """

    num_classes: int = 1000
    width: float = 1.0

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch classes"]:
        """Logits; height and width are multiples of 32."""
        channels = [(stage, c) for stage, (c, repeats) in enumerate(STAGES) for _ in range(repeats)]
        for i, (stage, features) in enumerate(channels):
            x = nn.relu(nn.Conv(int(features * self.width), (3, 3), name=f"conv{i}")(x))
            if i + 1 == len(channels) or channels[i + 1][0] != stage:
                x = nn.max_pool(x, (2, 2), (2, 2))
        x = x.reshape(x.shape[0], -1)
        for i in range(2):
            x = nn.relu(nn.Dense(int(HIDDEN * self.width), name=f"hidden{i}")(x))
        return nn.Dense(self.num_classes, name="head")(x)


class VGG16(nnx.Module):
    """VGG-16 for NNX.

    Args:
        image_size: height and width of the images, a multiple of 32.
        in_channels: of the image, 3 for colour.
        num_classes, width: as in `VGG16Linen`.
        rngs: as for every NNX module.
    """

    def __init__(
        self,
        *,
        image_size: int = 224,
        in_channels: int = 3,
        num_classes: int = 1000,
        width: float = 1.0,
        rngs: nnx.Rngs,
    ):
        convs, inputs, hidden = [], in_channels, int(HIDDEN * width)
        for channels, repeats in STAGES:
            for _ in range(repeats):
                convs.append(nnx.Conv(inputs, int(channels * width), (3, 3), rngs=rngs))
                inputs = int(channels * width)
        self.convs = nnx.List(convs)
        flat = inputs * (image_size // 32) ** 2
        self.hidden = nnx.List(
            [nnx.Linear(flat, hidden, rngs=rngs), nnx.Linear(hidden, hidden, rngs=rngs)]
        )
        self.head = nnx.Linear(hidden, num_classes, rngs=rngs)

    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch classes"]:
        """Logits."""
        convs = iter(self.convs)
        for _, repeats in STAGES:
            for _ in range(repeats):
                x = jax.nn.relu(next(convs)(x))
            x = nnx.max_pool(x, (2, 2), (2, 2))
        x = x.reshape(x.shape[0], -1)
        for layer in self.hidden:
            x = jax.nn.relu(layer(x))
        return self.head(x)
