"""Dense layers with calibration inputs, for the tests of one-shot pruning."""

import jax.numpy as jnp
import numpy as np

import sparsejax as sj


def inputs_like(gram):
    """Rows whose Gram matrix is the given one."""
    return jnp.asarray(np.linalg.cholesky(np.asarray(gram, float)).T, jnp.float32)


def calibrated(weights, x, pattern, sparsity):
    """A dense layer's params, plan and calibration."""
    params = {"kernel": jnp.asarray(weights, jnp.float32)}
    plan = sj.plan(params, {"kernel": pattern}, sparsity=sparsity)
    return params, plan, sj.post.calibrate(lambda p, x: x @ p["kernel"], params, plan, [x])


def random_layer(num_inputs, num_outputs, pattern, sparsity, seed=0):
    """Correlated inputs, so that it matters what makes up for what."""
    generator = np.random.default_rng(seed)
    mix = np.eye(num_inputs) + 0.3 * generator.normal(size=(num_inputs, num_inputs))
    x = generator.normal(size=(64, num_inputs)) @ mix * generator.lognormal(size=num_inputs)
    weights = generator.normal(size=(num_inputs, num_outputs))
    return *calibrated(weights, jnp.asarray(x, jnp.float32), pattern, sparsity), x
