"""MEST's kernel patterns: which of eight a kernel takes, balance between filters, exact counts."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from tests import cases

PATTERN = sj.KernelPattern()
SHAPE = (3, 3, 6, 8)  # 48 kernels, 192 weights in patterns


def scores(shape=SHAPE, seed=0):
    return np.abs(np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


@pytest.fixture(scope="module")
def mask_of():
    jitted = jax.jit(lambda s, share, k, a: PATTERN.mask(s, share, keep=k, allowed=a))

    def of(values, share, keep=None, allowed=None):
        keep = np.zeros(values.shape, bool) if keep is None else keep
        allowed = np.ones(values.shape, bool) if allowed is None else allowed
        return np.asarray(jitted(values, jnp.float32(share), keep, allowed))

    return of


def test_the_count_is_exact_and_filters_are_balanced(mask_of):
    values = scores()
    values.ravel()[:4] = np.inf, np.nan, 0.0, values.ravel()[7]
    before = np.ones(SHAPE, bool)
    for share in (0.0, 0.3, 0.5, 5 / 9, 0.6, 0.75, 0.9, 0.97, 1.0):
        mask = mask_of(values, share)
        assert (~mask).sum() == int(np.floor(share * 432 + 0.5))
        assert not np.any(mask & ~before), "less is kept as sparsity grows"
        before = mask
        if share >= 5 / 9:
            PATTERN.check(mask)
            np.testing.assert_array_equal(mask, PATTERN.mask(jnp.asarray(values), share))


def test_a_kernel_takes_the_pattern_with_the_largest_sum_of_squares(mask_of):
    library = "...|.##|.## ...|##.|##. .##|.##|... ##.|##.|..."
    library += " ...|..#|### ...|###|.#. .#.|.##|.#. .#.|##.|.#."
    kept = np.array([[[c == "#" for c in row] for row in p.split("|")] for p in library.split()])
    assert kept.shape == (8, 3, 3) and np.all(kept.sum((1, 2)) == 4)
    values = np.where(kept, 2.0, 1.0).transpose(1, 2, 0)[..., None].astype(np.float32)
    mask = mask_of(np.broadcast_to(values, (3, 3, 8, 2)), 5 / 9)
    for filter_ in range(2):
        np.testing.assert_array_equal(mask[..., filter_].transpose(2, 0, 1), kept)
    every_sum = [
        (np.square(scores()[..., i, o])[None] * kept).sum((1, 2))
        for i in range(6)
        for o in range(8)
    ]
    mask = mask_of(scores(), 5 / 9)
    best = np.argmax(every_sum, 1)
    for kernel, (i, o) in enumerate(itertools.product(range(6), range(8))):
        np.testing.assert_array_equal(mask[..., i, o], kept[best[kernel]])


def test_the_weakest_kernels_of_each_filter_go(mask_of):
    # s = 0.9 overall: r_k = 1 - 0.1 * 9/4 = 0.775 of 40 kernels go from each filter, 9 stay.
    values = scores((3, 3, 40, 4))
    values[..., 0] *= 100.0  # one filter with larger kernels than all the others
    full, mask = mask_of(values, 5 / 9), mask_of(values, 0.9)
    PATTERN.check(mask)
    kernels = mask.any((0, 1))
    assert kernels.sum(0).tolist() == [9, 9, 9, 9]
    norms = np.where(full, np.square(values), 0.0).sum((0, 1))
    for filter_ in range(4):
        best = np.argsort(-norms[:, filter_])[:9]
        assert set(np.flatnonzero(kernels[:, filter_])) == set(best)


def test_what_is_kept_stays_in_its_pattern_and_growth_draws_new_kernels(mask_of):
    values = scores()
    kept = mask_of(values, 0.8)
    other = scores(seed=1)
    np.testing.assert_array_equal(mask_of(other, 0.8, keep=kept), kept)
    np.testing.assert_array_equal(mask_of(other, 0.8, allowed=kept), kept)
    grown = mask_of(other, 0.7, keep=kept)
    assert np.all(grown[kept]) and (~grown).sum() == 302
    PATTERN.check(grown)
    shrunk = mask_of(other, 0.9, keep=kept)
    assert not np.any(shrunk & ~kept)
    PATTERN.check(shrunk)


@pytest.mark.parametrize("method", ["gmp", "mest_em", "mest_ems", "rigl"])
def test_methods_train_kernel_patterns(method):
    params = {"kernel": jnp.asarray(np.random.default_rng(0).normal(size=SHAPE), jnp.float32)}
    plan = sj.plan(params, {"kernel": PATTERN}, sparsity=0.8)
    transform = (cases.METHODS | cases.SWELLING_METHODS)[method].transform
    context = lambda step: sj.masks.MaskContext(plan, step, jax.random.key(step))

    def run(params):
        first = transform.init(sj.masks.full_masks(params, plan), params, context(jnp.int32(0)))

        def one_step(carry, step):
            moved = jax.tree.map(lambda w: jnp.roll(w, step) * (1 + step % 2), params)
            carry = transform.update(*carry, moved, params, context(step))
            return carry, carry[0]["kernel"]

        return jax.lax.scan(one_step, first, jnp.arange(cases.NUM_STEPS))[1]

    masks = np.asarray(jax.jit(run)(params))
    assert np.sum(~masks[-1]) == plan.num_pruned
    for mask in masks:
        if np.sum(~mask) >= 240:  # 5/9
            PATTERN.check(mask)
    assert method == "gmp" or np.any(masks[-1] & ~masks[0]), "nothing was regrown"


def test_packing_keeps_every_bit_and_gather_follows(mask_of):
    weights = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    weights.ravel()[:2] = -0.0, np.inf
    for share in (5 / 9, 0.77, 0.9, 1.0):
        mask = mask_of(np.abs(weights), share)
        packed = PATTERN.pack(weights, mask)
        expected = np.where(mask, weights, np.float32(0))
        dense = np.asarray(packed.todense())
        np.testing.assert_array_equal(dense.view(np.uint32), expected.view(np.uint32))
        assert packed.row_starts[-1] == len(packed.values) == mask.any((0, 1)).sum()
        other = scores(seed=3)
        gathered = np.asarray(packed.gather(other).todense())
        np.testing.assert_array_equal(gathered[mask], other[mask])
    equinox = sj.KernelPattern(output_axis=0)
    turned = np.transpose(weights, (3, 2, 0, 1))
    mask = np.asarray(equinox.mask(np.abs(turned), 0.8))
    np.testing.assert_array_equal(mask.transpose(2, 3, 1, 0), mask_of(np.abs(weights), 0.8))
    np.testing.assert_array_equal(equinox.pack(turned, mask).todense(), np.where(mask, turned, 0))


def test_errors_at_the_door():
    with pytest.raises(ValueError, match=r"conv: .*needs 3x3 kernels"):
        PATTERN.validate((5, 5, 2, 2), "conv")
    mask = np.zeros(SHAPE, bool)
    mask[..., 0, 0] = True
    with pytest.raises(ValueError, match="1 misfits"):
        PATTERN.check(mask)
    with pytest.raises(ValueError, match="pack needs each kernel"):
        PATTERN.pack(np.ones(SHAPE), mask)
    mask = np.zeros(SHAPE, bool)
    mask[1, 1, :2, 0] = True
    with pytest.raises(ValueError, match="0 to 2 kernels"):
        PATTERN.check(mask)


def test_a_plan_of_kernel_patterns_survives_json():
    plan = sj.plan({"kernel": jnp.ones(SHAPE)}, {"kernel": PATTERN}, sparsity=0.8)
    assert sj.Plan.from_json(plan.to_json()) == plan
