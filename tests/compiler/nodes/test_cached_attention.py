"""Attention of one query to a cache of keys and values, however a step of generation is written."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

import sparsejax as sj
from sparsejax.compiler.nodes.cached_attention import CachedAttention
from tests.compiler.graphs import assert_close, regions, rewritten

RNG = np.random.default_rng(0)
BATCH, LENGTH, WIDTH, HEADS = 2, 7, 12, 3
SIZE = WIDTH // HEADS


def drawn(*shape):
    return RNG.normal(size=shape).astype(np.float32)


P = {name: drawn(WIDTH, WIDTH) for name in "qkvo"} | {"qkv": drawn(WIDTH, 3 * WIDTH)}
X = drawn(BATCH, 1, WIDTH)
CACHE = tuple(drawn(BATCH, LENGTH, HEADS, SIZE) for _ in "kv")
AT = jnp.int32(4)
BIAS = drawn(HEADS, 1, LENGTH)


def all_close(actual, expected):
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert_close(one, other)


def heads(x, count=HEADS):
    return x.reshape(*x.shape[:-1], count, -1)


def attend(q, k, v, at=None, bias=0.0):
    scores = jnp.einsum("...qhd,...khd->...hqk", q, k) / 2 + bias
    if at is not None:
        scores = jnp.where(jnp.arange(scores.shape[-1]) <= at, scores, -1e30)
    out = jnp.einsum("...hqk,...khd->...qhd", jax.nn.softmax(scores), v)
    return out.reshape(*out.shape[:-2], -1)


def added(cache, row, at, axis):
    place = [0] * cache.ndim
    place[axis] = at
    return lax.dynamic_update_slice(cache, row, place)


def plain(p, x, cache, at, axis=1, count=HEADS):
    """Of sequences, or of one: the last row of the cache is that of now."""
    q, rows = heads(x @ p["q"]), [heads(x @ p[name][:, : count * SIZE], count) for name in "kv"]
    k, v = cache = tuple(added(c, r, at, axis) for c, r in zip(cache, rows, strict=True))
    k, v = (jnp.repeat(y, HEADS // count, axis=-2) for y in (k, v))
    return attend(q, k, v, at) @ p["o"], cache


def one_head_of_keys(p, x, cache, at):
    return plain(p, x, cache, at, count=1)


def one_sequence(p, x, cache, at):
    return plain(p, x, cache, at, axis=0)


def groups_of_one_head(p, x, cache, at):
    """All heads of queries are an axis that keys have not."""
    q = heads(x @ p["q"])[:, :, None]
    k, v = (heads(x @ p[name][:, :SIZE], 1) for name in "kv")
    k, v = cache = added(cache[0], k, at, 1), added(cache[1], v, at, 1)
    scores = jnp.einsum("bqkgd,bskd->bkgqs", q, k) / 2
    scores = jnp.where(jnp.arange(LENGTH) <= at, scores, -1e30)
    out = jnp.einsum("bkgqs,bskd->bqkgd", jax.nn.softmax(scores), v)
    return out.reshape(x.shape) @ p["o"], cache


def keys_before_heads(p, x, cache, at):
    """Scores (batch, query, key, head, 1), as in Qwen 3 of bonsai; the mask is a row a sequence."""
    q = heads(x @ p["q"])[..., None, :]
    k, v = cache = tuple(
        added(c, heads(x @ p[name]), at, 1) for c, name in zip(cache, "kv", strict=True)
    )
    scores = jnp.einsum("btkgh,bskh->btskg", q, k) / 2
    seen = jnp.broadcast_to(jnp.arange(LENGTH) <= at, (BATCH, 1, LENGTH))
    weights = jax.nn.softmax(jnp.where(seen[..., None, None], scores, -1e30), axis=2)
    out = jnp.einsum("btskg,bskh->btkgh", weights, v)
    return out.reshape(x.shape) @ p["o"], cache


def by_heads(p, x, cache, at):
    """A cache (batch, heads, length, size)."""
    q, k, v = (heads(x @ p[name]).swapaxes(1, 2) for name in "qkv")
    k, v = cache = added(cache[0], k, at, 2), added(cache[1], v, at, 2)
    scores = jnp.where(jnp.arange(LENGTH) <= at, q @ k.swapaxes(-1, -2) / 2, -1e30)
    out = (jax.nn.softmax(scores) @ v).swapaxes(1, 2)
    return out.reshape(x.shape) @ p["o"], cache


def interleaved(p, x, cache, at):
    """Queries, keys and values of a head beside each other."""
    q, k, v = jnp.split(heads(x @ p["qkv"]), 3, -1)
    k, v = cache = added(cache[0], k, at, 1), added(cache[1], v, at, 1)
    return attend(q, k, v, at) @ p["o"], cache


def biased(p, x, cache, at):
    """Numbers for each head and key, added before the mask, in one."""
    bias = BIAS + jnp.where(jnp.arange(LENGTH) <= at, 0, -1e9)
    q, k, v = (heads(x @ p[name]) for name in "qkv")
    k, v = cache = added(cache[0], k, at, 1), added(cache[1], v, at, 1)
    return attend(q, k, v, bias=bias) @ p["o"], cache


def of_given_keys(p, x, cache, at):
    """As a decoder attends to what its encoder has said."""
    return attend(heads(x @ p["q"]), *cache) @ p["o"], cache


def of_known_rows(p, x, cache, at):
    """A learned table of keys is as good as a cache."""
    table = jnp.broadcast_to(cache[0][:1], cache[0].shape)
    return attend(heads(x @ p["q"]), table, cache[1]) @ p["o"], cache


def at_all(cache, row, at):
    return cache.at[:, at].set(row[:, 0])


def at_each(cache, row, at):
    return cache.at[jnp.arange(BATCH), at + 3 * jnp.arange(BATCH)].set(row[:, 0])


def at_each_clipped(cache, row, at):
    return cache.at[jnp.arange(BATCH), at + 3 * jnp.arange(BATCH)].set(row[:, 0], mode="clip")


def slice_of_each(cache, row, at):
    put = lambda c, r, i: lax.dynamic_update_slice(c, r, (i, 0, 0))
    return jax.vmap(put)(cache, row, at + 3 * jnp.arange(BATCH))


def slice_of_all(cache, row, at):
    put = lambda c, r: lax.dynamic_update_slice(c, r, (at, 0, 0))
    return jax.vmap(put)(cache, row)


def at_of_each(cache, row, at):
    put = lambda c, r, i: c.at[i].set(r[0])
    return jax.vmap(put)(cache, row, at + 3 * jnp.arange(BATCH))


def at_head_major(cache, row, at):
    return cache.at[:, :, at].set(row[:, :, 0])


WAYS = [at_all, at_each, at_each_clipped, slice_of_each, slice_of_all, at_of_each]


def scattered(way):
    def function(p, x, cache, at):
        q, *rows = (heads(x @ p[name]) for name in "qkv")
        k, v = cache = tuple(way(c, r, at) for c, r in zip(cache, rows, strict=True))
        return attend(q, k, v, at) @ p["o"], cache

    return function


def scattered_by_heads(p, x, cache, at):
    q, *rows = (heads(x @ p[name]).swapaxes(1, 2) for name in "qkv")
    k, v = cache = tuple(at_head_major(c, r, at) for c, r in zip(cache, rows, strict=True))
    weights = jax.nn.softmax(jnp.einsum("bhqd,bhkd->bhqk", q, k))
    out = jnp.einsum("bhqk,bhkd->bhqd", weights, v).swapaxes(1, 2)
    return out.reshape(x.shape) @ p["o"], cache


def without_an_axis(way, count=HEADS):
    """A row for each sequence: nothing has an axis of queries."""

    def function(p, x, cache, at):
        x = x[:, 0] if x.ndim == 3 else x
        q, k, v = (heads(x @ p[name], count) for name in "qkv")
        k, v = cache = tuple(way(c, r[:, None], at) for c, r in zip(cache, (k, v), strict=True))
        scores = jnp.einsum("bhd,bkhd->bhk", q, k) / 2
        scores = jnp.where(jnp.arange(LENGTH) <= at, scores, -1e30)
        out = jnp.einsum("bhk,bkhd->bhd", jax.nn.softmax(scores), v)
        return x + out.reshape(x.shape) @ p["o"], cache

    return function


def grouped_without_an_axis(p, x, cache, at):
    q = heads(x @ p["q"])[:, None]
    k, v = (heads(x @ p[name][:, :SIZE], 1) for name in "kv")
    k, v = cache = at_all(cache[0], k[:, None], at), at_all(cache[1], v[:, None], at)
    scores = jnp.einsum("bkgd,bskd->bkgs", q, k) / 2
    scores = jnp.where(jnp.arange(LENGTH) <= at, scores, -1e30)
    out = jnp.einsum("bkgs,bskd->bkgd", jax.nn.softmax(scores), v)
    return out.reshape(x.shape) @ p["o"], cache


def of_linen():
    module = nn.MultiHeadDotProductAttention(HEADS, decode=True)
    shape = jax.ShapeDtypeStruct((BATCH, LENGTH, WIDTH), np.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), shape)
    params = jax.tree.map(lambda a: drawn(*a.shape), variables["params"])

    def function(p, x, cache, at):
        kept = {"cached_key": cache[0], "cached_value": cache[1], "cache_index": at}
        y, after = module.apply({"params": params, "cache": kept}, x, mutable="cache")
        return y, tuple(after["cache"][name] for name in ("cached_key", "cached_value"))

    return function


def of_nnx():
    module = nnx.MultiHeadAttention(HEADS, WIDTH, decode=True, rngs=nnx.Rngs(0))
    module.init_cache((BATCH, LENGTH, WIDTH))
    structure, kept, rest = nnx.split(module, nnx.Cache, ...)

    def function(p, x, cache, at):
        new = {"cached_key": cache[0], "cached_value": cache[1], "cache_index": at}
        flat = {path: leaf.replace(new[path[-1]]) for path, leaf in nnx.to_flat_state(kept)}
        merged = nnx.merge(structure, nnx.from_flat_state(flat), rest)
        return merged(x), (merged.cached_key[...], merged.cached_value[...])

    return function


HEAD_MAJOR = tuple(c.swapaxes(1, 2) for c in CACHE)
ONE_HEAD = tuple(c[:, :, :1] for c in CACHE)
# name -> function, inputs, is a row added?
STEPS = {
    "plain": (plain, (X, CACHE, AT), True),
    "one item": (plain, (X[:1], tuple(c[:1] for c in CACHE), AT), True),
    "one sequence": (one_sequence, (X[0], tuple(c[0] for c in CACHE), AT), True),
    "one head of keys": (one_head_of_keys, (X, ONE_HEAD, AT), True),
    "groups of one head": (groups_of_one_head, (X, ONE_HEAD, AT), True),
    "keys before heads": (keys_before_heads, (X, CACHE, AT), True),
    "by heads": (by_heads, (X, HEAD_MAJOR, AT), True),
    "interleaved": (interleaved, (X, CACHE, AT), True),
    "linen": (of_linen(), (X, CACHE, AT), True),
    "nnx": (of_nnx(), (X, CACHE, AT), True),
    "biased": (biased, (X, CACHE, AT), True),
    **{f"scattered, {way.__name__}": (scattered(way), (X, CACHE, AT), True) for way in WAYS},
    **{
        f"no axis, {way.__name__}": (without_an_axis(way), (X[:, 0], CACHE, AT), True)
        for way in WAYS
    },
    "no axis": (without_an_axis(lambda c, r, at: added(c, r, at, 1)), (X[:, 0], CACHE, AT), True),
    "no axis, groups": (grouped_without_an_axis, (X[:, 0], ONE_HEAD, AT), True),
    "scattered by heads": (scattered_by_heads, (X, HEAD_MAJOR, AT), True),
    "given keys": (of_given_keys, (X, CACHE, AT), False),
    "known rows": (of_known_rows, (X, CACHE, AT), False),
}


def attention_in(function, *inputs):
    graph = rewritten(function, P, *inputs)
    (region,) = regions(graph)
    (node,) = [node for node in region.nodes if isinstance(node.op, CachedAttention)]
    assert "dot_general" not in graph.left
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
