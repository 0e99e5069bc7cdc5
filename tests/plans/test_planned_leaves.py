"""Leaves that are alike share a loop: with the same masks, in a program that does not grow."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj
from sparsejax.plans import planned_leaves
from tests import cases

METHODS = {
    "gmp": sj.gmp(1, 9, every=2),
    "rigl": sj.rigl(9, every=2),
    "sparse_evolution": sj.sparse_evolution(every=2),
    "mest_em": sj.sparse_training.mest_em((4, 9), every=2),
    "pdp": sj.soft.pdp(1, 9, temperature=0.1, globally=False),
}
pytestmark = pytest.mark.filterwarnings("ignore::sparsejax.ForwardWarning")


def layers(num_layers, *, shape=(16, 8)):
    """Alike layers, and one of another type."""
    draw = np.random.default_rng(0).normal
    params = {
        f"layer_{i}": {"kernel": jnp.asarray(draw(size=shape), jnp.float32)}
        for i in range(num_layers)
    }
    params["layer_90"] = {"kernel": jnp.asarray(draw(size=shape), jnp.bfloat16)}
    return params


def transform_of(method, params):
    plan = sj.plan(params, {"kernel": sj.Unstructured()}, sparsity=0.75)
    key = jax.random.key(0, impl="rbg")
    return sj.sparsify(optax.sgd(0.1), METHODS[method], plan, key=key)


def masks_after_steps(method, params, num_steps=3):
    tx = transform_of(method, params)
    state = jax.jit(tx.init)(params)
    update = jax.jit(tx.update)
    for step in range(num_steps):
        _, state = update(cases.fake_grads(params, step), state, params)
    return jax.tree.leaves(sj.masks_of(state))


@pytest.mark.parametrize("method", METHODS)
def test_masks_are_those_of_each_leaf_by_itself(method, monkeypatch):
    params = layers(3)
    monkeypatch.setattr(planned_leaves, "_WEIGHTS_IN_A_LOOP", 1)
    alone = masks_after_steps(method, params)
    monkeypatch.setattr(planned_leaves, "_WEIGHTS_IN_A_LOOP", 2 * 16 * 8)  # two, and one left over
    for mask, expected in zip(masks_after_steps(method, params), alone, strict=True):
        np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("method", METHODS)
def test_the_program_grows_by_less_than_a_layer(method):
    def num_loops(num_layers):
        params = layers(num_layers)
        tx = transform_of(method, params)
        state = jax.eval_shape(tx.init, params)
        return jax.jit(tx.update).lower(params, state, params).as_text().count("stablehlo.while")

    assert num_loops(12) == num_loops(3)


def test_the_program_has_no_more_reductions_over_a_mesh_for_more_layers():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.NamedSharding(mesh, jax.P("data"))

    def num_reductions(num_layers):
        params = {f"layer_{i}": {"kernel": jnp.ones((16, 8))} for i in range(num_layers)}
        params = jax.device_put(params, sharding)
        tx = transform_of("gmp", params)
        state = jax.jit(tx.init)(params)
        text = jax.jit(tx.update).lower(params, state, params).compile().as_text()
        assert "all-gather" not in text
        return text.count("all-reduce(")

    assert 0 < num_reductions(6) == num_reductions(2)
