"""U-Net as a Flax user writes it, in linen, with padding so that sides stay.

Reference: Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation",
MICCAI 2015, arXiv:1505.04597, figure 1.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float


class UNetLinen(nn.Module):
    """U-Net: `model.apply(variables, x)` gives logits of each pixel; a side is a multiple of 16.

    Args of the module:
        num_classes: of a pixel.
        channels: of the first level; each level below has twice as many.
        levels: below the first.
    """

    num_classes: int = 2
    channels: int = 64
    levels: int = 4

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch height width classes"]:
        """Logits."""

        def twice(name: str, x: Array, level: int) -> Array:
            for i in range(2):
                x = nn.relu(nn.Conv(self.channels << level, (3, 3), name=f"{name}{level}_{i}")(x))
            return x

        kept = []
        for level in range(self.levels):
            kept.append(twice("down", x, level))
            x = nn.max_pool(kept[-1], (2, 2), (2, 2))
        x = twice("bottom", x, self.levels)
        for level, skip in reversed(list(enumerate(kept))):
            x = nn.ConvTranspose(self.channels << level, (2, 2), (2, 2), name=f"open{level}")(x)
            x = twice("up", jnp.concatenate([skip, x], axis=-1), level)
        return nn.Conv(self.num_classes, (1, 1), name="head")(x)
