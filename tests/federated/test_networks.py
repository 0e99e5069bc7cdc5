"""Rounds of linen, NNX and Equinox networks, with batch norm where they have it."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import sparsejax as sj
from sparsejax.tree import leaves_with_paths
from tests.federated.federations import KEY, X, Y, clients


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(use_running_average=not train, name="norm")(nn.Dense(4, name="body")(x))
        return nn.Dense(2, name="head")(jax.nn.relu(x))


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.body = nnx.Linear(3, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.head = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        return self.head(jax.nn.relu(self.norm(self.body(x))))


class Equinox(eqx.Module):
    body: eqx.nn.Linear
    head: eqx.nn.Linear
    act: callable = jax.nn.relu

    def __call__(self, x):
        return self.head(self.act(self.body(x)))


def squares(outputs, y):
    return jnp.sum((outputs - y) ** 2, -1)


def linen():
    model = Linen()
    variables = model.init(KEY, X, train=False)

    def loss(params, statistics, batch):
        outputs, new = model.apply(
            {"params": params, **statistics}, batch[0], train=True, mutable=["batch_stats"]
        )
        return squares(outputs, batch[1]), dict(new)

    return variables["params"], {"batch_stats": variables["batch_stats"]}, loss


def an_nnx_state():
    graph, params, statistics = nnx.split(Nnx(nnx.Rngs(0)), nnx.Param, ...)

    def loss(params, statistics, batch):
        model = nnx.merge(graph, params, statistics, copy=True)
        return squares(model(batch[0]), batch[1]), nnx.state(model, nnx.Not(nnx.Param))

    return params, statistics, loss


def equinox():
    model = Equinox(eqx.nn.Linear(3, 4, key=KEY), eqx.nn.Linear(4, 2, key=KEY))
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def loss(params, statistics, batch):
        return squares(jax.vmap(eqx.combine(params, static))(batch[0]), batch[1]), statistics

    return params, (), loss


@pytest.mark.parametrize("make", [linen, an_nnx_state, equinox])
def test_each_kind_of_network_trains_and_keeps_its_head(make):
    params, statistics, loss = make()
    body = next(path for path, leaf in leaves_with_paths(params) if leaf.shape in ((3, 4), (4, 3)))
    plan = sj.plan(params, {body: sj.Unstructured()}, sparsity=0.5)
    tx = sj.sparsify(optax.sgd(0.1), sj.static_random(), plan, key=KEY)
    train = sj.federated.local_sgd(loss, tx, epochs=1, batch_size=None, has_statistics=True)
    fed = sj.federated.fedper(train, [r"^head/"])
    start = fed.init(params, statistics, num_clients=4)
    state, report = fed.round(start, clients(), KEY)
    assert jax.tree.structure(state) == jax.tree.structure(start)
    # Equal masks everywhere: the average has their zeros.
    of_base = dict(leaves_with_paths(state.base.params))
    assert int((np.asarray(of_base[body]) == 0).sum()) == 6
    models = fed.models(state)
    assert jax.tree.structure(models.params) == jax.tree.structure(params)
    for path, leaf in leaves_with_paths(models.params):
        alike = (np.asarray(leaf) == np.asarray(leaf)[:1]).all()
        assert alike == (not path.startswith("head/")), path
    base_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state.base))
    assert report.bytes_up.tolist() == [base_bytes, base_bytes, 0, base_bytes]
    values, _ = loss(*jax.tree.map(lambda leaf: leaf[0], tuple(models)), (X, Y))
    assert jnp.isfinite(values).all()
