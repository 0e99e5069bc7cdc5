"""compile's graph: traced, layers named in it, and the same numbers as before."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from sparsejax.compile.activation import NAMES, SAMPLES, Activation, recognise
from sparsejax.compile.graph import Affine, Channels, Conv, Linear, Pool
from sparsejax.compile.interpret import evaluate, interpreter
from tests.graphs import assert_close, assert_same, kinds, rewritten

X = jax.random.normal(jax.random.key(0), (2, 6, 7, 8))
ROWS = jax.random.normal(jax.random.key(1), (3, 5, 8))


def weights(*shape, seed=1, keep=1.0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.standard_normal(shape) * (rng.random(shape) < keep), jnp.float32)


P = {
    "one": weights(1, 1, 8, 8, keep=0.3),
    "other": weights(1, 1, 8, 8, seed=3),
    "full": weights(3, 3, 8, 8),
    "depthwise": weights(3, 3, 1, 8),
    "grouped": weights(3, 3, 2, 8),
    "down": weights(1, 1, 8, 2),
    "up": weights(1, 1, 2, 8),
    "matrix": weights(8, 12, keep=0.5),
    "square": weights(8, 8),
    "heads": weights(8, 2, 6),
    "merge": weights(2, 6, 8),
    "head_bias": weights(2, 6),
    "scale": weights(8),
    "shift": weights(8, seed=2),
}


def conv(x, kernel, strides=(1, 1), padding="SAME", **options):
    return lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options
    )


def norm(x, p):
    return (x - p["shift"]) * lax.rsqrt(jnp.square(p["scale"]) + 1e-3) * p["scale"] + p["shift"]


def depthwise(x, p, **options):
    return conv(x, p["depthwise"], feature_group_count=8, **options)


def excited(p, x, mean=lambda x: x.mean((1, 2), keepdims=True)):
    gate = jax.nn.silu(conv(mean(x), p["down"]) + 1)
    return x * jax.nn.sigmoid(conv(gate, p["up"]))


def shuffled(x, groups=4):
    split = x.reshape(*x.shape[:3], groups, -1)
    return split.swapaxes(3, 4).reshape(x.shape)


def average(x, window, strides, padding):
    total = lax.reduce_window(x, 0.0, lax.add, (1, *window, 1), (1, *strides, 1), padding)
    return total / (window[0] * window[1])


def average_inside(x, factor=None):
    window = functools.partial(
        lax.reduce_window,
        init_value=0.0,
        computation=lax.add,
        window_dimensions=(1, 3, 3, 1),
        window_strides=(1, 2, 2, 1),
        padding="SAME",
    )
    total = window(x) if factor is None else window(x) * factor
    return total / window(jnp.ones((1, *x.shape[1:3], 1)))


def attention_like(p, x):
    heads = jnp.einsum("btk,khd->bthd", x, p["heads"]) + p["head_bias"]
    return jnp.einsum("bthd,hdk->btk", jax.nn.tanh(heads * 0.3), p["merge"]) + p["shift"]


def layers_by_scan(p, x):
    stacked = jnp.stack([p["square"], 2 * p["square"]])
    return lax.scan(lambda c, w: (jnp.tanh(c @ w), None), x, stacked)[0]


@jax.custom_vjp
def doubled_gradient(x):
    return jnp.sin(x)


doubled_gradient.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (2 * g * jnp.cos(x),))

# name -> function of params and images, kinds of the nodes that it becomes
IMAGES = {
    "norm, relu": (lambda p, x: jax.nn.relu(norm(conv(x, p["full"]), p)), ["Conv + relu"]),
    "norm, relu6": (lambda p, x: jax.nn.relu6(norm(depthwise(x, p), p)), ["Conv + relu6"]),
    "norm, hard_swish": (
        lambda p, x: jax.nn.hard_swish(norm(conv(x, p["one"]), p)),
        ["Conv + hard_swish"],
    ),
    "strides": (lambda p, x: conv(x, p["full"], (2, 3), "VALID"), ["Conv"]),
    "asymmetric": (lambda p, x: conv(x, p["full"], padding=((2, 0), (0, 3))), ["Conv"]),
    "dilated": (lambda p, x: conv(x, p["full"], rhs_dilation=(2, 1)), ["Conv"]),
    "grouped": (lambda p, x: norm(conv(x, p["grouped"], feature_group_count=4), p), ["Conv"]),
    "residual": (lambda p, x: jax.nn.relu(norm(conv(x, p["one"]), p) + x), ["Conv + x + relu"]),
    "two branches": (
        lambda p, x: jax.nn.relu(norm(conv(x, p["one"]), p) + norm(conv(x, p["other"]), p)),
        ["Conv", "Conv + x + relu"],
    ),
    "activation before residual": (
        lambda p, x: jax.nn.silu(conv(x, p["one"])) + x,
        ["Conv + silu", "add"],
    ),
    "residual, norm": (lambda p, x: norm(conv(x, p["one"]) + x, p), ["Conv + x", "Affine"]),
    "norm, relu, conv": (
        lambda p, x: conv(jax.nn.relu(norm(x, p)), p["full"]),
        ["Affine + relu", "Conv"],
    ),
    "shift before padding": (lambda p, x: conv(norm(x, p), p["full"]), ["Affine", "Conv"]),
    "scale before padding": (lambda p, x: conv(x * p["scale"], p["full"]), ["Conv"]),
    "shift, no padding": (
        lambda p, x: conv(norm(x, p), p["full"], padding="VALID"),
        ["Conv"],
    ),
    "scale before groups": (
        lambda p, x: conv(x * p["scale"], p["grouped"], feature_group_count=4),
        ["Conv"],
    ),
    "used twice": (
        lambda p, x: (lambda y: norm(y, p) + jax.nn.relu(y))(conv(x, p["one"])),
        ["Conv", "Affine", "identity + relu", "add"],
    ),
    "output in the middle": (
        lambda p, x: (lambda y: (y, jax.nn.relu(y)))(conv(x, p["one"])),
        ["Conv", "identity + relu"],
    ),
    "gate": (excited, ["Mean", "Conv + silu", "Conv + sigmoid", "mul"]),
    "gate from (N, C)": (
        lambda p, x: excited(p, x, lambda x: x.mean((1, 2))[:, None, None]),
        ["Mean", "Conv + silu", "Conv + sigmoid", "mul"],
    ),
    "gate by sum": (
        lambda p, x: x * jax.nn.sigmoid(x.sum((1, 2)) * (1 / 42.0))[:, None, None],
        ["Mean", "identity + sigmoid", "Reshape", "mul"],
    ),
    "max pool": (
        lambda p, x: lax.reduce_window(
            x, -jnp.inf, lax.max, (1, 3, 2, 1), (1, 2, 1, 1), ((0, 0), (1, 1), (0, 1), (0, 0))
        ),
        ["max"],
    ),
    "average pool": (lambda p, x: average(x, (2, 3), (2, 1), "SAME"), ["average"]),
    "average inside": (lambda p, x: average_inside(x), ["average"]),
    "twice the average inside": (lambda p, x: average_inside(x, 2.0), ["average", "Affine", "div"]),
    "sums of windows": (lambda p, x: 6 * average(x, (2, 3), (2, 1), "SAME"), ["average", "Affine"]),
    "padded average": (
        lambda p, x: average(jnp.pad(x, ((0, 0), (1, 1), (0, 1), (0, 0))), (3, 3), (2, 2), "VALID"),
        ["average"],
    ),
    "global max": (lambda p, x: x.max((1, 2)), ["max", "Reshape"]),
    "global average": (lambda p, x: x.mean((1, 2)), ["Mean"]),
    "concat": (
        lambda p, x: conv(jnp.concatenate([x[..., :3], x[..., 3:] + x[..., :5]], -1), p["one"]),
        ["Channels", "Channels", "Channels", "add", "Concat", "Conv"],
    ),
    "shuffle": (lambda p, x: conv(shuffled(x), p["full"]), ["Conv"]),
    "reverse": (lambda p, x: conv(x[..., ::-1], p["one"]), ["Conv"]),
    "every other": (lambda p, x: x[..., 1::2], ["Channels"]),
    "reverse, groups": (
        lambda p, x: conv(x[..., ::-1], p["grouped"], feature_group_count=4),
        ["Channels", "Conv"],
    ),
    "parts of outputs": (
        lambda p, x: (lambda y: y[..., :3] * jax.nn.sigmoid(y[..., 5:]))(conv(x, p["full"])),
        ["Conv", "Conv + sigmoid", "mul"],
    ),
    "parts that overlap": (
        lambda p, x: (lambda y: y[..., :5] * y[..., 3:])(conv(x, p["one"])),
        ["Conv", "Channels", "Channels", "mul"],
    ),
    "parts and the whole": (
        lambda p, x: (lambda y: (y, y[..., :5]))(conv(x, p["one"])),
        ["Conv", "Channels"],
    ),
    "split": (lambda p, x: jnp.multiply(*jnp.split(x, 2, -1)), ["Channels", "Channels", "mul"]),
    "pad": (
        lambda p, x: conv(
            jnp.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0))), p["full"], padding=((0, 0), (1, 0))
        ),
        ["Conv"],
    ),
    "pad of ones": (
        lambda p, x: conv(
            jnp.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0)), constant_values=1), p["full"]
        ),
        ["pad", "Conv"],
    ),
    "crop": (lambda p, x: conv(x, p["full"], padding=((-1, 1), (0, 1))), ["conv_general_dilated"]),
    "flatten": (
        lambda p, x: x.reshape(2, -1) @ jnp.tile(p["square"], (42, 1)),
        ["Reshape", "Linear"],
    ),
    "dense on images": (lambda p, x: jax.nn.gelu(x @ p["matrix"]), ["Conv + gelu_tanh"]),
    "x plus x": (lambda p, x: (lambda y: y + y)(conv(x, p["one"])), ["Conv", "add"]),
    "scalars": (lambda p, x: 3.0 - conv(x, p["one"]) / 2.0 * 4.0, ["Conv"]),
    "minus": (lambda p, x: -conv(x, p["one"]), ["Conv"]),
    "infinite scale": (
        lambda p, x: conv(x, p["one"]) / jnp.zeros(8),
        ["Conv", "div"],
    ),
    "remat": (lambda p, x: jax.checkpoint(lambda y: jax.nn.relu(conv(y, p["one"])))(x), None),
    "custom gradient": (
        lambda p, x: doubled_gradient(conv(x, p["one"])),
        ["Conv", "custom_vjp_call"],
    ),
    "cond": (lambda p, x: lax.cond(x.sum() > 0, lambda: conv(x, p["one"]), lambda: -x), None),
    "integers": (lambda p, x: jnp.round(conv(x, p["one"])).astype(jnp.int32), None),
}
VECTORS = {
    "dense": (lambda p, x: jax.nn.relu(x @ p["matrix"] + 0.5), ["Linear + relu"]),
    "left": (lambda p, x: (p["matrix"].T @ x[0].T).T, None),
    "residual": (lambda p, x: jnp.tanh(x @ p["square"] + x), ["Linear + x + tanh"]),
    "heads": (attention_like, ["Linear + tanh", "Linear"]),
    "two": (
        lambda p, x: (x @ p["square"] + p["shift"]) + x @ p["square"].T,
        ["Linear", "Linear + x"],
    ),
    "scale first": (lambda p, x: (x * p["scale"] + p["shift"]) @ p["matrix"], ["Linear"]),
    "scan": (layers_by_scan, ["Linear + tanh", "Linear + tanh"]),
    "gathered": (lambda p, x: x[:, :2] @ p["matrix"], ["slice", "Linear"]),
    "both computed": (lambda p, x: jnp.einsum("bik,bjk->bij", x, x), ["dot_general"]),
    "weights by batch": (
        lambda p, x: jnp.einsum("btk,bkd->btd", x, p["full"][:, 0]),
        ["dot_general"],
    ),
}


@pytest.mark.parametrize("name", IMAGES)
def test_images_go_through_the_kinds_that_are_expected(name):
    fn, expected = IMAGES[name]
    graph = assert_same(fn, P, X)
    assert expected is None or kinds(graph) == expected


@pytest.mark.parametrize("name", [n for n in IMAGES if not n.startswith(("integers", "cond"))])
def test_images_behind_a_transposition_are_the_same(name):
    fn, _ = IMAGES[name]
    assert_same(lambda p, x: fn(p, x.transpose(0, 2, 3, 1)), P, X.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("name", VECTORS)
def test_rows_go_through_the_kinds_that_are_expected(name):
    fn, expected = VECTORS[name]
    graph = assert_same(fn, P, ROWS)
    assert expected is None or sorted(kinds(graph)) == sorted(expected)


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
    assert 0 < activation.code < len(NAMES)
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


def test_functions_that_are_no_activation_have_no_name():
    assert recognise(lambda x: None) is None
    assert recognise(np.zeros_like) is None  # of NaN, too
    sigmoid = lambda x: 1 / (1 + np.exp(-np.maximum(x, -80)))
    assert recognise(lambda x: np.maximum(sigmoid(x), x.dtype.type(1e-7))) is None
    assert recognise(sigmoid) == Activation("sigmoid")
    assert recognise(lambda x: np.full_like(x, np.nan)) is None
    assert recognise(lambda x: x) == Activation()
    assert recognise(lambda x: np.where(np.abs(x) < 1e-3, np.inf, x)) is None


def test_a_zero_stays_a_zero_without_a_sign():
    graph = rewritten(lambda p, x: -norm(conv(x, p["one"]), p) * -2, P, X)
    (node,) = graph.nodes
    zeros = node.op.weights[np.asarray(P["one"]) == 0]
    assert zeros.size and not zeros.any() and not np.signbit(zeros).any()
    assert node.op.weights.dtype == np.float32


@pytest.mark.parametrize("scale", [jnp.inf, jnp.nan, 1e38])
def test_scales_that_leave_float32_stay_in_xla(scale):
    graph = rewritten(lambda p, x: conv(x, 10 * p["full"]) * (scale * p["scale"]), P, X)
    assert kinds(graph)[0] == "Conv" and len(graph.nodes) == 2


def test_weights_that_are_not_finite_stay_in_xla():
    graph = rewritten(lambda p, x: conv(x, p.at[0, 0, 0, 0].set(jnp.nan)), P["one"], X)
    assert kinds(graph) == ["conv_general_dilated"]
    assert list(graph.reasons.values()) == ["weights are not finite"]


def test_options_of_a_convolution_are_kept():
    fn = lambda p, x: norm(conv(x, p["grouped"], (2, 1), feature_group_count=4), p)
    (node,) = rewritten(fn, {"layer": P, **P}, X).nodes
    assert isinstance(node.op, Conv)
    assert (node.op.path, node.op.strides, node.op.groups) == ("grouped", (2, 1), 4)
    assert node.op.padding == ((0, 1), (1, 1)) and node.op.channels_last
    text = "Conv 3x3 8->8 strides (2, 1) groups 4 padding ((0, 1), (1, 1)) grouped"
    assert str(node.op) == text


def test_channels_first_layers_say_so():
    fn = lambda p, x: lax.conv_general_dilated(
        x, p["full"], (1, 1), "SAME", dimension_numbers=("NCHW", "HWIO", "NCHW")
    )
    scaled = lambda p, x: jax.nn.relu(fn(p, x) * p["scale"][:, None, None]).max((2, 3))
    graph = assert_same(scaled, P, X.transpose(0, 3, 1, 2))
    layer, pool, _ = graph.nodes
    assert kinds(graph) == ["Conv + relu", "max", "Reshape"]
    assert not layer.op.channels_last and isinstance(pool.op, Pool) and not pool.op.channels_last


def test_single_numbers_stay_numbers():
    assert_same(lambda p, x: (x.mean() * 2.0 + 1.0, -x.sum(), jnp.tanh(x.max()) * 3), P, X)


def test_the_later_of_two_layers_takes_the_sum():
    fn = lambda p, x: conv(x, p["other"]) + conv(conv(x, p["one"]), p["full"])
    *_, last = rewritten(fn, P, X).nodes
    assert last.op.path == "full" and len(last.inputs) == 2


def test_half_precision_stays_in_xla():
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), P)
    graph = rewritten(lambda p, x: jax.nn.relu(conv(x, p["one"])), half, X.astype(jnp.bfloat16))
    assert not any(isinstance(node.op, Conv | Linear | Affine) for node in graph.nodes)
    assert "weights are not constant float32" in graph.reasons.values()


def test_shuffles_name_where_each_channel_comes_from():
    (node,) = rewritten(lambda p, x: shuffled(x, 2), P, X).nodes
    assert isinstance(node.op, Channels) and node.op.axis == 3
    assert node.op.index.tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


def test_kinds_are_exact_in_float64():
    fn = lambda p, x: excited(p, jax.nn.silu(norm(conv(x, p["full"]), p)))
    graph = rewritten(fn, P, X)
    run = interpreter(graph.nodes, graph.inputs, graph.outputs)
    with jax.enable_x64(True):
        double = lambda leaf: np.asarray(leaf, np.float64)
        (actual,) = run(double(X))
        assert actual.dtype == np.float64
        assert_close(actual, fn(jax.tree.map(double, P), double(X)), 1e-6)


def test_a_graph_serves_other_batches():
    fn = lambda p, x: jax.nn.relu(conv(x, p["full"])).reshape(x.shape[0], -1)
    graph = rewritten(fn, P, X)
    other = jnp.concatenate([X, X, X[:1]])
    (actual,) = interpreter(graph.nodes, graph.inputs, graph.outputs)(other)
    assert_close(actual, fn(P, other))


def test_gradients_pass_through_the_interpreter():
    fn = lambda p, x: jax.nn.relu(norm(conv(x, p["full"]), p)).sum()
    graph = rewritten(fn, P, X)
    run = interpreter(graph.nodes, graph.inputs, graph.outputs)
    assert_close(jax.grad(lambda x: run(x)[0])(X), jax.grad(lambda x: fn(P, x))(X))


def test_a_graph_prints_a_line_for_each_node():
    text = str(rewritten(lambda p, x: jnp.sort(jax.nn.relu(x @ p["matrix"])), P, ROWS))
    assert text.splitlines() == [
        "inputs  %0 float32[3,5,8]",
        "%1 float32[3,5,12] = Linear 8->12 + relu matrix (%0)",
        "%2 float32[3,5,12] = sort (%1)",
        "outputs %2",
    ]


def test_long_scans_and_those_without_layers_stay():
    scan = lambda length: (
        lambda p, x: lax.scan(
            lambda c, _: (jnp.tanh(c @ p["square"]), c.sum()), x, None, length=length
        )
    )
    assert kinds(assert_same(scan(3), P, ROWS)).count("Linear + tanh") == 3
    assert kinds(assert_same(scan(65), P, ROWS)) == ["scan"]
    assert kinds(rewritten(lambda p, x: jnp.cumsum(x), P, ROWS)) != []
    assert "scan" in kinds(rewritten(lambda p, x: lax.scan(lambda c, r: (c + r, c), x[0], x), P, X))


def test_reversed_scans_are_unrolled_backwards():
    step = lambda p: lambda c, r: (jnp.tanh(c @ p["square"] + r),) * 2
    fn = lambda p, x: lax.scan(step(p), x[0], x, reverse=True)
    graph = assert_same(fn, P, ROWS)
    assert kinds(graph).count("Linear + x + tanh") == 3


def test_only_kinds_of_node_are_evaluated():
    with pytest.raises(TypeError, match="evaluate needs a kind of node, got str"):
        evaluate("Conv", X)
