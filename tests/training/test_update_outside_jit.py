"""A loop without jax.jit: what an update costs there, counted in traces."""

import weakref

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sparsejax as sj


def test_an_update_outside_jit_is_one_program_traced_once():
    params = {"kernel": jnp.asarray(np.random.default_rng(0).normal(size=(8, 8)), jnp.float32)}
    plan = sj.plan(params, {"kernel": sj.Unstructured()}, sparsity=0.5)
    traces = []

    def count(updates, state, params=None, **extra):
        traces.append(sorted(extra))
        return updates, state

    inner = optax.chain(
        optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), count),
        optax.adam(0.1),
    )
    tx = sj.sparsify(inner, sj.rigl(9, every=2), plan, key=jax.random.key(0))
    state = tx.init(params)
    names = [
        eqn.params.get("name") for eqn in jax.make_jaxpr(tx.update)(params, state, params).eqns
    ]
    assert "advance" not in names, "inlined under a trace"
    traces.clear()
    for step in range(6):
        updates, state = tx.update(params, state, params, value=jnp.float32(step))
        params = optax.apply_updates(params, updates)
    assert traces == [["value"]]
    assert np.sum(np.asarray(params["kernel"]) == 0) == 32
    for _ in range(2):  # a line search's function is called as it is, and no jit keeps it
        value_fn = lambda params: jnp.sum(params["kernel"])
        kept = weakref.ref(value_fn)
        _, state = tx.update(params, state, params, value_fn=value_fn)
        del value_fn
        assert kept() is None
