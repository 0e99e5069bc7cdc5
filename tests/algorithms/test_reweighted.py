"""Reweighted group lasso pushes weak groups to zero, and block sizes are chosen by time."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj


def planned(weights, pattern, sparsity=0.5):
    return sj.plan({"kernel": weights}, {"kernel": pattern}, sparsity=sparsity)


def test_the_gradient_by_hand():
    weights = jnp.array([[1.0, 2.0], [0.0, 1.0]])  # (in, out): outputs [1, 0] and [2, 1]
    tx = sj.structured.reweighted(planned(weights, sj.Channel()), 0.5, every=1, epsilon=1.0)
    params = {"kernel": weights}
    updates, _ = tx.update({"kernel": jnp.ones((2, 2))}, tx.init(params), params)
    # 2 * 0.5 * w / (|w_g|^2 + 1) with energies 1 and 5
    np.testing.assert_allclose(updates["kernel"], [[1.5, 1 + 2 / 6], [1.0, 1 + 1 / 6]], rtol=1e-6)


def test_columns_and_rows_of_blocks_are_both_pushed():
    weights = jnp.array([[1.0, 2.0], [3.0, 4.0]])  # one block; inputs are columns, outputs rows
    pattern = sj.BlockColumnRow(2, 2, kept_rows=1)
    tx = sj.structured.reweighted(planned(weights, pattern), 0.5, every=1, epsilon=1.0)
    params = {"kernel": weights}
    updates, _ = tx.update({"kernel": jnp.zeros((2, 2))}, tx.init(params), params)
    inputs, outputs = np.array([5.0, 25.0]), np.array([10.0, 20.0])
    strengths = 1 / (inputs[:, None] + 1) + 1 / (outputs[None] + 1)
    np.testing.assert_allclose(updates["kernel"], strengths * np.asarray(weights), rtol=1e-6)


def test_strengths_are_those_of_the_last_turn():
    params = {"kernel": jnp.ones((2, 2))}
    tx = sj.structured.reweighted(planned(params["kernel"], sj.Channel()), 1.0, every=3)
    state, step = tx.init(params), jax.jit(tx.update)
    seen = []
    for scale in (1.0, 2.0, 3.0, 4.0):
        scaled = jax.tree.map(lambda leaf, scale=scale: scale * leaf, params)
        _, state = step(params, state, scaled)
        seen.append(float(state.strengths["kernel"][0, 0]))
    energies = np.array([2.0, 2.0, 2.0, 32.0])
    np.testing.assert_allclose(seen, 1 / (energies + 1e-3), rtol=1e-5)


def test_weak_groups_vanish_and_strong_ones_stay():
    target = np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)
    target[:, 4:] *= 0.05  # four weak outputs
    params = {"kernel": jnp.asarray(target), "bias": jnp.ones(8)}
    plan = planned(target, sj.BlockColumnRow(4, 16))
    tx = optax.chain(sj.structured.reweighted(plan, 3e-3, every=50, end=280), optax.sgd(0.1))

    @jax.jit
    def step(params, state):
        grads = jax.tree.map(jnp.subtract, params, {"kernel": target, "bias": jnp.ones(8)})
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for _ in range(280):
        params, state = step(params, state)
    shrunk = jnp.abs(params["kernel"]).sum(0) / np.abs(target).sum(0)
    assert shrunk[4:].max() < 0.5 and shrunk[:4].min() > 0.98
    np.testing.assert_array_equal(params["bias"], 1)


def test_it_composes_with_sparsify():
    params = {"kernel": jax.random.normal(jax.random.key(0), (16, 8)), "bias": jnp.zeros(8)}
    plan = planned(params["kernel"], sj.BlockColumnRow(4, 8, kept_rows=2), 0.75)
    inner = optax.chain(sj.structured.reweighted(plan, 1e-2, every=2, end=3), optax.adam(1e-2))
    tx = sj.sparsify(inner, sj.one_shot(3), plan, key=jax.random.key(0))
    state, step = tx.init(params), jax.jit(tx.update)
    for _ in range(5):
        updates, state = step(jax.tree.map(jnp.ones_like, params), state, params)
        params = optax.apply_updates(params, updates)
    assert int((params["kernel"] == 0).sum()) == 96


@pytest.mark.parametrize("options", [{"every": 0}, {"every": 1, "epsilon": 0.0}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="reweighted needs every >= 1"):
        sj.structured.reweighted(planned(jnp.ones((2, 2)), sj.Channel()), 1.0, **options)
    with pytest.raises(ValueError, match="needs the params"):
        tx = sj.structured.reweighted(planned(jnp.ones((2, 2)), sj.Channel()), 1.0, every=1)
        tx.update({}, tx.init({}))


def test_the_finest_block_within_five_percent_is_taken():
    sizes = [sj.BlockColumnRow(rows, 16) for rows in (2, 4, 8, 16)]
    choose = lambda times: sj.structured.finest_fast_pattern(
        sizes, (64, 32), 0.9, measure=lambda _: times
    )
    assert choose([2.0, 1.04, 1.2, 1.0]).rows == 4
    assert choose([1.05, 1.0, 1.0, 1.0]).rows == 2
    assert choose([1.06, 1.06, 1.06, 1.0]).rows == 16
    assert sj.structured.finest_fast_pattern(sizes, (64, 32), 0.9) in sizes
    with pytest.raises(ValueError, match="at least one pattern"):
        sj.structured.finest_fast_pattern([], (64, 32), 0.9)
    with pytest.raises(ValueError, match=r"BlockColumnRow\(2, 16\) needs"):
        sj.structured.finest_fast_pattern(sizes, (10, 3), 0.9)
