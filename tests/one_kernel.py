"""A kernel under one method, step by step: what the tests of soft methods share."""

import jax
import jax.numpy as jnp
import optax

import sparsejax as sj


def planned(weights, pattern=None, sparsity=0.5):
    """Params with one kernel, their plan, and a function step -> context."""
    params = {"kernel": jnp.asarray(weights)}
    plan = sj.plan(params, {"kernel": pattern or sj.Unstructured()}, sparsity=sparsity)
    return params, plan, lambda step: sj.masks.MaskContext(plan, jnp.int32(step), None)


def forward(method, params, mask, context, learned=()):
    """The forward weights as a function of the raw ones."""
    masks = {"kernel": jnp.asarray(mask, bool)}
    apply = lambda params, learned: method.reparam.apply(params, masks, learned, context)
    return jax.vjp(jax.jit(apply), params, learned)


def steps_of(tx, params, num_steps, grads_of):
    """Params and states after each step, jitted."""
    update = jax.jit(tx.update)
    state, history = jax.jit(tx.init)(params), []
    jax.eval_shape(sj.forward, params, state)  # these gradients are said to be of these weights
    for step in range(num_steps):
        updates, state = update(grads_of(params, step), state, params)
        params = _apply(params, updates)
        history.append((params, state))
    return history


_apply = jax.jit(optax.apply_updates)


def constant(grads):
    return lambda params, step: jax.tree.map(jnp.asarray, grads)
