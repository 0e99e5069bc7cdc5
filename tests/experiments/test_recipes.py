"""What recipes add to an optimizer means what it says, whatever clipping and Adam do."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj
from experiments.recipes import DenseOptimizer, Setup, elastic, initial, soft, version
from experiments.runs.records import describe

RNG = np.random.default_rng(0)
PARAMS = {
    "a/kernel": jnp.asarray(RNG.normal(size=(6, 4)), jnp.float32),
    "b/kernel": jnp.asarray(RNG.normal(size=(4, 4)), jnp.float32),
}
BATCH = (jnp.linspace(-2.0, 3.0, 60).reshape(10, 6), jnp.arange(10) % 3)
RATE = 4e-3


def logits_of(params, x):
    return 3.0 * jnp.tanh(x @ params["a/kernel"]) @ params["b/kernel"]


def loss_of(params, batch, *, temperature=1.0):
    logits = logits_of(params, batch[0]) / temperature
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()


def setup_of(pattern=None, sparsity=0.5, **options):
    optimizer = DenseOptimizer(optax.constant_schedule(RATE), 1e-2, 1.0)._replace(**options)
    plan = sj.plan(PARAMS, {"kernel": pattern or sj.Unstructured()}, sparsity=sparsity)
    batches = lambda count: [BATCH] * count
    key = jax.random.key(0)
    return Setup(plan, 80, 10, PARAMS, optimizer, loss_of, logits_of, batches, key)


def first_updates(tx):
    state = tx.init(PARAMS)
    if isinstance(state, sj.training.SparsifyState):
        jax.eval_shape(sj.forward, PARAMS, state)
    return tx.update(jax.grad(loss_of)(PARAMS, BATCH), state, PARAMS)[0]


@pytest.mark.parametrize("clip_norm", [1e-3, float("inf")])
@pytest.mark.parametrize("momentum", [None, 0.9])
def test_what_pulls_is_multiplied_by_the_rate_and_by_nothing_else(momentum, clip_norm):
    optimizer = setup_of(momentum=momentum, clip_norm=clip_norm).optimizer
    pull = sj.structured.admm(lambda path, weights: 0.0 * weights, every=9, rho=0.25)
    with_pull, without = (first_updates(optimizer.transform(p)) for p in (pull, None))
    of_gradient = 1.0 if momentum is None else 1.0 + momentum  # Nesterov's first step
    for path, weights in PARAMS.items():
        expected = -RATE * of_gradient * 0.25 * weights
        np.testing.assert_allclose(with_pull[path] - without[path], expected, atol=1e-8)


def test_the_parts_make_adamw():
    parts = setup_of().optimizer.transform()
    whole = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(RATE, weight_decay=1e-2))
    jax.tree.map(np.testing.assert_array_equal, first_updates(parts), first_updates(whole))


def test_the_rate_restarts_with_each_phase_of_gap():
    onecycle = optax.schedules.cosine_onecycle_schedule(80, RATE, pct_start=0.2)
    schedule = elastic._restarts(onecycle, [15, 15, 15, 15, 20])
    rates = np.array([schedule(step) for step in range(80)])
    for begin in (0, 15, 30, 45, 60):
        assert (
            rates[begin] < 1e-6 < rates[begin + 1]
            and rates[begin + 3 : begin + 5].max() > 0.9 * RATE
        )
    assert rates.max() <= RATE + 1e-9 and rates[-1] < 0.1 * RATE


def test_grasp_divides_the_logits_by_its_temperature():
    setup = setup_of(sparsity=0.5)
    masks = lambda loss: sj.before.grasp(loss, [BATCH, BATCH])(PARAMS, setup.plan)
    hot = masks(lambda params, batch: loss_of(params, batch, temperature=200.0))
    of_recipe = initial.grasp(setup.optimizer.transform(), setup).init(PARAMS).masks
    jax.tree.map(np.testing.assert_array_equal, of_recipe, hot)
    cold = masks(loss_of)
    assert any(np.any(cold[path] != hot[path]) for path in PARAMS)


def test_top_kast_and_sr_ste_decay_as_they_say():
    plain, decayed = (
        first_updates(soft.top_kast(None, setup_of(weight_decay=decay))) for decay in (0.0, 0.5)
    )
    jax.tree.map(np.testing.assert_array_equal, plain, decayed)
    setup = setup_of(pattern=sj.NM(2, 4, axis=-1), momentum=None, weight_decay=0.0)
    with_decay = first_updates(soft.sr_ste(setup.optimizer.transform(), setup))["a/kernel"]
    without = first_updates(soft.straight_through(setup.optimizer.transform(), setup))["a/kernel"]
    kept = np.asarray(setup.plan.leaves[0].pattern.mask(jnp.abs(PARAMS["a/kernel"]), 0.5))
    expected = np.where(kept, 0.0, -2e-4 * PARAMS["a/kernel"])
    np.testing.assert_allclose(with_decay - without, expected, atol=1e-8)


def test_a_new_version_of_a_recipe_has_records_of_its_own():
    def recipe(tx, setup):
        return tx

    recipe.__qualname__ = "recipe"
    assert describe(recipe) == "recipe"
    assert describe(version(2)(recipe)) == "recipe.2"
