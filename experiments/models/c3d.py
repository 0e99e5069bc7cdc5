"""C3D, a network of 3-D convolutions for clips, as a Flax user writes it, in linen.

Reference: Tran et al., "Learning Spatiotemporal Features with 3D Convolutional Networks",
ICCV 2015, arXiv:1412.0767, figure 3. Inference only: without dropout.
"""

import flax.linen as nn
from jaxtyping import Array, Float

STAGES = ((64, 1), (128, 1), (256, 2), (512, 2), (512, 2))  # channels, convolutions
HIDDEN = 4096


class C3DLinen(nn.Module):
    """C3D: `model.apply(variables, clips)` gives logits; sides are multiples of 32, frames of 16.

    Args of the module:
        num_classes: outputs of the head.
        width: multiplier of all channel counts, those of the hidden layers too.
    """

    num_classes: int = 487
    width: float = 1.0

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch frames height width channels"]
    ) -> Float[Array, "batch classes"]:
        """Logits."""
        for stage, (channels, repeats) in enumerate(STAGES):
            for i in range(repeats):
                x = nn.Conv(int(channels * self.width), (3, 3, 3), name=f"conv{stage}_{i}")(x)
                x = nn.relu(x)
            window = (2 if stage else 1, 2, 2)
            x = nn.max_pool(x, window, window)
        x = x.reshape(len(x), -1)
        for i in range(2):
            x = nn.relu(nn.Dense(int(HIDDEN * self.width), name=f"hidden{i}")(x))
        return nn.Dense(self.num_classes, name="head")(x)
