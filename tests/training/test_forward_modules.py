"""Forward weights in flax, NNX and Equinox: one more line; what else a module holds stays."""

import functools

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training import train_state

import sparsejax as sj
from tests import cases

ADAM = optax.adam(0.02)


def test_flax_train_state_is_one_line():
    tree = cases.TREES["linen"]()
    plan = sj.plan(tree.params, tree.rules, sparsity=0.75)
    tx = sj.sparsify(ADAM, sj.soft.sr_ste(), plan, key=jax.random.key(0))
    state = train_state.TrainState.create(apply_fn=cases.Linen().apply, params=tree.params, tx=tx)

    @jax.jit
    def step(state):
        grads = jax.grad(lambda p: tree.loss(sj.forward(p, state.opt_state)))(state.params)
        return state.apply_gradients(grads=grads)

    hard = sj.harden(step(state).params, step(state).opt_state)
    assert np.mean(np.asarray(hard["params"]["body"]["kernel"]) == 0) == 0.75
    a, b = sj.forward(state.params, state), sj.effective(state.params, state.opt_state)
    chex.assert_trees_all_equal(a, b)


class WithStatistics(nnx.Module):
    """A module with trained weights, batch statistics and a stream of random numbers."""

    def __init__(self, rngs):
        self.body = nnx.Linear(8, 16, rngs=rngs)
        self.norm = nnx.BatchNorm(16, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.head = nnx.Linear(16, 4, rngs=rngs)

    def __call__(self, x):
        return self.head(self.dropout(jax.nn.relu(self.norm(self.body(x)))))


@functools.cache
def trained_nnx(line):
    """The module, its optimizer and its masks after some steps; `line` makes what is called."""
    model = WithStatistics(nnx.Rngs(0))
    plan = sj.plan(nnx.state(model, nnx.Param), {"body/kernel": sj.Unstructured()}, sparsity=0.75)
    tx = sj.sparsify(optax.sgd(0.1), sj.soft.sr_ste(), plan, key=jax.random.key(0))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(16, 8)), jnp.float32)

    @nnx.jit
    def step(model, optimizer):
        loss = lambda model: jnp.mean((line(model, optimizer)(x) - x[:, :4]) ** 2)
        value, grads = nnx.value_and_grad(loss)(model)
        optimizer.update(model, grads)
        return value

    losses = [float(step(model, optimizer)) for _ in range(8)]
    return model, optimizer, x, losses


def _by_hand(model, optimizer):
    """The same by hand: a copy with the forward weights, whose statistics are carried back."""
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    copy = nnx.merge(graph, sj.effective(params, optimizer.opt_state), rest, copy=True)

    def call(x):
        y = copy(x)
        nnx.update(model, nnx.state(copy, nnx.Not(nnx.Param)))
        return y

    return call


def test_nnx_modules_move_their_statistics_and_keep_their_weights():
    model, optimizer, x, losses = trained_nnx(sj.forward)
    assert losses[-1] < losses[0]
    assert np.any(np.asarray(model.norm.mean[...]) != 0.0), "batch statistics moved"
    assert int(model.dropout.rngs.count[...]) == 8, "random numbers moved"
    kernel = np.asarray(model.body.kernel[...])
    assert np.all(kernel != 0.0), "the weights underneath stay dense"
    model.eval()
    soft = sj.forward(model, optimizer)
    mask = np.asarray(sj.masks_of(optimizer)["body"]["kernel"][...])
    np.testing.assert_array_equal(soft.body.kernel[...], np.where(mask, kernel, 0.0))
    assert soft.norm.mean is model.norm.mean and soft.body.kernel is not model.body.kernel
    hard = sj.harden(model, optimizer.opt_state)
    np.testing.assert_array_equal(hard(x), soft(x))
    np.testing.assert_array_equal(model.body.kernel[...], kernel)
    model.train()


def test_nnx_modules_train_as_they_do_by_hand():
    ours, theirs = trained_nnx(sj.forward), trained_nnx(_by_hand)
    np.testing.assert_allclose(ours[3], theirs[3], rtol=1e-6)
    for a, b in zip(*(jax.tree.leaves(nnx.state(m[0])) for m in (ours, theirs)), strict=True):
        if not jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_an_unchanged_nnx_loop_is_told():
    with pytest.warns(sj.ForwardWarning, match=r"sj.forward\(model, optimizer\) in NNX"):
        trained_nnx(lambda model, optimizer: model)


def test_equinox_modules_are_one_line():
    model = eqx.nn.MLP(8, 4, 16, 1, key=jax.random.key(0))
    plan = sj.plan(model, {"layers/0/weight": sj.Unstructured()}, sparsity=0.75)
    tx = sj.sparsify(ADAM, sj.soft.sr_ste(), plan, key=jax.random.key(0))
    state, x = tx.init(model), jnp.ones((3, 8))

    @eqx.filter_jit
    def step(model, state):
        grads = eqx.filter_grad(lambda m: jnp.mean(jax.vmap(sj.forward(m, state))(x) ** 2))(model)
        updates, state = tx.update(grads, state, model)
        return eqx.apply_updates(model, updates), state

    model, state = step(model, state)
    assert np.mean(np.asarray(sj.harden(model, state).layers[0].weight) == 0) == 0.75
    assert sj.harden(model, state).activation is model.activation
