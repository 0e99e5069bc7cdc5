"""Small federations that the tests share: a body, batch norm by hand, and a head."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sparsejax as sj

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 3)).astype(np.float32)
Y = RNG.normal(size=(12, 2)).astype(np.float32)
PARTS = ([0, 1, 2, 3, 4], [5, 6], [], [7, 8, 9, 10, 11])
KEY = jax.random.key(3)
PARAMS = {
    "body": {"kernel": jnp.asarray(RNG.normal(size=(3, 4)), jnp.float32), "bias": jnp.zeros(4)},
    "head": {"kernel": jnp.asarray(RNG.normal(size=(4, 2)), jnp.float32)},
}
STATISTICS = {"norm": {"mean": jnp.zeros(4)}, "head_norm": {"mean": jnp.zeros(2)}}
HEAD = (r"head/",)


def network(params, x):
    hidden = jax.nn.relu(x @ params["body"]["kernel"] + params["body"]["bias"])
    return hidden @ params["head"]["kernel"]


def loss(params, batch):
    x, y = batch
    return jnp.sum((network(params, x) - y) ** 2, -1)


def loss_with_statistics(params, statistics, batch):
    x, y = batch
    hidden = x @ params["body"]["kernel"] + params["body"]["bias"]
    outputs = hidden @ params["head"]["kernel"]
    means = {"norm": hidden.mean(0), "head_norm": outputs.mean(0)}
    new = {name: {"mean": 0.5 * statistics[name]["mean"] + 0.5 * means[name]} for name in means}
    return jnp.sum((outputs - y) ** 2, -1), new


def clients(parts=PARTS, length=None):
    return sj.federated.stack_clients((X, Y), parts, length=length)


def sgd(epochs=2, batch_size=2, tx=None):
    tx = optax.sgd(0.05, momentum=0.9) if tx is None else tx
    return sj.federated.local_sgd(loss, tx, epochs=epochs, batch_size=batch_size)


def same(actual, expected):
    leaves = zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True)
    for one, other in leaves:
        np.testing.assert_array_equal(one, other)


def close(actual, expected):
    leaves = zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True)
    for one, other in leaves:
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-6)
