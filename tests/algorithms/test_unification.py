"""Micro-structured unification: the projection, tied training and the bits."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj
from tests import cases

BLOCK = sj.Block(1, 2)  # one output, two inputs


def planned(kernel, sparsity=0.0, pattern=BLOCK):
    params = {"kernel": jnp.asarray(kernel, jnp.float32)}
    return params, sj.plan(params, {"kernel": pattern}, sparsity=sparsity)


def test_projection_by_hand():
    """Blocks (3, -1), (0.5, 0.5), (2, 2.2), (0.1, 0): a quarter pruned, two thirds unified."""
    params, plan = planned([[3.0, 2.0], [-1.0, 2.2], [0.5, 0.1], [0.5, 0.0]], 0.25)
    nearest = sj.structured.onto_unified(plan, fraction=2 / 3)("kernel", params["kernel"])
    by_hand = [[3.0, 2.1], [-1.0, 2.1], [0.5, 0.0], [0.5, 0.0]]
    np.testing.assert_allclose(nearest, by_hand, rtol=1e-6)
    everything = sj.structured.onto_unified(plan, fraction=1.0)("kernel", params["kernel"])
    np.testing.assert_allclose(everything[:2, 0], [2.0, -2.0], rtol=1e-6)


def test_projection_is_the_exact_minimiser():
    """Against all choices of which two of six kept blocks share a magnitude, in float64."""
    weights = np.random.default_rng(0).normal(size=(4, 4))
    params, plan = planned(weights, 0.25)
    nearest = np.asarray(
        sj.structured.onto_unified(plan, fraction=1 / 3)("kernel", params["kernel"])
    )
    blocks = [(slice(2 * i, 2 * i + 2), j) for i in range(2) for j in range(4)]
    kept = sorted(blocks, key=lambda b: np.sum(weights[b] ** 2))[2:]
    losses = []
    for chosen in itertools.combinations(kept, 2):
        sizes = [np.abs(weights[b]) for b in chosen]
        losses.append(sum(np.sum((s - s.mean()) ** 2) for s in sizes))
    pruned = sum(np.sum(weights[b] ** 2) for b in blocks if b not in kept)
    assert np.sum((nearest - weights) ** 2) == pytest.approx(min(losses) + pruned, rel=1e-5)


@pytest.mark.parametrize("pattern", ["block_4x1", "block_2x2", "channel"])
def test_projection_is_idempotent_for_any_groups(pattern):
    params = cases.dict_params()
    plan = cases.planned(*cases.PATTERNS[pattern], params)
    project = sj.structured.onto_unified(plan, fraction=0.5)
    run = jax.jit(lambda weights: project("conv/kernel", weights))
    once = run(params["conv"]["kernel"])
    np.testing.assert_allclose(run(once), once, rtol=1e-6)
    assert int(jnp.sum(once == 0)) == plan["conv/kernel"].num_pruned
    assert project("head/kernel", params["head"]["kernel"]) is None


def test_tied_blocks_by_hand():
    params, plan = planned([[3.0, 2.0], [-1.0, -2.2]])
    masks = sj.masks.full_masks(params, plan)
    context = sj.masks.MaskContext(plan, jnp.int32(0), None)
    tied = sj.structured.tied_blocks(0.5)
    learned = tied.init(params, context)
    np.testing.assert_array_equal(learned["kernel"], [[0, 1], [0, -1]])
    weights, pull = jax.vjp(lambda p: tied.apply(p, masks, learned, context), params)
    np.testing.assert_allclose(weights["kernel"], [[3.0, 2.1], [-1.0, -2.1]], rtol=1e-6)
    grads = pull({"kernel": jnp.array([[5.0, 1.0], [6.0, 4.0]])})[0]
    # dL/dm = 1 * 1 + (-1) * 4 = -3, and each weight gets s dL/dm.
    np.testing.assert_array_equal(grads["kernel"], [[5.0, -3.0], [6.0, 3.0]])


def train(at, num_steps=20):
    """ADMM until `at`, then hard masks and ties; weights want to be normal ones."""
    params, plan = planned(np.random.default_rng(0).normal(size=(8, 8)), 0.25, sj.Block(2, 2))
    wanted = jnp.asarray(np.random.default_rng(1).normal(size=(8, 8)), jnp.float32)
    inner = optax.chain(
        sj.structured.admm(
            sj.structured.onto_unified(plan, fraction=0.5), every=2, rho=0.1, end=at
        ),
        optax.adamw(0.05, weight_decay=0.1),
    )
    tx = sj.sparsify(
        inner,
        sj.one_shot(at),
        plan,
        key=jax.random.key(0, impl="rbg"),
        reparam=sj.structured.tied_blocks(0.5, at=at),
        learned_tx=optax.adamw(0.05, weight_decay=0.1),
    )

    def step(carry, _):
        params, state = carry
        loss = lambda p: jnp.sum((sj.effective(p, state)["kernel"] - wanted) ** 2)
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), (sj.effective(params, state), state.reparam.learned)

    run = lambda p: jax.lax.scan(step, (p, tx.init(p)), length=num_steps)
    (params, state), history = jax.jit(run)(params)
    return plan, sj.harden(params, state), history


def test_masked_retraining_keeps_blocks_tied_and_zero():
    at = 10
    plan, hard, (weights, ties) = train(at)
    ties = np.asarray(ties["kernel"])
    assert not np.any(ties[:at]), "free before the step"
    assert np.sum(ties[at] != 0) == 4 * 6, "half of 12 kept blocks"
    np.testing.assert_array_equal(ties[at:], np.broadcast_to(ties[at], ties[at:].shape))
    assert np.any(np.asarray(weights["kernel"][-1]) != np.asarray(weights["kernel"][at]))
    storage = sj.structured.unified_storage(hard, plan)
    assert (storage.num_pruned, storage.num_unified, storage.num_free) == (4, 6, 6)


def test_storage_by_hand():
    params, plan = planned([[3.0, 2.0], [-1.0, -2.0], [0.0, 0.7], [0.0, -0.7]])
    storage = sj.structured.unified_storage(params, plan)
    assert (storage.num_pruned, storage.num_unified, storage.num_free) == (1, 2, 1)
    assert storage.bits == 2 * (32 + 2) + 64 + 4 * 2
    assert storage.dense_bits == 8 * 32
    assert sj.structured.unified_storage(params, plan, kind_bits=0).ratio == (2 * 34 + 64) / 256


def test_unification_errors():
    _, plan = planned(np.ones((2, 2)))
    with pytest.raises(ValueError, match="onto_unified needs a fraction"):
        sj.structured.onto_unified(plan, fraction=1.5)
    with pytest.raises(ValueError, match="tied_blocks needs a fraction"):
        sj.structured.tied_blocks(-0.1)
