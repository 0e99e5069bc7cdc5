"""Quantizers: values and gradients by hand, and what penalties on the range do for them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj


@functools.partial(jax.jit, static_argnums=(0, 1))
def forward_and_back(quantizer, plan, params, masks, learned, cotangent):
    context = sj.masks.MaskContext(plan, jnp.int32(0), None)
    start = quantizer.init(params, context)
    apply = lambda raw, own: quantizer.apply(raw, masks, own, context)
    forward, pull = jax.vjp(apply, params, start if learned is None else learned)
    return forward, *pull(cotangent), start


def leaf_of(quantizer, weights, mask=None, learned=None, cotangent=None):
    """Forward weights of one leaf, and the pulled-back gradients of weights and learned."""
    params = {"w": jnp.asarray(weights, jnp.float32)}
    plan = sj.plan(params, {"w": sj.Unstructured()}, sparsity=0.0)
    shape = params["w"].shape
    masks = {"w": np.ones(shape, bool) if mask is None else np.asarray(mask)}
    learned = None if learned is None else {"w": np.asarray(learned, np.float32)}
    ones = np.ones(shape) if cotangent is None else np.asarray(cotangent)
    forward, grads, slopes, start = forward_and_back(
        quantizer, plan, params, masks, learned, {"w": ones.astype(np.float32)}
    )
    own = np.asarray(slopes["w"]) if isinstance(slopes, dict) else None
    return np.asarray(forward["w"]), np.asarray(grads["w"]), own, start


def test_symmetric_by_hand():
    forward, grad, _, _ = leaf_of(sj.quantizers.symmetric_quantizer(2), [-0.9, 0.4, 0.46, 0.1, 0.2])
    np.testing.assert_allclose(forward, [-0.9, 0.0, 0.9, 0.0, 0.0], rtol=1e-6)
    np.testing.assert_array_equal(grad, 1.0)
    three_bits, *_ = leaf_of(sj.quantizers.symmetric_quantizer(3), [-0.9, 0.4, 0.5, 0.14, 0.2])
    np.testing.assert_allclose(three_bits, [-0.9, 0.3, 0.6, 0.0, 0.3], rtol=1e-6)
    by_column, *_ = leaf_of(
        sj.quantizers.symmetric_quantizer(2, axis=-1), [[1.0, 0.1], [0.4, -0.06]]
    )
    np.testing.assert_allclose(by_column, [[1.0, 0.1], [0.0, -0.1]], rtol=1e-6)


def test_asymmetric_by_hand_has_zero_among_its_levels():
    # Range -0.3 to 0.6, so s = 0.3, z = 1 and the levels -0.3, 0, 0.3, 0.6.
    forward, grad, _, _ = leaf_of(
        sj.quantizers.asymmetric_quantizer(2), [-0.3, 0.6, 0.1, 0.44, -0.2]
    )
    np.testing.assert_allclose(forward, [-0.3, 0.6, 0.0, 0.3, -0.3], rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(grad, 1.0)
    # All positive: the range begins at 0.
    positive, *_ = leaf_of(sj.quantizers.asymmetric_quantizer(1), [0.2, 0.5, 0.8])
    np.testing.assert_allclose(positive, [0.0, 0.8, 0.8], rtol=1e-5)
    # A pruned outlier does not widen the range.
    masked, *_ = leaf_of(
        sj.quantizers.asymmetric_quantizer(2), [9.0, -0.3, 0.6, 0.44], [False, *[True] * 3]
    )
    np.testing.assert_allclose(masked, [0.0, -0.3, 0.6, 0.3], rtol=1e-5)


def test_dorefa_by_hand():
    weights = np.arctanh([0.8, -0.8, 0.2, -0.5])
    # tanh(w) / (2 * 0.8) + 1/2 = 1, 0, 0.625, 0.1875; in thirds: 1, 0, 2/3, 1/3.
    forward, grad, _, _ = leaf_of(sj.quantizers.dorefa(2), weights, cotangent=[0, 0, 1, 0])
    np.testing.assert_allclose(forward, [1, -1, 1 / 3, -1 / 3], rtol=1e-5)
    # d (2 tanh(w) / (2 M)) / dw = (1 - tanh^2) / M, and through M = 0.8, shared by two, on itself.
    by_maximum = -0.2 / 0.8**2 * (1 - 0.64) / 2
    np.testing.assert_allclose(grad, [by_maximum, -by_maximum, 0.96 / 0.8, 0.0], atol=1e-5)
    one_bit, slope, _, _ = leaf_of(sj.quantizers.dorefa(1), [0.5, -0.1, -0.3])
    np.testing.assert_allclose(one_bit, [0.3, -0.3, -0.3], rtol=1e-6)
    np.testing.assert_array_equal(slope, 1.0)


def test_pact_by_hand():
    x, limit = jnp.array([-1.0, 0.4, 2.9, 5.9, 6.0, 9.0]), jnp.float32(6.0)
    value, pull = jax.vjp(sj.quantizers.pact, x, limit)
    np.testing.assert_allclose(value, [0.0, 0.4, 2.9, 5.9, 6.0, 6.0])
    by_x, by_limit = pull(jnp.ones(6))
    np.testing.assert_array_equal(by_x, [0, 1, 1, 1, 0, 0])
    assert by_limit == 2.0
    two_bits, pull = jax.vjp(functools.partial(sj.quantizers.pact, bits=2), x, limit)
    np.testing.assert_allclose(two_bits, [0, 0, 2, 6, 6, 6], rtol=1e-6)
    np.testing.assert_array_equal(pull(jnp.ones(6))[0], [0, 1, 1, 1, 0, 0])
    assert pull(jnp.arange(6.0))[1] == 9.0


def test_lsq_by_hand():
    """3 bits: Qn = 4, Qp = 3. w/s = 0.4, 1.2, -5, 7, so levels 0, 1, -4, 3."""
    weights = [0.2, 0.6, -2.5, 3.5]
    forward, grad, slope, start = leaf_of(
        sj.quantizers.lsq(3), weights, learned=0.5, cotangent=[1.0, 2.0, 3.0, 4.0]
    )
    np.testing.assert_allclose(forward, [0.0, 0.5, -2.0, 1.5], rtol=1e-6)
    np.testing.assert_array_equal(grad, [1.0, 2.0, 0.0, 0.0])
    by_hand = 1 * (0 - 0.4) + 2 * (1 - 1.2) + 3 * -4 + 4 * 3
    assert slope == pytest.approx(by_hand / np.sqrt(4 * 3), rel=1e-5)
    assert float(start["w"]) == pytest.approx(2 * np.mean(np.abs(weights)) / np.sqrt(3))
    # Pruned weights neither count in N nor in the sum.
    _, grad, slope, _ = leaf_of(sj.quantizers.lsq(3), weights, [True, True, False, False], 0.5)
    assert slope == pytest.approx(-0.6 / np.sqrt(2 * 3), rel=1e-5)
    np.testing.assert_array_equal(grad, 1.0)


def test_ewgs_by_hand():
    """2 bits on [-1, 1], c = 0.5. x_n = 0.6, 0.1 and 1 (clipped): thirds 2/3, 0 and 1."""
    delta, learned = 0.3, [-1.0, 1.0, 0.5]
    forward, grad, slope, _ = leaf_of(
        sj.quantizers.ewgs(2, delta=delta),
        [0.2, -0.8, 1.5],
        learned=learned,
        cotangent=[1.0, -1.0, 1.0],
    )
    np.testing.assert_allclose(forward, [0.5 / 3, -0.5, 0.5], rtol=1e-5)
    # d x_n / d w = 1/2 and d out / d x_q = 2 c = 1.
    scaled = np.array([1 + delta * (0.6 - 2 / 3), -(1 - delta * 0.1), 0.0])
    np.testing.assert_allclose(grad, scaled / 2, rtol=1e-5)
    # d x_n / d lower = -(u - w) / (u - l)^2, d x_n / d upper = -(w - l) / (u - l)^2.
    lower = scaled @ [-0.8 / 4, -1.8 / 4, 0]
    upper = scaled @ [-1.2 / 4, -0.2 / 4, 0]
    np.testing.assert_allclose(slope, [lower, upper, 1 / 3 + 1.0 + 1.0], rtol=1e-5)


def test_ewgs_without_delta_is_straight_through_and_starts_at_the_scale_of_the_weights():
    weights = np.random.default_rng(0).normal(size=1000) * 0.07
    _, grad, _, start = leaf_of(sj.quantizers.ewgs(2, delta=0.0), weights)
    lower, upper, scale = np.asarray(start["w"])
    assert upper == -lower == pytest.approx(3 * weights.std(), rel=1e-4)
    inside = np.abs(weights) < upper
    np.testing.assert_allclose(grad[inside], 2 * scale / (upper - lower), rtol=1e-4)
    np.testing.assert_array_equal(grad[~inside], 0.0)
    forward, *_ = leaf_of(sj.quantizers.ewgs(2), weights)
    assert np.mean(np.abs(forward)) == pytest.approx(np.mean(np.abs(weights)), rel=1e-4)


def soft_k_means(weights, centroids, temperature, num_iterations):
    """Float64 oracle of DKM on a vector: centroids and forward weights."""
    for _ in range(num_iterations + 1):
        logits = -((weights[:, None] - centroids) ** 2) / temperature
        shares = np.exp(logits - logits.max(1, keepdims=True))
        shares /= shares.sum(1, keepdims=True)
        settled, centroids = centroids, (shares * weights[:, None]).sum(0) / shares.sum(0)
    return settled, shares @ settled


def test_dkm_against_float64():
    weights = np.array([-1.0, -0.8, -0.1, 0.15, 0.7, 1.1])
    quantizer = sj.quantizers.dkm(1, temperature=0.3, num_iterations=2)
    forward, grad, slope, start = leaf_of(quantizer, weights, cotangent=[1, 0, 0, 0, 0, 0])
    first = np.quantile(weights, [0.25, 0.75])
    np.testing.assert_allclose(start["w"], first, rtol=1e-5)
    _, expected = soft_k_means(weights, first, 0.3, 2)
    np.testing.assert_allclose(forward, expected, rtol=1e-5)
    np.testing.assert_array_equal(slope, 0.0, err_msg="clustering moves the centroids")
    shift = 1e-6 * np.eye(6)
    run = lambda w: soft_k_means(w, first, 0.3, 2)[1][0]
    differences = [(run(weights + e) - run(weights - e)) / 2e-6 for e in shift]
    np.testing.assert_allclose(grad, differences, rtol=1e-4, atol=1e-5)


def test_cold_dkm_is_k_means_and_shares_the_gradient_of_a_cluster():
    """Clusters {-1, -0.8} and {0.9, 1, 1.1}: each weight gets the mean gradient of its own."""
    weights = np.array([-1.0, -0.8, 0.9, 1.0, 1.1])
    forward, grad, _, _ = leaf_of(
        sj.quantizers.dkm(1), weights, cotangent=[1.0, 0.0, 3.0, 0.0, 0.0]
    )
    np.testing.assert_allclose(forward, [-0.9, -0.9, 1.0, 1.0, 1.0], rtol=1e-5)
    # Rounding errors of the attention reach the gradient divided by the temperature.
    np.testing.assert_allclose(grad, [0.5, 0.5, 1.0, 1.0, 1.0], atol=2.0**-23 / 1e-4)


def test_dkm_remembers_centroids_and_hardens_to_the_nearest():
    params = {"w": jnp.array([-1.0, -0.8, 0.05, 0.9, 1.1, 7.0])}
    masks = {"w": jnp.array([True] * 5 + [False])}
    plan = sj.plan(params, {"w": sj.Unstructured()}, sparsity=0.0)
    context = sj.masks.MaskContext(plan, jnp.int32(0), None)
    quantizer = sj.quantizers.dkm(1, temperature=0.5)
    learned = jax.jit(lambda params: quantizer.init(params, context))(params)
    refresh = jax.jit(lambda learned: quantizer.refresh(params, masks, learned, context))
    for _ in range(20):
        learned = refresh(learned)
    again = refresh(learned)
    np.testing.assert_allclose(again["w"], learned["w"], atol=1e-4)
    harden = jax.jit(lambda learned: quantizer.harden(params, masks, learned, context))
    hard = np.asarray(harden(learned)["w"])
    low, high = np.asarray(learned["w"])
    assert -1 < low < 0 < high < 1.1, "the pruned 7 is in no cluster"
    np.testing.assert_allclose(hard, [low, low, high, high, high, 0.0], atol=1e-3)
    kept = soft_k_means(np.asarray(params["w"][:5], float), np.array([low, high]), 0.5, 1)[0]
    np.testing.assert_allclose(kept, [low, high], atol=1e-3)


QUANTIZERS = {
    "symmetric": sj.quantizers.symmetric_quantizer(2),
    "asymmetric": sj.quantizers.asymmetric_quantizer(2),
    "dorefa": sj.quantizers.dorefa(2),
    "lsq": sj.quantizers.lsq(2),
    "ewgs": sj.quantizers.ewgs(1),
    "dkm": sj.quantizers.dkm(2),
}


@pytest.mark.parametrize("name", QUANTIZERS)
def test_edge_leaves_stay_finite(name):
    """All pruned, all zero, a single weight and bfloat16; pruned gradients pass as they are."""
    quantizer = QUANTIZERS[name]
    for weights in (np.zeros(4), np.array([0.3]), np.array([1e-30, -2.0])):
        for kept in (True, False):
            mask = np.full(weights.shape, kept)
            forward, grad, slope, _ = leaf_of(quantizer, np.where(mask, weights, 0.0), mask)
            assert np.all(np.isfinite(forward)) and np.all(np.isfinite(grad))
            assert slope is None or np.all(np.isfinite(slope))
            if not kept:
                np.testing.assert_array_equal(forward, 0.0)
                np.testing.assert_array_equal(grad, 1.0)
    params = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(8, 4)), jnp.bfloat16)}
    plan = sj.plan(params, {"w": sj.Unstructured()}, sparsity=0.0)
    hard = sj.quantizers.quantized(params, plan, quantizer)["w"]
    assert hard.dtype == jnp.bfloat16 and len(np.unique(np.asarray(hard, np.float32))) <= 4


def test_quantized_rounds_trained_weights_and_keeps_zeros():
    weights = jnp.array([0.0, 0.9, 0.0, -0.5, 0.3])
    params = {"a": weights, "b": weights}
    plan = sj.plan(params, {"a": sj.Unstructured()}, sparsity=0.0)
    out = sj.quantizers.quantized(params, plan, sj.quantizers.dkm(1))
    np.testing.assert_allclose(out["a"], [0.0, 0.6, 0.0, -0.5, 0.6], rtol=1e-4)
    np.testing.assert_array_equal(out["b"], weights)


def test_errors_say_which_bits():
    for make, lowest in (
        (sj.quantizers.symmetric_quantizer, 2),
        (sj.quantizers.lsq, 2),
        (sj.quantizers.dkm, 1),
        (sj.quantizers.dorefa, 1),
    ):
        with pytest.raises(ValueError, match=rf"needs {lowest} <= bits <= 16, got {lowest - 1}"):
            make(lowest - 1)
    with pytest.raises(ValueError, match="pact needs 1 <= bits"):
        sj.quantizers.pact(jnp.ones(2), 6.0, bits=0)
    with pytest.raises(ValueError, match="delta >= 0"):
        sj.quantizers.ewgs(2, delta=-1.0)
    with pytest.raises(ValueError, match="temperature > 0"):
        sj.quantizers.dkm(1, temperature=0.0)


def relative_error(weights, quantizer):
    """|Q(w) - w|^2 / |w|^2."""
    params = {"w": weights}
    plan = sj.plan(params, {"w": sj.Unstructured()}, sparsity=0.0)
    hard = sj.quantizers.quantized(params, plan, quantizer)["w"]
    hard, weights = np.asarray(hard), np.asarray(weights)
    return np.sum((hard - weights) ** 2) / np.sum(weights**2)


@pytest.mark.parametrize(
    ("penalty", "strength", "quantizer"),
    [
        (sj.linf(), 60.0, sj.quantizers.symmetric_quantizer(2)),
        (sj.margin(1.0), 3.0, sj.quantizers.symmetric_quantizer(2)),
        (sj.soft_min_max(10.0), 50.0, sj.quantizers.dkm(1, num_iterations=20)),
    ],
    ids=["linf", "margin", "soft_min_max"],
)
def test_a_penalty_on_the_range_lowers_the_quantization_error(penalty, strength, quantizer):
    """A quadratic loss holds the weights at normal ones; the penalty draws the tails in."""
    wanted = jnp.asarray(np.random.default_rng(0).normal(size=(32, 32)), jnp.float32)
    scalars = penalty.init({"w": wanted})

    def descend(wanted):
        loss = lambda p: (
            0.5 * jnp.sum((p["w"] - wanted) ** 2) + strength * penalty.value(p, scalars)
        )
        step = lambda p, _: ({"w": p["w"] - 0.02 * jax.grad(loss)(p)["w"]}, None)
        return jax.lax.scan(step, {"w": wanted}, length=200)[0]["w"]

    weights = jax.jit(descend)(wanted)
    reach = lambda w: np.max(np.abs(w)) / np.std(w)
    assert reach(weights) < 0.9 * reach(wanted)
    assert relative_error(weights, quantizer) < 0.9 * relative_error(wanted, quantizer)
