"""Paths read alike on every kind of params."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from flax import linen, nnx

from sparsejax import tree


class Net(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(3, 4, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)])


def test_paths_read_alike_for_every_kind_of_params():
    net = Net(nnx.Rngs(0))
    state = nnx.state(net, nnx.Param)
    expected = ["layers/0/bias", "layers/0/kernel", "layers/1/bias", "layers/1/kernel"]
    paths = lambda params: [path for path, _ in tree.leaves_with_paths(params)]
    assert paths(state) == expected
    assert paths(nnx.to_pure_dict(state)) == expected
    optimizer = nnx.Optimizer(net, optax.trace(0.9), wrt=nnx.Param)
    assert paths(nnx.state(optimizer.opt_state.trace)) == expected
    assert paths({"layers": [{"bias": 0, "kernel": 1}, {"bias": 0, "kernel": 1}]}) == expected
    assert paths({"layers": ({"bias": 0, "kernel": 1}, {"bias": 0, "kernel": 1})}) == expected
    module = eqx.filter(eqx.nn.MLP(2, 2, 4, 1, key=jax.random.key(0)), eqx.is_array)
    assert "layers/0/weight" in paths(module)
    boxed = {"kernel": linen.Partitioned(jnp.ones((2, 2)), names=(None, None))}
    assert paths(boxed) == ["kernel"]
    attention = {"value": {"kernel": 1}, "key": {"kernel": 2}}
    assert paths(attention) == ["key/kernel", "value/kernel"]


def test_masked_nodes_are_leaves_with_paths():
    masks = {"a": optax.MaskedNode(), "b": True}
    assert [path for path, _ in tree.leaves_with_paths(masks)] == ["a", "b"]
    doubled = tree.map_with_paths(lambda path, leaf: (path, leaf), masks)
    assert doubled == {"a": ("a", optax.MaskedNode()), "b": ("b", True)}
