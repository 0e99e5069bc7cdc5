"""Iterative hard thresholding against its definition."""

import jax
import numpy as np
import optax

import sparsejax as sj


def hard_threshold(weights, k):
    kept = np.argsort(-np.abs(weights))[:k]
    return np.where(np.isin(np.arange(len(weights)), kept), weights, 0)


def test_a_step_is_the_projected_gradient_step_and_finds_a_planted_signal():
    rng = np.random.default_rng(0)
    k, rate = 6, 0.3
    signal = np.zeros(60, np.float32)
    signal[rng.choice(60, k, replace=False)] = rng.choice([-1, 1], k) * rng.uniform(1, 2, k)
    design = rng.normal(size=(48, 60)).astype(np.float32) / np.sqrt(48)
    observed = design @ signal

    def gradient(w):
        return design.T @ (design @ w - observed)

    params = {"w": np.zeros(60, np.float32)}
    plan = sj.plan(params, {"w": sj.Unstructured()}, sparsity=1 - k / 60)
    tx = sj.sparsify(optax.sgd(rate), sj.pruning.iht(rate), plan, key=jax.random.key(0))
    state, update = tx.init(params), jax.jit(tx.update)
    for step in range(60):
        expected = hard_threshold(params["w"] - rate * gradient(params["w"]), k)
        updates, state = update({"w": gradient(params["w"])}, state, params)
        params = jax.tree.map(np.add, params, updates)
        if step < 5:
            np.testing.assert_allclose(params["w"], expected, atol=1e-6)
    np.testing.assert_allclose(params["w"], signal, atol=1e-2)
