"""Penalties: values and gradients against float64 by hand, and the transform that carries them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj


def of(penalty, *leaves, scalars=None):
    """The value and the gradient of the first leaf."""
    params = [jnp.asarray(leaf, jnp.float32) for leaf in leaves]
    scalars = jax.jit(penalty.init)(params) if scalars is None else scalars
    value, grads = jax.jit(jax.value_and_grad(penalty.value))(params, scalars)
    return float(value), np.asarray(grads[0])


def value_and_slopes(penalty):
    return jax.jit(jax.value_and_grad(penalty.value, (0, 1)))


def test_linf_is_the_sum_of_maxima_and_ties_share_the_gradient():
    value, grad = of(sj.linf(), [[3.0, -3.0, 1.0]], [[0.5, -2.0]])
    assert value == 5.0
    np.testing.assert_array_equal(grad, [[0.5, -0.5, 0.0]])
    assert of(sj.linf(), [[0.0, 0.0]])[1].tolist() == [[0.0, 0.0]]


def test_margin_by_hand_uses_the_sum():
    params = [jnp.array([[3.0, -2.0, 0.5, 1.0]])]
    penalty = sj.margin()
    assert float(penalty.init(params)[0]) == pytest.approx(2 * np.std([3.0, -2.0, 0.5, 1.0]))
    margin = [jnp.float32(-1.0)]  # |M| counts, whatever its sign
    value, (grads, slope) = value_and_slopes(penalty)(params, margin)
    assert float(value) == 1.0 + 2.0 + 1.0
    np.testing.assert_array_equal(grads[0], [[1.0, -1.0, 0.0, 0.0]])
    assert float(slope[0]) == -(1.0 - 2.0)  # d|M|/dM = -1 times 1 - #outside


def test_soft_min_max_against_float64_and_its_minimum():
    weights = np.random.default_rng(0).normal(size=10_000) * 0.05
    weights[0] = 0.4
    for alpha in (1.0, 10.0, 100.0, 1000.0):
        up = np.exp(alpha * (weights - weights.max()))
        down = np.exp(-alpha * (weights - weights.min()))
        soft_range = (weights * up).sum() / up.sum() - (weights * down).sum() / down.sum()
        value, _ = of(sj.soft_min_max(alpha), weights.reshape(100, 100))
        assert value == pytest.approx(soft_range + np.exp(-alpha), rel=2e-5)
    # The minimum lies near ln(1 / (2 var)): papers write 5.296 for sigma = 0.05.
    alphas = np.linspace(3, 8, 101)
    penalty = sj.soft_min_max()
    leaf = [jnp.asarray(weights.reshape(100, 100), jnp.float32)]
    values = jax.jit(jax.vmap(lambda a: penalty.value(leaf, [a])))(alphas.astype(np.float32))
    assert alphas[np.argmin(values)] == pytest.approx(np.log(1 / (2 * weights.var())), abs=0.15)


def test_soft_min_max_starts_at_five_over_std_and_computes_in_float32():
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(64, 64)) * 0.05, jnp.bfloat16)
    penalty = sj.soft_min_max()
    (alpha,) = jax.jit(penalty.init)([weights])
    assert alpha.dtype == jnp.float32
    assert float(alpha) == pytest.approx(5 / np.std(np.asarray(weights, np.float64)), rel=1e-4)
    value, (grads, slope) = value_and_slopes(penalty)([weights], [alpha])
    exact, _ = value_and_slopes(penalty)([weights.astype(jnp.float32)], [alpha])
    assert float(value) == float(exact) and grads[0].dtype == jnp.bfloat16
    assert float(slope[0]) > 0.0, "a learnable alpha drifts down"
    fixed = sj.soft_min_max(learnable=False)
    assert float(jax.jit(jax.grad(fixed.value, 1))([weights], [alpha])[0]) == 0.0
    assert np.isfinite(of(penalty, np.full((4, 4), 0.5))[0]), "constant leaf"


def test_kure_is_zero_for_a_uniform_law_and_pulls_a_normal_one():
    uniform = np.linspace(-1, 1, 10_001).reshape(1, -1)
    assert of(sj.penalties.kure(), uniform)[0] < 1e-5
    normal = np.random.default_rng(0).normal(size=(100, 100))
    kurtosis = np.mean((normal - normal.mean()) ** 4) / normal.var() ** 2
    value, grad = of(sj.penalties.kure(), normal)
    assert value == pytest.approx((kurtosis - 1.8) ** 2, rel=1e-4)
    assert grad.ravel()[np.argmax(normal)] > 0
    assert np.all(np.isfinite(of(sj.penalties.kure(), np.ones((3, 3)))[1]))


def test_group_lasso_by_hand():
    weights = np.zeros((3, 2, 4))
    weights[:, :, 1] = 2.0
    weights[0, 0, 3] = -5.0
    value, grad = of(sj.penalties.group_lasso(), weights)
    assert value == pytest.approx(np.sqrt(6) * (np.sqrt(6 * 4) + 5), rel=1e-6)
    assert grad[0, 0, 3] == pytest.approx(-np.sqrt(6), rel=1e-6)
    assert np.all(grad[:, :, 0] == 0.0), "a zero group has gradient zero"
    value, _ = of(sj.penalties.group_lasso((0, 1)), weights)
    assert value == pytest.approx(2 * (np.sqrt(29) + 5 * 2), rel=1e-6)


def test_add_penalty_adds_the_weighted_gradient_to_kernels_only():
    params = {"kernel": jnp.array([[1.0, -3.0]]), "bias": jnp.array([7.0, 1.0])}
    tx = optax.chain(sj.add_penalty(sj.linf(), 0.5), optax.sgd(1.0))
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(zero, tx.init(params), params)
    np.testing.assert_array_equal(updates["kernel"], [[0.0, 0.5]])
    np.testing.assert_array_equal(updates["bias"], [0.0, 0.0])
    for where in ("bias", lambda path: path == "bias"):
        tx = sj.add_penalty(sj.linf(), 0.5, where=where)
        updates, _ = tx.update(zero, tx.init(params), params)
        np.testing.assert_array_equal(updates["kernel"], [[0.0, 0.0]])
        np.testing.assert_array_equal(updates["bias"], [0.5, 0.0])


def test_add_penalty_trains_its_scalars_without_weight_decay():
    weights = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)
    params = {"kernel": jnp.asarray(weights)}
    tx = optax.chain(
        sj.add_penalty(sj.margin(), 1.0, scalars_optimizer=optax.sgd(0.01)),
        optax.adamw(0.0, weight_decay=100.0),
    )
    state = tx.init(params)

    @jax.jit
    def one_step(state):
        return tx.update(jax.tree.map(jnp.zeros_like, params), state, params)[1]

    for _ in range(200):
        state = one_step(state)
    margin = float(state[0].scalars["kernel"])
    assert np.sum(np.abs(weights) > margin) <= 3, "settles where about one weight is outside"
    assert margin > 2.5


def test_add_penalty_shrinks_the_range_in_training():
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(64, 64)), jnp.float32)
    for penalty in (sj.linf(), sj.margin(), sj.soft_min_max(), sj.penalties.kure()):
        params = {"kernel": weights}
        tx = optax.chain(sj.add_penalty(penalty, 0.1), optax.sgd(1.0))
        state = jax.jit(tx.init)(params)

        @jax.jit
        def step(params, state, tx=tx):
            updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
            return optax.apply_updates(params, updates), state

        for _ in range(20):
            params, state = step(params, state)
        assert np.max(np.abs(params["kernel"])) < 0.99 * np.max(np.abs(weights))


def test_add_penalty_errors():
    params = {"kernel": jnp.ones((2, 2))}
    with pytest.raises(ValueError, match="matches no leaf; there are kernel"):
        sj.add_penalty(sj.linf(), 0.1, where="conv").init(params)
    tx = sj.add_penalty(sj.linf(), 0.1)
    with pytest.raises(ValueError, match="needs the params"):
        tx.update(params, tx.init(params))
