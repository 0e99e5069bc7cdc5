"""Numbers that are known for each pixel or row: positions, gates, peepholes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import sparsejax as sj
from tests.compiler.graphs import assert_close, regions, rewritten

RNG = np.random.default_rng(0)


def drawn(*shape):
    return RNG.normal(size=shape).astype(np.float32)


HEIGHT, WIDTH = 23, 17
P = {
    "first": drawn(3, 3, 3, 8),
    "second": drawn(3, 3, 8, 4),
    "wide": drawn(6, 10),
    "back": drawn(10, 6),
}
OPS = {"add": jnp.add, "sub": jnp.subtract, "mul": jnp.multiply, "max": jnp.maximum}
# name -> known numbers, input
CASES = {
    "NHWC": (drawn(1, HEIGHT, WIDTH, 8), drawn(2, HEIGHT, WIDTH, 3)),
    "NHWC, all channels alike": (drawn(HEIGHT, WIDTH, 1), drawn(2, HEIGHT, WIDTH, 3)),
    "NHWC, a batch that is repeated": (
        np.repeat(drawn(1, HEIGHT, WIDTH, 8), 2, 0),
        drawn(2, HEIGHT, WIDTH, 3),
    ),
    "NCHW": (drawn(8, HEIGHT, WIDTH), drawn(2, 3, HEIGHT, WIDTH)),
    "rows": (drawn(5, 10), drawn(3, 5, 6)),
    "many rows": (drawn(150, 10), drawn(2, 150, 6)),
    "rows without a batch": (drawn(5, 10), drawn(5, 6)),
}


def layers(x, channels_last):
    """What stands before the known numbers, and behind them."""
    if x.ndim < 4:
        return (lambda p, x: jnp.tanh(x @ p["wide"])), (lambda p, x: x @ p["back"])
    order = "NHWC" if channels_last else "NCHW"
    conv = lambda x, w: lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=(order, "HWIO", order)
    )
    return (lambda p, x: jax.nn.relu(conv(x, p["first"]))), (lambda p, x: conv(x, p["second"]))


def around(numbers, x, op, turned=False):
    before, behind = layers(x, x.shape[-1] == 3)

    def function(p, x):
        y = before(p, x)
        return behind(p, op(numbers, y) if turned else op(y, numbers))

    return function


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("name", CASES)
def test_known_numbers_are_in_the_region(name, op, turned):
    numbers, x = CASES[name]
    function = around(numbers, x, OPS[op], turned)
    graph = rewritten(function, P, x)
    assert len(regions(graph)) == 1 and graph.left == {}
    fast = sj.compile(function, P, x, tune=False)
    assert_close(fast(x), jax.jit(function)(P, x))


@pytest.mark.parametrize("name", ["NHWC", "NCHW", "rows"])
def test_known_numbers_under_vmap_and_grad(name):
    numbers, x = CASES[name]
    function = around(numbers, x, jnp.multiply)
    fast = sj.compile(function, P, x, tune=False)
    xs = np.stack([x, 2 * x])
    assert_close(jax.vmap(fast)(xs), jax.vmap(lambda x: function(P, x))(xs))
    loss = lambda f: lambda x: (f(x) ** 2).sum()
    expected = jax.grad(loss(lambda x: function(P, x)))(x)
    assert_close(jax.grad(loss(fast))(x), expected)


@pytest.mark.parametrize("name", ["NHWC", "rows", "many rows"])
def test_numbers_that_differ_between_items_are_right(name):
    numbers, x = CASES[name]
    function = around(numbers + drawn(len(x), *(1,) * (x.ndim - 1)), x, jnp.add)
    fast = sj.compile(function, P, x, tune=False)
    assert_close(fast(x), jax.jit(function)(P, x))
    xs = np.stack([x, 2 * x])
    assert_close(jax.vmap(fast)(xs), jax.vmap(lambda x: function(P, x))(xs))
