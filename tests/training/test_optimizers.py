"""Every optimizer of optax keeps exact zeros; wrappers around several `sparsify` merge masks."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj
from tests import cases

RATE = 0.05
# They need more than a loss, a gradient and params, or fail without masks, too.
OTHERS = {"chain", "hutchinson_estimator_diag_hessian", "named_chain", "scale_by_muon", "sophia"}


def factories():
    """Each optax function that makes a transform of nothing or of a learning rate."""
    found = {}
    for module in (optax, optax.contrib):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            own = inspect.signature(function).parameters.values()
            needed = [
                p.name for p in own if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
            ]
            wants = {(): (), ("learning_rate",): (RATE,), ("max_backtracking_steps",): (9,)}
            wants |= {("max_linesearch_steps",): (9,), ("step_size",): (RATE,)}
            returns = "GradientTransformation" in str(inspect.signature(function).return_annotation)
            if tuple(needed) in wants and returns and name not in OTHERS:
                found[name] = function, wants[tuple(needed)]
    return found


@pytest.mark.parametrize("name", factories())
@pytest.mark.filterwarnings("ignore:Specifying a key", "ignore:`optimistic_adam`")
def test_every_optimizer_of_optax_keeps_zeros(name):
    function, arguments = factories()[name]
    params = {
        "a": {"kernel": jnp.array([[0.0, 1.0, -2.0], [0.5, 0.0, 0.0]])},
        "kernel": jnp.ones(3),
    }
    pruned = np.asarray(params["a"]["kernel"]) == 0
    loss = lambda p: jnp.sum((p["a"]["kernel"] - 0.3) ** 2) + jnp.sum((p["kernel"] - 0.5) ** 2)
    plan = sj.plan(params, {"a/kernel": sj.Unstructured()}, sparsity=0.5)
    key, masks = jax.random.key(0), sj.masks.masks_from_zeros
    tx = sj.sparsify(function(*arguments), sj.chain(), plan, key=key, initial_masks=masks)
    with jax.disable_jit():  # no program to compile for each of a hundred
        state = tx.init(params)
        for _ in range(2):
            value, grads = jax.value_and_grad(loss)(params)
            line_search = {"value": value, "grad": grads, "value_fn": loss}
            updates, state = tx.update(grads, state, params, **line_search)
            params = optax.apply_updates(params, updates)
    assert len(factories()) > 80
    weights = np.asarray(params["a"]["kernel"])
    assert np.all(weights[pruned] == 0.0) and np.all(np.isfinite(weights))
    for leaf in jax.tree.leaves(state.inner_state):
        if jnp.shape(leaf)[-2:] == (2, 3) and "linesearch" not in name and name != "lbfgs":
            assert not np.any(np.asarray(leaf)[..., pruned]), "its state is zero there, too"


@pytest.mark.parametrize("optimizer", ["lbfgs", "backtracking"])
def test_line_searches_train_while_masks_change(optimizer):
    params = cases.dict_params()
    loss = lambda p: sum(jnp.sum((leaf - 0.3) ** 4) for leaf in jax.tree.leaves(p))
    plan = sj.plan(params, {"dense": sj.Unstructured()}, sparsity=0.75)
    search = optax.scale_by_backtracking_linesearch(15, store_grad=True)
    inner = optax.lbfgs() if optimizer == "lbfgs" else optax.chain(optax.sgd(1.0), search)
    tx = sj.sparsify(inner, sj.gmp(1, 5, every=2), plan, key=jax.random.key(0))

    def one_step(carry, _):
        params, state = carry
        value, grads = optax.value_and_grad_from_state(loss)(params, state=state)
        extra = {"value": value, "grad": grads, "value_fn": loss}
        updates, state = tx.update(grads, state, params, **extra)
        return (optax.apply_updates(params, updates), state), value

    run = jax.jit(lambda p: jax.lax.scan(one_step, (p, tx.init(p)), length=14))
    (params, state), losses = run(params)
    mask = np.asarray(sj.masks_of(state)["dense"]["kernel"])
    assert np.sum(~mask) == plan.num_pruned
    assert np.all(np.asarray(params["dense"]["kernel"])[~mask] == 0.0)
    assert losses[-1] < losses[7] < losses[0]


def test_several_sparsify_under_one_partition_are_one():
    params = cases.dict_params()
    rules = {"conv": {"conv/kernel": sj.Unstructured()}, "dense": {"dense": (sj.NM(2, 4), 0.5)}}
    plans = {label: sj.plan(params, rule, sparsity=0.75) for label, rule in rules.items()}
    soft = {"conv": sj.one_shot(), "dense": sj.soft.sr_ste()}
    labels = {name: jax.tree.map(lambda _, name=name: name, leaf) for name, leaf in params.items()}
    make = lambda label: sj.sparsify(
        optax.adam(RATE), soft[label], plans[label], key=jax.random.key(0)
    )
    tx = optax.partition({**{k: make(k) for k in plans}, "head": optax.sgd(RATE)}, labels)

    @jax.jit
    def two_steps(params):
        state = tx.init(params)
        for _ in range(2):
            grads = cases.fake_grads(sj.forward(params, state), 1)
            updates, state = tx.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        return params, state, sj.harden(params, state), sj.forward(params, state)

    params, state, hard, forward = two_steps(params)
    masks = sj.masks_of(state)
    assert jax.tree.structure(hard) == jax.tree.structure(params)
    for name in ("conv", "dense"):
        mask = np.asarray(masks[name]["kernel"])
        assert np.sum(~mask) == plans[name].num_pruned
        assert np.all(np.asarray(hard[name]["kernel"])[~mask] == 0.0)
        assert np.all(np.asarray(forward[name]["kernel"])[~mask] == 0.0)
    assert np.all(np.asarray(params["dense"]["kernel"]) != 0.0), "SR-STE keeps them underneath"
    both = sj.Plan(plans["conv"].leaves + plans["dense"].leaves)
    assert sj.report(params, both, state).planned.nonzeros == both.num_weights - both.num_pruned
    assert all(sj.check(params, state, plan=plan) for plan in (both, *plans.values()))
    assert not sj.check(params, state, plan=sj.Plan(()))


def test_two_states_of_one_leaf_are_refused():
    params = cases.dict_params()
    plan = sj.plan(params, {"dense": sj.Unstructured()}, sparsity=0.5)
    tx = sj.sparsify(optax.sgd(RATE), sj.one_shot(), plan, key=jax.random.key(0))
    for ask in (sj.masks_of, lambda s: sj.harden(params, s), lambda s: sj.effective(params, s)):
        with pytest.raises(ValueError, match="found 2 that both mask dense/kernel"):
            ask((tx.init(params), tx.init(params)))
    other = sj.sparsify(optax.sgd(RATE), sj.one_shot(), sj.Plan(()), key=jax.random.key(0))
    with pytest.raises(ValueError, match="several for disjoint leaves of the same params, found 2"):
        sj.masks_of((tx.init(params), other.init(params["dense"])))


@pytest.mark.parametrize("wrapper", ["masked", "partition"])
def test_a_planned_leaf_that_is_masked_out_is_named(wrapper):
    params = cases.dict_params()
    plan = sj.plan(params, {"conv/kernel": sj.Unstructured()}, sparsity=0.5)
    tx = sj.sparsify(optax.sgd(RATE), sj.one_shot(), plan, key=jax.random.key(0))
    trains = {
        name: jax.tree.map(lambda _, n=name: n != "conv", leaf) for name, leaf in params.items()
    }
    wrapped = {
        "masked": optax.masked(tx, trains),
        "partition": optax.partition({True: tx, False: optax.set_to_zero()}, trains),
    }
    with pytest.raises(ValueError, match="conv/kernel is masked out by an"):
        wrapped[wrapper].init(params)
