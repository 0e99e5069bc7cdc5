"""Small networks of many families as users of NNX write them."""

import jax.numpy as jnp
from flax import nnx

from tests.shrinking.zoo_linen import IMAGE, TOKENS


def patches(x, size):
    """An image as rows of patches."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // size, size, width // size, size, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, size * size * channels)


class MLP(nnx.Module):
    def __init__(self, width, hidden, rngs):
        self.up, self.down = (
            nnx.Linear(width, hidden, rngs=rngs),
            nnx.Linear(hidden, width, rngs=rngs),
        )

    def __call__(self, x):
        return self.down(nnx.gelu(self.up(x)))


class MixerLayer(nnx.Module):
    def __init__(self, rngs):
        self.norms = nnx.List([nnx.LayerNorm(16, rngs=rngs) for _ in range(2)])
        self.tokens, self.channels = MLP(16, 12, rngs), MLP(16, 32, rngs)

    def __call__(self, x):
        x = x + self.tokens(self.norms[0](x).swapaxes(1, 2)).swapaxes(1, 2)
        return x + self.channels(self.norms[1](x))


class Mixer(nnx.Module):
    def __init__(self, rngs):
        self.embed, self.head = nnx.Linear(12, 16, rngs=rngs), nnx.Linear(16, 5, rngs=rngs)
        self.layers = nnx.List([MixerLayer(rngs) for _ in range(2)])

    def __call__(self, x):
        x = self.embed(patches(x, 2))
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean(1))


class ViTLayer(nnx.Module):
    def __init__(self, rngs):
        self.norms = nnx.List([nnx.LayerNorm(16, rngs=rngs) for _ in range(2)])
        self.attention = nnx.MultiHeadAttention(4, 16, decode=False, rngs=rngs)
        self.mlp = MLP(16, 32, rngs)

    def __call__(self, x):
        x = x + self.attention(self.norms[0](x))
        return x + self.mlp(self.norms[1](x))


class ViT(nnx.Module):
    def __init__(self, rngs):
        self.embed = nnx.Conv(3, 16, (4, 4), (4, 4), rngs=rngs)
        self.token, self.places = nnx.Param(jnp.zeros((1, 1, 16))), nnx.Param(jnp.zeros((1, 5, 16)))
        self.layers = nnx.List([ViTLayer(rngs) for _ in range(2)])
        self.norm, self.head = nnx.LayerNorm(16, rngs=rngs), nnx.Linear(16, 5, rngs=rngs)

    def __call__(self, x):
        x = self.embed(x)
        x = x.reshape(len(x), -1, x.shape[-1])
        token = jnp.broadcast_to(self.token[...], (len(x), 1, x.shape[-1]))
        x = jnp.concatenate([token, x], 1) + self.places[...]
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x)[:, 0])


def rotated(x, places):
    """RoPE on halves."""
    half = x.shape[-1] // 2
    angles = places[:, None, None] * 100.0 ** (-jnp.arange(half) / half)
    one, other = jnp.split(x, 2, -1)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    return jnp.concatenate([one * cos - other * sin, one * sin + other * cos], -1)


class DecoderLayer(nnx.Module):
    def __init__(self, rngs):
        linear = lambda n, m: nnx.Linear(n, m, use_bias=False, rngs=rngs)
        self.norms = nnx.List([nnx.RMSNorm(16, rngs=rngs) for _ in range(2)])
        self.q, self.k, self.v, self.o = (
            linear(16, 16),
            linear(16, 8),
            linear(16, 8),
            linear(16, 16),
        )
        self.gate, self.up, self.down = linear(16, 24), linear(16, 24), linear(24, 16)

    def __call__(self, x):
        h = self.norms[0](x)
        q, k, v = (f(h).reshape(*h.shape[:2], -1, 4) for f in (self.q, self.k, self.v))
        places = jnp.arange(x.shape[1])
        q, k = rotated(q, places), rotated(k, places)
        k, v = (jnp.repeat(t, q.shape[2] // k.shape[2], 2) for t in (k, v))
        logits = jnp.einsum("bqhd,bkhd->bhqk", q, k) / 2
        logits = jnp.where(places[:, None] >= places, logits, -1e9)
        h = jnp.einsum("bhqk,bkhd->bqhd", nnx.softmax(logits), v)
        x = x + self.o(h.reshape(*h.shape[:2], -1))
        h = self.norms[1](x)
        return x + self.down(nnx.silu(self.gate(h)) * self.up(h))


class Decoder(nnx.Module):
    def __init__(self, rngs):
        self.embed, self.norm = nnx.Embed(11, 16, rngs=rngs), nnx.RMSNorm(16, rngs=rngs)
        self.layers = nnx.List([DecoderLayer(rngs) for _ in range(2)])

    def __call__(self, tokens):
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.embed.attend(self.norm(x))


class Pyramid(nnx.Module):
    """A feature pyramid with the heads of a detector at each level."""

    def __init__(self, rngs):
        conv = lambda n, m, k, s=1: nnx.Conv(n, m, (k, k), (s, s), rngs=rngs)
        self.stages = nnx.List([conv(3, 8, 3), conv(8, 16, 3, 2), conv(16, 16, 3, 2)])
        self.norms = nnx.List([nnx.BatchNorm(n, rngs=rngs) for n in (8, 16, 16)])
        self.sides = nnx.List([conv(n, 8, 1) for n in (8, 16, 16)])
        self.boxes, self.classes = conv(8, 4, 3), conv(8, 6, 3)

    def __call__(self, x):
        levels = []
        for stage, norm, side in zip(self.stages, self.norms, self.sides, strict=True):
            x = nnx.relu(norm(stage(x), use_running_average=True))
            levels.append(side(x))
        for low in (1, 0):
            above = jnp.repeat(jnp.repeat(levels[low + 1], 2, 1), 2, 2)
            levels[low] = levels[low] + above
        flat = lambda head, n: jnp.concatenate(
            [head(nnx.relu(x)).reshape(len(x), -1, n) for x in levels], 1
        )
        return flat(self.boxes, 4), flat(self.classes, 3)


MODELS = {
    "MLP-Mixer": (Mixer, IMAGE),
    "ViT": (ViT, IMAGE),
    "decoder": (Decoder, TOKENS),
    "pyramid": (Pyramid, IMAGE),
}


def built(name):
    """The function, shapes of the module, and of its inputs."""
    model, *example = MODELS[name]
    graph, state = nnx.split(nnx.eval_shape(lambda: model(nnx.Rngs(0))))
    return (lambda state, *x: nnx.merge(graph, state)(*x)), state, example
