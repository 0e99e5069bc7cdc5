"""compile on random networks of all that it recognises: graph and program against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

import sparsejax as sj
from sparsejax.compiler.graph.interpret import interpreter
from sparsejax.compiler.regions.split import split
from tests.compiler.graphs import kinds, rewritten, stepwise


def make(params, rng, draw, *shape):
    """Weights of some sparsity, empty rows among them, as a new parameter."""
    array = rng.normal(size=shape) / np.sqrt(max(1, np.prod(shape[:-1])))
    if len(shape) > 1:
        array *= rng.random(shape) >= draw(st.sampled_from([0, 0.5, 0.9, 1]))
        array[..., rng.random(shape[-1]) < 0.1] = 0
    params.append(np.asarray(array, np.float32))
    return len(params) - 1


CHANNELS = st.sampled_from([1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 33, 64, 67])
PADDINGS = st.sampled_from(["SAME", "VALID", ((1, 0), (0, 2))])


def _conv(params, x, kernel, strides, padding, groups=1):
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x,
        params[kernel],
        strides,
        padding,
        dimension_numbers=layout,
        feature_group_count=groups,
    )


ACTIVATIONS = [
    lambda x: x,
    jax.nn.relu,
    jax.nn.relu6,
    jax.nn.silu,
    jax.nn.hard_swish,
    jax.nn.sigmoid,
    jnp.tanh,
    jax.nn.gelu,
    lambda x: jnp.clip(x, -0.5, 0.25),
]


@st.composite
def networks(draw):
    """Steps as functions of (params, values), the params, and the shape of the input."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 9)), draw(st.integers(1, 9)))
    x = jax.ShapeDtypeStruct((*shape, draw(CHANNELS)), jnp.float32)
    params, steps, values = [], [], [x]
    for _ in range(draw(st.integers(1, 6))):
        source = draw(st.integers(0, len(values) - 1))
        if len(values[source].shape) != 4:
            continue
        step = draw(st.sampled_from(STEPS))
        fn = step(draw, params, rng, values, source)
        like = [jax.ShapeDtypeStruct(p.shape, p.dtype) for p in params]
        out = jax.eval_shape(fn, like, values)
        if 0 not in out.shape:
            steps.append(fn)
            values.append(out)
    return steps, params, x.shape


def convolved(draw, params, rng, values, source):
    size, strides = draw(st.sampled_from([1, 1, 2, 3])), draw(st.tuples(*2 * [st.integers(1, 2)]))
    inputs, outputs, padding = values[source].shape[3], draw(CHANNELS), draw(PADDINGS)
    kernel = make(params, rng, draw, size, size, inputs, outputs)
    scale, shift = make(params, rng, draw, outputs), make(params, rng, draw, outputs)
    activation = draw(st.sampled_from(ACTIVATIONS))
    residual = draw(st.integers(0, len(values) - 1))

    def run(p, v):
        y = _conv(p, v[source], kernel, strides, padding) * p[scale] + p[shift]
        return activation(y + v[residual] if v[residual].shape == y.shape else y)

    return run


def separable(draw, params, rng, values, source):
    size, stride = draw(st.sampled_from([3, 5])), draw(st.integers(1, 2))
    channels, padding = values[source].shape[3], draw(PADDINGS)
    kernel = make(params, rng, draw, size, size, 1, channels)
    shift, activation = make(params, rng, draw, channels), draw(st.sampled_from(ACTIVATIONS))
    return lambda p, v: activation(
        _conv(p, v[source], kernel, (stride, stride), padding, channels) + p[shift]
    )


def pooled(draw, params, rng, values, source):
    stride, padding = draw(st.integers(1, 2)), draw(st.sampled_from(["SAME", "VALID"]))
    window, strides = (1, 2, 3, 1), (1, stride, stride, 1)
    if draw(st.booleans()):
        return lambda p, v: lax.reduce_window(
            v[source], -jnp.inf, lax.max, window, strides, padding
        )
    return lambda p, v: lax.reduce_window(v[source], 0.0, lax.add, window, strides, padding) / 6


def moved(draw, params, rng, values, source):
    channels = values[source].shape[3]
    if draw(st.booleans()):
        return lambda p, v: v[source][..., ::-1]
    first = draw(st.integers(0, channels - 1))
    return lambda p, v: v[source][..., first:]


def joined(draw, params, rng, values, source):
    other = draw(st.integers(0, len(values) - 1))
    kind = draw(st.sampled_from([jnp.add, jnp.subtract, jnp.multiply, jnp.maximum]))

    def run(p, v):
        a, b = v[source], v[other]
        if a.shape == b.shape:
            return kind(a, b)
        if a.shape[:3] == b.shape[:3]:
            return jnp.concatenate([a, b], -1)
        return jnp.pad(a, ((0, 0), (1, 0), (0, 1), (0, 0)))

    return run


def gated(draw, params, rng, values, source):
    channels = values[source].shape[3]
    kernel = make(params, rng, draw, 1, 1, channels, channels)
    return lambda p, v: (
        v[source]
        * jax.nn.sigmoid(_conv(p, v[source].mean((1, 2), keepdims=True), kernel, (1, 1), "SAME"))
    )


def turned(draw, params, rng, values, source):
    """A convolution in NCHW between transpositions."""
    kernel = make(params, rng, draw, 3, 3, values[source].shape[3], draw(CHANNELS))
    layout = ("NCHW", "HWIO", "NCHW")

    def run(p, v):
        x = v[source].transpose(0, 3, 1, 2)
        y = lax.conv_general_dilated(x, p[kernel], (1, 1), "SAME", dimension_numbers=layout)
        return jax.nn.relu(y).transpose(0, 2, 3, 1)

    return run


def ended(draw, params, rng, values, source):
    flat, (_, height, width, channels) = draw(st.booleans()), values[source].shape
    inputs = height * width * channels if flat else channels
    matrix = make(params, rng, draw, inputs, draw(CHANNELS))
    if flat:
        return lambda p, v: jnp.tanh(v[source].reshape(len(v[source]), -1) @ p[matrix])
    return lambda p, v: v[source].mean((1, 2)) @ p[matrix] + 1


STEPS = [convolved, separable, pooled, moved, joined, gated, turned, ended]


def _run(steps, params, x):
    values = [x]
    for step in steps:
        values.append(step(params, values))
    return values[1:]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(networks())
def test_random_networks_are_right_in_float64(network):
    """The graph in float64 against the function in float64: but for constants folded in float32."""
    steps, params, shape = network
    x = np.random.default_rng(1).normal(size=shape)
    graph = rewritten(lambda p, x: _run(steps, p, x)[-2:], params, np.asarray(x, np.float32))
    assert not set(kinds(graph)) & {"conv_general_dilated", "dot_general", "reduce_window_sum"}
    split(graph)
    others = [left for name, left in graph.left.items() if name not in ("Transpose", "Reshape")]
    assert all(left.reason == "no layer beside it" for left in others)
    with jax.enable_x64(True):
        expected = _run(steps, [np.asarray(p, np.float64) for p in params], jnp.asarray(x))
        both = stepwise(graph)(x), interpreter(graph.nodes, graph.inputs, graph.outputs)(x)
    largest = max([1.0, *(float(np.abs(y).max()) for y in expected)])
    for actual in both:
        for a, b in zip(actual, expected[-2:], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6 * largest)


@pytest.mark.filterwarnings("ignore:compile leaves all")
@settings(max_examples=25, deadline=None, derandomize=True)
@given(networks())
def test_random_networks_run_as_programs(network):
    """Within a few roundings of each of the largest numbers on the way."""
    steps, params, shape = network
    x = np.random.default_rng(1).normal(size=shape)
    single = np.asarray(x, np.float32)
    fast = sj.compile(lambda p, x: _run(steps, p, x)[-2:], params, single, tune=False)
    with jax.enable_x64(True):
        expected = _run(steps, [np.asarray(p, np.float64) for p in params], jnp.asarray(x))
    largest = max([1.0, *(float(np.abs(y).max()) for y in expected)])
    for a, b in zip(fast(single), expected[-2:], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * largest)
