"""Images that are resized between layers, in the region of these."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from tests.compiler.graphs import assert_close, regions, rewritten

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 6, 5, 4)).astype(np.float32)
P = {
    "one": RNG.normal(size=(3, 3, 4, 8)).astype(np.float32),
    "two": RNG.normal(size=(1, 1, 8, 6)).astype(np.float32),
}
MATRICES = [RNG.normal(size=(n, n)).astype(np.float32) for n in (6, 5, 4)]


def resized(sides, method, order="NHWC"):
    """Between two convolutions."""

    def conv(x, weights):
        numbers = (order, "HWIO", order)
        return jax.lax.conv_general_dilated(x, weights, (1, 1), "SAME", dimension_numbers=numbers)

    def function(p, x):
        y = jax.nn.relu(conv(x, p["one"]))
        shape = [
            sides[order.index(a) - order.index("H")] if a in "HW" else n
            for a, n in zip(order, y.shape, strict=True)
        ]
        return conv(jax.image.resize(y, shape, method), p["two"])

    return function


@pytest.mark.parametrize("order", ["NHWC", "NCHW"])
@pytest.mark.parametrize(
    "sides, method",
    [
        ((12, 10), "bilinear"),
        ((7, 13), "bilinear"),
        ((3, 4), "bilinear"),
        ((12, 15), "cubic"),
        ((18, 10), "nearest"),
    ],
)
def test_a_resized_image_stays_in_the_region(sides, method, order):
    function = resized(sides, method, order)
    x = X if order == "NHWC" else X.transpose(0, 3, 1, 2)
    graph = rewritten(function, P, x)
    assert len(regions(graph)) == 1 and set(graph.left) <= {"Transpose"}
    fast = sj.compile(function, P, x, tune=False)
    assert_close(fast(x), jax.jit(function)(P, x))
    assert_close(fast(x[:1]), jax.jit(function)(P, x[:1]))


@pytest.mark.parametrize(
    "function",
    [
        resized((1, 1), "bilinear"),  # of more weights than taps are worth
        resized((6, 5), "lanczos5"),
        lambda p, x: resized((6, 9), "bilinear", "NCHW")(p, x.transpose(0, 3, 1, 2)),
        lambda p, x: jnp.einsum("nhwc,hj,wk->njkc", x, *MATRICES[:2]) @ p["two"][0, 0, :4],
        lambda p, x: jnp.einsum("nhwc,cd->nhwd", x, MATRICES[2]) @ p["two"][0, 0, :4],
    ],
)
def test_what_is_no_such_resize_is_right(function):
    fast = sj.compile(function, P, X, tune=False)
    assert_close(fast(X), jax.jit(function)(P, X))
