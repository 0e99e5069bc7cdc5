"""Small networks of many families as users of Equinox write them."""

import equinox as eqx
import jax
import jax.numpy as jnp

import sparsejax as sj
from tests.shrinking.zoo_linen import SERIES

FIRST = jax.ShapeDtypeStruct((2, 3, 8, 8), jnp.float32)
NOISE = jax.ShapeDtypeStruct((2, 6), jnp.float32)


def windows(x, size):
    """Tokens of an image, (height, width, channels), as (windows, size * size, channels)."""
    height, width, channels = x.shape
    x = x.reshape(height // size, size, width // size, size, channels)
    return x.transpose(0, 2, 1, 3, 4).reshape(-1, size * size, channels)


class SwinLayer(eqx.Module):
    norms: list
    attention: eqx.nn.MultiheadAttention
    up: eqx.nn.Linear
    down: eqx.nn.Linear
    shift: int

    def __init__(self, shift, key):
        self.norms = [eqx.nn.LayerNorm(16), eqx.nn.LayerNorm(16)]
        self.attention = eqx.nn.MultiheadAttention(4, 16, key=key)
        self.up, self.down = eqx.nn.Linear(16, 32, key=key), eqx.nn.Linear(32, 16, key=key)
        self.shift = shift

    def __call__(self, x):
        h = jnp.roll(jax.vmap(jax.vmap(self.norms[0]))(x), (-self.shift, -self.shift), (0, 1))
        h = jax.vmap(lambda w: self.attention(w, w, w))(windows(h, 2))
        side = x.shape[0] // 2
        h = h.reshape(side, side, 2, 2, -1).transpose(0, 2, 1, 3, 4).reshape(x.shape)
        x = x + jnp.roll(h, (self.shift, self.shift), (0, 1))
        mlp = lambda t: self.down(jax.nn.gelu(self.up(self.norms[1](t))))
        return x + jax.vmap(jax.vmap(mlp))(x)


class Swin(eqx.Module):
    embed: eqx.nn.Conv2d
    layers: list
    head: eqx.nn.Linear

    def __init__(self, key):
        self.embed = eqx.nn.Conv2d(3, 16, 2, 2, key=key)
        self.layers = [SwinLayer(0, key), SwinLayer(1, key)]
        self.head = eqx.nn.Linear(16, 5, key=key)

    def __call__(self, x):
        x = self.embed(x).transpose(1, 2, 0)
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean((0, 1)))


class Generator(eqx.Module):
    project: eqx.nn.Linear
    ups: list
    last: eqx.nn.Conv2d

    def __init__(self, key):
        self.project = eqx.nn.Linear(6, 16 * 4, key=key)
        widths = ((16, 12), (12, 8))
        self.ups = [eqx.nn.ConvTranspose2d(n, m, 4, 2, padding=1, key=key) for n, m in widths]
        self.last = eqx.nn.Conv2d(8, 3, 3, padding=1, key=key)

    def __call__(self, z):
        x = jax.nn.relu(self.project(z).reshape(16, 2, 2))
        for up in self.ups:
            x = jax.nn.leaky_relu(up(x))
        return jnp.tanh(self.last(x))


class Autoencoder(eqx.Module):
    down: list
    code: eqx.nn.Linear
    back: eqx.nn.Linear
    up: list

    def __init__(self, key):
        conv = lambda n, m: eqx.nn.Conv2d(n, m, 3, 2, padding=1, key=key)
        self.down = [conv(3, 8), conv(8, 12)]
        self.code, self.back = eqx.nn.Linear(48, 10, key=key), eqx.nn.Linear(10, 48, key=key)
        self.up = [eqx.nn.ConvTranspose2d(n, m, 2, 2, key=key) for n, m in ((12, 8), (8, 3))]

    def __call__(self, x):
        for conv in self.down:
            x = jax.nn.elu(conv(x))
        x = jax.nn.relu(self.back(self.code(x.reshape(-1)))).reshape(12, 2, 2)
        return self.up[1](jax.nn.elu(self.up[0](x)))


class SuperResolution(eqx.Module):
    """Convolutions, and a pixel shuffle at the end."""

    body: list
    last: eqx.nn.Conv2d

    def __init__(self, key):
        widths = ((3, 8), (8, 8), (8, 32))
        self.body = [eqx.nn.Conv2d(n, m, 3, padding=1, key=key) for n, m in widths]
        self.last = eqx.nn.Conv2d(8, 3, 3, padding=1, key=key)

    def __call__(self, x):
        x = jax.nn.relu(self.body[0](x))
        x = self.body[2](x + jax.nn.relu(self.body[1](x)))
        _, height, width = x.shape
        x = x.reshape(-1, 2, 2, height, width).transpose(0, 3, 1, 4, 2)
        return self.last(jax.nn.relu(x.reshape(-1, 2 * height, 2 * width)))


class TwoInputs(eqx.Module):
    """An image and a series, each with its own branch; one gates the other."""

    conv: eqx.nn.Conv2d
    cell: eqx.nn.LSTMCell
    gate: eqx.nn.Linear
    mix: eqx.nn.MLP

    def __init__(self, key):
        self.conv = eqx.nn.Conv2d(3, 12, 3, key=key)
        self.cell = eqx.nn.LSTMCell(4, 10, key=key)
        self.gate = eqx.nn.Linear(10, 12, key=key)
        self.mix = eqx.nn.MLP(22, 3, 16, 1, key=key)

    def __call__(self, image, series):
        x = jax.nn.relu(self.conv(image)).mean((1, 2))
        start = (jnp.zeros(10), jnp.zeros(10))
        (h, _), _ = jax.lax.scan(lambda c, s: (self.cell(s, c), None), start, series)
        return self.mix(jnp.concatenate([x * jax.nn.sigmoid(self.gate(h)), h]))


MODELS = {
    "Swin": (Swin, FIRST),
    "generator": (Generator, NOISE),
    "autoencoder": (Autoencoder, FIRST),
    "super-resolution": (SuperResolution, FIRST),
    "two inputs": (TwoInputs, FIRST, SERIES),
}


def built(name):
    """The function, shapes of the module's arrays by path, and of its inputs."""
    model, *example = MODELS[name]
    shapes = eqx.filter_eval_shape(model, jax.random.key(0))
    arrays = {p: leaf for p, leaf in sj.tree.leaves_with_paths(shapes) if hasattr(leaf, "shape")}

    def apply(arrays, *x):
        module = sj.tree.map_with_paths(lambda path, leaf: arrays.get(path, leaf), shapes)
        return jax.vmap(module)(*x)

    return apply, arrays, example
