"""Families of networks of tokens and series that `experiments/models` has not.

`torch_side` has the same in PyTorch.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


class Bert(nn.Module):
    """Devlin et al., "BERT", NAACL 2019: the small one, 4 layers of 512; a classifier's logits."""

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Logits."""
        x = nn.Embed(30_522, 512)(tokens) + nn.Embed(512, 512)(np.arange(tokens.shape[1]))
        x = nn.LayerNorm()(x)
        for _ in range(4):
            x = nn.LayerNorm()(x + nn.MultiHeadDotProductAttention(8)(x))
            x = nn.LayerNorm()(x + nn.Dense(512)(nn.gelu(nn.Dense(2048)(x))))
        return nn.Dense(2)(jnp.tanh(nn.Dense(512)(x[:, 0])))


class Mixer(nn.Module):
    """Tolstikhin et al., "MLP-Mixer", NeurIPS 2021, table 1: S/16."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits."""
        x = nn.Conv(512, (16, 16), (16, 16))(x).reshape(len(x), -1, 512)
        for _ in range(8):
            h = nn.Dense(256)(nn.LayerNorm()(x).swapaxes(1, 2))
            x = x + nn.Dense(x.shape[1])(nn.gelu(h)).swapaxes(1, 2)
            x = x + nn.Dense(512)(nn.gelu(nn.Dense(2048)(nn.LayerNorm()(x))))
        return nn.Dense(1000)(nn.LayerNorm()(x).mean(1))


class SwinLayer(nn.Module):
    """Attention within windows of 7 x 7, moved by `shift`, and a perceptron."""

    heads: int
    shift: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The same shape, (batch, height, width, features)."""
        batch, height, width, features = x.shape
        h = jnp.roll(nn.LayerNorm()(x), (-self.shift, -self.shift), (1, 2))
        h = h.reshape(batch, height // 7, 7, width // 7, 7, features).swapaxes(2, 3)
        shape = h.shape
        h = nn.MultiHeadDotProductAttention(self.heads)(h.reshape(-1, 49, features))
        h = h.reshape(shape).swapaxes(2, 3).reshape(x.shape)
        x = x + jnp.roll(h, (self.shift, self.shift), (1, 2))
        return x + nn.Dense(features)(nn.gelu(nn.Dense(4 * features)(nn.LayerNorm()(x))))


class Swin(nn.Module):
    """Liu et al., "Swin Transformer", ICCV 2021: Swin-T, with no bias by place, no masks."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits."""
        x = nn.LayerNorm()(nn.Conv(96, (4, 4), (4, 4))(x))
        for stage, layers in enumerate((2, 2, 6, 2)):
            if stage:
                batch, height, width, features = x.shape
                x = x.reshape(batch, height // 2, 2, width // 2, 2, features)
                x = x.transpose(0, 1, 3, 4, 2, 5).reshape(batch, height // 2, width // 2, -1)
                x = nn.Dense(2 * features, use_bias=False)(nn.LayerNorm()(x))
            for layer in range(layers):
                x = SwinLayer(3 << stage, 3 * (layer % 2))(x)
        return nn.Dense(1000)(nn.LayerNorm()(x).mean((1, 2)))


SIZES = ((128, 512), (512, 256))
State = tuple[jax.Array, jax.Array]


def lstm_cell(state: State, x: jax.Array, h: jax.Array) -> State:
    """Hochreiter and Schmidhuber, 1997: of the state and the products of input and state."""
    i, f, g, o = jnp.split(x + h, 4, -1)
    cell = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(cell), cell


def gru_cell(state: State, x: jax.Array, h: jax.Array) -> State:
    """Cho et al., EMNLP 2014, with the reset gate behind the product, as PyTorch has it."""
    (rx, zx, nx), (rh, zh, nh) = (jnp.split(own, 3, -1) for own in (x, h))
    update = jax.nn.sigmoid(zx + zh)
    new = jnp.tanh(nx + jax.nn.sigmoid(rx + rh) * nh)
    return (1 - update) * new + update * state[0], state[1]


def recurrent(cell: Callable, gates: int) -> tuple[Callable, Any, Any]:
    """Two layers of cells with PyTorch's two biases, and logits of the last state."""
    array = lambda *shape: jax.ShapeDtypeStruct(shape, np.float32)
    layers = [
        {
            "input": array(inputs, gates * width),
            "recurrent": array(width, gates * width),
            "input_bias": array(gates * width),
            "recurrent_bias": array(gates * width),
        }
        for inputs, width in SIZES
    ]
    shapes = {"layers": layers, "head": array(SIZES[-1][1], 10), "bias": array(10)}

    def layer(p: Any, x: jax.Array) -> jax.Array:
        def step(state: State, x: jax.Array) -> tuple[State, jax.Array]:
            state = cell(state, x, state[0] @ p["recurrent"] + p["recurrent_bias"])
            return state, state[0]

        zeros = jnp.zeros((x.shape[1], p["recurrent"].shape[0]))
        return jax.lax.scan(step, (zeros, zeros), x @ p["input"] + p["input_bias"])[1]

    def apply(params: Any, x: jax.Array) -> jax.Array:
        for p in params["layers"]:
            x = layer(p, x)
        return x[-1] @ params["head"] + params["bias"]

    return apply, shapes, array(64, 1, SIZES[0][0])


lstm = partial(recurrent, lstm_cell, 4)
gru = partial(recurrent, gru_cell, 3)
