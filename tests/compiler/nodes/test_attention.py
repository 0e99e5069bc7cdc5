"""Attention told however it is written, and what is none."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.compiler.nodes.attention import Attention
from sparsejax.compiler.nodes.norm import Norm
from tests.compiler.attentions import (
    ATTENTIONS,
    BATCH,
    LENGTH,
    SEEN,
    TRIANGLE,
    TURNS,
    WIDTH,
    P,
    X,
    attend,
    causal,
    drawn,
    heads,
    llama,
    neox,
    normed,
    plain,
    rotary,
    rotary_by_stack,
)
from tests.compiler.graphs import assert_close, regions, rewritten


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


@pytest.mark.parametrize("turn", TURNS[:-1])
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


@pytest.mark.parametrize("turn", [rotary, rotary_by_stack])
def test_channels_that_do_not_turn_are_what_they_were(turn):
    def function(p, x):
        y = heads(x * 0.5)
        y = jnp.concatenate([turn(y[..., :2]), y[..., 2:]], -1).reshape(x.shape)
        return y, y @ p["o"]

    assert rewritten(function, P, X).left == {}
    x = np.array(X)
    x[0, 3, 6] = np.inf  # 0 times it would be NaN
    fast, expected = sj.compile(function, P, X, tune=False)(x), jax.jit(function)(P, x)
    assert np.isinf(expected[0]).sum() == 1
    np.testing.assert_allclose(fast[0], expected[0], rtol=1e-5, atol=1e-6)


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


@pytest.mark.parametrize("queries", [1, 9, 33])
@pytest.mark.parametrize("of_each_item", [False, True])
def test_queries_may_be_known(queries, of_each_item):
    y = drawn(BATCH, 33, WIDTH)
    known = {**P, "known": drawn(queries, WIDTH)}

    def function(p, y):
        k, v = heads(y @ p["k"]), heads(y @ p["v"])
        if of_each_item:
            latent = jnp.broadcast_to(p["known"], (len(y), queries, WIDTH))
            return attend(heads(latent @ p["q"]), k, v) @ p["o"]
        scores = jnp.einsum("qhd,bkhd->bhqk", heads(p["known"] @ p["q"]), k)
        found = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores / 2), v)
        return found.reshape(len(y), queries, WIDTH) @ p["o"]

    graph = rewritten(function, known, y)
    assert len(regions(graph)) == 1 and "dot_general" not in graph.left
    fast = sj.compile(function, known, y, tune=False)
    assert_close(fast(y), jax.jit(function)(known, y))
    assert_close(jax.vmap(lambda each: fast(each[None])[0])(y), jax.jit(function)(known, y))
    other = jax.tree.map(lambda a: a + 0.5, known)
    assert_close(fast.with_params(other)(y), jax.jit(function)(other, y))


def test_known_queries_may_differ_between_items():
    known = drawn(BATCH, 33, WIDTH)
    function = lambda p, y: attend(heads(known), heads(y @ p["k"]), heads(y @ p["v"])) @ p["o"]
    y = drawn(BATCH, 40, WIDTH)
    fast = sj.compile(function, P, y, tune=False)
    assert_close(fast(y), jax.jit(function)(P, y))


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
