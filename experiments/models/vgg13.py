"""VGG-13 with batch norm and one linear layer, for images of about 32x32, in NNX.

Parameter paths are `convs/<i>/kernel` and `head/kernel`.

Reference: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
Recognition", ICLR 2015, arXiv:1409.1556, table 1, B; for small images as in Lubana and Dick,
"A Gradient Flow Framework for Analyzing Network Pruning", ICLR 2021, arXiv:2009.11839.
"""

import jax
from flax import nnx
from jaxtyping import Array, Float

from experiments.models.resnet_small import EPSILON, conv

CHANNELS = (64, 128, 256, 512, 512)  # two convolutions each, then a pooling by 2


class VGG13(nnx.Module):
    """VGG-13 for small images; `model.train()` and `model.eval()` switch batch norm.

    A side is halved up to five times, and no more than it has pixels.

    Args:
        in_channels: of the image, 3 for colour.
        num_classes: outputs of the head.
        width: multiplier of all channel counts.
        momentum: of the running statistics of batch norm.
        rngs: as for every NNX module.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 10,
        width: float = 1.0,
        momentum: float = 0.9,
        rngs: nnx.Rngs,
    ):
        convs, norms, inputs = [], [], in_channels
        for channels in CHANNELS:
            outputs = int(channels * width)
            for _ in range(2):
                convs.append(conv(inputs, outputs, 3, 1, rngs=rngs))
                norms.append(nnx.BatchNorm(outputs, momentum=momentum, epsilon=EPSILON, rngs=rngs))
                inputs = outputs
        self.convs, self.norms = nnx.List(convs), nnx.List(norms)
        self.head = nnx.Linear(inputs, num_classes, rngs=rngs)

    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch classes"]:
        """Logits."""
        for i, (layer, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = jax.nn.relu(norm(layer(x)))
            if i % 2 and min(x.shape[1:3]) > 1:
                x = nnx.max_pool(x, (2, 2), (2, 2))
        return self.head(x.mean(axis=(1, 2)))
