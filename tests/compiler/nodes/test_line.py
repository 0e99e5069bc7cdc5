"""Convolutions along one axis run as images of height 1, with all that follows them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.compiler.graphs import assert_same, regions

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 12, 5)).astype(np.float32)


def weights(*shape):
    return (RNG.normal(size=shape) / 3).astype(np.float32)


P = {"k": weights(3, 5, 8), "next": weights(3, 8, 8), "one": weights(1, 8, 8)}
P |= {"depth": weights(3, 1, 8), "bias": weights(8), "dense": weights(8, 4), "gate": weights(8, 8)}


def conv(x, kernel, stride=1, padding="SAME", groups=1, dilation=1, order="NWC"):
    return lax.conv_general_dilated(
        x, kernel, (stride,), padding, rhs_dilation=(dilation,), feature_group_count=groups,
        dimension_numbers=(order, "WIO", order),
    )  # fmt: skip


def causal(p, x):
    y = jax.nn.relu(conv(x, p["k"], padding=[(4, 0)], dilation=2) + p["bias"])
    return jax.nn.relu(y + conv(y, p["next"], padding=[(2, 0)]) * 0.5 + p["bias"])


def pooled(p, x):
    y = nn.max_pool(jax.nn.silu(conv(x, p["k"])), (2,), (2,))
    y = nn.avg_pool(conv(y, p["depth"], groups=8), (3,), padding="SAME")
    return y.mean(1) @ p["dense"]


def separable(p, x):
    """As QuartzNet's blocks, with a residual and squeeze-and-excite."""
    y = conv(x, p["k"], stride=2)
    z = conv(conv(y, p["depth"], groups=8), p["one"]) * 2 + p["bias"]
    z = z * jax.nn.sigmoid(z.mean(1, keepdims=True) @ p["gate"])
    return jax.nn.relu(z + y)


def gated(p, x):
    """As WaveNet's, and what else moves channels."""
    y = conv(x, p["k"])
    a, b = jnp.split(y, 2, axis=-1)
    y = jnp.concatenate([jnp.tanh(a) * jax.nn.sigmoid(b), y[..., 2:6]], -1)
    return conv(jnp.pad(y, ((0, 0), (1, 2), (0, 0))), p["next"], padding="VALID") @ p["dense"]


def first(p, x):
    """Channels first."""
    y = jax.nn.relu(conv(x.transpose(0, 2, 1), p["k"], order="NCW") + p["bias"][:, None])
    y = y + conv(y, p["next"], order="NCW")
    return y.max(2), y


NETWORKS = {f.__name__: f for f in (causal, pooled, separable, gated, first)}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_lines_is_one_region(name):
    graph = assert_same(NETWORKS[name], P, X)
    assert len(regions(graph)) == 1
    assert set(graph.left) <= {"Reshape", "Transpose"}, graph.left


def mixer(p, x):
    """As Mamba's: rows of a layer, padded for a causal convolution."""
    y = jnp.pad(x @ p["k"][0], ((0, 0), (2, 0), (0, 0)))
    return jax.nn.silu(conv(y, p["depth"], padding="VALID", groups=8)) @ p["dense"]


def test_rows_that_are_padded_for_a_convolution_are_in_its_region():
    graph = assert_same(mixer, P, RNG.normal(size=(2, 33, 5)).astype(np.float32))
    assert len(regions(graph)) == 1


@pytest.mark.parametrize("size", [(1, 1, 1), (1, 12, 1), (2, 1, 5)])
def test_lines_with_sides_of_one_are_right(size):
    params = P | {"k": weights(3, size[2], 8)}
    x = RNG.normal(size=size).astype(np.float32)
    for network in (causal, separable, pooled, first):
        if size[1] > 1 or network is not pooled:
            assert_same(network, params, x)
