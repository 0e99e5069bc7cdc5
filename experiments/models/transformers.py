"""Transformers as a Flax user writes them, in linen: one like GPT-2, and a vision transformer.

References: Radford et al., "Language Models are Unsupervised Multitask Learners", 2019;
Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, arXiv:2010.11929.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


class Layers(nn.Module):
    """Layers of attention and perceptron with layer norm before each, and one at the end.

    Args of the module:
        layers, heads: how many.
        causal: True where a token sees those before it only.
    """

    layers: int
    heads: int
    causal: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch tokens features"]
    ) -> Float[Array, "batch tokens features"]:
        """The features of each token."""
        tokens, features = x.shape[1:]
        mask = np.tri(tokens, dtype=bool)[None, None] if self.causal else None
        for i in range(self.layers):
            y = nn.LayerNorm(name=f"attention{i}_norm")(x)
            x += nn.MultiHeadDotProductAttention(self.heads, name=f"attention{i}")(y, mask=mask)
            y = nn.Dense(4 * features, name=f"up{i}")(nn.LayerNorm(name=f"up{i}_norm")(x))
            x += nn.Dense(features, name=f"down{i}")(nn.gelu(y))
        return nn.LayerNorm(name="norm")(x)


class GPT2Linen(nn.Module):
    """A language model like GPT-2: `model.apply(variables, ids)` gives logits of the next token.

    Args of the module:
        layers, heads, features: of the smallest GPT-2.
        vocabulary: number of tokens; their embeddings are the head, too.
        positions: at most so many tokens.
    """

    layers: int = 12
    heads: int = 12
    features: int = 768
    vocabulary: int = 50_257
    positions: int = 1024

    @nn.compact
    def __call__(self, ids: Int[Array, "batch tokens"]) -> Float[Array, "batch tokens vocabulary"]:
        """Logits."""
        table = nn.Embed(self.vocabulary, self.features, name="word")
        places = nn.Embed(self.positions, self.features, name="position")(np.arange(ids.shape[1]))
        x = Layers(self.layers, self.heads, causal=True, name="layers")(table(ids) + places)
        return table.attend(x)


class ViTLinen(nn.Module):
    """A vision transformer: `model.apply(variables, x)` gives logits.

    Args of the module:
        num_classes: outputs of the head.
        patch: height and width of what becomes a token.
        layers, heads, features: of ViT-B.
    """

    num_classes: int = 1000
    patch: int = 16
    layers: int = 12
    heads: int = 12
    features: int = 768

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch classes"]:
        """Logits, from a token of its own beside those of the patches."""
        size = (self.patch, self.patch)
        x = nn.Conv(self.features, size, size, name="stem")(x).reshape(len(x), -1, self.features)
        own = self.param("token", nn.initializers.zeros, (1, 1, self.features))
        x = jnp.concatenate([jnp.tile(own, (len(x), 1, 1)), x], axis=1)
        x += self.param("position", nn.initializers.normal(0.02), x.shape[1:])
        x = Layers(self.layers, self.heads, name="layers")(x)
        return nn.Dense(self.num_classes, name="head")(x[:, 0])
