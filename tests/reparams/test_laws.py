"""Laws of Reparams: soft masks and quantizers need one more line and end at exact zeros."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj
from tests import cases

METHODS_AND_PATTERNS = [
    (name, pattern) for name, row in cases.SOFT_METHODS.items() for pattern in row.patterns
]
LEARNING_RATE = 0.02


def distance(params):
    """A loss with its minimum at dense weights, so that every weight keeps a gradient."""
    return sum(jnp.sum((leaf - 0.3) ** 2) for leaf in jax.tree.leaves(params))


def run(tx, params, num_steps=cases.NUM_STEPS, loss=distance):
    """Params, state, forward weights of each step, hard weights at the end; the README's loop."""

    def one_step(carry, _):
        params, state = carry
        weights = sj.effective(params, state)
        grads = jax.grad(lambda p: loss(sj.effective(p, state)))(params)
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), weights

    def whole(params):
        carry, weights = jax.lax.scan(one_step, (params, tx.init(params)), length=num_steps)
        return *carry, weights, sj.harden(*carry)

    return jax.jit(whole)(params)


@functools.cache
def trained(name, pattern):
    params = cases.dict_params()
    plan = cases.planned(*cases.PATTERNS[pattern], params)
    tx = sj.sparsify(
        optax.adamw(LEARNING_RATE),
        cases.SOFT_METHODS[name].make(),
        plan,
        key=jax.random.key(0, impl="rbg"),
        learned_tx=optax.adam(LEARNING_RATE),
    )
    return plan, tx, params, *run(tx, params)


@pytest.mark.parametrize(("name", "pattern"), METHODS_AND_PATTERNS)
def test_hard_weights_are_zero_where_the_masks_prune(name, pattern):
    plan, _, before, params, state, weights, hard = trained(name, pattern)
    masks = dict(sj.tree.leaves_with_paths(sj.masks_of(state)))
    values = dict(sj.tree.leaves_with_paths(hard))
    forward = dict(sj.tree.leaves_with_paths(weights))
    start = dict(sj.tree.leaves_with_paths(before))
    for leaf in plan.leaves:
        mask, value = np.asarray(masks[leaf.path]), np.asarray(values[leaf.path])
        assert np.all(value[~mask] == 0.0) and np.all(np.isfinite(value)), leaf.path
        leaf.pattern.check(mask, leaf.path)
        assert 0 < mask.sum() < mask.size
        if cases.SOFT_METHODS[name].exact:
            assert np.sum(~mask) == leaf.num_pruned, leaf.path
            assert np.all(value[mask] != 0.0), leaf.path
        assert np.all(np.isfinite(forward[leaf.path]))
    for path, value in values.items():
        if plan.get(path) is None:
            own = dict(sj.tree.leaves_with_paths(params))[path]
            np.testing.assert_array_equal(value, own, err_msg="a dense leaf is left alone")
            assert np.any(np.asarray(own) != np.asarray(start[path])), "dense leaves train"


@pytest.mark.parametrize("name", cases.SOFT_METHODS)
def test_state_keeps_its_structure_and_equal_transforms_agree(name):
    plan, tx, before, _, state, *_ = trained(name, cases.SOFT_METHODS[name].patterns[0])
    start = jax.eval_shape(tx.init, before)
    chex.assert_trees_all_equal_shapes_and_dtypes(start, state)
    assert jax.tree.structure(start) == jax.tree.structure(state)
    again = sj.sparsify(
        optax.adamw(LEARNING_RATE),
        cases.SOFT_METHODS[name].make(),
        plan,
        key=jax.random.key(0, impl="rbg"),
        learned_tx=optax.adam(LEARNING_RATE),
    )
    assert jax.tree.structure(jax.eval_shape(again.init, before)) == jax.tree.structure(state)


@pytest.mark.parametrize("name", cases.SOFT_METHODS)
def test_update_pulls_gradients_back_through_the_reparam(name):
    """One step of plain SGD from the middle of a training, against jax.vjp on `apply`."""
    plan, _, params, *_ = trained(name, cases.SOFT_METHODS[name].patterns[0])
    method = cases.SOFT_METHODS[name].make()
    key = jax.random.key(0, impl="rbg")
    tx = sj.sparsify(optax.sgd(1.0), method, plan, key=key, learned_tx=optax.sgd(1.0))
    first = lambda p, state: tx.update(sj.forward(p, state), state, p)[1]
    state = jax.jit(lambda p: first(p, tx.init(p)))(params)
    grads = cases.fake_grads(params, 5)

    def by_hand(params, state, grads):
        context = sj.masks.MaskContext(plan, state.step, None)
        apply = lambda raw: method.reparam.apply(raw, state.masks, state.reparam.learned, context)
        weights, pull = jax.vjp(apply, params)
        return weights, jax.tree.map(jnp.negative, pull(grads)[0])

    weights, expected = jax.jit(by_hand)(params, state, grads)
    forward, pull = jax.vjp(jax.jit(lambda p: sj.effective(p, state)), params)
    updates, after = jax.jit(tx.update)(grads, state, params)
    chex.assert_trees_all_close(forward, weights, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_equal(pull(grads)[0], grads)
    held = {} if method.reparam.keeps_pruned else dict(sj.tree.leaves_with_paths(after.masks))
    for (path, ours), theirs in zip(
        sj.tree.leaves_with_paths(updates), jax.tree.leaves(expected), strict=True
    ):
        kept = held.get(path, True)
        kept = True if isinstance(kept, optax.MaskedNode) else np.asarray(kept)
        np.testing.assert_allclose(
            np.where(kept, ours, 0.0), np.where(kept, theirs, 0.0), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("name", cases.SOFT_METHODS)
def test_vmap_over_trainings_equals_a_loop(name):
    _, tx, params, *_ = trained(name, cases.SOFT_METHODS[name].patterns[0])
    single = jax.jit(lambda scale: run(tx, jax.tree.map(lambda leaf: scale * leaf, params), 3)[3])
    scales = jnp.array([1.0, 0.5])
    batched = jax.vmap(single)(scales)
    for index in range(2):
        for one, many in zip(
            jax.tree.leaves(single(scales[index])), jax.tree.leaves(batched), strict=True
        ):
            np.testing.assert_allclose(many[index], one, rtol=2e-4, atol=2e-5)


# All frameworks for a Reparam with and without learned numbers; one framework for the others.
METHODS_AND_TREES = [
    (name, kind)
    for name in cases.SOFT_METHODS
    for kind in (cases.TREES if name in ("straight_through", "movement") else ("equinox",))
]


@pytest.mark.parametrize(("name", "kind"), METHODS_AND_TREES)
def test_any_params_train_soft(name, kind):
    params, rules, loss = cases.TREES[kind]()
    plan = sj.plan(params, rules, sparsity=0.75)
    method = cases.SOFT_METHODS[name].make()
    adam, key = optax.adam(LEARNING_RATE), jax.random.key(0, impl="rbg")
    tx = sj.sparsify(adam, method, plan, key=key, learned_tx=adam)
    params, state, _, hard = run(tx, params, loss=loss)
    masks = dict(sj.tree.leaves_with_paths(sj.masks_of(state)))
    for path, value in sj.tree.leaves_with_paths(hard):
        mask = masks[path]
        assert isinstance(mask, optax.MaskedNode) or np.all(np.asarray(value)[~mask] == 0.0)


@pytest.mark.parametrize("name", cases.QUANTIZERS)
def test_quantized_weights_have_few_values_and_pruned_ones_stay_zero(name):
    params = cases.dict_params()
    plan = cases.planned(sj.Unstructured(), 0.5, params)
    row = cases.QUANTIZERS[name]
    tx = sj.sparsify(
        optax.adam(LEARNING_RATE),
        sj.gmp(1, 9, every=2),
        plan,
        key=jax.random.key(0, impl="rbg"),
        learned_tx=optax.adam(LEARNING_RATE),
        reparam=row.make(),
    )
    params, state, _, hard = run(tx, params)
    masks = dict(sj.tree.leaves_with_paths(sj.masks_of(state)))
    values = dict(sj.tree.leaves_with_paths(hard))
    forward = dict(sj.tree.leaves_with_paths(sj.effective(params, state)))
    raw = dict(sj.tree.leaves_with_paths(params))
    for leaf in plan.leaves:
        kept = np.asarray(masks[leaf.path])
        assert np.sum(~kept) == leaf.num_pruned
        for weights in (raw, forward, values):
            assert np.all(np.asarray(weights[leaf.path])[~kept] == 0.0)
        assert len(np.unique(np.asarray(values[leaf.path])[kept])) <= row.levels
    for path, mask in masks.items():
        if isinstance(mask, optax.MaskedNode):
            np.testing.assert_array_equal(values[path], raw[path], err_msg="dense leaves stay")


@pytest.mark.parametrize(
    ("soft", "quantizer"),
    [("straight_through", quantizer) for quantizer in cases.QUANTIZERS] + [("movement", "lsq")],
)
def test_quantizers_follow_soft_masks(soft, quantizer):
    row = cases.QUANTIZERS[quantizer]
    params = cases.dict_params()
    plan = cases.planned(sj.Unstructured(), 0.5, params)
    method = cases.SOFT_METHODS[soft].make()
    key = jax.random.key(0, impl="rbg")
    adam = optax.adam(LEARNING_RATE)
    tx = sj.sparsify(adam, method, plan, key=key, learned_tx=adam, reparam=row.make())
    _, state, _, hard = run(tx, params)
    masks = dict(sj.tree.leaves_with_paths(sj.masks_of(state)))
    for leaf in plan.leaves:
        mask = np.asarray(masks[leaf.path])
        value = np.asarray(dict(sj.tree.leaves_with_paths(hard))[leaf.path])
        assert np.all(value[~mask] == 0.0)
        assert len(np.unique(value[mask])) <= row.levels


def test_what_learns_by_gradients_needs_an_optimizer():
    params = cases.dict_params()
    plan = cases.planned(sj.Unstructured(), 0.5, params)
    tx = sj.sparsify(optax.sgd(0.1), sj.soft.movement(1, 2), plan, key=jax.random.key(0))
    with pytest.raises(ValueError, match="pass learned_tx"):
        tx.init(params)
