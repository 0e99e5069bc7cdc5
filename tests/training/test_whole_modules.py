"""Equinox modules as they are, functions and strings in them, go through every function."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj
from tests import cases


class Network(eqx.Module):
    """Leaves of every kind: arrays, integers, a key's data, functions, numbers, a name, None."""

    layers: list
    dropout: eqx.nn.Dropout
    activation: object
    count: jax.Array
    name: str
    nothing: None = None

    def __init__(self, key):
        keys = jax.random.split(key, 2)
        self.layers = [eqx.nn.Linear(8, 16, key=keys[0]), eqx.nn.Linear(16, 4, key=keys[1])]
        self.dropout, self.activation = eqx.nn.Dropout(0.0), jax.nn.relu
        self.count, self.name = jnp.arange(3), "network"

    def __call__(self, x):
        return self.layers[1](self.dropout(self.activation(self.layers[0](x)), inference=True))


@pytest.mark.parametrize("name", ["gmp", "movement", "lsq"])
def test_a_whole_module_trains(name):
    model = Network(jax.random.key(0))
    plan = sj.plan(model, {"layers/0/weight": sj.Unstructured()}, sparsity=0.75)
    soft = cases.SOFT_METHODS[name].make() if name in cases.SOFT_METHODS else sj.gmp(1, 5, every=2)
    options = {"reparam": sj.quantizers.lsq(2)} if name == "lsq" else {}
    adam = optax.adam(0.02)
    tx = sj.sparsify(adam, soft, plan, key=jax.random.key(0), learned_tx=adam, **options)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(5, 8)), jnp.float32)

    @eqx.filter_jit
    def one_step(model, state):
        loss = lambda model: jnp.mean(jax.vmap(sj.forward(model, state))(x) ** 2)
        value, grads = eqx.filter_value_and_grad(loss)(model)
        updates, state = tx.update(grads, state, model)
        return eqx.apply_updates(model, updates), state, value

    state, losses = tx.init(model), []
    assert all(hasattr(leaf, "dtype") for leaf in jax.tree.leaves(state)), "jax.jit takes the state"
    for _ in range(10):
        model, state, value = one_step(model, state)
        losses.append(float(value))
    assert losses[-1] < losses[0]
    hard = sj.harden(model, state)
    assert hard.activation is jax.nn.relu and hard.name == "network" and hard.nothing is None
    np.testing.assert_array_equal(hard.count, [0, 1, 2])
    mask = np.asarray(sj.masks_of(state).layers[0].weight)
    assert np.sum(~mask) == plan.num_pruned
    assert np.all(np.asarray(hard.layers[0].weight)[~mask] == 0.0)
    assert jax.vmap(hard)(x).shape == (5, 4)
    assert sj.report(model, plan, state).planned.nonzeros == 32


def test_a_filtered_module_and_the_whole_one_make_equal_states():
    model = Network(jax.random.key(0))
    plan = sj.plan(model, {"layers/0/weight": sj.Unstructured()}, sparsity=0.75)
    tx = sj.sparsify(optax.adam(0.02), sj.one_shot(), plan, key=jax.random.key(0))
    whole = tx.init(model)
    for keep in (eqx.is_inexact_array, eqx.is_array):
        parts = eqx.filter(model, keep)
        assert jax.tree.structure(tx.init(parts)) == jax.tree.structure(whole)
        updates, _ = tx.update(eqx.filter(model, eqx.is_inexact_array), whole, parts)
        assert isinstance(eqx.apply_updates(model, updates), Network)


def test_plain_trees_may_hold_functions_and_numbers():
    params = {"kernel": jnp.ones((4, 4)), "scale": 2.0}
    plan = sj.plan(params, {"kernel": sj.Unstructured()}, sparsity=0.5)
    tx = sj.sparsify(optax.adam(0.1), sj.one_shot(), plan, key=jax.random.key(0))
    loss = lambda p: jnp.sum(p["kernel"] ** 2) * p["scale"]
    updates, _ = tx.update(jax.grad(loss)(params), tx.init(params), params)
    assert updates["scale"] != 0.0, "a number without functions beside it trains, as in optax"
    odd = {"kernel": params["kernel"], "activation": jax.nn.relu}
    assert tx.init(odd).masks["activation"] is None
