"""compile's graph: traced, layers named in it, and the same numbers as before."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from sparsejax.compiler.graph.interpret import interpreter
from sparsejax.compiler.nodes.affine import Affine
from sparsejax.compiler.nodes.channels import Channels
from sparsejax.compiler.nodes.conv import Conv
from sparsejax.compiler.nodes.linear import Linear
from sparsejax.compiler.nodes.pool import Pool
from tests.compiler.compiled_layers import (
    IMAGES,
    ROWS,
    VECTORS,
    P,
    X,
    conv,
    excited,
    norm,
    shuffled,
)
from tests.compiler.graphs import assert_close, assert_same, kinds, rewritten


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


@pytest.mark.parametrize("spec", ["bhwc,c->bhwc", "c,bhwc->bhwc", "bhwc,->bhwc"])
def test_a_product_that_sums_over_nothing_is_a_scale(spec):
    def fn(p, x):
        numbers = jnp.arange(8) if spec.count("c") == 3 else 3.0
        sides = (numbers, conv(x, p["one"])) if spec[0] == "c" else (conv(x, p["one"]), numbers)
        return jnp.einsum(spec, *sides)

    assert kinds(assert_same(fn, P, X)) == ["Conv"]


@pytest.mark.parametrize(
    "numbers", [np.arange(4)[:, None], np.arange(2), np.arange(8).reshape(4, 2)]
)
def test_numbers_for_each_head_go_into_the_layer_before_them(numbers):
    def fn(p, x):
        heads = (x @ p["square"]).reshape(*x.shape[:-1], 4, 2)
        return (heads * numbers.astype(np.float32)[None, None]).reshape(x.shape)

    assert kinds(assert_same(fn, {"square": P["one"][0, 0]}, ROWS)) == ["Linear"]


@pytest.mark.parametrize("sides", [(2, 3), (2, 1, 5)])
def test_rows_put_below_each_other_are_what_they_were(sides):
    """As Hugging Face's OPT does around its perceptrons, Wav2Vec2 between its convolutions."""

    def fn(p, x):
        rows = x.reshape(*sides[:-2], -1, 8)
        rows = rows + jax.nn.relu(jax.nn.standardize(rows) @ p) @ p
        return rows.reshape(x.shape) @ p

    x = np.random.default_rng(0).normal(size=(*sides, 8)).astype(np.float32)
    layer = "Conv" if len(sides) > 2 else "Linear"
    expected = ["Norm", f"{layer} + relu", f"{layer} + x", layer]
    assert kinds(assert_same(fn, P["one"][0, 0], x)) == expected


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


@pytest.mark.parametrize("kept", [True, False])
def test_a_choice_that_is_the_same_everywhere_is_none(kept):
    every = np.full(ROWS.shape[:2], kept)[..., None]
    graph = assert_same(lambda p, x: jnp.where(every, x, -x) @ p["square"], P, ROWS)
    assert kinds(graph) == ["Linear"]
    some = np.arange(5)[:, None] > 2
    assert "select_n" in kinds(assert_same(lambda p, x: jnp.where(some, x, -x), P, ROWS))


def test_an_update_of_the_whole_is_what_it_is_updated_with():
    update = lambda p, x, i: lax.dynamic_update_slice(0 * x, x @ p["square"], (i, 0, i))
    graph = assert_same(update, P, ROWS, jnp.int32(2))
    assert kinds(graph) == ["Linear"]


def test_the_later_of_two_layers_takes_the_sum():
    fn = lambda p, x: conv(x, p["other"]) + conv(conv(x, p["one"]), p["full"])
    *_, last = rewritten(fn, P, X).nodes
    assert last.op.path == "full" and len(last.inputs) == 2


def test_half_precision_stays_in_xla():
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), P)
    graph = rewritten(lambda p, x: jax.nn.relu(conv(x, p["one"])), half, X.astype(jnp.bfloat16))
    assert not any(isinstance(node.op, Conv | Linear | Affine) for node in graph.nodes)
    assert "bfloat16 (its weights), not float32" in graph.reasons.values()


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


def test_scans_without_layers_stay():
    assert kinds(rewritten(lambda p, x: jnp.cumsum(x), P, ROWS)) != []
    assert "scan" in kinds(rewritten(lambda p, x: lax.scan(lambda c, r: (c + r, c), x[0], x), P, X))
