"""MEST: the paper's sparsity bounds at each mutation, in every scheme, and what competes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from tests import cases

SHAPE = (3, 3, 4, 8)


def history(method, plan, params, num_steps, grads=None):
    """The masks of the one leaf after init and after each step; weights stay what they are."""
    grads = params if grads is None else grads

    def run(params):
        context = lambda step: sj.masks.MaskContext(plan, step, jax.random.fold_in(key, step))
        key = jax.random.key(0, impl="rbg")
        first = method.init(sj.masks.full_masks(params, plan), params, context(jnp.int32(0)))

        def one_step(carry, step):
            carry = method.update(*carry, params, grads, context(step))
            return carry, carry[0]

        return first[0], jax.lax.scan(one_step, first, jnp.arange(num_steps))[1]

    first, rest = jax.jit(run)(params)
    return np.concatenate([np.asarray(first["kernel"])[None], np.asarray(rest["kernel"])])


def setting(pattern, sparsity, shape=SHAPE, seed=0):
    weights = np.random.default_rng(seed).normal(size=shape)
    params = {"kernel": jnp.asarray(weights, jnp.float32)}
    return params, sj.plan(params, {"kernel": pattern}, sparsity=sparsity)


def test_elastic_mutation_follows_the_papers_bounds():
    # 1,000 weights at 0.9: 0.92, 0.91, 0.90 before growth, so 20, 10 and 0 weights are new.
    params, plan = setting(sj.Unstructured(), 0.9, shape=(1000,))
    masks = history(sj.sparse_training.mest_em((6, 10), every=2), plan, params, 14)
    assert np.all(masks.sum(1) == 100)
    # The weights below stay what they are: only grown ones rank last, and old ones are kept.
    swapped = [int(np.sum(b & ~a)) for a, b in itertools.pairwise(masks)]
    fired = [step for step, n in enumerate(swapped) if n]
    assert fired == [2, 4, 6, 8]
    by_size = np.argsort(-np.abs(np.asarray(params["kernel"])))
    assert np.all(masks[0][by_size[:100]]), "starts at the largest weights"
    assert np.all(masks[3][by_size[:80]]), "a mutation keeps the largest 80 of 100"
    assert np.all(swapped[2] <= 20) and swapped[2] >= 15
    assert np.all(masks[7][by_size[:70]])


def test_the_soft_bound_swells_and_returns():
    # 0.85 until step 6, 0.875 until step 10, 0.90 from then on: 150, 125 and 100 of 1,000 weights.
    params, plan = setting(sj.Unstructured(), 0.9, shape=(1000,))
    masks = history(sj.sparse_training.mest_ems((6, 10), every=2), plan, params, 14)
    wanted = [100, 100, 100] + [150] * 4 + [125] * 4 + [100] * 4
    np.testing.assert_array_equal(masks.sum(1), wanted)
    # What a mutation removes are the smallest of all that were trained, new ones among them.
    weights = np.abs(np.asarray(params["kernel"]))
    before, after = masks[4], masks[5]
    best = np.zeros(1000, bool)
    best[np.argsort(-np.where(before, weights, -1.0))[:100]] = True
    assert np.all(after[best])
    # The bounds at 0.95: 0.90, 0.925, 0.95.
    params, plan = setting(sj.Unstructured(), 0.95, shape=(1000,))
    masks = history(
        sj.sparse_training.mest_ems((4, 6), every=2, fractions=(1.0, 0.5, 0.0)), plan, params, 8
    )
    np.testing.assert_array_equal(masks.sum(1), [50, 50, 50, 100, 100, 75, 75, 50, 50])


@pytest.mark.parametrize("pattern", ["unstructured", "block_4x1", "channel", "nm_2_4"])
def test_the_bounds_hold_in_every_scheme(pattern):
    params, plan = setting(*cases.PATTERNS[pattern])
    (leaf,) = plan.leaves
    groups = leaf.pattern.num_groups(SHAPE)
    target = groups - leaf.num_pruned // leaf.group_size
    masks = history(sj.sparse_training.mest_ems((4, 8), every=2), plan, params, 10)
    kept = masks.reshape(len(masks), -1).sum(1) // leaf.group_size
    swollen = [int(np.floor(x * target + 0.5)) for x in (1.5, 1.25, 1.0)]
    np.testing.assert_array_equal(
        kept[[0, 3, 5, 7, 9, 10]], np.take([target, *swollen], [0, 1, 2, 2, 3, 3])
    )
    for mask in (masks[0], masks[-1]):
        leaf.pattern.check(mask)
    if pattern != "nm_2_4":  # which may keep more than n of m until it is back at its target
        for mask in masks:
            leaf.pattern.check(mask)


def test_the_gradient_counts_with_its_weight():
    # |w| + 2 |g|: 3, 2 + 2, 1 + 4, 4: the third weight of the kept four is safe, the first goes.
    params = {"kernel": jnp.array([3.0, 2.0, 1.0, 4.0, 0.0, 0.0, 0.0, 0.0])}
    grads = {"kernel": jnp.array([0.0, 1.0, 2.0, 0.5, 0.0, 0.0, 0.0, 0.0])}
    plan = sj.plan(params, {"kernel": sj.Unstructured()}, sparsity=0.5)
    for weight, goes in ((0.0, 2), (2.0, 0)):
        score = sj.sparse_training.mest_em(
            (1, 9), every=1, fractions=(0.25, 0.25, 0.0), gradient_weight=weight
        )
        after = history(score, plan, params, 3, grads)[2]
        assert np.all(np.delete(after[:4], goes))


def test_errors_at_the_door():
    for boundaries, ratios in (((), (0.0,)), ((5, 3), (0.2, 0.1, 0.0)), ((3,), (0.1, 0.1))):
        with pytest.raises(ValueError, match="ascending boundaries"):
            sj.sparse_training.mest_em(boundaries, every=2, fractions=ratios)
    with pytest.raises(ValueError, match=r"mest_ems needs .* one fraction more"):
        sj.sparse_training.mest_ems((3, 5), every=2, fractions=(0.5, 0.0))
