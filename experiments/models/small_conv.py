"""A small network of 3x3 and 1x1 convolutions for images of 14x14, in NNX.

Parameter paths are `three/<i>/kernel`, `one/<i>/kernel`, `stem/kernel` and `head/kernel`.
"""

import jax
from flax import nnx
from jaxtyping import Array, Float

from experiments.models.networks import ImageShape
from experiments.models.resnet_small import EPSILON, conv

CHANNELS = (32, 64, 64)  # of the stages: a 3x3 and a 1x1 convolution each


class SmallConv(nnx.Module):
    """Stem, three stages with a pooling by 2 behind the first two, and a head."""

    def __init__(self, in_channels: int, num_classes: int, *, rngs: nnx.Rngs):
        norm = lambda size: nnx.BatchNorm(size, momentum=0.97, epsilon=EPSILON, rngs=rngs)
        inputs = CHANNELS[0]
        self.stem = conv(in_channels, inputs, 3, 1, rngs=rngs)
        three, one = [], []
        for outputs in CHANNELS:
            three.append(conv(inputs, inputs, 3, 1, rngs=rngs))
            one.append(conv(inputs, outputs, 1, 1, rngs=rngs))
            inputs = outputs
        self.three, self.one = nnx.List(three), nnx.List(one)
        self.three_norms = nnx.List([norm(own.out_features) for own in three])
        self.one_norms = nnx.List([norm(own.out_features) for own in one])
        self.head = nnx.Linear(inputs, num_classes, rngs=rngs)

    def __call__(self, x: Float[Array, "batch 14 14 channels"]) -> Float[Array, "batch classes"]:
        """Logits."""
        x = jax.nn.relu(self.stem(x))
        layers = zip(self.three, self.three_norms, self.one, self.one_norms, strict=True)
        for index, (three, three_norm, one, one_norm) in enumerate(layers):
            x = jax.nn.relu(three_norm(three(x)))
            x = jax.nn.relu(one_norm(one(x)))
            if index < 2:
                x = nnx.max_pool(x, (2, 2), (2, 2))
        return self.head(x.mean((1, 2)))


def small_conv(image: ImageShape, classes: int, seed: int) -> nnx.Module:
    """The network of neural pruning search."""
    return SmallConv(image[2], classes, rngs=nnx.Rngs(seed))
