"""Activations that compile tells by their values."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.compiler.graph.activation import NAMES, SAMPLES, Activation, recognise
from sparsejax.ops._ffi import CODES
from sparsejax.patterns.layout import Storage
from tests.compiler.compiled_layers import P, X, conv
from tests.compiler.graphs import assert_close, assert_same, kinds, rewritten

ACTIVATIONS = {
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "clamp(-1, 2.5)": lambda x: jnp.clip(x, -1, 2.5),
    "clamp(-inf, 2)": lambda x: jnp.minimum(x, 2.0),
    "clamp(0, 6.001)": lambda x: jnp.maximum(jnp.minimum(x, 6.001), 0),
    "sigmoid": jax.nn.sigmoid,
    "silu": lambda x: x / (1 + jnp.exp(-x)),
    "hard_sigmoid": jax.nn.hard_sigmoid,
    "hard_swish": lambda x: x * jax.nn.relu6(x + 3) / 6,
    "gelu_tanh": jax.nn.gelu,
    "gelu_erf": functools.partial(jax.nn.gelu, approximate=False),
    "tanh": jnp.tanh,
    "leaky_relu(0.1)": lambda x: jnp.where(x > 0, x, 0.1 * x),
    "elu(1)": jax.nn.elu,
    "softplus": jax.nn.softplus,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_told_by_their_values(name):
    graph = rewritten(lambda p, x: ACTIVATIONS[name](conv(x, p["one"])), P, X)
    assert kinds(graph) == [f"Conv + {name}"]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_compute_what_they_were_told_by(name):
    graph = rewritten(lambda p, x: ACTIVATIONS[name](x), P, X)
    (activation,) = (node.op.activation for node in graph.nodes)
    assert activation.name in NAMES[1:]
    x = jnp.asarray(SAMPLES)
    assert_close(activation(x)[:-3], ACTIVATIONS[name](x)[:-3], 1e-6)
    assert np.isnan(activation(x)[-1])


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: jnp.where(x > 0, x, 0.0),  # NaN becomes 0
        lambda x: jnp.sin(x) * x,
        lambda x: jnp.log(1 + jnp.exp(x)),  # infinite from 89 on
        lambda x: x * jnp.tanh(jax.nn.softplus(x)),
        lambda x: x**7,
        lambda x: jnp.clip(x, 0, 6) + 1e-3 * (x > 8),
        lambda x: jnp.log(jnp.clip(jax.nn.sigmoid(x), 1e-7, 1 - 1e-7)),
        lambda x: jax.nn.silu(x.astype(jnp.bfloat16)).astype(jnp.float32),
    ],
)
def test_what_is_almost_an_activation_stays_in_xla(fn):
    graph = assert_same(lambda p, x: fn(conv(x, p["one"])), P, X, tolerance=1e-2)
    assert kinds(graph)[0] in ("Conv", "Conv + sigmoid") and len(graph.nodes) > 1


def test_zeros_and_infinities_are_those_of_xla():
    functions = [
        *ACTIVATIONS.values(),
        jnp.abs,
        lambda x: jnp.maximum(x, -x),
        lambda x: jnp.where(x >= 0, x, -0.5 * x),
        lambda x: jnp.where(x < 0, 0.0, x),
        lambda x: -jax.nn.relu(-x),
        lambda x: (x + jnp.abs(x)) / 2,  # NaN at -inf
        lambda x: jax.nn.elu(x, -1.0),
    ]
    x = np.array([[0.0, -0.0, np.inf, -np.inf, np.nan]], np.float32)
    function = lambda p, x: [x @ p, *(f(x) for f in functions)]
    weights = np.eye(5, dtype=np.float32)
    fast = sj.compile(function, weights, x, tune=False)
    for actual, expected in zip(fast(x)[1:], jax.jit(function)(weights, x)[1:], strict=True):
        np.testing.assert_array_equal(actual, expected)
        np.testing.assert_array_equal(np.signbit(actual)[0, :2], np.signbit(expected)[0, :2])


def test_functions_that_are_no_activation_have_no_name():
    assert recognise(lambda x: None) is None
    assert recognise(np.zeros_like) is None  # of NaN, too
    sigmoid = lambda x: 1 / (1 + np.exp(-np.maximum(x, -80)))
    assert recognise(lambda x: np.maximum(sigmoid(x), x.dtype.type(1e-7))) is None
    assert recognise(sigmoid) == Activation("sigmoid")
    assert recognise(lambda x: np.full_like(x, np.nan)) is None
    assert recognise(lambda x: x) == Activation()
    assert recognise(lambda x: np.where(np.abs(x) < 1e-3, np.inf, x)) is None


def test_the_engine_has_the_activations_of_python_and_no_others():
    assert set(NAMES) == set(CODES["function"])
    assert {storage.name.lower() for storage in Storage} == set(CODES["storage"])
