"""Attention told however it is written: heads, masks, groups of queries; and what is none."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import sparsejax as sj
from sparsejax.compiler.nodes.attention import Attention
from sparsejax.compiler.nodes.norm import Norm
from tests.compiler.graphs import assert_close, regions, rewritten

RNG = np.random.default_rng(0)
BATCH, LENGTH, WIDTH, HEADS = 2, 7, 12, 3


def drawn(*shape):
    return RNG.normal(size=shape).astype(np.float32)


P = {name: drawn(WIDTH, WIDTH) for name in "qkvo"} | {"qkv": drawn(WIDTH, 3 * WIDTH)}
P["bias"] = drawn(HEADS, LENGTH, LENGTH)
X = drawn(BATCH, LENGTH, WIDTH)
SEEN = np.arange(LENGTH) < np.array([[LENGTH], [4]])  # of each sequence
TRIANGLE = np.tri(LENGTH, dtype=bool)


def heads(x, count=HEADS):
    return x.reshape(*x.shape[:-1], count, -1)


def attend(q, k, v, mask=lambda scores: scores, times=lambda weights: weights):
    scores = mask(jnp.einsum("...qhd,...khd->...hqk", q, k) / 2)
    out = jnp.einsum("...hqk,...khd->...qhd", times(jax.nn.softmax(scores)), v)
    return out.reshape(*out.shape[:-2], -1)


def plain(p, x, mask=lambda scores: scores, times=lambda weights: weights):
    return attend(*(heads(x @ p[name]) for name in "qkv"), mask, times) @ p["o"]


def of_heads(numbers):
    """What the weights of each head are multiplied by, as Hugging Face's BERT does."""
    return lambda p, x: plain(p, x, times=lambda w: jnp.einsum("...hqk,h->...hqk", w, numbers))


def halved(p, x):
    numbers = np.array([0.5, 0, 2], np.float32)[:, None, None]
    return plain(p, x, times=lambda weights: 0.5 * (weights * numbers))


def of_linen(**options):
    module = nn.MultiHeadDotProductAttention(HEADS, **options)
    params = jax.jit(module.init)(jax.random.key(0), X)
    return lambda p, x, *mask: module.apply(params, x, mask=mask[0] if mask else None)


def of_nnx():
    module = nnx.MultiHeadAttention(HEADS, WIDTH, decode=False, rngs=nnx.Rngs(0))
    structure, state = nnx.split(module)
    return lambda p, x: nnx.merge(structure, state)(x)


def fused(p, x):
    """As in timm: (batch, length, 3, heads, size)."""
    parts = (x @ p["qkv"]).reshape(*x.shape[:-1], 3, HEADS, -1).transpose(2, 0, 3, 1, 4)
    q, k, v = parts[0], parts[1], parts[2]
    weights = jax.nn.softmax(0.5 * q @ k.swapaxes(-1, -2), -1)
    return (weights @ v).transpose(0, 2, 1, 3).reshape(x.shape) @ p["o"]


def scaled(p, x):
    """A factor of queries, keys and values."""
    return attend(*(heads(y) for y in jnp.split(x @ p["qkv"] / 2, 3, -1))) @ p["o"]


def grouped(p, x):
    """Two heads of queries for each of keys."""
    q, k, v = heads(x @ p["q"], 4), heads(x @ p["k"][:, :6], 2), heads(x @ p["v"][:, :6], 2)
    out = attend(q, jnp.repeat(k, 2, -2), jnp.repeat(v, 2, -2))
    return out @ p["o"]


def padded(p, x, seen):
    return plain(p, x, lambda s: s + jnp.where(seen[:, None, None, :], 0, -1e9))


def padded_off(p, x, seen):
    """As Hugging Face's DistilBERT."""
    return plain(p, x, lambda s: s - 1e9 * (1.0 - seen[:, None, None, :].astype(jnp.float32)))


def unbiased(p, x):
    return plain(p, x, lambda s: s - p["bias"])


def interleaved(p, x):
    """Queries, keys and values of a head beside each other: Hugging Face's BLOOM, GPT-NeoX."""
    return attend(*jnp.split(heads(x @ p["qkv"]), 3, -1)) @ p["o"]


def causal(p, x):
    return plain(p, x, lambda s: jnp.where(jnp.tril(jnp.ones((LENGTH,) * 2, bool)), s, -jnp.inf))


def causal_and_padded(p, x, seen):
    mask = seen[:, None, None, :] & np.tri(LENGTH, dtype=bool)
    return plain(p, x, lambda s: jnp.where(mask, s, jnp.finfo(jnp.float32).min))


def inverted(p, x, seen):
    return plain(p, x, lambda s: jnp.where(~seen[:, None, None, :], -1e30, s))


def biased(p, x):
    """Relative positions: numbers for each head, query and key."""
    return plain(p, x, lambda s: s + p["bias"])


def biased_and_padded(p, x, seen):
    return plain(p, x, lambda s: s + (p["bias"] + jnp.where(seen[:, None, None, :], 0, -1e9)))


def windowed(p, x):
    return plain(p, x, lambda s: jnp.where(np.tri(LENGTH, k=2) - np.tri(LENGTH, k=-3) > 0, s, -1e9))


def alibi(p, x):
    return plain(p, x, lambda s: jnp.where(TRIANGLE, s + p["bias"], -jnp.inf))


def of_jax(p, x):
    q, k, v = (heads(x @ p[name]) for name in "qkv")
    return jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(x.shape) @ p["o"]


def of_matmul(p, x):
    """Heads ahead of rows: `jnp.matmul` leaves out a batch of 1."""
    q, k, v = (jnp.swapaxes(heads(x @ p[name]), -3, -2) for name in "qkv")
    out = jnp.matmul(jax.nn.softmax(jnp.matmul(q, jnp.swapaxes(k, -1, -2)) / 2), v)
    return jnp.swapaxes(out, -3, -2).reshape(x.shape) @ p["o"]


def angles_of(x, places):
    """Of channels, for rows at known places or at those that are an input."""
    places = np.arange(x.shape[-3]) if places is None else places
    return (places[..., None] * 100.0 ** -np.arange(0, 1, 2 / x.shape[-1]))[..., None, :]


def rotary(x, places=None):
    angles = angles_of(x, places)
    cos, sin = (f(angles).astype(np.float32) for f in (jnp.cos, jnp.sin))
    a, b = jnp.split(x, 2, -1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def rotary_by_halves(x, places=None):
    """As in Hugging Face's Llama."""
    angles = jnp.concatenate([angles_of(x, places)] * 2, -1)
    half = x.shape[-1] // 2
    turned = jnp.concatenate([-x[..., half:], x[..., :half]], -1)
    return x * jnp.cos(angles) + turned * jnp.sin(angles)


def pairs(x, angles):
    angles = jnp.repeat(angles, 2, -1)
    turned = jnp.stack((-x[..., 1::2], x[..., ::2]), -1).reshape(x.shape)
    return x * jnp.cos(angles) + turned * jnp.sin(angles)


def rotary_by_pairs(x, places=None):
    """As in Hugging Face's GPT-J."""
    return pairs(x, angles_of(x, places))


def rotary_of_parts(x, places=None):
    """As in V-JEPA 2 and DINOv3: heads ahead of rows, parts of a head, and not the first rows."""
    places = np.arange(2, x.shape[-3]) if places is None else places[:, 2:]
    angles = jnp.swapaxes(angles_of(x[..., ::2], places), -3, -2)
    first, rest = jnp.split(jnp.swapaxes(x, -3, -2), [2], -2)
    turned = jnp.concatenate([pairs(part, angles) for part in jnp.split(rest, 2, -1)], -1)
    return jnp.swapaxes(jnp.concatenate([first, turned], -2), -3, -2)


def llama(p, x, turn=rotary):
    q, k = turn(heads(x @ p["q"], 3)), turn(heads(x @ p["k"][:, :4], 1))
    k, v = (jnp.repeat(y, 3, -2) for y in (k, heads(x @ p["v"][:, :4], 1)))
    return attend(q, k, v, lambda s: jnp.where(TRIANGLE, s, -jnp.inf)) @ p["o"]


def neox(p, x):
    """Queries, keys and values of one product, which lie one behind the other."""
    q, k, v = jnp.moveaxis((x @ p["qkv"]).reshape(*x.shape[:-1], 3, HEADS, -1), -3, 0)
    return attend(rotary_by_halves(q), rotary_by_halves(k), v) @ p["o"]


def shifted(p, x, seen):
    """A number is added to all scores, and a mask selects then."""
    return plain(p, x, lambda s: jnp.where(seen[:, None, None, :], s + 3.0, 1.0))


MASK = nn.make_attention_mask(SEEN, SEEN)
# name -> function, inputs, kind of mask
ATTENTIONS = {
    "plain": (plain, (X,), "none"),
    "one sequence": (plain, (X[0],), "none"),
    "linen": (of_linen(), (X,), "none"),
    "linen, masked": (of_linen(), (X, MASK), "select_queries"),
    "linen, keys masked": (of_linen(), (X, SEEN[:, None, None]), "select_keys"),
    "nnx": (of_nnx(), (X,), "none"),
    "fused": (fused, (X,), "none"),
    "scaled": (scaled, (X,), "none"),
    "grouped": (grouped, (X,), "none"),
    "heads are kept": (of_heads(np.ones(HEADS, np.int32)), (X,), "none"),
    "heads are weighed": (of_heads(np.array([0.5, 0, 2], np.float32)), (X,), "none"),
    "heads are halved": (halved, (X,), "none"),
    "padded": (padded, (X, SEEN), "add_keys"),
    "padded off": (padded_off, (X, SEEN), "add_keys"),
    "interleaved": (interleaved, (X,), "none"),
    "unbiased": (unbiased, (X,), "add_queries"),
    "causal": (causal, (X,), "causal"),
    "causal and padded": (causal_and_padded, (X, SEEN), "select_queries"),
    "biased": (biased, (X,), "add_queries"),
    "biased and padded": (biased_and_padded, (X, SEEN), "add_queries"),
    "windowed": (windowed, (X,), "select_queries"),
    "alibi": (alibi, (X,), "add_causal"),
    "of jax": (of_jax, (X,), "causal"),
    "of matmul": (of_matmul, (X,), "none"),
    "of matmul, batch of 1": (of_matmul, (X[:1],), "none"),
    "of matmul, no batch": (of_matmul, (X[0],), "none"),
    "shifted": (shifted, (X, SEEN), "select_keys"),
    "inverted": (inverted, (X, SEEN), "select_keys"),
}


@pytest.mark.parametrize("name", ATTENTIONS)
def test_attention_is_in_the_region_of_its_layers(name):
    function, inputs, mask = ATTENTIONS[name]
    graph = rewritten(function, P, *inputs)
    (region,) = regions(graph)
    (node,) = [node for node in region.nodes if isinstance(node.op, Attention)]
    assert node.op.mask == mask and "dot_general" not in graph.left
    assert {type(other.op).__name__ for other in region.nodes} - {"Known"} == {
        "Linear",
        "Attention",
    }
    fast = sj.compile(function, P, *inputs, tune=False)
    assert_close(fast(*inputs), jax.jit(function)(P, *inputs))


TURNS = [rotary, rotary_by_halves, rotary_by_pairs, rotary_of_parts]


@pytest.mark.parametrize("turn", [*TURNS, None])
def test_rotary_positions_are_in_the_region(turn):
    function = (lambda p, x: llama(p, x, turn)) if turn else neox
    graph = rewritten(function, P, X)
    (region,) = regions(graph)
    assert sum(isinstance(node.op, Attention) for node in region.nodes) == 1
    assert graph.left == {}
    fast = sj.compile(function, P, X, tune=False)
    assert_close(fast(X), jax.jit(function)(P, X))
    assert_close(jax.vmap(lambda x: fast(x[None])[0])(X), jax.jit(function)(P, X))
    (region,) = regions(rewritten(function, P, X[0]))
    assert [node.op for node in region.nodes if isinstance(node.op, Attention)]


@pytest.mark.parametrize("turn", TURNS[:3])
def test_positions_may_be_an_input_and_all_layers_share_their_angles(turn):
    def function(p, x, places):
        for _ in range(2):
            x = llama(p, x, lambda y: turn(y, places))
        return x

    places = np.array([range(LENGTH), range(3, 3 + LENGTH)], np.int32)
    graph = rewritten(function, P, X, places)
    (region,) = regions(graph)
    assert len(region.inputs) == 1 + 2 * 2  # two factors for heads of queries, two for one of keys
    fast = sj.compile(function, P, X, places, tune=False)
    for more in (0, 5):
        expected = jax.jit(function)(P, X, places + more)
        assert_close(jax.jit(fast)(X, places + more), expected)


def normed(p, x):
    """Queries and keys of each head are normed, as in Qwen 3 and Gemma 3, and then turned."""
    norm = lambda y: y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + 1e-6)
    q, k = (rotary(norm(heads(x @ p[name])) * p["k"][0, :4]) for name in "qk")
    return attend(q, k, heads(x @ p["v"])) @ p["o"]


def test_norms_of_heads_are_in_the_region():
    x = drawn(2, 33, WIDTH)
    graph = rewritten(normed, P, x)
    (region,) = regions(graph)
    assert sum(isinstance(node.op, Norm) for node in region.nodes) == 2
    fast = sj.compile(normed, P, x, tune=False)
    assert_close(fast(x), jax.jit(normed)(P, x))


def of_patches(p, x):
    """The patches are the batch of a convolution, and then the rows of one sequence."""
    x = jax.lax.conv_general_dilated(
        x, p["patch"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return plain(p, x.reshape(x.shape[0], -1))


def test_rows_that_meet_are_not_in_a_region_with_images():
    params, x = P | {"patch": drawn(2, 2, 3, WIDTH)}, drawn(LENGTH, 2, 2, 3)
    found = regions(rewritten(of_patches, params, x))
    assert [region.rows for region in found] == [False, True]
    fast = sj.compile(of_patches, params, x, tune=False)
    assert_close(fast(x), jax.jit(of_patches)(params, x))


@pytest.mark.parametrize(
    "function",
    [
        lambda p, x: attend(
            heads(x @ p["q"]), heads(x[:, ::2] @ p["k"]), heads(x[:, ::2] @ p["v"])
        ),
        lambda p, x: plain(p, x, lambda s: s + s.mean(1, keepdims=True)),
        lambda p, x: plain(p, x, lambda s: 3 * jnp.where(TRIANGLE, s, -1.0)),
        lambda p, x: plain(p, x, times=lambda w: w * np.arange(LENGTH, dtype=np.float32)),
        lambda p, x: plain(p, x, lambda s: s + np.arange(LENGTH, dtype=np.float32)[:, None]),
        lambda p, x: attend(*(heads(x @ p[n])[:, :, ::-1] for n in "qkv"))[..., ::-1],
    ],
)
def test_what_is_no_attention_of_rows_is_right_in_xla(function):
    fast = sj.compile(function, P, X, tune=False)
    assert_close(fast(X), jax.jit(function)(P, X))


@pytest.mark.parametrize("shape", [(40, 40_000, WIDTH), (1_500_000, WIDTH)])
def test_what_is_too_large_to_be_followed_stays_in_xla(shape):
    x = jax.ShapeDtypeStruct(shape, np.float32)
    assert "dot_general" in rewritten(plain, P, x).left or regions(rewritten(plain, P, x))


def test_queries_of_other_sequences_are_in_one_region():
    x, y = drawn(BATCH, 9, WIDTH), drawn(BATCH, 33, WIDTH)

    def function(p, x, y):
        q, k, v = heads(x @ p["q"]), heads(y @ p["k"]), heads(y @ p["v"])
        return attend(q, k, v) @ p["o"]

    graph = rewritten(function, P, x, y)
    assert len(regions(graph)) == 1 and "dot_general" not in graph.left
    fast = sj.compile(function, P, x, y, tune=False)
    assert_close(fast(x, y), jax.jit(function)(P, x, y))


def test_numbers_for_each_row_are_in_the_region():
    def function(p, x, seen):
        return seen[..., None] * (x @ p["q"]) @ p["k"]

    seen = np.array(SEEN, np.float32)
    graph = rewritten(function, P, X, seen)
    assert len(regions(graph)) == 1 and set(graph.left) == {"Reshape"}
    fast = sj.compile(function, P, X, seen, tune=False)
    assert_close(fast(X, seen), jax.jit(function)(P, X, seen))


def test_long_sequences_and_many_are_cut_into_strips_that_do_not_matter():
    x = drawn(3, 85, WIDTH)
    mask = nn.make_causal_mask(x[..., 0])
    function = lambda p, x: plain(p, x, lambda s: jnp.where(mask, s, -1e30))
    fast = sj.compile(function, P, x, tune=False)
    expected = jax.jit(function)(P, x)
    assert_close(fast(x), expected)
    both = jax.vmap(lambda each: fast(each[None])[0])(x)
    assert_close(both, expected)


def test_nan_and_rows_that_see_nothing_are_as_in_xla():
    def function(p, x, seen):
        return plain(p, x, lambda s: jnp.where(seen[:, None, None, :], s, -jnp.inf))

    seen = np.array(SEEN)
    seen[1] = False
    fast = sj.compile(function, P, X, seen, tune=False)
    assert np.isnan(fast(X, seen)[1]).all()
    assert_close(fast(X, seen), jax.jit(function)(P, X, seen))
    wrong = np.array(X)
    wrong[0, 5, 2] = np.nan  # no earlier query sees it, but 0 times NaN is NaN
    fast = sj.compile(causal, P, X, tune=False)
    np.testing.assert_array_equal(np.isnan(fast(wrong)), np.isnan(jax.jit(causal)(P, wrong)))
