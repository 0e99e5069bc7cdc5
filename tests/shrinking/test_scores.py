"""Scores of units by hand, and which units stay."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from tests.shrinking.networks import normal

X = normal(5, 4)
PARAMS = {
    "a": np.array([[1, -2, 0], [0, 1, 1], [2, 0, 0], [0, 0, 1]], np.float32),
    "scale": np.array([3, -1, 2], np.float32),
    "b": np.array([[1, 1], [0, -1], [2, 0]], np.float32),
}
apply = lambda p, x: jnp.tanh(x @ p["a"] * p["scale"]) @ p["b"]
loss = lambda p, x: jnp.mean(apply(p, x) ** 2)
GROUPS = sj.channel_groups(apply, PARAMS, X)
GRADS = jax.jit(jax.grad(loss))(PARAMS, X)


def scored(measure, **options):
    return sj.channel_scores(GROUPS, PARAMS, measure, **options)["a"].tolist()


def test_norms_by_hand():
    assert scored(sj.structured.channel_l1()) == [3 + 2, 3 + 1, 2 + 2]
    assert scored(sj.structured.channel_l1(), leaves="scale") == [3, 1, 2]
    squares = scored(sj.before.flow_magnitude(), leaves="^a$")
    np.testing.assert_allclose(squares, np.sqrt([5, 5, 2]), rtol=1e-6)


def by_unit(products, paths=("a", "b")):
    axes = {"a": 0, "b": 1, "scale": None}
    return sum(np.asarray(products[p]).sum(axes[p]) for p in paths)


def test_first_order_taylor_is_the_sum_of_weights_times_gradients():
    products = {path: PARAMS[path] * GRADS[path] for path in PARAMS}
    own = scored(sj.structured.taylor(loss, [X]))
    np.testing.assert_allclose(own, np.abs(by_unit(products)), rtol=1e-4, atol=1e-6)
    flow = scored(sj.before.flow_loss(loss, [X]))
    np.testing.assert_allclose(
        flow, by_unit({p: np.abs(q) for p, q in products.items()}), rtol=1e-4
    )


def test_second_order_taylor_is_exact_where_the_loss_is_quadratic():
    params = {"a": normal(4, 3), "b": normal(3, 2)}
    fixed = lambda p, x: x @ p["a"] @ jax.lax.stop_gradient(p["b"])
    quadratic = lambda p, x: jnp.mean((fixed(p, x) - 1) ** 2)
    groups = sj.channel_groups(fixed, params, X)
    # One unit at a time has a quadratic loss in the weights of that unit.
    for unit in range(3):
        gone = np.arange(3) != unit
        alone = {"a": np.where(gone, 0, params["a"]).astype(np.float32), "b": params["b"]}
        measure = sj.structured.taylor(quadratic, [X], order=2)
        change = sj.channel_scores(groups, alone, measure, leaves="^a$")["a"]
        nothing = {**alone, "a": np.zeros((4, 3), np.float32)}
        want = abs(quadratic(alone, X) - quadratic(nothing, X))
        np.testing.assert_allclose(change, np.where(gone, 0, want), rtol=1e-4, atol=1e-6)


def test_random_units_are_drawn():
    one, other = (scored(sj.structured.random_units(jax.random.key(seed))) for seed in (0, 1))
    assert one != other and min(one) > 0


def test_activations_by_hand():
    plan = sj.plan(PARAMS, {"b": sj.Unstructured()}, sparsity=0.5)
    calibration = sj.post.calibrate(apply, PARAMS, plan, [X], gram=False)
    own = sj.structured.activation_scores(GROUPS, PARAMS, calibration)["a"]
    h = np.tanh(X @ PARAMS["a"] * PARAMS["scale"])
    np.testing.assert_allclose(own, (h**2).sum(0), rtol=1e-5)


def wide(sizes):
    """A chain of layers, a group of each size, and scores that rise."""
    ends = [4, *sizes, 3]
    params = {f"w{i}": normal(ends[i], ends[i + 1]) for i in range(len(ends) - 1)}

    def f(p, x):
        for name in sorted(p):
            x = jnp.tanh(x @ p[name])
        return x

    groups = sj.channel_groups(f, params, X)
    return groups, {f"w{i}": np.arange(1.0, size + 1) for i, size in enumerate(sizes)}


def kept(*args, **options):
    keep = sj.structured.best_channels(*args, **options)
    for own in keep.values():
        assert own[len(own) - own.sum() :].all()  # the highest scores
    return [int(own.sum()) for own in keep.values()]


def test_each_group_loses_its_fraction_in_multiples():
    groups, scores = wide([32, 20, 6])
    assert kept(groups, scores, 0.5, multiple=1) == [16, 10, 3]
    assert kept(groups, scores, 0.5) == [16, 8, 6]
    assert kept(groups, scores, 0.3) == [24, 16, 6]
    assert kept(groups, scores, 0.95, multiple=1, minimum=0.3) == [10, 6, 2]
    assert kept(groups, scores, 0.0) == [32, 20, 6]


def test_all_units_are_ranked_together():
    groups, scores = wide([10, 10])
    scores["w1"] = np.array([5.0, *[15 / 9] * 9])  # mean 2, most of it in one unit
    keep = sj.structured.best_channels(groups, scores, 0.3, globally=True, multiple=1)
    # Of 20 units 6 go: those of the first group with 1 to 4 of a mean of 5.5 come before 15 / 18.
    assert [int(own.sum()) for own in keep.values()] == [6, 8]
    few = sj.structured.best_channels(groups, scores, 0.9, globally=True, multiple=1, minimum=0.2)
    assert [int(own.sum()) for own in few.values()] == [2, 2]


def test_heads_are_multiples_already():
    params = {"a": normal(4, 32), "b": normal(32, 3)}
    f = lambda p, x: jax.nn.softmax((x @ p["a"]).reshape(5, 4, 8)).reshape(5, 32) @ p["b"]
    groups = sj.channel_groups(f, params, X)
    assert kept(groups, {"a": np.arange(4.0)}, 0.5) == [2]


def test_channels_fit_a_budget_by_hand():
    params = {"a": normal(4, 8), "b": normal(8, 3)}
    f = lambda p, x: jnp.tanh(x @ p["a"]) @ p["b"]
    fit = lambda **budget: sj.structured.channels_within(
        f, params, X, scores={"a": np.arange(8.0)}, multiple=1, **budget
    )["a"].tolist()
    # Each of 8 channels is 7 of 56 multiply-adds a row, and 7 of 56 params.
    assert fit(multiply_adds=0.5) == [False] * 4 + [True] * 4
    assert fit(parameters=0.49) == [False] * 5 + [True] * 3
    assert fit(multiply_adds=0.5, parameters=0.26) == [False] * 6 + [True] * 2
    assert fit() == [True] * 8
    with pytest.raises(ValueError, match=r"needs a budget .* the least are 0 and 0\.125"):
        fit(parameters=0.1)


ERRORS = {
    "leaves": (lambda: scored(sj.structured.channel_l1(), leaves="z"), "a: channel_scores needs"),
    "order": (lambda: sj.structured.taylor(loss, [X], order=3), "order 1 or 2, got 3"),
    "sparsity": (lambda: sj.structured.best_channels(GROUPS, {}, 1.0), "needs sparsity and min"),
}


@pytest.mark.parametrize("error", ERRORS)
def test_errors_say_who_what_and_got(error):
    make, message = ERRORS[error]
    with pytest.raises(ValueError, match=message):
        make()
