"""Attention of one query to a cache of keys and values, however a step of generation is written."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import sparsejax as sj
from sparsejax.compiler.nodes.cached_attention import CachedAttention
from sparsejax.compiler.nodes.reshape import Reshape
from tests.compiler.generation import (
    AT,
    BATCH,
    CACHE,
    LENGTH,
    STEPS,
    WIDTH,
    P,
    X,
    added,
    at_all,
    at_each,
    attend,
    drawn,
    heads,
    plain,
    scattered,
    without_an_axis,
)
from tests.compiler.graphs import assert_close, regions, rewritten


def all_close(actual, expected):
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert_close(one, other)


def attention_in(function, *inputs):
    graph = rewritten(function, P, *inputs)
    (region,) = regions(graph)
    (node,) = [node for node in region.nodes if isinstance(node.op, CachedAttention)]
    assert "dot_general" not in graph.left
    # A cache is read where it lies.
    views = [node for node in region.nodes if isinstance(node.op, Reshape)]
    assert not any(node.inputs[0] in region.inputs for node in views)
    return node.op


@pytest.mark.parametrize("name", STEPS)
def test_a_step_is_in_the_region_of_its_layers(name):
    function, (x, cache, at), adds = STEPS[name]
    op = attention_in(function, x, cache, at)
    assert (op.newest is not None) == adds and op.length == LENGTH
    fast = sj.compile(function, P, x, cache, at, tune=False)
    for place in (0, int(at), LENGTH - 1, LENGTH + 3, -2):  # and as dynamic_update_slice has it
        expected = jax.jit(function)(P, x, cache, jnp.int32(place))
        all_close(jax.jit(fast)(x, cache, jnp.int32(place)), expected)


def test_generation_step_by_step_is_attention_of_all():
    xs = drawn(BATCH, LENGTH, WIDTH)
    empty = tuple(np.zeros_like(c) for c in CACHE)
    fast = sj.compile(plain, P, X, empty, AT, tune=False)

    def step(cache, each):
        x, at = each
        y, cache = fast(x[:, None], cache, at)
        return cache, y[:, 0]

    _, ys = lax.scan(step, empty, (xs.swapaxes(0, 1), jnp.arange(LENGTH)))
    q, k, v = (heads(xs @ P[name]) for name in "qkv")
    rows = [attend(q[:, i : i + 1], k[:, : i + 1], v[:, : i + 1])[:, 0] for i in range(LENGTH)]
    all_close(ys.swapaxes(0, 1), jnp.stack(rows, 1) @ P["o"])


@pytest.mark.parametrize(
    "function", [plain, scattered(at_each), without_an_axis(at_all), without_an_axis(at_each)]
)
def test_steps_of_many_generations_and_their_derivatives(function):
    fast = sj.compile(function, P, X, CACHE, AT, tune=False)
    xs, places = drawn(3, BATCH, 1, WIDTH), jnp.array([0, 6, 3])
    caches = tuple(drawn(3, *c.shape) for c in CACHE)
    over = lambda f: jax.vmap(f)(xs, caches, places)
    all_close(over(fast), over(lambda *inputs: function(P, *inputs)))
    loss = lambda f: lambda x, cache: (f(x, cache, AT)[0] ** 2).sum()
    expected = jax.grad(loss(lambda *inputs: function(P, *inputs)), argnums=(0, 1))(X, CACHE)
    all_close(jax.grad(loss(fast), argnums=(0, 1))(X, CACHE), expected)


def test_long_caches_of_wide_heads():
    count, size, length = 2, 41, 150
    p = {name: drawn(WIDTH, count * size) for name in "qkv"} | {"o": drawn(count * size, WIDTH)}
    cache = tuple(drawn(3, length, count, size) for _ in "kv")

    def function(p, x, cache, at):
        q, k, v = (heads(x @ p[name], count) for name in "qkv")
        k, v = cache = added(cache[0], k, at, 1), added(cache[1], v, at, 1)
        return attend(q, k, v, at) @ p["o"], cache

    x = drawn(3, 1, WIDTH)
    fast = sj.compile(function, p, x, cache, jnp.int32(99), tune=False)
    all_close(fast(x, cache, jnp.int32(99)), jax.jit(function)(p, x, cache, jnp.int32(99)))


@pytest.mark.parametrize(
    "function",
    [
        # Not the place of the new row.
        lambda p, x, cache, at: (
            attend(
                heads(x @ p["q"]),
                added(cache[0], heads(x @ p["k"]), at, 1)[:, ::-1],
                added(cache[1], heads(x @ p["v"]), at + 1, 1),
                at,
            )
            @ p["o"]
        ),
        # Keys alone.
        lambda p, x, cache, at: (
            attend(
                heads(x @ p["q"]), added(cache[0], heads(x @ p["k"]), at, 1), cache[1][:, ::-1], at
            )
            @ p["o"]
        ),
        # Two rows at a time.
        lambda p, x, cache, at: (
            attend(
                heads(x @ p["q"]),
                added(cache[0], jnp.repeat(heads(x @ p["k"]), 2, 1), at, 1),
                added(cache[1], jnp.repeat(heads(x @ p["v"]), 2, 1), at, 1),
                at,
            )
            @ p["o"]
        ),
        # The part of a cache that is full.
        lambda p, x, cache, at: (
            attend(
                heads(x @ p["q"]),
                added(cache[0], heads(x @ p["k"]), at, 1)[:, :5],
                added(cache[1], heads(x @ p["v"]), at, 1)[:, :5],
                at,
            )
            @ p["o"]
        ),
        # Features before keys, as in an old linen.
        lambda p, x, cache, at: (
            attend(
                heads(x @ p["q"]),
                added(
                    cache[0].transpose(0, 2, 3, 1), heads(x @ p["k"]).transpose(0, 2, 3, 1), at, 3
                ).transpose(0, 3, 1, 2),
                added(cache[1], heads(x @ p["v"]), at, 1),
                at,
            )
            @ p["o"]
        ),
    ],
)
def test_what_is_no_such_cache_is_right(function):
    fast = sj.compile(function, P, X, CACHE, AT, tune=False)
    for at in (0, 4, 6):
        inputs = X, CACHE, jnp.int32(at)
        all_close(fast(*inputs), jax.jit(function)(P, *inputs))


def test_nan_in_a_cache_is_as_in_xla():
    cache = tuple(np.array(c) for c in CACHE)
    cache[1][0, 6, 0, 0] = np.nan  # behind the last key that is seen: 0 times NaN is NaN
    fast = sj.compile(plain, P, X, cache, AT, tune=False)
    got, expected = fast(X, cache, AT), jax.jit(plain)(P, X, cache, AT)
    np.testing.assert_array_equal(np.isnan(got[0]), np.isnan(expected[0]))
