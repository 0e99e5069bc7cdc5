"""compile's regions: as large as can be, never waiting for themselves, and right in any order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from sparsejax.compile.graph import Region
from sparsejax.compile.interpret import interpreter
from sparsejax.compile.regions import split
from tests.graphs import assert_close, assert_same, kinds, regions, rewritten, stepwise

X = jax.random.normal(jax.random.key(0), (2, 5, 6, 8))
ROWS = jax.random.normal(jax.random.key(1), (3, 4, 8))
RNG = np.random.default_rng(0)
P = {
    "conv": jnp.asarray(RNG.normal(size=(3, 3, 8, 8)), jnp.float32),
    "one": jnp.asarray(RNG.normal(size=(1, 1, 8, 8)), jnp.float32),
    "matrix": jnp.asarray(RNG.normal(size=(8, 8)), jnp.float32),
    "scale": jnp.asarray(RNG.normal(size=8), jnp.float32),
}


def conv(x, kernel, **options):
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout, **options)


def foreign(x):
    """What no region may hold."""
    return jnp.cumsum(x, axis=1)


def over_a_foreign_node(p, x):
    y = conv(x, p["conv"])
    return conv(y + foreign(y), p["conv"])


def crossing(p, x):
    a, b = conv(x, p["conv"]), conv(foreign(x), p["conv"])
    return jax.nn.relu(a + foreign(b)) * jax.nn.relu(b + foreign(a))


def late_merge(p, x):
    a = conv(x, p["one"])
    b = conv(foreign(a), p["one"])
    c = conv(foreign(x), p["one"])
    return a + b * c


def several_outputs(p, x):
    y = conv(x, p["conv"])
    return {"y": y, "list": [jax.nn.relu(y), y.mean((1, 2)) @ p["matrix"]], "x": x}


def queries_keys_values(p, x):
    q, k, v = x @ p["matrix"], x @ p["matrix"].T, jax.nn.relu(x @ (2 * p["matrix"]))
    return jax.nn.softmax(q @ k.swapaxes(1, 2)) @ v + x


def images_and_rows(p, x):
    y = conv(x, p["conv"])
    rows = y.reshape(2, 30, 8) @ p["matrix"]
    return jax.nn.relu(rows.reshape(2, 5, 6, 8) @ p["matrix"])


def pixels_as_batch(p, x):
    return jax.nn.relu(conv(x, p["conv"]).reshape(-1, 8) @ p["matrix"])


def head(p, x):
    y = jax.nn.relu(conv(x, p["conv"])).mean((1, 2))
    return jax.nn.sigmoid(y @ p["matrix"] + y)


def squeezed(p, x):
    y = conv(x.mean((1, 2), keepdims=True), p["one"])
    return jnp.squeeze(y, (1, 2)) @ p["matrix"]


def mixed_layouts(p, x):
    y = conv(x, p["one"]).transpose(0, 3, 1, 2)
    layout = ("NCHW", "HWIO", "NCHW")
    z = lax.conv_general_dilated(y, p["one"], (1, 1), "SAME", dimension_numbers=layout)
    return jax.nn.relu(z * 2.0)


# name -> function, input, (nodes, form, channels_last) of each region
GRAPHS = {
    "over a foreign node": (over_a_foreign_node, X, [(1, "images", 1), (2, "images", 1)]),
    "crossing": (crossing, X, None),
    "late merge": (late_merge, X, None),
    "several outputs": (several_outputs, X, [(4, "images", 1)]),
    "queries, keys, values": (queries_keys_values, ROWS, [(3, "rows", 1)]),
    "images and rows": (images_and_rows, X, None),
    "pixels as batch": (pixels_as_batch, X, [(1, "images", 1), (1, "rows", 1)]),
    "head": (head, X, [(3, "images", 1)]),
    "squeezed": (squeezed, X, [(4, "images", 1)]),
    "mixed layouts": (mixed_layouts, X, [(2, "images", 1)]),
    "no layer": (lambda p, x: jax.nn.relu(x * p["scale"]) + x, X, []),
    "one number": (lambda p, x: x[0, 0] @ p["matrix"], ROWS, [(1, "rows", 1)]),
    "no images": (lambda p, x: conv(x[:0], p["conv"]) + 1, X, []),
    "only data": (lambda p, x: x[..., ::-1], X, []),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_regions_are_as_expected_and_right(name):
    fn, x, expected = GRAPHS[name]
    graph = assert_same(fn, P, x)
    found = [(len(r.nodes), r.form, r.channels_last) for r in regions(graph)]
    assert expected is None or found == expected


@pytest.mark.parametrize("name", GRAPHS)
def test_every_node_is_in_one_step_and_follows_what_it_reads(name):
    fn, x, _ = GRAPHS[name]
    graph = rewritten(fn, P, x)
    known, nodes = set(graph.inputs), []
    for step in split(graph):
        assert all(v in known or v.constant is not None for v in step.inputs)
        known.update(step.outputs)
        nodes += step.nodes if isinstance(step, Region) else [step]
    assert sorted(map(id, nodes)) == sorted(map(id, graph.nodes))


def test_what_stayed_in_xla_is_named_with_its_reason():
    graph = rewritten(lambda p, x: foreign(jax.nn.relu(conv(x, p["one"]))) * x, P, X)
    split(graph)
    left = {name: (left.count, left.reason) for name, left in graph.left.items()}
    assert left == {
        "cumsum": (1, "no kind of node"),
        "Elementwise": (1, "no layer beside it"),
    }
    fn = lambda p, x: conv(x, p["one"].astype(jnp.float16), preferred_element_type=None)
    graph = rewritten(fn, P, X.astype(jnp.float16))
    split(graph)
    assert graph.left["conv_general_dilated"].reason == "weights are not constant float32"


def test_a_graph_in_one_region_has_nothing_left():
    graph = rewritten(head, P, X)
    (region,) = regions(graph)
    assert graph.left == {} and region.inputs == graph.inputs and region.outputs == graph.outputs
    assert str(region).splitlines()[0] == "inputs  %0 float32[2,5,6,8]"


def test_regions_serve_any_batch_and_vmap():
    run = stepwise(rewritten(squeezed, P, X))
    xs = jax.random.normal(jax.random.key(2), (3, 2, 5, 6, 8))
    assert_close(jax.vmap(run)(xs)[0], jax.vmap(lambda x: squeezed(P, x))(xs))


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


@settings(max_examples=30, deadline=None, derandomize=True)
@given(networks())
def test_random_networks_are_right_in_float64(network):
    """The graph in float64 against the function in float64: but for constants folded in float32."""
    steps, params, shape = network
    x = np.random.default_rng(1).normal(size=shape)
    graph = rewritten(lambda p, x: _run(steps, p, x)[-2:], params, np.asarray(x, np.float32))
    assert not set(kinds(graph)) & {"conv_general_dilated", "dot_general", "reduce_window_sum"}
    split(graph)
    others = [left for name, left in graph.left.items() if name != "Transpose"]
    assert all(left.reason == "no layer beside it" for left in others)
    with jax.enable_x64(True):
        expected = _run(steps, [np.asarray(p, np.float64) for p in params], jnp.asarray(x))
        both = stepwise(graph)(x), interpreter(graph.nodes, graph.inputs, graph.outputs)(x)
    largest = max([1.0, *(float(np.abs(y).max()) for y in expected)])
    for actual in both:
        for a, b in zip(actual, expected[-2:], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6 * largest)
