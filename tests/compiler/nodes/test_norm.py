"""Norms and softmax, told by their values however they are spelled."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.compiler.nodes.norm import Norm
from sparsejax.compiler.nodes.softmax import Softmax
from tests.compiler.graphs import assert_close, assert_same, kinds, regions, rewritten, stepwise

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(2, 5, 12)) * 3 + 1, jnp.float32)
IMAGE = jnp.asarray(RNG.normal(size=(2, 3, 4, 5)), jnp.float32)
P = {
    "w": jnp.asarray(RNG.normal(size=(12, 12)) / 3, jnp.float32),
    "scale": jnp.asarray(RNG.normal(size=12), jnp.float32),
    "bias": jnp.asarray(RNG.normal(size=12), jnp.float32),
}


def two_passes(p, x):
    centre = x - jnp.mean(x, -1, keepdims=True)
    return centre / jnp.sqrt(jnp.mean(centre**2, -1, keepdims=True) + 1e-5) * p["scale"] + p["bias"]


def standard(p, x):
    return jax.nn.standardize(x, epsilon=1e-12)


def root_mean_square(p, x):
    return p["scale"] * x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6)


def with_one_added(p, x):
    return x * (jnp.mean(x**2, -1, keepdims=True) + 1e-6) ** -0.5 * (1 + p["scale"])


def of_linen(module):
    return lambda p, x: module.apply({"params": {k: p[k] for k in ("scale", "bias")}}, x)


# name -> function, is the mean subtracted?, epsilon
NORMS = {
    "linen": (of_linen(nn.LayerNorm()), True, 1e-6),
    "linen, slow": (of_linen(nn.LayerNorm(use_fast_variance=False, epsilon=1e-3)), True, 1e-3),
    "linen, no mean": (of_linen(nn.RMSNorm()), False, 1e-6),
    "two passes": (two_passes, True, 1e-5),
    "standardize": (standard, True, 1e-12),
    "root mean square": (root_mean_square, False, 1e-6),
    "one plus": (with_one_added, False, 1e-6),
}


@pytest.mark.parametrize("name", NORMS)
def test_a_norm_is_told_however_it_is_spelled(name):
    function, centred, epsilon = NORMS[name]
    graph = rewritten(function, P, X)
    (node,) = graph.nodes
    assert isinstance(node.op, Norm) and node.op.centred == centred
    np.testing.assert_allclose(node.op.epsilon, epsilon, rtol=1e-4)
    small = 1e-4 * X  # where epsilon matters
    for x in (X, small):
        assert_close(stepwise(graph)(x)[0], jax.jit(function)(P, x))


@pytest.mark.parametrize(
    "function",
    [
        lambda p, x: x / jnp.maximum(jnp.sqrt(jnp.sum(x * x, -1, keepdims=True)), 0.5),
        lambda p, x: (
            (x - jnp.mean(x, -1, keepdims=True)) / jnp.sqrt(jnp.mean(x * x, -1)[..., None])
        ),
        lambda p, x: x * jax.lax.rsqrt(1e-6 + jnp.mean(x * x, 1, keepdims=True)),
        lambda p, x: x * jax.lax.rsqrt(1e-6 + jnp.mean(jnp.abs(x), -1, keepdims=True)),
    ],
)
def test_what_is_nearly_a_norm_is_none(function):
    graph = rewritten(function, P, X)
    assert "Norm" not in " ".join(kinds(graph))
    assert_close(stepwise(graph)(X)[0], jax.jit(function)(P, X))


def test_softmax_is_told_and_near_misses_are_not():
    (node,) = rewritten(lambda p, x: jax.nn.softmax(x), P, X).nodes
    assert node.op == Softmax(2)
    for function in (
        lambda p, x: jnp.exp(x) / jnp.exp(x).sum(-1, keepdims=True),  # overflows
        lambda p, x: jax.nn.softmax(x, 1),
        lambda p, x: jax.nn.softmax(2 * x, -1) * 2,
    ):
        graph = rewritten(function, P, X)
        assert_close(stepwise(graph)(X)[0], jax.jit(function)(P, X))
        assert not any(node.op == Softmax(1) for node in graph.nodes)


def in_parts(p, x):  # the largest of both axes, but sums along one
    y = jnp.exp(x - x.max((1, 2), keepdims=True))
    return y / y.sum(1, keepdims=True)


@pytest.mark.parametrize("axes", [(1, 2), (2, 3), (-3, -2)])
def test_softmax_over_pixels_is_one_over_channels_that_are_moved(axes):
    graph = assert_same(lambda p, x: 2 * jax.nn.softmax(p["w"] * x, axes), {"w": 3.0}, IMAGE)
    assert [type(node.op).__name__ for node in graph.nodes if "Affine" not in str(node.op)] == [
        *("Pick", "Softmax", "Pick")
    ]


@pytest.mark.parametrize(
    "function",
    [
        in_parts,
        lambda p, x: jax.nn.softmax(x, (1, 3)),
        lambda p, x: x * jax.lax.rsqrt(1e-6 + jnp.mean(x * x, (1, 2), keepdims=True)),
        lambda p, x: x - (x.max(1, keepdims=True) + x.max(2, keepdims=True)),
    ],
)
def test_what_is_nearly_a_softmax_over_pixels_is_none(function):
    graph = rewritten(function, P, IMAGE)
    assert not {"Softmax", "Norm"} & {type(node.op).__name__ for node in graph.nodes}
    assert_close(stepwise(graph)(IMAGE)[0], jax.jit(function)(P, IMAGE))


def test_along_an_axis_of_length_1_there_is_nothing_to_tell():
    single = X[..., None, :1]

    def both(p, x):
        return jax.nn.softmax(x, -1) + two_passes({"scale": p["scale"][:1], "bias": 0.0}, x)

    for shape in ((2, 5, 1, 1), (2, 1, 1, 5)):
        x = single.reshape(shape)
        graph = rewritten(both if shape[-1] == 1 else lambda p, x: jax.nn.softmax(x, 2), P, x)
        assert not {"Softmax", "Norm"} & {type(node.op).__name__ for node in graph.nodes}
        expected = both(P, x) if shape[-1] == 1 else jnp.ones(shape)
        assert_close(stepwise(graph)(x)[0], expected)


def test_a_norm_between_layers_is_in_their_region():
    def mlp(p, x):
        return jax.nn.softmax(two_passes(p, x @ p["w"]) @ p["w"], -1)

    graph = rewritten(mlp, P, X)
    (region,) = regions(graph)
    assert [type(node.op).__name__ for node in region.nodes] == [
        *("Linear", "Norm", "Linear", "Softmax")
    ]
    assert graph.left == {}
    for rows in (X, X[:1, :1], X[:1, :3], jnp.tile(X, (1, 9, 1))):
        assert_close(sj.compile(mlp, P, rows, tune=False)(rows), jax.jit(mlp)(P, rows))


def test_a_norm_of_infinite_rows_is_what_xla_says():
    rows = np.array(X)
    rows[0, 0, 0], rows[0, 1], rows[1, 2, 3] = np.inf, -np.inf, np.nan

    def both(p, x):
        return jnp.concatenate([two_passes(p, x @ p["w"]), jax.nn.softmax(x, -1)], -1)

    fast = sj.compile(both, P | {"w": jnp.eye(12)}, X, tune=False)
    expected = jax.jit(both)(P | {"w": jnp.eye(12)}, rows)
    np.testing.assert_array_equal(np.isnan(fast(rows)), np.isnan(expected))
