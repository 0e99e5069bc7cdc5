"""Masks made before training: SNIP, GraSP and SynFlow by hand, and what holds of all of them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj
from tests import cases


def planned(params, sparsity, pattern=None):
    return sj.plan(params, {"kernel": pattern or sj.Unstructured()}, sparsity=sparsity)


def quadratic(matrix):
    matrix = jnp.asarray(matrix)
    return lambda params, batch: 0.5 * params["kernel"] @ matrix @ params["kernel"] * batch


def mlp(params, x):
    for name in sorted(params):
        x = jax.nn.relu(x @ params[name]["kernel"])
    return x


def mlp_params(*widths, seed=0):
    generator = np.random.default_rng(seed)
    return {
        f"layer{i}": {"kernel": jnp.asarray(generator.normal(size=shape), jnp.float32)}
        for i, shape in enumerate(itertools.pairwise(widths))
    }


def test_snip_keeps_the_largest_product_of_weight_and_gradient():
    # loss = (w.b)^2 / 2 with w.b = 1 - 2 + 1.5 + 2 = 2.5: g = 2.5 b, |w g| = 2.5, 5, 3.75, 5.
    params = {"kernel": jnp.array([1.0, -2.0, 3.0, 0.5])}
    loss = lambda params, batch: 0.5 * jnp.dot(params["kernel"], batch) ** 2
    batch = jnp.array([1.0, 1.0, 0.5, 4.0])
    scores = sj.masks.importance.loss_based(loss, [batch])(params)
    np.testing.assert_allclose(scores["kernel"], [2.5, 5.0, 3.75, 5.0])
    masks = sj.before.snip(loss, [batch])(params, planned(params, 0.5))
    np.testing.assert_array_equal(masks["kernel"], [0, 1, 0, 1])
    # Two batches count by their mean gradient: the second one is orthogonal to w and adds none.
    other = jnp.array([2.0, 1.0, 0.0, 0.0])
    halved = sj.masks.importance.loss_based(loss, [batch, other])(params)
    np.testing.assert_allclose(halved["kernel"], [1.25, 2.5, 1.875, 2.5])


def test_grasp_keeps_what_holds_the_gradient_norm_up():
    # H = A, g = A w, and with A^2 = [[2, 1], [1, 1]]: w * (H g) = -1, 6 and 1, 1.5.
    block = np.array([[1.0, 1.0], [1.0, 0.0]])
    params = {"kernel": jnp.array([1.0, -3.0, 0.5, 1.0])}
    loss = quadratic(np.kron(np.eye(2), block))
    scores = sj.masks.importance.gradient_norm(loss, [1.0])(params)
    np.testing.assert_allclose(scores["kernel"], [-1.0, 6.0, 1.0, 1.5])
    masks = sj.before.grasp(loss, [1.0])(params, planned(params, 0.25))
    np.testing.assert_array_equal(masks["kernel"], [0, 1, 1, 1])


def test_the_hessian_gradient_product_agrees_with_finite_differences():
    params = mlp_params(4, 5, 3)
    batches = [
        jnp.asarray(np.random.default_rng(i).normal(size=(7, 4)), jnp.float32) for i in (1, 2)
    ]
    loss = lambda params, x: jnp.mean(jnp.tanh(mlp(params, x)) ** 2)
    gradient = sj.masks.importance.mean_gradient(loss, batches)
    product = sj.masks.importance.hessian_gradient(loss, batches)(params)
    step, g = 1e-2, gradient(params)
    ahead, behind = (
        gradient(jax.tree.map(lambda w, d, s=sign: w + s * step * d, params, g))
        for sign in (1.0, -1.0)
    )
    for exact, up, down in zip(*map(jax.tree.leaves, (product, ahead, behind)), strict=True):
        np.testing.assert_allclose(exact, (up - down) / (2 * step), atol=2e-4)


def test_synflow_by_hand_without_data():
    # R = 2 (1 + 0.5) + 1 (4 + 3.5) = 10.5; first layer 3, 7.5; second 2, 1 and 4, 3.5.
    params = {
        "layer0": {"kernel": jnp.array([[2.0, -1.0]])},
        "layer1": {"kernel": jnp.array([[1.0, 0.5], [4.0, -3.5]])},
    }
    masks = sj.before.synflow(mlp, jnp.ones((1, 1)), rounds=1)(params, planned(params, 0.5))
    np.testing.assert_array_equal(masks["layer0"]["kernel"], [[0, 1]])
    np.testing.assert_array_equal(masks["layer1"]["kernel"], [[0, 0], [1, 1]])
    for scale in (0.01, 100.0):
        scaled = sj.before.synflow(mlp, jnp.full((1, 1), scale), rounds=1)(
            params, planned(params, 0.5)
        )
        assert all(jax.tree.leaves(jax.tree.map(np.array_equal, masks, scaled)))


def test_synflow_agrees_with_a_slow_oracle_and_never_empties_a_layer():
    params = mlp_params(6, 30, 4, 20, 3)
    plan, rounds = planned(params, 0.95), 20
    masks = sj.before.synflow(mlp, jnp.ones((1, 6)), rounds=rounds)(params, plan)
    weights = [np.abs(np.asarray(p["kernel"], np.float64)) for p in params.values()]
    kept = [np.ones(w.shape, bool) for w in weights]
    for index in range(rounds):
        own = [w * k for w, k in zip(weights, kept, strict=True)]
        scores = []
        for i, w in enumerate(own):
            before, after = np.ones((1, 6)), np.ones((3, 1))
            for earlier in own[:i]:
                before = before @ earlier
            for later in reversed(own[i + 1 :]):
                after = later @ after
            scores.append(w * (before.T @ after.T))
        total = sum(w.size for w in weights)
        pruned = int(np.floor((1 - 0.05 ** ((index + 1) / rounds)) * total + 0.5))
        threshold = np.sort(np.concatenate([s.ravel() for s in scores]))[pruned]
        kept = [s >= threshold for s in scores]
    for mask, wanted in zip(jax.tree.leaves(masks), kept, strict=True):
        np.testing.assert_array_equal(mask, wanted)
        assert wanted.any()


def test_synflow_says_when_nothing_flows():
    params = {"layer0": {"kernel": jnp.full((2, 2), 1e30)}, "layer1": {"kernel": jnp.ones((2, 2))}}
    with pytest.raises(ValueError, match="smaller positive example"):
        sj.before.synflow(mlp, jnp.full((1, 2), 1e30))(params, planned(params, 0.5))
    params = mlp_params(4, 8, 2)
    bounded = lambda params, x: jnp.minimum(mlp(params, x), 6.0)
    with pytest.raises(ValueError, match="at layer0/kernel; pass a smaller"):
        sj.before.synflow(bounded, jnp.full((1, 4), 1e3))(params, planned(params, 0.5))
    # Scores of 1 in the first layer and of 4 in the second, which has the five best of 500.
    params = jax.tree.map(jnp.ones_like, mlp_params(4, 100, 1))
    with pytest.raises(ValueError, match="at the end; pass a larger example"):
        sj.before.synflow(mlp, jnp.ones((1, 4)), rounds=1)(params, planned(params, 0.99))
    with pytest.raises(ValueError, match="rounds >= 1"):
        sj.before.synflow(mlp, jnp.ones((1, 2)), rounds=0)
    with pytest.raises(ValueError, match="at least one batch"):
        sj.before.snip(quadratic(np.eye(2)), [])


def makers():
    batches = [jnp.asarray(np.random.default_rng(0).normal(size=(5, 8)), jnp.float32)]
    loss = lambda params, x: jnp.mean((mlp(params, x) - 1.0) ** 2)
    return {
        "snip": sj.before.snip(loss, batches),
        "grasp": sj.before.grasp(loss, batches),
        "synflow": sj.before.synflow(mlp, jnp.ones((1, 8)), rounds=3),
        "scores": sj.masks.masks_from_scores(lambda params: jax.tree.map(jnp.abs, params)),
    }


@pytest.mark.parametrize("maker", makers())
@pytest.mark.parametrize("pattern", ["unstructured", "block_4x1", "nm_2_4"])
def test_initial_masks_meet_the_plan_and_survive_training(maker, pattern):
    params = mlp_params(8, 16, 12)
    plan = planned(params, cases.PATTERNS[pattern][1], cases.PATTERNS[pattern][0])
    tx = sj.sparsify(
        optax.adam(0.05),
        sj.chain(),
        plan,
        key=jax.random.key(0),
        initial_masks=makers()[maker],
    )
    state = jax.jit(tx.init)(params)
    first = sj.masks_of(state)
    pruned = sum(int(np.sum(~np.asarray(mask))) for mask in jax.tree.leaves(first))
    slack = 0 if pattern != "block_4x1" else 4
    assert abs(pruned - plan.num_pruned) <= slack
    for leaf in plan.leaves:
        leaf.pattern.check(np.asarray(first[leaf.path.split("/")[0]]["kernel"]), leaf.path)
    updates, state = tx.update(cases.fake_grads(params, 1), state, params)
    after = optax.apply_updates(params, updates)
    for mask, old, new in zip(
        *map(jax.tree.leaves, (first, sj.masks_of(state), after)), strict=True
    ):
        np.testing.assert_array_equal(mask, old)
        assert np.all(np.asarray(new)[~np.asarray(mask)] == 0.0)
    optax.tree.map_params(tx, lambda leaf: leaf, state)


def test_masks_from_scores_leaf_by_leaf_meets_each_target():
    params = {"a": {"kernel": jnp.arange(8.0)}, "b": {"kernel": jnp.arange(100.0, 108.0)}}
    plan = planned(params, 0.5)
    by_leaf = sj.masks.masks_from_scores(params, globally=False)(params, plan)
    assert [int(mask.sum()) for mask in jax.tree.leaves(by_leaf)] == [4, 4]
    by_network = sj.masks.masks_from_scores(params)(params, plan)
    assert [int(mask.sum()) for mask in jax.tree.leaves(by_network)] == [0, 8]


@pytest.mark.parametrize("pattern", cases.PATTERNS)
def test_masks_from_zeros_find_the_masks_again(pattern):
    params = cases.dict_params()
    plan = cases.planned(*cases.PATTERNS[pattern], params)
    leaves = dict(sj.tree.leaves_with_paths(params))
    masks = {
        leaf.path: leaf.pattern.mask(jnp.abs(leaves[leaf.path]), leaf.sparsity)
        for leaf in plan.leaves
    }
    pruned = sj.tree.map_with_paths(lambda path, p: p * masks.get(path, True), params)
    found = dict(sj.tree.leaves_with_paths(sj.masks.masks_from_zeros(pruned, plan)))
    for path, mask in masks.items():
        np.testing.assert_array_equal(found[path], mask)


def test_masks_from_zeros_keeps_whole_groups():
    params = {"kernel": jnp.zeros((4, 8)).at[1, 2].set(1.0).at[3, 7].set(-1.0)}
    for pattern in (sj.Unstructured(), sj.Block(4, 1), sj.Channel(), sj.NM(2, 4)):
        plan = sj.plan(params, {"kernel": pattern}, sparsity=0.5)
        mask = np.asarray(sj.masks.masks_from_zeros(params, plan)["kernel"])
        pattern.check(mask)
        assert mask[1, 2] and mask[3, 7]
        assert (
            mask.sum()
            == {"Unstructured": 2, "Block": 8, "Channel": 8, "NM": 2}[type(pattern).__name__]
        )
