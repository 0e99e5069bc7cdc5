"""Pruned in training, the leaves of a group share one mask, and shrink cuts all that is pruned."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj
from tests.shrinking.networks import distance, normal

X = normal(6, 4)
PARAMS = {"in": normal(4, 8), "f": normal(8, 8) / 3, "g": normal(8, 6) / 3, "out": normal(6, 3)}


def apply(p, x):
    h = x @ p["in"]
    return jax.nn.relu((h + jnp.tanh(h @ p["f"])) @ p["g"]) @ p["out"]


GROUPS = sj.channel_groups(apply, PARAMS, X)
PLAN = sj.plan(PARAMS, {"^(in|f|g)$": sj.Channel()}, sparsity=0.5)


def test_a_training_prunes_residual_channels_as_one():
    cut = sj.structured.prune_channels(GROUPS, sj.schedules.cubic(0, 4))
    tx = sj.sparsify(optax.adam(1e-2), sj.every(2, cut, end=4), PLAN, key=jax.random.key(0))
    loss = lambda p: jnp.mean((apply(p, X) - X[:, :3]) ** 2)

    @jax.jit
    def step(params, state):
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    params, state = PARAMS, tx.init(PARAMS)
    counts = []
    for _ in range(6):
        params, state = step(params, state)
        masks = sj.masks_of(state)
        counts.append(int(masks["in"].any(0).sum()))
        np.testing.assert_array_equal(masks["in"].any(0), masks["f"].any(0))
        np.testing.assert_array_equal(masks["in"], masks["in"].any(0) | np.zeros((4, 1), bool))
    assert counts == sorted(counts, reverse=True) and counts[-1] == 4
    small = sj.shrink(apply, params, X, keep=masks, opt_state=state)
    assert small.widths == {"in": 4, "g": 3, "out": 3} and not small.refused
    assert distance(small.apply(small.params, X), jax.jit(apply)(params, X)) < 1e-5
    adam = small.opt_state.inner_state  # to go on with, without masks
    _, adam = jax.jit(optax.adam(1e-2).update)(small.params, adam, small.params)
    assert adam[0].mu["f"].shape == (4, 4)


def test_scores_of_all_leaves_of_a_group_add_up_by_hand():
    params = {**PARAMS, "in": np.eye(4, 8, dtype=np.float32), "f": np.zeros((8, 8), np.float32)}
    params["f"][:, 7] = 0.2  # sums 1.6: more than any 1 of "in"
    plan = sj.plan(params, {"^(in|f)$": (sj.Channel(), 0.625)})
    cut = sj.structured.prune_channels(GROUPS, lambda step: 1.0)
    state = sj.sparsify(optax.sgd(0.1), cut, plan, key=jax.random.key(0)).init(params)
    tx = sj.sparsify(optax.sgd(0.1), cut, plan, key=jax.random.key(0))
    _, state = jax.jit(tx.update)(params, state, params)
    kept = np.flatnonzero(sj.masks_of(state)["f"].any(0))
    assert kept.tolist() == [0, 1, 7] or kept.tolist() == [2, 3, 7]


def test_what_is_pruned_stays_so_by_any_score():
    cut = sj.structured.prune_channels(GROUPS, lambda step: 1.0, score=sj.scores.random)
    tx = sj.sparsify(optax.sgd(0.1), cut, PLAN, key=jax.random.key(0))
    state, seen = tx.init(PARAMS), []
    for _ in range(3):
        _, state = jax.jit(tx.update)(PARAMS, state, PARAMS)
        seen.append(np.asarray(sj.masks_of(state)["f"].any(0)))
    assert [own.sum() for own in seen] == [4, 4, 4]
    np.testing.assert_array_equal(seen[0], seen[2])


def test_a_leaf_along_no_group_is_refused():
    plan = sj.plan(PARAMS, {"^out$": sj.Channel()}, sparsity=0.5)
    cut = sj.structured.prune_channels(GROUPS, lambda step: 1.0)
    tx = sj.sparsify(optax.sgd(0.1), cut, plan, key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"^out: prune_channels needs leaves that are planned"):
        tx.init(PARAMS)
