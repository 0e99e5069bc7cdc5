"""Soft masks by formula, by hand and against slow oracles in float64: PDP and Spartan."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj
from sparsejax.reparams import soft_masks
from tests.one_kernel import constant, forward, planned, steps_of


def test_pdp_mask_and_slope_meet_the_formulas_to_1e8():
    # m = sigmoid((w^2 - t^2) / tau) and d(m w)/dw = m + 2 w^2 / tau m (1 - m), t held fixed.
    weights = np.random.default_rng(0).normal(size=(6, 5)) * 0.3
    tau, kept = 0.02, 12
    with jax.enable_x64(True):
        params, _, context = planned(weights, sparsity=0.6)
        magnitudes = np.sort(np.abs(weights), axis=None)
        t = (magnitudes[-kept] + magnitudes[-kept - 1]) / 2
        soft, pull = forward(
            sj.soft.pdp(0, 1, temperature=tau), params, np.abs(weights) > t, context(0)
        )
        cotangent = np.random.default_rng(1).normal(size=weights.shape)
        slope = np.asarray(pull({"kernel": jnp.asarray(cotangent)})[0]["kernel"]) / cotangent
    m = 1.0 / (1.0 + np.exp(-(weights**2 - t**2) / tau))
    np.testing.assert_allclose(soft["kernel"], m * weights, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(slope, m + 2 * weights**2 / tau * m * (1 - m), rtol=1e-8)
    near = 1e-6
    value = lambda w: w / (1.0 + np.exp(-(w**2 - t**2) / tau))
    central = (value(weights + near) - value(weights - near)) / (2 * near)
    np.testing.assert_allclose(slope, central, rtol=1e-7, atol=1e-8)


def test_pdp_boosts_the_gradient_thirteenfold_at_the_threshold():
    # 1/2 + t^2 / (2 tau) = 0.5 + 0.0025 / 0.0002 = 13 at |w| = t = 0.05; m = 1/2 there.
    params, _, context = planned(np.float32([0.05, 0.05, 0.05, 0.05]))
    soft, pull = forward(sj.soft.pdp(0, 1), params, [1, 1, 0, 0], context(0))
    np.testing.assert_allclose(soft["kernel"], 0.025, rtol=1e-5)
    np.testing.assert_allclose(pull({"kernel": jnp.ones(4)})[0]["kernel"], 13.0, rtol=1e-5)


def test_pdp_thresholds_are_of_each_group_under_n_of_m():
    # The midpoint of the second and third largest of each four: 2.5 and 0.25; tau = 0.1.
    weights = np.float32([1, -2, 3, 4, 0.1, 0.2, -0.3, 0.4]).reshape(8, 1)
    params, plan, context = planned(weights, sj.NM(2, 4))
    mask = plan.leaves[0].pattern.mask(jnp.abs(params["kernel"]), 0.5)
    soft, _ = forward(sj.soft.pdp(0, 1, temperature=0.1), params, mask, context(0))
    t = np.repeat([2.5, 0.25], 4).reshape(8, 1)
    expected = weights / (1 + np.exp(-(weights**2 - t**2) / 0.1))
    np.testing.assert_allclose(soft["kernel"], expected, rtol=1e-5)
    # On the ramp a group may still be whole: it is left alone.
    soft, _ = forward(
        sj.soft.pdp(0, 1), params, [[0], [0], [1], [1], [1], [1], [1], [1]], context(0)
    )
    np.testing.assert_allclose(soft["kernel"][4:], weights[4:])


def test_pdp_channels_go_by_their_norm():
    weights = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    params, plan, context = planned(weights, sj.Channel())
    mask = plan.leaves[0].pattern.mask(params["kernel"] ** 2, 0.5)
    soft, _ = forward(sj.soft.pdp(0, 1, temperature=0.2), params, mask, context(0))
    norms = np.linalg.norm(weights, axis=0)
    t = np.sort(norms)[1:3].mean()
    m = 1 / (1 + np.exp(-(norms**2 - t**2) / 0.2))
    np.testing.assert_allclose(soft["kernel"], weights * m, rtol=1e-5)
    assert np.array_equal(m > 0.5, np.asarray(mask)[0])


def test_pdp_fixes_the_targets_of_its_leaves_at_the_start_and_ramps_to_them():
    params = {
        "a": {"kernel": jnp.array([0.1, 0.2, 0.3, 0.4])},
        "b": {"kernel": jnp.array([1.0, 2.0, 3.0, 4.0])},
    }
    plan = sj.plan(params, {"kernel": sj.Unstructured()}, sparsity=0.75)
    tx = sj.sparsify(optax.sgd(1.0), sj.soft.pdp(1, 3), plan, key=jax.random.key(0))
    pruned = []
    grow_a = constant({"a": {"kernel": np.full(4, -20.0)}, "b": {"kernel": np.zeros(4)}})
    history = steps_of(tx, params, 6, grow_a)
    for _, state in history:
        masks = sj.masks_of(state)
        pruned.append([int(np.sum(~np.asarray(masks[name]["kernel"]))) for name in "ab"])
    # At step 1 "a" is already larger than all of "b", by 20 or nothing: 4 of "b", then 2 of "a".
    assert pruned == [[0, 0], [0, 0], [1, 2], [2, 4], [2, 4], [2, 4]]
    hard, raw = sj.harden(*history[-1])["a"]["kernel"], history[-1][0]["a"]["kernel"]
    np.testing.assert_array_equal(hard, np.where(masks["a"]["kernel"], raw, 0.0))


def test_pdp_lets_a_pruned_weight_come_back():
    params, plan, _ = planned(np.float32([1.0, 0.9, 0.5, 0.4]))
    tx = sj.sparsify(
        optax.sgd(0.1), sj.soft.pdp(0, 1, temperature=0.1), plan, key=jax.random.key(0)
    )
    history = steps_of(tx, params, 12, constant({"kernel": np.float32([0, 0, -1, 0])}))
    kept = [np.flatnonzero(sj.masks_of(state)["kernel"]).tolist() for _, state in history]
    assert kept[1] == [0, 1] and kept[-1] == [0, 2]


def test_a_group_is_whole_or_gone_where_there_is_no_boundary():
    weights = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    summed = lambda w, mask: soft_masks.sigmoid_mask(w, mask, sj.Unstructured(), 0.1).sum()
    value_and_slope = jax.jit(jax.value_and_grad(summed))
    for kept, expected in ((True, 1.0), (False, 0.0)):
        value, slope = value_and_slope(weights, np.full((2, 2), kept))
        assert float(value) == 4 * expected
        np.testing.assert_array_equal(slope, 0.0)


soft_top_k = jax.jit(soft_masks.soft_top_k)


def sinkhorn(values, k, sharpness, num_steps=20_000):
    """The transport of each value, of mass 1, to "kept" (k in all) or "pruned", in float64."""
    kernel = np.exp(np.stack([sharpness * values, np.zeros_like(values)], axis=1))
    columns = np.ones(2)
    for _ in range(num_steps):
        rows = 1.0 / (kernel @ columns)
        columns = np.array([k, len(values) - k]) / (kernel.T @ rows)
    return (rows[:, None] * kernel * columns)[:, 0]


@pytest.mark.parametrize(("k", "sharpness"), [(5, 1.0), (5, 20.0), (29, 7.0), (1, 100.0)])
def test_soft_top_k_is_where_sinkhorn_converges(k, sharpness):
    values = np.random.default_rng(0).uniform(size=30)
    mask = np.asarray(soft_top_k(values.astype(np.float32), k, sharpness))
    np.testing.assert_allclose(mask, sinkhorn(values, k, sharpness), rtol=2e-4, atol=1e-6)
    np.testing.assert_allclose(mask.sum(), k, rtol=1e-5)


def test_soft_top_k_of_all_or_none_and_its_slope():
    values = np.random.default_rng(0).uniform(size=8)
    with jax.enable_x64(True):
        soft = lambda v, k=3: np.asarray(soft_top_k(v, k, 6.0))
        assert np.all(soft(values, 8) == 1.0) and np.all(soft(values, 0) == 0.0)
        slope = np.asarray(jax.jit(jax.jacobian(soft_top_k))(values, 3, 6.0))
        near = 1e-6 * np.eye(8)
        central = [(soft(values + d) - soft(values - d)) / 2e-6 for d in near]
    np.testing.assert_allclose(slope, np.stack(central, 1), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(slope.sum(0), 0.0, atol=1e-12)


def test_spartan_is_hard_forward_and_soft_backward():
    weights = np.float32([0.9, -0.6, 0.5, 0.1])
    params, _, context = planned(weights)
    method = sj.soft.spartan(10, sharpness=4.0, initial_sharpness=4.0)
    values, pull = forward(method, params, [1, 1, 0, 0], context(5))
    m = sinkhorn(np.abs(weights).astype(np.float64), 2, 4.0)
    np.testing.assert_allclose(values["kernel"], [0.9 * m[0], -0.6 * m[1], 0.0, 0.0], rtol=1e-5)
    soft = lambda w: jnp.sum(w * soft_masks.soft_top_k(jnp.abs(w), 2, 4.0))
    grads = pull({"kernel": jnp.ones(4)})[0]["kernel"]
    np.testing.assert_allclose(grads, jax.jit(jax.grad(soft))(weights), rtol=1e-5)
    # Fine-tuning, from step 8 on: the mask is a constant and pruned weights rest.
    frozen, pull = forward(method, params, [1, 1, 0, 0], context(8))
    np.testing.assert_allclose(frozen["kernel"], values["kernel"])
    grads = pull({"kernel": jnp.ones(4)})[0]["kernel"]
    np.testing.assert_allclose(grads, [m[0], m[1], 0.0, 0.0], rtol=1e-5)


def test_soft_masks_of_bfloat16_weights_are_computed_in_float32():
    weights = np.random.default_rng(0).normal(size=(8, 4)).astype(jnp.bfloat16)
    for method in (
        sj.soft.pdp(0, 1, temperature=0.1),
        sj.soft.spartan(10),
        sj.soft.str_(initial=-1.0),
    ):
        learned = {"kernel": jnp.float32(-1.0)}
        mask = np.abs(weights.astype(np.float32)) > 0.5
        outputs = []
        for dtype in (jnp.bfloat16, jnp.float32):
            params, _, context = planned(weights.astype(dtype))
            value, pull = forward(method, params, mask, context(1), learned)
            grads = pull({"kernel": jnp.ones((8, 4), dtype)})[0]
            assert value["kernel"].dtype == grads["kernel"].dtype == dtype
            outputs.append(np.asarray(value["kernel"], np.float32))
        np.testing.assert_allclose(outputs[0], outputs[1], rtol=2**-7, atol=1e-3)
