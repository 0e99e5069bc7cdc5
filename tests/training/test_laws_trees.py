"""Laws over frameworks: the same lines serve linen, NNX, Equinox, tuples and lists."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import sparsejax as sj
from tests import cases


@pytest.mark.parametrize("kind", cases.TREES)
def test_any_params_train_sparse(kind):
    params, rules, loss = cases.TREES[kind]()
    plan = sj.plan(params, rules, sparsity=0.75)
    key = jax.random.key(0, impl="rbg")
    tx = sj.sparsify(optax.adamw(0.05), sj.rigl(9, every=3), plan, key=key)
    opt_state = jax.jit(tx.init)(params)
    structure = jax.tree.structure((params, opt_state))

    @jax.jit
    def one_step(params, opt_state):
        value, grads = jax.value_and_grad(loss)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    losses, masks = [], []
    for _ in range(10):
        params, opt_state, value = one_step(params, opt_state)
        losses.append(float(value))
        kept = dict(sj.tree.leaves_with_paths(sj.masks_of(opt_state)))
        masks.append({leaf.path: np.asarray(kept[leaf.path]) for leaf in plan.leaves})
        values = dict(sj.tree.leaves_with_paths(params))
        for path, mask in masks[-1].items():
            assert np.all(np.asarray(values[path])[~mask] == 0.0)
            assert np.sum(~mask) == plan[path].num_pruned
    assert jax.tree.structure((params, opt_state)) == structure
    assert losses[-1] < losses[1]
    assert any(np.any(masks[-1][path] & ~masks[0][path]) for path in masks[0])
    assert sum(isinstance(leaf, optax.MaskedNode) for leaf in kept.values()) >= 1
    dense = [path for path in values if plan.get(path) is None]
    assert all(np.all(np.asarray(values[path]) != 0) for path in dense if "head" in path)


def test_nnx_optimizer_trains_sparse_and_its_masks_are_found():
    model = cases.NNX(nnx.Rngs(0))
    params = nnx.state(model, nnx.Param)
    plan = sj.plan(params, {"layers/1": None, "kernel": sj.Block(2, 2)}, sparsity=0.75)
    key = jax.random.key(0, impl="rbg")
    tx = sj.sparsify(optax.adamw(0.05), sj.gmp(0, 6, every=2), plan, key=key)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(5, 8)), jnp.float32)

    @nnx.jit
    def one_step(model, optimizer):
        value, grads = nnx.value_and_grad(lambda model: jnp.mean(model(x) ** 2))(model)
        optimizer.update(model, grads)
        return value

    losses = [float(one_step(model, optimizer)) for _ in range(10)]
    assert losses[-1] < losses[0]
    for _, variable in nnx.to_flat_state(nnx.state(optimizer)):
        assert hasattr(variable[...], "dtype"), "each variable of the optimizer holds an array"
    kernel = np.asarray(model.layers[0].kernel[...])
    masks = dict(sj.tree.leaves_with_paths(sj.masks_of(optimizer.opt_state)))
    mask = np.asarray(masks["layers/0/kernel"])
    assert np.sum(~mask) == 96
    assert np.all(kernel[~mask] == 0.0) and np.all(kernel[mask] != 0.0)
    params = nnx.state(model, nnx.Param)
    hard = sj.harden(params, optimizer.opt_state)
    same = sj.effective(params, optimizer.opt_state)
    for a, b, c in zip(*map(jax.tree.leaves, (params, hard, same)), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)


def test_nnx_straight_through():
    model = cases.NNX(nnx.Rngs(0))
    params = nnx.state(model)
    plan = sj.plan(params, {"layers/0/kernel": sj.Unstructured()}, sparsity=0.75)
    tx = sj.sparsify(
        optax.adam(0.05),
        sj.one_shot(),
        plan,
        key=jax.random.key(0),
        reparam=sj.soft.straight_through(),
    )
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    loss = lambda model: jnp.mean(sj.forward(model, optimizer)(jnp.ones((2, 8))) ** 2)
    optimizer.update(model, nnx.grad(loss)(model))
    forward = sj.forward(model, optimizer)
    assert np.sum(np.asarray(forward.layers[0].kernel[...]) == 0.0) == 96
    assert np.all(np.asarray(model.layers[0].kernel[...]) != 0.0)
