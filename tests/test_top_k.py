"""The top-k mask is exact on every kind of scores."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from sparsejax import top_k


def oracle(scores, k, keep=None, allowed=None):
    """The k best by a stable sort: keep first, not allowed last, then score, then index."""
    flat = np.asarray(scores).astype(np.float64).ravel()
    number = np.where(np.isnan(flat), 0.0, flat)
    ones = np.ones(flat.size, bool)
    keep = ~ones if keep is None else np.asarray(keep).ravel()
    allowed = ones if allowed is None else np.asarray(allowed).ravel()
    order = np.lexsort((np.arange(flat.size), -number, np.isnan(flat), ~(allowed | keep), ~keep))
    mask = np.zeros(flat.size, bool)
    mask[order[:k]] = True
    return mask.reshape(np.shape(scores))


top_k_mask = jax.jit(top_k.top_k_mask)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("shape", [(11,), (2, 3, 4), (1, 1), (0, 3)])
def test_top_k_is_exact_with_ties_infinities_and_nan(shape, dtype):
    rng = np.random.default_rng(0)
    special = [-np.inf, np.inf, np.nan, -np.nan, -0.0, 0.0, 1.0, 1.5, -1.0]
    scores = jnp.asarray(rng.choice(special, shape), dtype)
    for k in range(scores.size + 1):
        np.testing.assert_array_equal(top_k_mask(scores, k), oracle(scores, k), err_msg=f"{k}")


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_keep_and_allowed_outrank_the_scores(data):
    size = 9
    floats = st.floats(width=32, allow_subnormal=True)
    scores = jnp.asarray(data.draw(st.lists(floats, min_size=size, max_size=size)), jnp.float32)
    bits = st.lists(st.booleans(), min_size=size, max_size=size)
    keep, allowed = (jnp.asarray(data.draw(bits)) for _ in range(2))
    k = data.draw(st.integers(0, size))
    for classes in ({}, {"keep": keep}, {"allowed": allowed}, {"keep": keep, "allowed": allowed}):
        np.testing.assert_array_equal(
            top_k_mask(scores, k, **classes), oracle(scores, k, **classes)
        )


@pytest.mark.parametrize("scores", ["equal", "distinct", "subnormal"])
def test_top_k_of_a_larger_leaf(scores):
    rng = np.random.default_rng(1)
    size = 3 * 3 * 33 * 65
    values = {
        "equal": np.ones(size),
        "distinct": rng.permutation(size),
        "subnormal": rng.integers(0, 5, size) * 1e-45,
    }[scores].reshape(3, 3, 33, 65)
    for k in (0, 1, size // 10, size - 1, size):
        mask = top_k_mask(jnp.asarray(values, jnp.float32), k)
        np.testing.assert_array_equal(mask, oracle(values, k))


def test_top_k_of_float64():
    with jax.enable_x64(True):
        scores = jnp.asarray([1.0, 1.0 + 1e-15, np.nan, -np.inf])
        assert top_k.top_k_mask(scores, 1).tolist() == [False, True, False, False]
        assert top_k.top_k_mask(scores, 3).tolist() == [True, True, False, True]


def test_jit_equals_no_jit_and_a_traced_k_a_static_one():
    scores = jnp.asarray(np.random.default_rng(2).normal(size=(7, 9)), jnp.float32)
    static = top_k.top_k_mask(scores, 20)
    assert (static == jax.jit(top_k.top_k_mask, static_argnums=1)(scores, 20)).all()
    assert (static == top_k_mask(scores, jnp.int32(20))).all()
    batch = jax.vmap(top_k.top_k_mask, (0, None))(jnp.stack([scores, -scores]), 20)
    assert (batch[1] == top_k.top_k_mask(-scores, 20)).all()


def test_members_of_a_batch_end_their_searches_apart():
    scores = jnp.asarray([[3.0, 1.0, 2.0, 0.5], [1.0, 1.0, 1.0, 1.0], [1.0, 2.0, 2.0, 2.0]])
    masks = jax.vmap(top_k.top_k_mask)(scores, jnp.array([1, 3, 2]))
    assert masks.tolist() == [
        [True, False, False, False],
        [True, True, True, False],
        [False, True, True, False],
    ]


def test_a_mask_compiles_like_one_loop():
    """Each leaf has its own: compiling them is what the first training step waits for."""
    program = jax.jit(top_k.top_k_mask).lower(jnp.ones((8, 16)), jnp.int32(3)).as_text()
    assert program.count("stablehlo.while") == 1
    assert program.count("\n") < 300


@pytest.mark.parametrize("dtype", ["int32", "bool", "float8_e5m2"])
def test_other_scores_are_refused(dtype):
    with pytest.raises(TypeError, match=f"Scores must be float64, .*, got {dtype}"):
        top_k.top_k_mask(jnp.zeros(3, dtype), 1)


SHARDED = [
    ((64, 48), P("a", "b")),
    ((64, 48), P(("a", "b"), None)),
    ((64,), P(("b", "a"))),
    ((3, 3, 16, 6), P(None, None, "b", "a")),
]


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize(("shape", "spec"), SHARDED)
def test_four_devices_agree_with_one_and_only_add_up_counts(shape, spec, axis_type):
    mesh = jax.make_mesh((2, 2), ("a", "b"), axis_types=(axis_type,) * 2)
    values = np.random.default_rng(3).integers(0, 9, shape).astype(np.float32)
    scores = jax.device_put(values, NamedSharding(mesh, spec))
    best = lambda x: top_k.top_k_mask(x, x.size // 3, keep=x == 2, allowed=x != 7)
    compiled = jax.jit(best).lower(scores).compile()
    mask = compiled(scores)
    np.testing.assert_array_equal(mask, oracle(values, values.size // 3, values == 2, values != 7))
    assert mask.sharding.is_equivalent_to(scores.sharding, scores.ndim)
    program = compiled.as_text()
    assert "all-reduce" in program
    assert not re.search(r"all-gather|all-to-all|collective-permute", program)
    reduced = re.findall(r"= (\S+) all-reduce\(", program)
    assert all(re.fullmatch(r"s32\[\d*\](\{0\})?", counts) for counts in reduced), reduced


@pytest.mark.parametrize("num_groups", [0, 1, 2, 5, 15, 1_000, 123_455])
def test_the_number_pruned_is_the_same_static_and_traced(num_groups):
    traced = jax.jit(top_k.count_pruned, static_argnums=1)
    for sparsity in (0.0, 1e-4, 0.1, 0.25, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.999, 1.0):
        static = top_k.count_pruned(sparsity, num_groups)
        assert static == int(np.floor(sparsity * num_groups + 0.5))
        assert int(traced(jnp.float32(sparsity), num_groups)) == static, sparsity


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31 - 1), st.floats(0.0, 1.0, width=32))
def test_a_traced_float32_is_multiplied_exactly(num_groups, sparsity):
    exact = np.floor(float(np.float32(sparsity)) * num_groups + 0.5)
    counted = int(top_k.count_pruned(jnp.float32(sparsity), num_groups))
    assert counted - exact in (0, 1)
    slack = min(num_groups / 2**9 + 1, 2**10) / 2**16
    assert counted == exact or float(sparsity) * num_groups + 0.5 + 2 * slack >= exact + 1


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 2**24 - 1).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_a_fraction_of_whole_groups_is_met_exactly_when_traced(pair):
    pruned, num_groups = pair
    assert int(top_k.count_pruned(jnp.float32(pruned / num_groups), num_groups)) == pruned
