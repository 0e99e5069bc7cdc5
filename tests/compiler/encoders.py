"""A BERT-like encoder as a Flax user writes it, in linen and in NNX: ids -> logits."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx


class EncoderLinen(nn.Module):
    """Embedding, layers of attention and perceptron with layer norm behind each, pooler, head."""

    layers: int = 2
    features: int = 32
    heads: int = 4
    vocabulary: int = 50
    classes: int = 5

    @nn.compact
    def __call__(self, ids):
        x = nn.Embed(self.vocabulary, self.features, name="embedding")(ids)
        positions = self.param("positions", nn.initializers.normal(), (64, self.features))
        x = nn.LayerNorm(name="norm")(x + positions[: ids.shape[1]])
        for i in range(self.layers):
            attention = nn.MultiHeadDotProductAttention(
                self.heads, deterministic=True, name=f"attention{i}"
            )
            x = nn.LayerNorm(name=f"attention{i}_norm")(x + attention(x))
            y = nn.gelu(nn.Dense(4 * self.features, name=f"up{i}")(x))
            x = nn.LayerNorm(name=f"down{i}_norm")(x + nn.Dense(self.features, name=f"down{i}")(y))
        pooled = jnp.tanh(nn.Dense(self.features, name="pooler")(x[:, 0]))
        return nn.Dense(self.classes, name="head")(pooled)


class VisionTransformer(nn.Module):
    """Patches, a token of the class, positions, a layer with layer norm before each part, head."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(12, (2, 2), strides=(2, 2), padding="VALID")(x)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        token = self.param("token", nn.initializers.normal(), (1, 1, 12))
        x = jnp.concatenate([jnp.tile(token, (x.shape[0], 1, 1)), x], axis=1)
        x = x + self.param("positions", nn.initializers.normal(), (1, *x.shape[1:]))
        x = x + nn.MultiHeadDotProductAttention(3)(nn.LayerNorm()(x))
        x = x + nn.Dense(12)(nn.gelu(nn.Dense(20)(nn.LayerNorm()(x))))
        return nn.Dense(5)(nn.LayerNorm()(x)[:, 0])


class Mixer(nn.Module):
    """Patches, a perceptron over these and one over channels, the mean, head."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(12, (2, 2), strides=(2, 2))(x)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        y = jnp.swapaxes(nn.LayerNorm()(x), 1, 2)
        y = nn.Dense(x.shape[1])(nn.gelu(nn.Dense(7)(y)))
        x = x + jnp.swapaxes(y, 1, 2)
        x = x + nn.Dense(12)(nn.gelu(nn.Dense(20)(nn.LayerNorm()(x))))
        return nn.Dense(5)(nn.LayerNorm()(x).mean(axis=1))


class EncoderLayer(nnx.Module):
    """Attention and a perceptron, layer norm behind each."""

    def __init__(self, features, heads, rngs):
        self.attention = nnx.MultiHeadAttention(heads, features, decode=False, rngs=rngs)
        self.attention_norm = nnx.LayerNorm(features, rngs=rngs)
        self.up = nnx.Linear(features, 4 * features, rngs=rngs)
        self.down = nnx.Linear(4 * features, features, rngs=rngs)
        self.down_norm = nnx.LayerNorm(features, rngs=rngs)

    def __call__(self, x):
        x = self.attention_norm(x + self.attention(x))
        return self.down_norm(x + self.down(jax.nn.gelu(self.up(x))))


class Encoder(nnx.Module):
    """The same as `EncoderLinen`."""

    def __init__(self, layers=2, features=32, heads=4, vocabulary=50, classes=5, *, rngs):
        self.embedding = nnx.Embed(vocabulary, features, rngs=rngs)
        self.positions = nnx.Param(jnp.zeros((64, features)))
        self.norm = nnx.LayerNorm(features, rngs=rngs)
        self.layers = nnx.List([EncoderLayer(features, heads, rngs) for _ in range(layers)])
        self.pooler = nnx.Linear(features, features, rngs=rngs)
        self.head = nnx.Linear(features, classes, rngs=rngs)

    def __call__(self, ids):
        x = self.norm(self.embedding(ids) + self.positions[...][: ids.shape[1]])
        for layer in self.layers:
            x = layer(x)
        return self.head(jnp.tanh(self.pooler(x[:, 0])))
