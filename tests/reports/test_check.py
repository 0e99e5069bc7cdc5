"""What goes wrong around `sparsify` is found, named, and mended by what the message says."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import sparsejax as sj

RATE = 0.05
PARAMS = {"kernel": jnp.linspace(-1.0, 1.0, 32).reshape(4, 8) + 0.01, "bias": jnp.ones(8)}
PLAN = sj.plan(PARAMS, {"kernel": sj.Unstructured()}, sparsity=0.5)


def sparsified(tx=None, method=None, plan=PLAN, **options):
    tx = optax.adam(RATE) if tx is None else tx
    method = sj.one_shot() if method is None else method
    return sj.sparsify(tx, method, plan, key=jax.random.key(0), **options)


def loss(params):
    return jnp.sum((params["kernel"] - 0.3) ** 2) + jnp.sum(params["bias"] ** 2)


def train(tx, num_steps=4, params=PARAMS, line=lambda p, state: p):
    """Params and state after each step, stacked."""

    def one_step(carry, _):
        params, state = carry
        grads = jax.grad(lambda p: loss(line(p, state)))(params)
        updates, state = tx.update(grads, state, params)
        carry = optax.apply_updates(params, updates), state
        return carry, carry

    run = lambda p: jax.lax.scan(one_step, (p, tx.init(p)), length=num_steps)
    return jax.tree.map(np.asarray, jax.jit(run)(params)[1])


def at(history, step=-1):
    return jax.tree.map(lambda leaf: leaf[step], history)


def said(found):
    """Its words, whose lines have 80 columns."""
    assert all(len(line) <= 80 for line in str(found).splitlines())
    return " ".join(str(found).split())


def names(found):
    return [finding.name for finding in found.findings]


def ramp(end):
    return sj.every(1, sj.prune(sj.scores.magnitude, optax.linear_schedule(0.0, 1.0, end)))


INSIDE = {
    "chain": optax.chain(optax.clip_by_global_norm(1.0), optax.adam(RATE)),
    "clip": optax.chain(optax.clip(1.0), optax.adam(RATE)),
    "masked": optax.masked(optax.adam(RATE), {"kernel": True, "bias": False}),
    "multi_steps": optax.MultiSteps(optax.adam(RATE), 2).gradient_transformation(),
    "schedule_free": optax.contrib.schedule_free_adamw(RATE),
    "inject_hyperparams": optax.inject_hyperparams(optax.adam)(learning_rate=RATE),
    "ema": optax.chain(optax.adam(RATE), optax.ema(0.9)),
    "sam": optax.contrib.sam(optax.sgd(RATE), optax.sgd(0.01), sync_period=2),
}
OUTSIDE = {
    "chain_before": lambda tx: optax.chain(optax.clip(1.0), tx),
    "multi_steps": lambda tx: optax.MultiSteps(tx, 2).gradient_transformation(),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),
    "inject_hyperparams": lambda tx: optax.inject_hyperparams(
        lambda rate: sparsified(optax.sgd(rate))
    )(rate=RATE),
    "partition": lambda tx: optax.partition(
        {"sparse": tx, "dense": optax.sgd(RATE)}, {"kernel": "sparse", "bias": "dense"}
    ),
    "masked": lambda tx: optax.masked(tx, {"kernel": True, "bias": False}),
}


def assert_zeros_agree(params, state):
    """Weights, masks, what harden gives and the report have the 16 zeros of the plan."""
    pruned = ~np.asarray(sj.masks_of(state)["kernel"])
    assert pruned.sum() == 16
    for weights in (params, sj.harden(params, state)):
        np.testing.assert_array_equal(weights["kernel"] == 0.0, pruned)
        np.testing.assert_array_equal(weights["bias"], params["bias"])
    assert not sj.report(params, PLAN, state).to_dict()["findings"]


@pytest.mark.parametrize("name", INSIDE)
def test_sparsify_around_it_is_fine(name):
    tx = sparsified(INSIDE[name], plan=PLAN)
    params, state = at(train(tx))
    found = sj.check(params, state)
    assert found and str(found) == "Masks, weights and plan fit together.", str(found)
    assert_zeros_agree(params, state)


@pytest.mark.parametrize("name", OUTSIDE)
def test_it_around_sparsify_is_fine(name):
    params, state = at(train(OUTSIDE[name](sparsified())))
    assert sj.check(params, state), str(sj.check(params, state))
    assert_zeros_agree(params, state)


AFTER = {
    "scale": optax.scale(0.5),
    "ema": optax.ema(0.9),
    "clip": optax.clip(0.01),
    "masked": optax.masked(optax.set_to_zero(), {"kernel": True, "bias": False}),
}


@pytest.mark.parametrize("after", AFTER.values(), ids=AFTER)
def test_what_comes_after_sparsify_is_named(after):
    params, state = at(train(optax.chain(sparsified(), after), 2))
    found = sj.check(params, state)
    assert names(found) == ["nonzero"] and found.findings[0].paths == ("kernel",)
    assert "change the updates after sparsify in optax.chain" in said(found)
    assert "16 of 16 pruned weights are not 0 in kernel" in said(found)
    report = sj.report(params, PLAN, state)
    assert str(report).endswith(str(found)) and report.to_dict()["findings"]


def test_averaged_and_rolled_back_weights_are_named_and_hardened():
    history = train(sparsified(method=ramp(3)), 5)
    params, state = at(history)
    assert sj.check(params, state)
    averaged = jax.tree.map(lambda leaf: leaf.mean(0), history[0])
    for weights in (averaged, at(history, 0)[0]):
        found = sj.check(weights, state)
        assert names(found) == ["nonzero"]
        assert "averaged, looked-ahead or rolled-back" in said(found)
        assert sj.check(sj.harden(weights, state), state)


def test_lookahead_goes_around_and_its_slow_weights_are_hardened():
    tx = optax.lookahead(sparsified(method=ramp(3)), sync_period=3, slow_step_size=0.5)
    params = optax.LookaheadParams.init_synced(PARAMS)
    state, update = tx.init(params), jax.jit(tx.update)
    for _ in range(6):
        updates, state = update(jax.grad(loss)(params.fast), state, params)
        params = optax.apply_updates(params, updates)
    assert "of optax.lookahead pass params.slow" in said(sj.check(params, state))
    found = sj.check(params.slow, state)
    assert names(found) == ["nonzero"] and "sj.harden(params.slow, opt_state)" in said(found)
    assert sj.check(sj.harden(params.slow, state), state)
    inside = sparsified(optax.lookahead(optax.sgd(RATE), 3, 0.5))
    for given in (params, PARAMS):
        with pytest.raises(ValueError, match=r"optax.lookahead\(sj.sparsify\(...\), ...\)"):
            inside.init(given)


def test_averages_of_schedule_free_are_hardened():
    params, state = at(train(sparsified(INSIDE["schedule_free"], method=ramp(3)), 5))
    averaged = optax.contrib.schedule_free_eval_params(state.inner_state, params)
    assert sj.check(params, state) and sj.check(sj.harden(averaged, state), state)


@pytest.mark.parametrize("end", [4, 100])
def test_a_ramp_that_ends_late_is_named(end):
    assert sj.check(*at(train(sparsified(method=ramp(3)), 4)))
    found = sj.check(*at(train(sparsified(method=ramp(end)), 4)))
    assert names(found) == ["target"]
    assert "before the last step, which was 3" in said(found)


def test_thresholds_that_have_not_moved_are_named():
    learned_tx = optax.adamw(1e-3, weight_decay=1e-3)
    tx = sparsified(method=sj.soft.str_(), learned_tx=learned_tx)
    found = sj.check(*at(train(tx, line=sj.forward)))
    assert names(found) == ["target"] and "no learned threshold has passed a weight" in said(found)


@pytest.mark.filterwarnings("ignore::sparsejax.ForwardWarning")
def test_a_soft_method_without_its_forward_is_named():
    tx = sparsified(method=sj.soft.sr_ste())
    assert sj.check(*at(train(tx, line=sj.forward)))
    tx = sparsified(method=sj.soft.sr_ste(decay=0.1))
    params, state = at(train(tx))
    found = sj.check(params, state)
    assert names(found) == ["forward"] and "4 of 4 updates took gradients" in said(found)
    assert "sj.forward(params, opt_state)" in said(sj.report(params, PLAN, state))


def test_masks_that_the_pattern_does_not_allow_are_named():
    params, state = at(train(sparsified()))
    blocks = sj.plan(PARAMS, {"kernel": sj.Channel()}, sparsity=0.5)
    other = sparsified(plan=blocks).init(PARAMS)
    found = sj.check(params, other._replace(masks=state.masks, step=state.step))
    assert names(found) == ["pattern"] and "make it anew" in said(found)


def test_masks_of_groups_on_their_way_are_fine():
    pairs = sj.plan(PARAMS, {"kernel": sj.NM(2, 4, axis=0)}, sparsity=0.5)
    params, state = at(train(sparsified(method=ramp(8), plan=pairs), 3))
    assert 0 < np.sum(~state.masks["kernel"]) < 16
    assert names(sj.check(params, state)) == ["target"]


def test_a_state_of_another_plan_is_named():
    params, state = at(train(sparsified()))
    for leaves in ({"kernel": sj.Block(2, 2)}, {"bias": sj.Unstructured()}, {}):
        other = sj.plan(PARAMS, leaves, sparsity=0.5) if leaves else sj.Plan(())
        found = sj.check(params, state, plan=other)
        assert names(found) == ["plan"] and "pass the plan that sparsify was given" in said(found)
        assert names(sj.report(params, other, state)) == ["plan"]
    found = sj.check(params, state._replace(masks={"kernel": state.masks["kernel"].T}))
    assert names(found) == ["masks"] and "kernel has a bool mask of shape (8, 4)" in said(found)
    assert sj.check(params, state, plan=PLAN)


def test_weights_of_another_network_are_named():
    state = sparsified().init(PARAMS)
    found = sj.check({"other": PARAMS["kernel"]}, state)
    assert names(found) == ["leaves"] and "masks kernel, which the params lack" in said(found)


def test_diverged_weights_are_named():
    params, state = at(train(sparsified()))
    params["kernel"] = np.where(params["kernel"] == 0, np.nan, params["kernel"])
    assert "some are NaN" in said(sj.check(params, state))


def test_modules_are_checked_as_they_are():
    model = eqx.nn.MLP(8, 4, 16, 1, key=jax.random.key(0))
    plan = sj.plan(model, {"layers/0/weight": sj.Unstructured()}, sparsity=0.5)
    state = sparsified(plan=plan).init(model)
    assert sj.check(sj.harden(model, state), state)
    module = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
    plan = sj.plan(nnx.state(module), {"kernel": sj.Unstructured()}, sparsity=0.5)
    tx = sparsified(plan=plan, initial_masks=sj.masks.masks_from_scores(nnx.state(module)))
    optimizer = nnx.Optimizer(module, tx, wrt=nnx.Param)
    assert names(sj.check(module, optimizer)) == ["nonzero"]
    assert sj.check(sj.harden(module, optimizer), optimizer)
