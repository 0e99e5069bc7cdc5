"""Moves of pixels are picks, and transposed convolutions are convolutions with one behind them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from sparsejax.compiler.nodes.conv import Conv
from sparsejax.compiler.nodes.pick import Pick
from tests.compiler.graphs import assert_same, kinds, regions

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 6, 5, 4)).astype(np.float32)
NCHW = X.transpose(0, 3, 1, 2)


def weights(*shape):
    return (RNG.normal(size=shape) / 3).astype(np.float32)


P = {"k": weights(1, 1, 4, 8), "next": weights(3, 3, 8, 3), "bias": weights(8)}


def conv(x, kernel, last=True):
    order = "NHWC" if last else "NCHW"
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=(order, "HWIO", order)
    )


def repeated(y):
    n, h, w, c = y.shape
    return jnp.broadcast_to(y[:, :, None, :, None], (n, h, 2, w, 3, c)).reshape(n, 2 * h, 3 * w, c)


def depth_to_space(y):
    n, h, w, c = y.shape
    return (
        y.reshape(n, h, w, 2, 2, c // 4)
        .transpose(0, 1, 3, 2, 4, 5)
        .reshape(n, 2 * h, 2 * w, c // 4)
    )


def space_to_depth(y):
    n, h, w, c = y.shape
    y = y.reshape(n, h // 2, 2, w, c).transpose(0, 1, 3, 2, 4)
    return y.reshape(n, h // 2, w, 2 * c)


MOVES = {
    "crop": lambda y: y[:, 1:, 1:-1],
    "crop behind": lambda y: y[:, :-2, :-1],
    "crop of the height": lambda y: y[:, 1:],
    "stride": lambda y: y[:, ::2, 1::2],
    "flip": lambda y: y[:, ::-1, ::-1],
    "flip of the width": lambda y: y[:, :, ::-1],
    "nearest": lambda y: jax.image.resize(y, (2, 12, 10, 8), "nearest"),
    "nearest, odd": lambda y: jax.image.resize(y, (2, 7, 3, 8), "nearest"),
    "taken": lambda y: jnp.take(y, np.array([4, 0, 0, 2]), axis=1, mode="clip"),
    "repeated": repeated,
    "repeat": lambda y: jnp.repeat(y, 2, axis=1),
    "depth to space": depth_to_space,
    "space to depth": space_to_depth,
}


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("name", MOVES)
def test_moves_between_layers_are_picks(name, last):
    def fn(p, x):
        y = conv(x, p["k"], last)
        y = MOVES[name](y) if last else MOVES[name](y.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        after = jnp.resize(p["bias"], y.shape[3 if last else 1])
        y = jax.nn.relu(y * 2 + (after if last else after[:, None, None]))
        return conv(y, jnp.resize(p["next"], (3, 3, y.shape[3 if last else 1], 3)), last)

    graph = assert_same(fn, P, X if last else X.transpose(0, 3, 1, 2))
    picks = [node for node in graph.nodes if isinstance(node.op, Pick)]
    if last:
        assert len(regions(graph)) == 1 and graph.left == {} and len(picks) == 1


def test_moves_after_each_other_are_one():
    fn = lambda p, x: conv(conv(x, p["k"])[:, 1:, 1:][:, ::2, ::2], p["next"])
    assert kinds(assert_same(fn, P, X)).count("Pick") == 1


def test_what_is_no_move_of_pixels_stays():
    fills = lambda p, x: conv(jnp.take(conv(x, p["k"]), np.array([0, 9]), axis=1), p["next"])
    assert "Pick" not in kinds(assert_same(fills, P, X))
    batches = lambda p, x: conv(conv(x, p["k"])[::-1, ::-1], p["next"])
    assert "Pick" not in kinds(assert_same(batches, P, X))


def upsampled(window, strides, padding, dimensions=2):
    model = nn.ConvTranspose(3, (window,) * dimensions, (strides,) * dimensions, padding)
    return model.apply, lambda x: jax.jit(model.init)(jax.random.key(0), x)


TRANSPOSED = [
    *((window, strides, padding) for window in (1, 2, 3, 4, 5) for strides, padding in
      ((2, "SAME"), (2, "VALID"), (3, "SAME"))),
    (3, 2, ((1, 1), (1, 1))),
    (4, 2, ((3, 2), (2, 0))),
]  # fmt: skip


@pytest.mark.parametrize(("window", "strides", "padding"), TRANSPOSED)
def test_transposed_convolutions_are_phases(window, strides, padding):
    apply, init = upsampled(window, strides, padding)
    params = init(X)
    graph = assert_same(apply, params, X)
    (region,) = regions(graph)
    assert graph.left == {} and [type(node.op) for node in region.nodes][-1] is Pick
    assert len([node for node in region.nodes if isinstance(node.op, Conv)]) == 1


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(
    ("apart", "dilation", "strides"),
    [((2, 2), (1, 1), (1, 1)), ((2, 3), (2, 1), (1, 1)), ((3, 2), (3, 2), (1, 1)),
     ((2, 2), (1, 1), (3, 3)), ((3, 4), (2, 3), (2, 1))],
)  # fmt: skip
@pytest.mark.parametrize("order", ["NHWC", "NCHW"])
def test_transposed_convolutions_have_groups_dilations_and_strides(
    order, apart, dilation, strides, groups
):
    def fn(p, x):
        y = lax.conv_general_dilated(
            x,
            p,
            strides,
            ((3, 2), (2, 4)),
            apart,
            dilation,
            dimension_numbers=(order, "HWIO", order),
            feature_group_count=groups,
        )
        return jax.nn.relu(y)

    graph = assert_same(fn, weights(3, 4, 4 // groups, 8), X if order == "NHWC" else NCHW)
    assert len(regions(graph)) == 1 and graph.left == {}


def test_lines_are_transposed_too():
    apply, init = upsampled(4, 2, "SAME", dimensions=1)
    graph = assert_same(apply, init(X[:, :, 0]), X[:, :, 0])
    assert len(regions(graph)) == 1 and set(graph.left) <= {"Reshape"}


def test_a_u_net_is_one_region():
    class UNet(nn.Module):
        @nn.compact
        def __call__(self, x):
            skip = nn.relu(nn.Conv(6, (3, 3))(x))
            y = nn.relu(nn.Conv(8, (3, 3), (2, 2))(skip))
            y = nn.relu(nn.ConvTranspose(6, (2, 2), (2, 2))(y))
            y = jnp.concatenate([y[:, 1:-1, 1:-1], skip[:, 1:-1, 1:-1]], -1)
            return nn.Conv(2, (1, 1))(y)

    x = RNG.normal(size=(1, 8, 8, 3)).astype(np.float32)
    params = jax.jit(UNet().init)(jax.random.key(0), x)
    graph = assert_same(UNet().apply, params, x)
    assert len(regions(graph)) == 1 and graph.left == {}
    assert kinds(graph).count("Conv + relu") == 3


def test_windows_may_be_of_any_size():
    x = RNG.normal(size=(1, 2300, 2)).astype(np.float32)
    params = {"wide": weights(1100, 2, 3), "far": weights(2, 3, 3)}

    def fn(p, x):
        line = lambda x, k, dilation: lax.conv_general_dilated(
            x, k, (1,), "SAME", rhs_dilation=(dilation,), dimension_numbers=("NWC", "WIO", "NWC")
        )
        y = line(line(x, p["wide"], 1), p["far"], 2048)
        y = nn.max_pool(y, (1200,), (1050,))
        return nn.avg_pool(y, (1,))

    assert len(regions(assert_same(fn, params, x))) == 1


@pytest.mark.parametrize("reducer", [lax.max, lax.add])
def test_pools_may_be_dilated(reducer):
    def fn(p, x):
        start = -jnp.inf if reducer is lax.max else 0.0
        y = conv(x, p["k"])
        options = {"window_dilation": (1, 2, 3, 1)}
        y = lax.reduce_window(y, start, reducer, (1, 2, 2, 1), (1, 1, 1, 1), "VALID", **options)
        return conv(y, p["next"])

    assert len(regions(assert_same(fn, P, X))) == 1
