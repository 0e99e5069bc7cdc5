"""Modules come back as modules that can be called, and do what the masked ones did."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import sparsejax as sj
from tests.shrinking import zoo_equinox, zoo_linen, zoo_nnx
from tests.shrinking.networks import distance, drawn, filled, masked, normal
from tests.shrinking.test_zoo import inputs


class Network(nnx.Module):
    """Layers of which each keeps numbers of another kind."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 16, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(16, rngs=rngs)
        self.depthwise = nnx.Conv(16, 16, (3, 3), feature_group_count=16, rngs=rngs)
        self.groups = nnx.GroupNorm(16, 4, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(4, 16, decode=False, rngs=rngs)
        self.out = nnx.Linear(16, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.conv(x), use_running_average=True))
        x = self.groups(self.depthwise(x))
        return self.out(self.attention(x.reshape(len(x), -1, x.shape[-1])).mean(1))


def shrunk_module(model, f, x, fraction=0.3):
    module = filled(model)
    groups = sj.channel_groups(f, module, *x)
    with pytest.warns(sj.SparsityWarning):
        small = sj.shrink(f, module, *x, keep=drawn(groups, fraction))
    want = eqx.filter_jit(f)(masked(groups, module, small.keep), *x)
    assert distance(eqx.filter_jit(f)(small.params, *x), want) < 1e-5
    return small


def call(module, *x):
    return module(*x)


def test_an_nnx_module_has_the_numbers_of_its_weights():
    model = nnx.eval_shape(lambda: Network(nnx.Rngs(0)))
    small = shrunk_module(model, call, [normal(2, 4, 4, 3)])
    own = small.params
    assert (own.conv.out_features, own.depthwise.feature_group_count) == (12, 12)
    assert (own.groups.num_groups, own.groups.group_size) == (3, 4)
    assert (own.attention.num_heads, own.attention.head_dim, own.attention.in_features) == (
        3,
        4,
        12,
    )
    assert own.conv.kernel.shape == (3, 3, 3, 12) and own.conv.kernel_size == (3, 3)
    assert set(small.refused) == {
        "conv/kernel#1",  # of a group, of which the norm takes the mean
        "attention/query/kernel#1",  # of a head, whose root divides the products
        "attention/value/kernel",  # which NNX wants to be as wide as the queries' heads
    }
    assert "takes the mean" in small.refused["conv/kernel#1"]


MODULES = {"decoder": zoo_nnx, "Swin": zoo_equinox, "autoencoder": zoo_equinox}


@pytest.mark.parametrize("name", MODULES)
def test_modules_of_the_zoo_can_be_called(name):
    zoo = MODULES[name]
    model, *example = zoo.MODELS[name]
    if zoo is zoo_nnx:
        shapes, f = nnx.eval_shape(lambda: model(nnx.Rngs(0))), call
    else:
        shapes = eqx.filter_eval_shape(model, jax.random.key(0))
        f = lambda module, *x: jax.vmap(module)(*x)
    assert shrunk_module(shapes, f, inputs(example), 0.5).refused


def test_moments_of_an_equinox_module_follow_and_its_training_goes_on():
    model = filled(eqx.nn.MLP(4, 3, 8, 2, key=jax.random.key(0)))
    x, tx = normal(5, 4), optax.adam(1e-2)
    state = tx.init(eqx.filter(model, eqx.is_array))
    keep = {"layers/0/weight": np.arange(8) < 5}
    f = lambda module, x: jax.vmap(module)(x)
    small = sj.shrink(f, model, x, keep=keep, opt_state=state)

    @eqx.filter_jit
    def step(module, state):
        grads = eqx.filter_grad(lambda m: jnp.sum(f(m, x) ** 2))(module)
        updates, state = tx.update(grads, state, module)
        return eqx.apply_updates(module, updates), state

    module, state = step(small.params, small.opt_state)
    assert module.layers[0].weight.shape == (5, 4) and module.layers[0].out_features == 5
    assert state[0].mu.layers[1].weight.shape == (8, 5)


def test_a_linen_module_is_made_anew_from_the_widths():
    model, image = zoo_linen.MODELS["MobileNet-v1"]
    variables = filled(jax.eval_shape(model.init, jax.random.key(0), image))
    (x,) = inputs([image])
    groups = sj.channel_groups(model.apply, variables, x)
    small = sj.shrink(model.apply, variables, x, keep=drawn(groups, 0.5))
    widths = [small.widths[group.name] for group in groups.prunable]
    again = zoo_linen.MobileNetV1(widths)
    assert distance(jax.jit(again.apply)(small.params, x), small.apply(small.params, x)) < 1e-5


def test_a_module_that_counts_for_itself_is_named():
    class Counting(eqx.Module):
        first: eqx.nn.Linear
        last: eqx.nn.Linear

        def __call__(self, x):
            h = jax.nn.relu(self.first(x))
            return self.last(h) / len(h)

    one, other = jax.random.split(jax.random.key(0))
    model = filled(Counting(eqx.nn.Linear(4, 8, key=one), eqx.nn.Linear(8, 2, key=other)))
    keep = {"first/weight": np.arange(8) < 5}
    with pytest.warns(sj.SparsityWarning, match="first/weight, because of `div`"):
        small = sj.shrink(call, model, normal(4), keep=keep)
    assert small.widths["first/weight"] == 8
