"""A checkpoint in the middle of training continues bit for bit."""

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx, serialization

import sparsejax as sj
from tests import cases


def trainer(method, reparam=None):
    params = cases.dict_params()
    plan = sj.plan(
        params, {"conv/kernel": sj.Unstructured(), "dense": (sj.NM(2, 4), 0.5)}, sparsity=0.75
    )
    inner = optax.chain(sj.add_penalty(sj.margin(), 0.01), optax.adamw(0.05))
    key = jax.random.key(0, impl="rbg")
    tx = sj.sparsify(inner, cases.METHODS[method].transform, plan, key=key, reparam=reparam)

    @cases.quick_jit
    def one_step(params, opt_state):
        grads = cases.fake_grads(sj.forward(params, opt_state), opt_state.step)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    return params, cases.quick_jit(tx.init)(params), one_step


@pytest.mark.parametrize("method", ["gmp", "sparse_evolution", "straight_through"])
def test_orbax_restores_bit_for_bit(method, tmp_path):
    reparam = sj.straight_through() if method == "straight_through" else None
    params, opt_state, one_step = trainer("gmp" if reparam else method, reparam)
    empty = jax.tree.map(np.zeros_like, (params, opt_state))
    for _ in range(4):
        params, opt_state = one_step(params, opt_state)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "step", {"params": params, "opt_state": opt_state})
        checkpointer.wait_until_finished()
        template = {"params": empty[0], "opt_state": empty[1]}
        restored = checkpointer.restore(tmp_path / "step", template)
    again = restored["params"], restored["opt_state"]
    assert jax.tree.structure(again) == jax.tree.structure((params, opt_state))
    for _ in range(6):
        params, opt_state = one_step(params, opt_state)
        again = one_step(*again)
    for a, b in zip(jax.tree.leaves((params, opt_state)), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)


def test_orbax_restores_an_nnx_optimizer(tmp_path):
    def make():
        model = cases.NNX(nnx.Rngs(0))
        params = nnx.state(model, nnx.Param)
        plan = sj.plan(params, {"layers/0/kernel": sj.Block(4, 1)}, sparsity=0.5)
        tx = sj.sparsify(optax.adam(0.05), sj.gmp(0, 6, 2), plan, key=jax.random.key(0))
        return model, nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def one_step(model, optimizer):
        optimizer.update(model, cases.fake_grads(nnx.state(model, nnx.Param), optimizer.step[...]))

    model, optimizer = make()
    for _ in range(3):
        one_step(model, optimizer)
    saved = nnx.to_pure_dict(nnx.state((model, optimizer)))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "step", saved)
        checkpointer.wait_until_finished()
        other = make()
        template = nnx.to_pure_dict(nnx.state(other))
        restored = checkpointer.restore(tmp_path / "step", template)
    state = nnx.state(other)
    nnx.replace_by_pure_dict(state, restored)
    nnx.update(other, state)
    for _ in range(4):
        one_step(model, optimizer)
        one_step(*other)
    for a, b in zip(
        jax.tree.leaves(nnx.state((model, optimizer))),
        jax.tree.leaves(nnx.state(other)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("method", ["gmp", "movement"])
def test_flax_saves_the_state_as_msgpack(method):
    soft = cases.SOFT_METHODS[method].make() if method == "movement" else sj.gmp(0, 4, every=2)
    params = {"kernel": np.float32([[1.0, -2.0], [3.0, 0.5]]), "bias": np.ones(2, np.float32)}
    plan = sj.plan(params, {"kernel": sj.Unstructured()}, sparsity=0.5)
    adam, key = optax.adam(0.1), jax.random.key(0)
    tx = sj.sparsify(adam, soft, plan, key=key, learned_tx=adam)

    @jax.jit
    def one_step(params, state):
        grads = cases.fake_grads(sj.forward(params, state), state.step)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params, state = one_step(params, tx.init(params))
    restored = serialization.from_bytes(tx.init(params), serialization.to_bytes(state))
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    ours, theirs = one_step(params, state), one_step(params, restored)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b)
