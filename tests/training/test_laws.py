"""Laws of sparsify: pruned weights are exactly zero, whatever the method or the optimizer."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj
from tests import cases

ALL_METHODS = cases.METHODS | cases.GLOBAL_METHODS | cases.SWELLING_METHODS


def mixed_plan(params):
    """Two leaves, two patterns."""
    return sj.plan(params, {"conv/kernel": sj.Block(4, 1), "dense": sj.NM(2, 4)}, sparsity=0.5)


def train(tx, params, num_steps=cases.NUM_STEPS):
    """Params and optimizer states after each step, stacked; the loop is any optax user's."""

    def one_step(carry, step):
        params, opt_state = carry
        updates, opt_state = tx.update(cases.fake_grads(params, step), opt_state, params)
        params = optax.apply_updates(params, updates)
        return (params, opt_state), (params, opt_state, updates)

    def run(params):
        start = params, tx.init(params)
        return start, *jax.lax.scan(one_step, start, jnp.arange(num_steps))

    start, end, history = jax.jit(run)(params)
    chex.assert_trees_all_equal_shapes_and_dtypes(start, end)
    return history


def assert_pruned_are_zero(params, masks, plan):
    """Pruned weights are +0.0 and kept ones are not all; returns the stacked masks by path."""
    values = dict(sj.tree.leaves_with_paths(params))
    kept = {path: np.asarray(mask) for path, mask in sj.tree.leaves_with_paths(masks)}
    for leaf in plan.leaves:
        pruned = np.asarray(values[leaf.path], np.float64)[~kept[leaf.path]]
        assert np.all(pruned == 0.0) and not np.any(np.signbit(pruned)), leaf.path
        assert np.all(np.isfinite(np.asarray(values[leaf.path], np.float64)))
    return kept


@pytest.mark.parametrize(
    ("method", "dtype"),
    [(method, jnp.float32) for method in ALL_METHODS]
    + [(method, jnp.bfloat16) for method in ("gmp", "rigl")],
)
def test_pruned_weights_stay_zero(method, dtype):
    params = cases.dict_params(dtype=dtype)
    plan = mixed_plan(params)
    key = jax.random.key(0, impl="rbg")
    transform = ALL_METHODS[method].transform
    tx = sj.sparsify(optax.adamw(0.05, weight_decay=0.1), transform, plan, key=key)
    history, states, updates = train(tx, params)
    kept = assert_pruned_are_zero(history, states.masks, plan)
    assert updates["conv"]["kernel"].dtype == dtype
    assert np.mean(kept["dense/kernel"][-1]) == 0.5 or method in cases.GLOBAL_METHODS
    moments = states.inner_state[0]
    for moment in (*jax.tree.leaves(moments.mu), *jax.tree.leaves(moments.nu)):
        mask = next((m for m in kept.values() if m.shape == moment.shape), None)
        assert mask is None or not np.any(np.asarray(moment, np.float32)[~mask])


@pytest.mark.parametrize("optimizer", cases.OPTIMIZERS)
def test_pruned_weights_stay_zero_with_any_optimizer(optimizer):
    params = cases.dict_params()
    plan = sj.plan(params, {"conv/kernel": sj.Unstructured()}, sparsity=0.75)
    key = jax.random.key(0, impl="rbg")
    inner = cases.OPTIMIZERS[optimizer]
    tx = sj.sparsify(inner, sj.rigl(9, every=3), plan, key=key)
    history, states, _ = train(tx, params)
    kept = assert_pruned_are_zero(history, states.masks, plan)
    assert np.sum(kept["conv/kernel"][-1]) == 72
    moved = np.asarray(history["conv"]["kernel"])
    assert np.any(moved[-1] != moved[-2]), "training goes on"
    assert np.any(kept["conv/kernel"][-1] & ~kept["conv/kernel"][1]), "RigL regrows"

    is_masked = lambda node: isinstance(node, optax.MaskedNode)

    def all_zero(moment, mask):
        if not is_masked(mask) and not is_masked(moment) and moment.shape == mask.shape:
            assert not np.any(np.asarray(moment)[~np.asarray(mask)])
        return moment

    optax.tree.map_params(inner, all_zero, states.inner_state, states.masks, is_leaf=is_masked)


def test_the_outside_wrappers_keep_zeros_and_masks_of_finds_them():
    params = cases.dict_params()
    plan = sj.plan(params, {"dense/kernel": sj.Unstructured()}, sparsity=0.75)
    key = jax.random.key(0, impl="rbg")
    inner = lambda rate: sj.sparsify(optax.adam(rate), sj.rigl(9, every=3), plan, key=key)
    wrapped = {
        "multi_steps": optax.MultiSteps(inner(0.1), 2).gradient_transformation(),
        "inject": optax.inject_hyperparams(inner)(rate=0.1),
        "chain": optax.chain(optax.identity(), inner(0.1)),
    }
    for name, tx in wrapped.items():
        history, states, _ = train(tx, params, num_steps=16)
        masks = sj.masks_of(states)
        if name == "multi_steps":  # nothing is applied before the second step
            history, masks = jax.tree.map(lambda x: x[1:], (history, masks))
        kept = assert_pruned_are_zero(history, masks, plan)
        assert np.any(kept["dense/kernel"][-1] & ~kept["dense/kernel"][1]), "RigL regrows"


def test_negative_zero_and_infinite_gradients():
    params = {"kernel": jnp.array([[-0.0, 1.0], [2.0, -3.0]])}
    plan = sj.plan(params, {"kernel": sj.Unstructured()}, sparsity=0.5)
    tx = sj.sparsify(optax.sgd(0.1), sj.one_shot(), plan, key=jax.random.key(0))
    grads = {"kernel": jnp.array([[jnp.inf, jnp.nan], [1.0, 1.0]])}
    updates, _ = tx.update(grads, tx.init(params), params)
    after = np.asarray(optax.apply_updates(params, updates)["kernel"])
    np.testing.assert_array_equal(after[0], [0.0, 0.0])
    assert not np.any(np.signbit(after[0]))
    np.testing.assert_allclose(after[1], [1.9, -3.1], rtol=1e-6)


@pytest.mark.parametrize("narrow", ["float16", "bfloat16", "float32"])
def test_updates_of_any_dtype_land_on_zero_in_the_dtype_of_the_params(narrow):
    """-w rounded to 8 bits would miss it."""
    params = {"kernel": jnp.array([[1.001, 2.003], [300.7, -400.9]])}
    plan = sj.plan(params, {"kernel": sj.Unstructured()}, sparsity=0.5)
    inner = optax.stateless(lambda updates, _: jax.tree.map(lambda u: u.astype(narrow), updates))
    tx = sj.sparsify(inner, sj.one_shot(), plan, key=jax.random.key(0))
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    assert updates["kernel"].dtype == jnp.float32
    after = optax.apply_updates(params, updates)["kernel"]
    np.testing.assert_array_equal(after[0], [0.0, 0.0])
    np.testing.assert_array_equal(after[1], params["kernel"][1] + 1)


def test_the_optimizer_sees_the_pruned_network():
    params = {"kernel": jnp.array([[1.0, 2.0], [3.0, 4.0]])}
    plan = sj.plan(params, {"kernel": sj.Unstructured()}, sparsity=0.5)
    spied = []

    def spy(updates, state, params):
        spied.append((updates["kernel"], state["kernel"], params["kernel"]))
        return updates, updates

    inner = optax.GradientTransformation(lambda params: params, spy)
    tx = sj.sparsify(inner, sj.one_shot(1), plan, key=jax.random.key(0))
    state = tx.init(params)
    with jax.disable_jit():
        for _ in range(2):
            _, state = tx.update(params, state, params)
    for before, after in zip(*spied, strict=True):
        np.testing.assert_array_equal(before, params["kernel"])
        np.testing.assert_array_equal(after, [[0.0, 0.0], [3.0, 4.0]])


def test_each_step_draws_anew_and_the_state_may_be_donated():
    params = cases.dict_params()
    spy = sj.masks.MaskTransform(
        lambda masks, params, context: (masks, jax.random.key_data(context.key)),
        lambda masks, state, params, grads, context: (masks, jax.random.key_data(context.key)),
    )
    tx = sj.sparsify(optax.sgd(0.1), spy, mixed_plan(params), key=jax.random.key(5))
    update = jax.jit(lambda state: tx.update(params, state, params)[1], donate_argnums=0)
    runs = []
    for _ in range(2):  # the second init would fail if the first state had been the transform's own
        state, keys = tx.init(params), []
        for _ in range(3):
            keys.append(tuple(np.asarray(state.method_state).tolist()))
            state = update(state)
        runs.append(keys)
    assert len(set(runs[0])) == 3 and runs[0] == runs[1]


def test_donated_states_leave_the_users_masks_alone():
    params = cases.dict_params()
    plan = mixed_plan(params)
    masks = sj.masks.full_masks(params, plan)
    key, given = jax.random.key(0), lambda params, plan: masks
    tx = sj.sparsify(optax.sgd(0.1), sj.chain(), plan, key=key, initial_masks=given)
    jax.jit(lambda state: tx.update(params, state, params)[1], donate_argnums=0)(tx.init(params))
    assert all(bool(mask.all()) for mask in jax.tree.leaves(masks))


def test_one_compilation_in_a_thousand_steps():
    params = {"kernel": jnp.asarray(np.random.default_rng(0).normal(size=(8, 8)), jnp.float32)}
    plan = sj.plan(params, {"kernel": sj.Unstructured()}, sparsity=0.9)
    tx = sj.sparsify(optax.adam(0.01), sj.gmp(10, 900, every=10), plan, key=jax.random.key(0))

    @chex.assert_max_traces(n=1)
    def one_step(params, opt_state):
        grads = cases.fake_grads(params, opt_state.step)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    step = jax.jit(one_step, donate_argnums=(0, 1))
    opt_state = tx.init(params)
    for _ in range(1000):
        params, opt_state = step(params, opt_state)
    assert step._cache_size() == 1
    assert np.sum(np.asarray(params["kernel"]) == 0) == 58


def test_optax_map_params_works_on_a_sparsified_transform():
    params = cases.dict_params()
    tx = sj.sparsify(optax.adam(0.1), sj.rigl(9), mixed_plan(params), key=jax.random.key(0))
    state = jax.eval_shape(tx.init, params)
    seen = []
    optax.tree.map_params(tx, lambda leaf: seen.append(leaf.shape) or leaf, state)
    assert len(seen) >= 2 * len(jax.tree.leaves(params))


def test_continues_from_a_sparse_checkpoint():
    params = cases.dict_params()
    plan = mixed_plan(params)
    key = jax.random.key(0, impl="rbg")
    pruner = sj.sparsify(optax.sgd(0.1), sj.static_random(), plan, key=key)
    pruned = sj.harden(params, jax.jit(pruner.init)(params))
    for method in ("gmp", "rigl"):
        tx = sj.sparsify(
            optax.adam(0.05),
            cases.METHODS[method].transform,
            plan,
            key=jax.random.key(1, impl="rbg"),
            initial_masks=sj.masks.masks_from_zeros,
        )
        history, states, _ = train(tx, pruned)
        kept = assert_pruned_are_zero(history, states.masks, plan)
        regrown = 0
        for leaf in plan.leaves:
            start = np.asarray(dict(sj.tree.leaves_with_paths(pruned))[leaf.path]) != 0
            steps = kept[leaf.path]
            np.testing.assert_array_equal(steps.reshape(len(steps), -1).sum(1), start.sum())
            regrown += np.sum(steps[-1] & ~start)
        assert (regrown > 0) == (method == "rigl")


def test_straight_through_forward_is_masked_and_gradients_are_dense():
    params = cases.dict_params()
    plan = sj.plan(params, {"conv/kernel": sj.Unstructured()}, sparsity=0.75)
    method = sj.gmp(0, 4, every=1, regrow=True)
    tx = sj.sparsify(
        optax.sgd(0.3), method, plan, key=jax.random.key(0), reparam=sj.soft.straight_through()
    )
    opt_state = tx.init(params)
    loss = lambda params, opt_state: jnp.sum(
        (sj.effective(params, opt_state)["conv"]["kernel"] - 0.7) ** 2
    )

    @jax.jit
    def one_step(params, opt_state):
        grads = jax.grad(loss)(params, opt_state)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, grads

    masks = []
    for _ in range(8):
        params, opt_state, grads = one_step(params, opt_state)
        masks.append(np.asarray(sj.masks_of(opt_state)["conv"]["kernel"]))
    kept, dense = masks[-1], np.asarray(params["conv"]["kernel"])
    assert np.all(dense != 0.0), "the weights underneath stay dense"
    assert np.all(np.asarray(grads["conv"]["kernel"]) != 0.0), "the gradient is dense"
    forward = np.asarray(sj.effective(params, opt_state)["conv"]["kernel"])
    np.testing.assert_array_equal(forward, np.where(kept, dense, 0.0))
    hard = np.asarray(sj.harden(params, opt_state)["conv"]["kernel"])
    np.testing.assert_array_equal(hard, forward)
    assert np.sum(hard == 0.0) == 216
    assert any(np.any(late & ~early) for early, late in itertools.pairwise(masks))


def test_errors_at_the_door():
    params = cases.dict_params()
    plan = mixed_plan(params)
    tx = sj.sparsify(optax.sgd(0.1), sj.one_shot(), plan, key=jax.random.key(0))
    with pytest.raises(ValueError, match="needs the params"):
        tx.update(params, tx.init(params))
    with pytest.raises(ValueError, match="conv/kernel has shape"):
        tx.init({"dense": params["dense"], "head": params["head"]})
    with pytest.raises(TypeError, match="PRNG key"):
        sj.sparsify(optax.sgd(0.1), sj.one_shot(), plan, key=0)
    with pytest.raises(ValueError, match="found 0"):
        sj.masks_of(optax.sgd(0.1).init(params))
    with pytest.raises(ValueError, match="found 2"):
        sj.masks_of((tx.init(params), tx.init(params)))
    with pytest.raises(ValueError, match="leaves 0 weights"):
        sj.sparsify(
            optax.sgd(0.1), sj.global_mp(min_weights=1000), plan, key=jax.random.key(0)
        ).init(params)
    with pytest.raises(ValueError, match="num_steps >= 1"):
        sj.every(0, sj.static_random())
