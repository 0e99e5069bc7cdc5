"""Second moments are found in any optimizer, and regrown weights step as the others do."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj
from sparsejax.masks.transforms import MaskTransform
from sparsejax.training.second_moments import moment_rule

RATE = 1e-2
PARAMS = {"a": {"kernel": jnp.ones((6, 5))}, "bias": jnp.ones(3)}

OPTIMIZERS = {
    "sgd": (optax.sgd(RATE), set()),
    "momentum": (optax.sgd(RATE, momentum=0.9), set()),
    "adam": (optax.adam(RATE), {"nu"}),
    "adamw": (optax.adamw(RATE), {"nu"}),
    "nadam": (optax.nadam(RATE), {"nu"}),
    "amsgrad": (optax.amsgrad(RATE), {"nu", "nu_max"}),
    "adamax": (optax.adamax(RATE), {"nu"}),
    "adabelief": (optax.adabelief(RATE), {"nu"}),
    "adan": (optax.adan(RATE), {"n"}),
    "yogi": (optax.yogi(RATE), {"nu"}),
    "lamb": (optax.lamb(RATE), {"nu"}),
    "lion": (optax.lion(RATE), set()),
    "rprop": (optax.rprop(RATE), {"step_sizes"}),
    "rmsprop": (optax.rmsprop(RATE), {"nu"}),
    "rmsprop with all": (optax.rmsprop(RATE, centered=True, momentum=0.9), {"nu"}),
    "adagrad": (optax.adagrad(RATE), {"sum_of_squares"}),
    "adadelta": (optax.adadelta(RATE), {"e_g", "e_x"}),
    "adafactor": (optax.adafactor(RATE), {"v"}),
    "muon": (optax.contrib.muon(RATE), set()),
    "schedule-free": (optax.contrib.schedule_free_adamw(RATE), {"nu"}),
    "prodigy": (optax.contrib.prodigy(), {"exp_avg_sq"}),
    "injected": (optax.inject_hyperparams(optax.adam)(RATE), {"nu"}),
    "warm-up from zero": (optax.adam(optax.linear_schedule(0.0, RATE, 10)), {"nu"}),
    "after clipping and noise": (
        optax.chain(optax.clip(0.5), optax.add_noise(0.1, 0.5, jax.random.key(0)), optax.adam(1.0)),
        {"nu"},
    ),
    "accumulated": (optax.MultiSteps(optax.adam(RATE), 3).gradient_transformation(), {"nu"}),
    "masked": (optax.masked(optax.adam(RATE), {"a": True, "bias": False}), {"nu"}),
    "partitioned": (
        optax.partition({"x": optax.adam(RATE), "y": optax.sgd(RATE)}, {"a": "x", "bias": "y"}),
        {"nu"},
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_second_moments_are_found(name):
    tx, expected = OPTIMIZERS[name]
    tx = optax.with_extra_args_support(tx)
    rule = moment_rule(tx, sj.training.averaged_moments, PARAMS, {})
    flat, _ = jax.tree_util.tree_flatten_with_path(tx.init(PARAMS))
    found = set()
    for path, leaf in flat:
        if jnp.shape(leaf) == (6, 5) and rule.is_second[path]:
            found.add(next(key.name for key in path[::-1] if hasattr(key, "name")))
    assert found == expected


def swing(begin, at):
    """All weights, half of them from step `begin` on, all again from step `at` on."""
    half = lambda mask: jnp.arange(mask.size).reshape(mask.shape) % 2 == 0

    def update(masks, state, params, grads, context):
        whole = (context.step < begin) | (context.step >= at)
        return jax.tree.map(lambda mask: whole | half(mask), masks), state

    return MaskTransform(lambda masks, params, context: (masks, ()), update)


def first_steps(fill, begin, at):
    """Mean |update| / rate of kept and of regrown weights when these come back."""
    params = {"kernel": jnp.ones((40, 50))}
    plan = sj.plan(params, {"kernel": sj.Unstructured()}, sparsity=0.5)
    tx = sj.sparsify(
        optax.adam(RATE), swing(begin, at), plan, key=jax.random.key(0), second_moments=fill
    )

    def step(carry, key):
        params, state = carry
        updates, state = tx.update({"kernel": jax.random.normal(key, (40, 50))}, state, params)
        return (optax.apply_updates(params, updates), state), updates["kernel"]

    keys = jax.random.split(jax.random.key(1), at + 1)
    updates = jax.jit(lambda: jax.lax.scan(step, (params, tx.init(params)), keys)[1])()
    sizes = np.abs(np.asarray(updates[at])).ravel() / RATE
    return sizes[::2].mean(), sizes[1::2].mean()


def test_a_regrown_weight_steps_far_from_zeroed_moments_and_as_others_do_from_averaged_ones():
    fills = sj.training
    kept, regrown = first_steps(fills.zeroed_moments, 900, 1_000)
    assert regrown / kept > 8 and 2.4 < regrown < 3.2, "(1 - b1) / sqrt(1 - b2) sqrt(1 - b2^1001)"
    kept, regrown = first_steps(fills.decaying_moments, 900, 1_000)
    assert 0.2 < regrown / kept < 1.0, "its momentum starts at zero"
    _, forgotten = first_steps(fills.decaying_moments, 0, 1_000)
    kept, never = first_steps(fills.averaged_moments, 0, 1_000)
    assert forgotten > 2.4 and 0.2 < never / kept < 1.0, "pruned from the start"


def test_averaged_moments_are_the_mean_of_the_kept():
    moments, mask = jnp.array([1.0, 3.0, 7.0]), jnp.array([True, True, False])
    assert sj.training.averaged_moments(moments, mask).tolist() == [1.0, 3.0, 2.0]
    assert sj.training.averaged_moments(moments, jnp.zeros(3, bool)).tolist() == [0.0, 0.0, 0.0]
    assert sj.training.zeroed_moments(moments, mask).tolist() == [1.0, 3.0, 0.0]
    assert sj.training.decaying_moments(moments, mask) is moments


@pytest.mark.parametrize("fill", [sj.training.averaged_moments, sj.training.decaying_moments])
def test_first_moments_and_weights_stay_exact_zeros(fill):
    params = {"kernel": jnp.ones((4, 5))}
    plan = sj.plan(params, {"kernel": sj.Unstructured()}, sparsity=0.5)
    inner = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(RATE))
    tx = sj.sparsify(inner, swing(2, 9), plan, key=jax.random.key(0), second_moments=fill)
    state = tx.init(params)
    update = jax.jit(tx.update)
    for seed in range(4):
        grads = {"kernel": jax.random.normal(jax.random.key(seed), (4, 5))}
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
    pruned = ~np.asarray(sj.masks_of(state)["kernel"])
    mu, nu = (np.asarray(optax.tree.get(state, name)["kernel"]) for name in ("mu", "nu"))
    assert pruned.any() and not np.asarray(params["kernel"])[pruned].any() and not mu[pruned].any()
    assert np.all(nu[pruned] > 0)


@pytest.mark.parametrize(
    ("inner", "sentence"),
    [
        (
            optax.GradientTransformation(
                lambda params: optax.TraceState(jax.tree.map(jnp.zeros_like, params)),
                lambda grads, state, params=None: (grads, state),
            ),
            "shows no sign in 100 steps",
        ),
        (
            optax.stateless(
                lambda grads, params: jax.tree.map(lambda g: g * jnp.ones((6, 5)), grads)
            ),
            "runs on small stand-ins",
        ),
    ],
    ids=["still", "one shape"],
)
def test_what_cannot_be_told_is_said(inner, sentence):
    params = {"kernel": jnp.ones((6, 5))}
    plan = sj.plan(params, {"kernel": sj.Unstructured()}, sparsity=0.5)
    fill = sj.training.averaged_moments
    tx = sj.sparsify(inner, sj.one_shot(), plan, key=jax.random.key(0), second_moments=fill)
    with pytest.raises(ValueError, match=sentence):
        tx.update(params, tx.init(params), params)
    plain = sj.sparsify(inner, sj.one_shot(), plan, key=jax.random.key(0))
    plain.update(params, plain.init(params), params)
    dense = sj.sparsify(inner, sj.soft.spartan(9), plan, key=jax.random.key(0), second_moments=fill)
    state = dense.init(params)
    jax.eval_shape(sj.forward, params, state)
    dense.update(params, state, params)  # weights stay dense underneath: nothing to fill
