"""Mask transforms by hand: the published methods on a few weights."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj


def setting(weights, pattern=None, sparsity=0.5):
    """Params, plan and a function step -> context."""
    params = {"kernel": jnp.asarray(weights, jnp.float32)}
    plan = sj.plan(params, {"kernel": pattern or sj.Unstructured()}, sparsity=sparsity)
    context = lambda step: sj.masks.MaskContext(
        plan, jnp.asarray(step, jnp.int32), jax.random.key(0)
    )
    return params, plan, context


def stepper(method, params, context):
    """method.update, compiled once for all steps."""
    return jax.jit(
        lambda masks, state, grads, step: method.update(masks, state, params, grads, context(step))
    )


def mask(*kept):
    return {"kernel": jnp.array([bool(k) for k in kept])}


def test_rigl_drops_the_smallest_and_grows_the_largest_gradient():
    # Kept: 5, -1, 3 (positions 0, 1, 2). One third of three goes: -1, at position 1.
    # Gradients outside {0, 2}: 0.2, 0.1, -0.9, 0.5: position 4 grows; position 2's 7.0 is kept.
    params, _, context = setting([5.0, -1.0, 3.0, 0.0, 0.0, 0.0])
    grads = {"kernel": jnp.array([0.0, 0.2, 7.0, 0.1, -0.9, 0.5])}
    rewire = sj.chain(sj.drop(sj.scores.magnitude, lambda step: 1 / 3), sj.grow(sj.scores.gradient))
    masks, state = rewire.init(mask(1, 1, 1, 0, 0, 0), params, context(0))
    masks, state = rewire.update(masks, state, params, grads, context(1))
    np.testing.assert_array_equal(masks["kernel"], [1, 0, 1, 0, 1, 0])
    # A dropped weight whose gradient is largest is grown right back, as in the paper.
    grads = {"kernel": jnp.array([0.0, 0.2, 7.0, 0.1, -0.9, 0.5])}
    masks, _ = rewire.update(masks, state, params, grads, context(2))
    np.testing.assert_array_equal(masks["kernel"], [1, 0, 1, 0, 1, 0])


def test_rigl_fraction_follows_the_cosine():
    # 100 kept weights of 200; alpha = 0.3 and T_end = 40: f = 0.15 (1 + cos(pi t / 40)).
    generator = np.random.default_rng(0)
    params, plan, context = setting(generator.normal(size=200))
    method = sj.rigl(40, every=10)
    masks, state = method.init(sj.masks.full_masks(params, plan), params, context(0))
    update, swapped = stepper(method, params, context), []
    for step in (0, 5, 10, 20, 30, 40, 50):
        # Gradients are largest where weights are pruned, so that each dropped weight is replaced.
        grads = {"kernel": jnp.where(masks["kernel"], 0.0, 1.0 + jnp.arange(200.0))}
        old = np.asarray(masks["kernel"])
        masks, state = update(masks, state, grads, step)
        new = np.asarray(masks["kernel"])
        assert new.sum() == 100
        swapped.append(int(np.sum(new & ~old)))
    assert swapped == [0, 0, 26, 15, 4, 0, 0]


def test_set_replaces_the_smallest_by_random_ones():
    params, plan, context = setting(np.arange(1.0, 101.0), sparsity=0.8)
    method = sj.sparse_evolution(every=1, fraction=0.3)
    masks, state = method.init(sj.masks.full_masks(params, plan), params, context(0))
    old = np.asarray(masks["kernel"])
    masks, _ = method.update(masks, state, params, {"kernel": jnp.zeros(100)}, context(1))
    new = np.asarray(masks["kernel"])
    kept = np.flatnonzero(old)
    assert old.sum() == new.sum() == 20
    assert np.all(new[kept[6:]]), "the 14 largest stay"
    assert np.sum(new & ~old) >= 3, "some of the 6 smallest give way"


def test_gmp_follows_the_cubic_by_hand():
    # Zhu & Gupta with s_f = 0.8, begin 0, end 4: 0, 0.4625, 0.7, 0.7875, 0.8 of 80 weights.
    params, plan, context = setting(np.random.default_rng(0).normal(size=80), sparsity=0.8)
    method = sj.gmp(0, 4, every=1)
    masks, state = method.init(sj.masks.full_masks(params, plan), params, context(0))
    update, pruned = stepper(method, params, context), []
    for step in range(6):
        masks, state = update(masks, state, params, step)
        pruned.append(int(np.sum(~np.asarray(masks["kernel"]))))
    assert pruned == [0, 37, 56, 63, 64, 64]
    kept = np.abs(np.asarray(params["kernel"]))[np.asarray(masks["kernel"])]
    assert kept.min() == np.sort(np.abs(np.asarray(params["kernel"])))[64]


def test_gmp_waits_until_its_ramp_passes_a_sparse_checkpoint():
    # 80 weights, 40 of them zero: the ramp 0, 37, 56, 63, 64 takes over at the third step.
    weights = np.random.default_rng(0).normal(size=80)
    weights[np.random.default_rng(1).permutation(80)[:40]] = 0.0
    params, plan, context = setting(weights, sparsity=0.8)
    method = sj.gmp(0, 4, every=1)
    masks, state = method.init(sj.masks.masks_from_zeros(params, plan), params, context(0))
    update, pruned = stepper(method, params, context), []
    for step in range(6):
        masks, state = update(masks, state, params, step)
        pruned.append(int(np.sum(~np.asarray(masks["kernel"]))))
        assert not np.any(np.asarray(masks["kernel"])[weights == 0.0])
    assert pruned == [40, 40, 56, 63, 64, 64]


def test_every_fires_at_begin_at_each_period_and_at_end():
    count = sj.masks.MaskTransform(
        init=lambda masks, params, context: (masks, jnp.int32(0)),
        update=lambda masks, state, params, grads, context: (masks, state + 1),
    )
    params, _, context = setting([1.0, 2.0])

    def steps_of(transform):
        masks, state = transform.init(mask(1, 1), params, context(0))
        update, fired = stepper(transform, params, context), []
        for step in range(14):
            _, after = update(masks, state, None, step)
            if int(after) > int(state):
                fired.append(step)
        return fired

    assert steps_of(sj.every(3, count)) == [0, 3, 6, 9, 12]
    assert steps_of(sj.every(4, count, begin=2, end=9)) == [2, 6, 9]
    assert steps_of(sj.every(5, count, begin=5, end=5)) == [5]


def test_chain_gives_each_transform_its_own_key_and_state():
    params, plan, context = setting(np.ones(64))
    key_of = lambda context: tuple(np.asarray(jax.random.key_data(context.key)).tolist())
    spy = sj.masks.MaskTransform(
        lambda masks, params, context: (masks, key_of(context)),
        lambda masks, state, params, grads, context: (masks, (state, key_of(context))),
    )
    masks, state = sj.chain(spy, spy).init(sj.masks.full_masks(params, plan), params, context(0))
    assert len(set(state)) == 2
    _, (first, second) = sj.chain(spy, spy).update(masks, state, params, params, context(0))
    assert (first[0], second[0]) == state and first[1] != second[1]


def test_global_pruning_spends_one_budget_by_one_threshold():
    params = {
        "a": {"kernel": jnp.array([1.0, 2.0, 3.0, 4.0])},
        "b": {"kernel": jnp.array([0.1, 9.0])},
    }
    plan = sj.plan(params, {"kernel": sj.Unstructured()}, sparsity=0.5)
    context = sj.masks.MaskContext(plan, jnp.int32(0), jax.random.key(0))
    method = sj.global_mp()
    masks, state = method.init(sj.masks.full_masks(params, plan), params, context)
    masks, _ = method.update(masks, state, params, params, context)
    np.testing.assert_array_equal(masks["a"]["kernel"], [0, 0, 1, 1])
    np.testing.assert_array_equal(masks["b"]["kernel"], [0, 1])
    # With a floor of 2 the small leaf stays dense and the other one pays.
    method = sj.global_mp(min_weights=1)
    masks, state = method.init(sj.masks.full_masks(params, plan), params, context)
    masks, _ = method.update(masks, state, params, params, context)
    assert np.asarray(masks["b"]["kernel"]).sum() >= 1
    with pytest.raises(ValueError, match="leaves 2 weights to prune, the plan asks for 3"):
        sj.global_mp(min_weights=2).init(sj.masks.full_masks(params, plan), params, context)


def test_global_pruning_counts_what_is_pruned_already():
    params = {"a": {"kernel": jnp.arange(1.0, 5.0)}, "b": {"kernel": jnp.arange(5.0, 9.0)}}
    plan = sj.plan(params, {"kernel": sj.Unstructured()}, sparsity=0.5)
    context = sj.masks.MaskContext(plan, jnp.int32(2), jax.random.key(0))
    method = sj.global_mp(0, 2)
    masks, state = method.init(sj.masks.full_masks(params, plan), params, context)
    for scale in (1.0, 100.0):  # "a" goes, and stays gone however large it would be
        params = {"a": {"kernel": scale * params["a"]["kernel"]}, "b": params["b"]}
        masks, state = method.update(masks, state, params, params, context)
        np.testing.assert_array_equal(masks["a"]["kernel"], [False] * 4)
        np.testing.assert_array_equal(masks["b"]["kernel"], [True] * 4)


def test_a_global_budget_may_regrow():
    params = {"a": {"kernel": jnp.array([1.0, 2.0])}, "b": {"kernel": jnp.array([3.0, 4.0])}}
    plan = sj.plan(params, {"kernel": sj.Unstructured()}, sparsity=0.5)
    context = sj.masks.MaskContext(plan, jnp.int32(1), jax.random.key(0))
    method = sj.gmp(0, 1, every=1, globally=True, regrow=True)
    masks, state = method.init(sj.masks.full_masks(params, plan), params, context)
    for scale, kept in ((1.0, "b"), (100.0, "a")):
        now = {"a": {"kernel": scale * params["a"]["kernel"]}, "b": params["b"]}
        masks, state = method.update(masks, state, now, now, context)
        assert {name for name in "ab" if np.all(masks[name]["kernel"])} == {kept}
        assert {name for name in "ab" if not np.any(masks[name]["kernel"])} == {"a", "b"} - {kept}


def test_a_floor_needs_a_global_budget():
    with pytest.raises(ValueError, match=r"needs globally=True .*, got min_weights=3"):
        sj.prune(sj.scores.magnitude, lambda step: 1.0, min_weights=3)


def test_the_floor_of_global_pruning_agrees_with_the_allocator():
    generator = np.random.default_rng(0)
    sizes, scales = (20, 60, 400, 3000), (0.1, 0.3, 0.2, 1.0)
    params = {
        f"layer{i}": {"kernel": jnp.asarray(generator.normal(size=n) * s, jnp.float32)}
        for i, (n, s) in enumerate(zip(sizes, scales, strict=True))
    }
    rules = {"kernel": sj.Unstructured()}
    allocate = sj.allocate.global_magnitude_with_minimum(min_weights=30)
    wanted = sj.plan(params, rules, sparsity=0.9, allocate=allocate)
    plan = sj.plan(params, rules, sparsity=0.9)
    context = sj.masks.MaskContext(plan, jnp.int32(0), jax.random.key(0))
    method = sj.global_mp(min_weights=30)
    masks, state = method.init(sj.masks.full_masks(params, plan), params, context)
    masks, _ = method.update(masks, state, params, params, context)
    pruned = [int(np.sum(~np.asarray(masks[f"layer{i}"]["kernel"]))) for i in range(4)]
    assert pruned[0] == 0 and pruned[1] == 30
    assert sum(pruned) == plan.num_pruned
    np.testing.assert_allclose(pruned, [leaf.num_pruned for leaf in wanted.leaves], atol=2)


@pytest.mark.filterwarnings("ignore:plan prunes all of d/kernel")  # two weights
def test_the_floor_spends_the_last_weights_of_the_budget():
    # 26 weights go; the floor gives back the 2 of "d", and three equal leaves cannot share them.
    params = {name: {"kernel": jnp.arange(1.0, 11.0)} for name in "abc"}
    params["d"] = {"kernel": jnp.array([0.1, 0.2])}
    plan = sj.plan(params, {"kernel": sj.Unstructured()}, sparsity=0.75)
    context = sj.masks.MaskContext(plan, jnp.int32(0), jax.random.key(0))
    method = sj.global_mp(min_weights=1)
    masks, state = method.init(sj.masks.full_masks(params, plan), params, context)
    masks, _ = method.update(masks, state, params, params, context)
    pruned = [int(np.sum(~np.asarray(masks[name]["kernel"]))) for name in "abcd"]
    assert sum(pruned) == plan.num_pruned == 26
    assert pruned == [9, 8, 8, 1]


def test_drop_and_grow_move_whole_groups():
    weights = np.repeat([[4.0, 1.0, 3.0, 2.0]], 8, axis=0)
    params, plan, context = setting(weights, sj.Channel())
    rewire = sj.chain(sj.drop(sj.scores.magnitude, lambda step: 0.5), sj.grow(sj.scores.gradient))
    kept = {"kernel": jnp.asarray(np.tile([True, True, False, False], (8, 1)))}
    masks, state = rewire.init(kept, params, context(0))
    grads = {"kernel": jnp.asarray(np.tile([0.0, 1.0, 2.0, 9.0], (8, 1)))}
    masks, _ = rewire.update(masks, state, params, grads, context(1))
    np.testing.assert_array_equal(masks["kernel"], np.tile([True, False, False, True], (8, 1)))
    plan["kernel"].pattern.check(masks["kernel"])


def test_regrown_weights_start_from_zero_with_zero_moments():
    params = {"kernel": jnp.array([5.0, -1.0, 3.0, 0.0, 0.0, 0.0])}
    plan = sj.plan(params, {"kernel": sj.Unstructured()}, sparsity=0.5)
    rewire = sj.chain(sj.drop(sj.scores.magnitude, lambda step: 1 / 3), sj.grow(sj.scores.gradient))
    tx = sj.sparsify(
        optax.adam(0.1),
        sj.every(2, rewire, begin=2),
        plan,
        key=jax.random.key(0),
        initial_masks=sj.masks.masks_from_zeros,
    )
    state = tx.init(params)
    grads = {"kernel": jnp.array([0.0, 0.2, 7.0, 0.1, -0.9, 0.5])}
    for _ in range(3):
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_array_equal(sj.masks_of(state)["kernel"], [1, 0, 1, 0, 1, 0])
    adam = state.inner_state[0]
    assert float(adam.mu["kernel"][4]) == pytest.approx(0.1 * -0.9)
    assert float(adam.nu["kernel"][4]) == pytest.approx(0.001 * 0.81)
    assert float(adam.mu["kernel"][1]) == 0.0 and float(params["kernel"][1]) == 0.0
    assert float(params["kernel"][4]) > 0.0
