"""compile where sides are 1: which layout an image has is told by what is traced."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

import sparsejax as sj
from sparsejax.compiler.graph.interpret import interpreter
from sparsejax.compiler.nodes.conv import Conv
from tests.compiler.graphs import regions, rewritten, stepwise

LAYOUTS = {"NHWC": (1, 2), "NCHW": (2, 3)}
SIDES = st.sampled_from([1, 1, 1, 2, 3])
CHANNELS = st.sampled_from([2, 3, 1])


def image(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def conv(x, kernel, layout, **options):
    numbers = (layout, "HWIO", layout)
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers, **options)


def layer_norm(x, axes):
    mean = x.mean(axes, keepdims=True)
    return (x - mean) * lax.rsqrt(jnp.square(x - mean).mean(axes, keepdims=True) + 1e-3)


def convolved(draw, layout):
    size, depthwise = draw(st.sampled_from([1, 3])), draw(st.booleans())
    outputs, seed = draw(CHANNELS), draw(st.integers(0, 9))

    def run(x):
        channels = x.shape[layout.index("C")]
        shape = (size, size, 1, channels) if depthwise else (size, size, channels, outputs)
        options = {"feature_group_count": channels} if depthwise else {}
        return jax.nn.relu(conv(x, image(*shape, seed=seed), layout, **options))

    return run


def normed(draw, layout):
    axes = draw(st.sampled_from([(1,), (3,), (1, 2), (2, 3), (1, 2, 3)]))
    return lambda x: layer_norm(x, axes)


def scaled(draw, layout):
    """A constant that is not the same along some of the axes."""
    kept, seed = draw(st.sets(st.integers(1, 3), max_size=2)), draw(st.integers(0, 9))

    def run(x):
        shape = [size if axis in kept else 1 for axis, size in enumerate(x.shape)]
        return x * image(*shape, seed=seed) + image(*shape, seed=seed + 1)

    return run


def joined(draw, layout):
    """The image with a part or a sum of it that may have sides of 1."""
    axes = tuple(draw(st.sets(st.integers(1, 3))))
    kind = draw(st.sampled_from([jnp.add, jnp.subtract, jnp.multiply, jnp.maximum]))
    turned = draw(st.booleans())

    def run(x):
        other = jnp.tanh(x.sum(axes, keepdims=True)) if axes else jnp.tanh(x)
        return kind(other, x) if turned else kind(x, other)

    return run


def pooled(draw, layout):
    window = [1, *draw(st.tuples(*3 * [st.sampled_from([1, 1, 2])]))]
    largest = draw(st.booleans())
    start, reduce = (-jnp.inf, lax.max) if largest else (0.0, lax.add)
    strides = [1, *draw(st.tuples(*3 * [st.sampled_from([1, 1, 2])]))]
    return lambda x: lax.reduce_window(x, start, reduce, window, strides, "SAME")


def padded(draw, layout):
    axis = draw(st.integers(1, 3))
    sides = [(1, 0) if i == axis else (0, 0) for i in range(4)]
    return lambda x: jnp.pad(x, sides)


def concatenated(draw, layout):
    axis = draw(st.integers(1, 3))
    return lambda x: jnp.concatenate([x, -x], axis)


def reshaped(draw, layout):
    """Through vectors or other images and back, or with two sides exchanged."""
    kind, order = draw(st.integers(0, 3)), draw(st.permutations([1, 2, 3]))
    a, b = draw(st.permutations([1, 2, 3]))[:2]
    if kind == 0:
        return lambda x: jnp.tanh(x.reshape(x.shape[0], -1)).reshape(x.shape)
    if kind == 1:
        return lambda x: jnp.swapaxes(x, a, b)
    if kind == 2:
        return lambda x: x.reshape(x.shape[0], *(x.shape[i] for i in order))
    return lambda x: x.reshape(x.shape[0], 1, 1, -1)


STEPS = [joined, normed, scaled, pooled, padded, concatenated, reshaped, convolved]


@st.composite
def networks(draw):
    """Steps between two layers, whose layout the sizes of one pixel do not tell."""
    layout = draw(st.sampled_from(sorted(LAYOUTS)))
    between = [draw(st.sampled_from(STEPS)) for _ in range(draw(st.integers(1, 3)))]
    steps = [step(draw, layout) for step in (convolved, *between, convolved)]
    sides = list(draw(st.one_of(st.just((1, 1)), st.tuples(SIDES, SIDES))))
    sides.insert(layout.index("C") - 1, draw(CHANNELS))
    return steps, (draw(st.sampled_from([2, 1])), *sides), draw(st.sampled_from([1, 2]))


def run(steps, x, num_outputs):
    values = [x]
    for step in steps:
        values.append(step(values[-1]))
    return values[-num_outputs:]


def assert_runs(fn, x):
    """Graph, regions and program compute what the function does."""
    expected = fn(x)
    graph = rewritten(lambda _, x: fn(x), (), x)
    fast = sj.compile(lambda _, x: fn(x), (), x, tune=False)
    whole = interpreter(graph.nodes, graph.inputs, graph.outputs)
    for actual in (whole(x), stepwise(graph)(x), fast(x)):
        for a, b in zip(actual, expected, strict=True):
            scale = max(1.0, float(jnp.abs(b).max()))
            np.testing.assert_allclose(a, b, rtol=3e-5, atol=3e-5 * scale)


@pytest.mark.filterwarnings("ignore:compile leaves all")
@settings(max_examples=20, deadline=None, derandomize=True)
@given(networks())
def test_networks_of_sides_of_one_are_right(network):
    steps, shape, num_outputs = network
    assert_runs(lambda x: run(steps, x, num_outputs), image(*shape))


SIDED = [(2, 1, 1, 4), (2, 4, 1, 1), (2, 1, 1, 1)]


@pytest.mark.filterwarnings("ignore:compile leaves all")
@pytest.mark.parametrize("shape", SIDED, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_gate_of_one_number_an_image_is_right(shape, layout):
    """A layer, the same for each image times one number, and a layer."""
    channels = shape[layout.index("C")]
    first, second = image(1, 1, channels, channels), image(1, 1, channels, 3, seed=1)

    def fn(x):
        y = conv(x, first, layout)
        y = y * jax.nn.sigmoid(y.sum((1, 2, 3), keepdims=True))
        return [conv(layer_norm(y, layout.index("C")), second, layout)]

    assert_runs(fn, image(*shape))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_neighbours_of_another_layout_leave_a_layer_in_its_region(layout):
    """What works along other axes than the channels takes nothing from the layers beside it."""
    kernel, (height, width) = image(3, 3, 4, 4), LAYOUTS[layout]
    x = image(*(4 if axis == layout.index("C") else 3 for axis in range(4)))
    window = [2 if axis == height else 1 for axis in range(4)]
    numbers = image(*(3 if axis == height else 1 for axis in range(4)))
    cases = {
        "scale": lambda y: y * numbers,
        "pool": lambda y: lax.reduce_window(y, -jnp.inf, lax.max, window, window, "SAME"),
        "pad": lambda y: jnp.pad(y, [(1, 0) if axis == height else (0, 0) for axis in range(4)]),
        "gate": lambda y: y * jax.nn.sigmoid(y.sum(width, keepdims=True)),
    }
    for name, fn in cases.items():
        net = lambda _, x, fn=fn: conv(fn(conv(x, kernel, layout)), kernel, layout)
        graph = rewritten(net, (), x)
        inside = [node for region in regions(graph) for node in region.nodes]
        assert sum(isinstance(node.op, Conv) for node in inside) == 2, name
        if name in ("pool", "pad"):
            assert len(regions(graph)) == 1, name
        np.testing.assert_allclose(
            stepwise(graph)(x)[0], net((), x), rtol=1e-4, atol=1e-4, err_msg=name
        )


def convnext(x):
    """Two stages of a block each; the second has one pixel."""
    for stage, width in enumerate((4, 8)):
        side = 2 if stage else 4
        down = image(side, side, x.shape[-1], width, seed=stage)
        x = layer_norm(x, -1) if stage else x
        numbers = ("NHWC", "HWIO", "NHWC")
        x = lax.conv_general_dilated(x, down, (side, side), "VALID", dimension_numbers=numbers)
        depthwise = image(7, 7, 1, width, seed=2)
        y = conv(x, depthwise, "NHWC", feature_group_count=width)
        y = layer_norm(y, -1) * image(width, seed=3) + image(width, seed=4)
        y = jax.nn.gelu(y @ image(width, 4 * width, seed=5)) @ image(4 * width, width, seed=6)
        x = x + y * image(width, seed=7)
    return [layer_norm(x.mean((1, 2)), -1) @ image(8, 3, seed=8)]


@pytest.mark.filterwarnings("ignore:compile leaves all")
@pytest.mark.parametrize("batch", [1, 2])
def test_a_convnext_whose_last_stage_is_one_pixel_is_right(batch):
    assert_runs(convnext, image(batch, 8, 8, 3, seed=9))
