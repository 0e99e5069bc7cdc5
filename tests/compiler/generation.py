"""Steps of generation: attention of one query to a cache of keys and values, written many ways."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

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
TABLE = drawn(LENGTH + 8, HEADS)


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


def slopes(p, x, cache, at):
    """Biases of what is known only when it runs, and a mask that selects."""
    slope = np.array([0.5, 0.25, 1.0], np.float32)[:, None, None]
    seen = jnp.arange(LENGTH) <= at
    q, k, v = (heads(x @ p[name]) for name in "qkv")
    k, v = cache = added(cache[0], k, at, 1), added(cache[1], v, at, 1)
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / 2 - slope * (at - jnp.arange(LENGTH))
    weights = jax.nn.softmax(jnp.where(seen, scores, -1e9))
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(x.shape) @ p["o"], cache


def two_biases(p, x, cache, at):
    """As T5 has them, for rows without an axis of queries."""
    bias = jnp.asarray(TABLE)[jnp.abs(at - jnp.arange(LENGTH))].T
    far = jnp.where(jnp.arange(LENGTH) <= at, 0.0, -1e9)
    q, k, v = (heads(x @ p[name]) for name in "qkv")
    k, v = cache = added(cache[0], k[:, None], at, 1), added(cache[1], v[:, None], at, 1)
    weights = jax.nn.softmax(jnp.einsum("bhd,bkhd->bhk", q, k) / 2 + bias[None] + far)
    return jnp.einsum("bhk,bkhd->bhd", weights, v).reshape(x.shape) @ p["o"], cache


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
    "slopes": (slopes, (X, CACHE, AT), True),
    "two biases": (two_biases, (X[:, 0], CACHE, AT), True),
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
