"""The gradient-flow framework: five measures by hand, and the rounds of its protocol."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj

# Two filters of two weights, w = (1, 2) and (-3, 1); loss = w.A w / 2.
WEIGHTS = np.array([[1.0, -3.0], [2.0, 1.0]])
HESSIAN = np.array([[1, 0, 0, 2], [0, 0, 1, 0], [0, 1, 2, 0], [2, 0, 0, -1]], float)


def quadratic(params, batch):
    flat = params["kernel"].T.ravel()  # filter by filter
    return 0.5 * batch * flat @ jnp.asarray(HESSIAN) @ flat


def filter_values(measure):
    params = {"kernel": jnp.asarray(WEIGHTS)}
    values = measure.weights(params)["kernel"]
    return np.asarray(measure.of_sum(sj.Channel().group_scores(values))).ravel()


def test_the_five_measures_by_hand():
    # w = (1, 2, -3, 1): g = A w = (3, -3, -4, 1), H g = A g = (5, -4, -11, 5).
    # w g = (3, -6, 12, 1), w Hg = (5, -8, 33, 5).
    flat = WEIGHTS.T.ravel()
    np.testing.assert_array_equal(HESSIAN @ flat, [3, -3, -4, 1])
    np.testing.assert_array_equal(HESSIAN @ HESSIAN @ flat, [5, -4, -11, 5])
    data = quadratic, [1.0]
    np.testing.assert_allclose(
        filter_values(sj.before.flow_magnitude()), np.sqrt([5, 10]), rtol=1e-6
    )
    np.testing.assert_allclose(filter_values(sj.before.flow_loss(*data)), [9, 13])
    np.testing.assert_allclose(filter_values(sj.before.flow_biased_loss(*data)), [15, 37])
    np.testing.assert_allclose(filter_values(sj.before.flow_gradient_norm(*data)), [-3, 38])
    np.testing.assert_allclose(filter_values(sj.before.flow_gradient_preserving(*data)), [3, 38])


def setting(sparsity=0.75):
    generator = np.random.default_rng(0)
    shapes = {"a": (3, 3, 2, 40), "b": (5, 60), "c": (3, 3, 40, 20)}
    params = {
        name: {"kernel": jnp.asarray(generator.normal(size=shape) * scale, jnp.float32)}
        for (name, shape), scale in zip(shapes.items(), (1.0, 0.5, 0.01), strict=True)
    }
    return params, sj.plan(params, {"kernel": sj.Channel()}, sparsity=sparsity)


def filters_left(method, params, plan, num_steps):
    def run(params):
        context = lambda step: sj.masks.MaskContext(plan, step, jax.random.key(0))
        first = method.init(sj.masks.full_masks(params, plan), params, context(jnp.int32(0)))

        def one_step(carry, step):
            carry = method.update(*carry, params, params, context(step))
            return carry, carry[0]

        return jax.lax.scan(one_step, first, jnp.arange(num_steps))[1]

    masks = jax.jit(run)(params)
    stacked = [np.asarray(leaf) for leaf in jax.tree.leaves(masks)]
    for leaf, mask in zip(plan.leaves, stacked, strict=True):
        leaf.pattern.check(mask[-1], leaf.path)
        assert not np.any(mask[1:] & ~mask[:-1]), "a pruned filter came back"
    return [m.any(tuple(range(1, m.ndim - 1))) for m in stacked]


@pytest.mark.parametrize("rounds", [1, 5])
def test_the_rounds_leave_what_the_papers_ratios_multiply_to(rounds):
    # r_i = p / (i p + n (1 - p)): the product of 1 - r_i telescopes to 1 - p.
    sparsity = 0.75
    ratios = [sparsity / (i * sparsity + rounds * (1 - sparsity)) for i in range(1, rounds + 1)]
    assert np.prod(1 - np.array(ratios)) == pytest.approx(1 - sparsity)
    params, plan = setting(sparsity)
    left = filters_left(
        sj.before.gradient_flow(sj.before.flow_magnitude(), every=2, rounds=rounds),
        params,
        plan,
        14,
    )
    counts = sum(kept.sum(1) for kept in left)
    wanted = [120, 120]
    for ratio in ratios:
        wanted += [wanted[-1] * (1 - ratio)] * 2
    wanted += [30] * (14 - len(wanted))
    np.testing.assert_allclose(counts, wanted[:14], atol=0.51)
    assert counts[-1] == 30


def test_filters_compete_in_the_whole_network_but_a_layer_keeps_its_best():
    # The filters of "c" are tiny, those of "a" and "b" have norms of about 4 and 1.
    params, plan = setting()
    norms = lambda leaf: np.sqrt(np.sum(np.square(leaf), tuple(range(leaf.ndim - 1))))
    size = [norms(np.asarray(params[name]["kernel"])) for name in "abc"]
    a, b, c = (
        kept[-1]
        for kept in filters_left(
            sj.before.gradient_flow(sj.before.flow_magnitude(), every=1), params, plan, 3
        )
    )
    assert c.sum() == 2 and set(np.flatnonzero(c)) == set(np.argsort(size[2])[-2:])  # 20 / 20 + 1
    assert b.sum() == 4 and set(np.flatnonzero(b)) == set(np.argsort(size[1])[-4:])  # 60 / 20 + 1
    assert a.sum() == 24 and set(np.flatnonzero(a)) == set(np.argsort(size[0])[-24:])


def test_a_measure_with_data_prunes_inside_a_training_step():
    params = {"kernel": jnp.asarray(WEIGHTS, jnp.float32)}
    plan = sj.plan(params, {"kernel": sj.Channel()}, sparsity=0.5)
    measures = {
        "gradient_norm": (sj.before.flow_gradient_norm(quadratic, [-1.0, -1.0]), 1),
        "biased": (sj.before.flow_biased_loss(quadratic, [1.0, 3.0]), 1),
    }
    for measure, kept in measures.values():
        method = sj.before.gradient_flow(measure, every=1, protected=0.0)
        (left,) = filters_left(method, params, plan, 2)
        np.testing.assert_array_equal(left[1], np.arange(2) == kept)


def test_errors_at_the_door():
    for options in ({"every": 0}, {"every": 1, "rounds": 0}, {"every": 1, "protected": 1.0}):
        with pytest.raises(ValueError, match="gradient_flow needs every >= 1"):
            sj.before.gradient_flow(sj.before.flow_magnitude(), **options)
