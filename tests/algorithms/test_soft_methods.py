"""Methods with learned thresholds and scores, straight-through ones and AC/DC, by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj
from tests.one_kernel import constant, forward, planned, steps_of


def test_str_shrinks_and_learns_its_threshold():
    # sigmoid(0) = 1/2: 2 -> 1.5, -1 -> -0.5, 0.25 -> 0. dL/ds = -1/4 sum of g sign(w) over kept.
    params, _, context = planned(np.float32([2.0, -1.0, 0.25, 0.0]))
    learned = {"kernel": jnp.float32(0.0)}
    weights, pull = forward(sj.soft.str_(initial=0.0), params, [1, 1, 0, 0], context(0), learned)
    np.testing.assert_allclose(weights["kernel"], [1.5, -0.5, 0.0, 0.0])
    grads, learned_grads = pull({"kernel": jnp.array([3.0, 5.0, 7.0, 11.0])})
    np.testing.assert_allclose(grads["kernel"], [3.0, 5.0, 0.0, 0.0])
    np.testing.assert_allclose(learned_grads["kernel"], -0.25 * (3.0 - 5.0))


def test_str_shrinks_blocks_by_their_root_mean_square():
    # Columns (3, 4) and (0.3, 0.4): r = 3.5355 and 0.35355; sigmoid(0) = 0.5 ends the second.
    params, _, context = planned(np.float32([[3.0, 0.3], [4.0, 0.4]]), sj.Channel())
    mask = [[1, 0], [1, 0]]
    weights, _ = forward(sj.soft.str_(), params, mask, context(0), {"kernel": jnp.float32(0.0)})
    kept = 1 - 0.5 / np.sqrt(12.5)
    np.testing.assert_allclose(weights["kernel"], [[3 * kept, 0], [4 * kept, 0]], rtol=1e-6)


def test_only_weight_decay_moves_the_threshold_of_str_at_its_start():
    # sigmoid(-3200) = 0 with slope 0: s follows -3200 (1 - 0.1 * 0.5)^n whatever the gradients.
    params, plan, _ = planned(np.float32([2.0, -1.0, 0.25, 0.7]))
    decayed = optax.chain(optax.add_decayed_weights(0.5), optax.sgd(0.1))
    key = jax.random.key(0)
    tx = sj.sparsify(optax.sgd(0.1), sj.soft.str_(), plan, key=key, learned_tx=decayed)
    _, state = steps_of(tx, params, 3, constant({"kernel": np.ones(4, np.float32)}))[-1]
    np.testing.assert_allclose(state.reparam.learned["kernel"], -3200 * 0.95**3, rtol=1e-6)
    assert np.all(sj.masks_of(state)["kernel"])


def test_thresholds_may_end_at_the_exact_total():
    # sigmoid(-20) prunes nothing; then 14 of 20 go: all of the small leaf and 4 of the large one.
    large = jnp.arange(1.0, 11.0)
    params = {"a": {"kernel": large}, "b": {"kernel": large / 100}}
    plan = sj.plan(params, {"kernel": sj.Unstructured()}, sparsity=0.7)
    counts = {}
    for exact_from, exact_by in ((None, None), (2, None), (1, 3)):
        method = sj.soft.str_(initial=-20.0, exact_from=exact_from, exact_by=exact_by)
        still, key = optax.sgd(0.0), jax.random.key(0)
        tx = sj.sparsify(still, method, plan, key=key, learned_tx=still)
        history = steps_of(tx, params, 4, lambda params, step: params)
        masks = [sj.masks_of(state) for _, state in history]
        counts[exact_from] = [tuple(int(own[x]["kernel"].sum()) for x in "ab") for own in masks]
    before = [(10, 10)] * 2  # half-way 1 - (1/2)^3 of the 14 go, that is 12
    wanted = {None: [*before, *before], 2: [*before, (6, 0), (6, 0)], 1: [*before, (8, 0), (6, 0)]}
    assert counts == wanted


def test_movement_scores_rise_where_weights_leave_zero():
    # dL/dS = dL/d(w mask) * w for pruned weights too; dL/dw is masked.
    params, _, context = planned(np.float32([1.0, -2.0]))
    learned = {"kernel": jnp.zeros(2)}
    weights, pull = forward(sj.soft.movement(0, 1), params, [1, 0], context(0), learned)
    np.testing.assert_array_equal(weights["kernel"], [1.0, 0.0])
    grads, scores = pull({"kernel": jnp.array([0.5, -0.25])})
    np.testing.assert_allclose(grads["kernel"], [0.5, 0.0])
    np.testing.assert_allclose(scores["kernel"], [0.5, 0.5])


def test_movement_keeps_the_moving_weight_and_not_the_large_one():
    # The gradient pushes 0.1 up and 5.0 down: S of the small weight rises, of the large one falls.
    params, plan, _ = planned(np.float32([5.0, 0.1]))
    tx = sj.sparsify(
        optax.sgd(0.01),
        sj.soft.movement(1, 2),
        plan,
        key=jax.random.key(0),
        learned_tx=optax.sgd(0.01),
    )
    history = steps_of(tx, params, 4, constant({"kernel": np.float32([1.0, -1.0])}))
    np.testing.assert_array_equal(sj.masks_of(history[-1][1])["kernel"], [False, True])
    assert float(sj.harden(*history[-1])["kernel"][0]) == 0.0
    assert float(history[-1][0]["kernel"][0]) > 4.9, "the pruned weight keeps its value"


def test_soft_movement_pays_for_open_scores():
    # At the end of the ramp: 8 * sigmoid'(0) / 2 weights = 1 a score, besides g w.
    params, _, context = planned(np.float32([1.0, -2.0]))
    learned = {"kernel": jnp.zeros(2)}
    method = sj.soft.soft_movement(0, 1, penalty=8.0)
    _, pull = forward(method, params, [1, 0], context(1), learned)
    np.testing.assert_allclose(pull({"kernel": jnp.array([0.5, -0.25])})[1]["kernel"], [1.5, 1.5])
    _, pull = forward(method, params, [1, 0], context(0), learned)
    np.testing.assert_allclose(pull({"kernel": jnp.array([0.5, -0.25])})[1]["kernel"], [0.5, 0.5])


def test_soft_movement_cuts_where_the_sigmoid_is_below_the_threshold():
    params, plan, context = planned(np.float32([1.0, 1.0, 1.0, 1.0]))
    scores = {"kernel": jnp.array([-3.0, -2.3, -2.1, 0.0])}  # sigmoid: 0.047, 0.091, 0.109, 0.5
    method, masks = sj.soft.soft_movement(0, 4, threshold=0.1), sj.masks.full_masks(params, plan)
    kept = {}
    for step in (0, 1, 4):
        own = context(step)._replace(key=jax.random.key(0), learned=scores)
        cut, _ = method.transform.update(masks, (), params, params, own)
        kept[step] = np.flatnonzero(cut["kernel"]).tolist()
    # After one step of four the threshold is 0.1 (1 - 0.75^3) = 0.058.
    assert kept == {0: [0, 1, 2, 3], 1: [1, 2, 3], 4: [2, 3]}


def test_sr_ste_decays_pruned_weights_only():
    params, _, context = planned(np.float32([[4.0], [3.0], [-2.0], [1.0]]), sj.NM(2, 4))
    method = sj.soft.sr_ste(decay=0.1)
    weights, pull = forward(method, params, [[1], [1], [0], [0]], context(0))
    np.testing.assert_array_equal(weights["kernel"], [[4.0], [3.0], [0.0], [0.0]])
    grads = pull({"kernel": jnp.ones((4, 1))})[0]["kernel"]
    np.testing.assert_allclose(grads, [[1.0], [1.0], [0.8], [1.1]])


@pytest.mark.parametrize("rate", [0.5, optax.constant_schedule(0.5)], ids=["number", "schedule"])
def test_sr_ste_decays_pruned_weights_by_rate_times_decay_under_adam(rate):
    params, plan, _ = planned(np.float32([[4.0], [3.0], [-2.0], [1.0]]), sj.NM(2, 4))
    moved = {}
    for decay in (0.0, 0.1):
        method = sj.soft.sr_ste(decay=decay, rate=rate)
        tx = sj.sparsify(optax.adam(0.5), method, plan, key=jax.random.key(0))
        ((ended, _),) = steps_of(tx, params, 1, lambda params, step: params)
        moved[decay] = np.asarray(ended["kernel"])
    apart = moved[0.1] - moved[0.0]
    np.testing.assert_allclose(apart, [[0.0], [0.0], [0.1], [-0.05]], rtol=1e-5)


def test_the_decay_of_sr_ste_has_the_dtype_of_the_weights():
    params, _, context = planned(jnp.ones((4, 1), jnp.bfloat16), sj.NM(2, 4))
    masks = {"kernel": jnp.array([[1], [1], [0], [0]], bool)}
    method = sj.soft.sr_ste(decay=0.5, rate=lambda step: jnp.float32(0.5))
    with jax.numpy_dtype_promotion("strict"):
        drift = method.reparam.drift(params, masks, (), context(3))["kernel"]
    assert drift.dtype == jnp.bfloat16
    assert drift.astype(jnp.float32).tolist() == [[0.0], [0.0], [-0.25], [-0.25]]


def test_sr_ste_is_n_of_m_before_the_first_step():
    params, plan, _ = planned(np.float32([[4.0], [3.0], [-2.0], [1.0]]), sj.NM(1, 4))
    tx = sj.sparsify(optax.sgd(0.1), sj.soft.sr_ste(), plan, key=jax.random.key(0))
    np.testing.assert_array_equal(
        sj.effective(params, tx.init(params))["kernel"], [[4.0], [0.0], [0.0], [0.0]]
    )


def test_top_kast_reaches_the_runners_up_and_no_further():
    # A = {5, -4}, B adds 3 and 2; D = 1/3. Gradient 1 plus 0.1 w in A, 0.1 w / D in B outside.
    params, _, context = planned(np.float32([5.0, -4.0, 3.0, 2.0, 1.0, 0.5]), sparsity=2 / 3)
    method = sj.soft.top_kast(explored=0.5, decay=0.1)
    weights, pull = forward(method, params, [1, 1, 0, 0, 0, 0], context(0))
    np.testing.assert_array_equal(weights["kernel"], [5.0, -4.0, 0.0, 0.0, 0.0, 0.0])
    grads = pull({"kernel": jnp.ones(6)})[0]["kernel"]
    np.testing.assert_allclose(grads, [1.5, 0.6, 1.9, 1.6, 0.0, 0.0], rtol=1e-5)


@pytest.mark.parametrize(
    "inner",
    [
        optax.sgd(0.1, momentum=0.9, nesterov=True),
        optax.adamw(0.1, weight_decay=0.1),
        optax.lamb(0.1),
        optax.contrib.schedule_free_adamw(0.1, weight_decay=0.1),
    ],
    ids=["momentum", "adamw", "lamb", "schedule-free"],
)
def test_what_top_kast_does_not_reach_rests_under_any_optimizer(inner):
    weights = 0.1 * np.random.default_rng(0).normal(size=20)
    params, plan, _ = planned(np.float32(weights), sparsity=0.8)
    method = sj.soft.top_kast(explored=0.375, every=1, decay=0.1)
    tx = sj.sparsify(inner, method, plan, key=jax.random.key(0))
    state, update = tx.init(params), jax.jit(tx.update)
    jax.eval_shape(sj.forward, params, state)  # these gradients are said to be of these weights
    entered, before = 0, np.ones(20, bool)  # weights that came to B
    for seed in range(8):
        weights, mask = np.asarray(params["kernel"]), np.asarray(sj.masks_of(state)["kernel"])
        order = np.argsort(-np.where(mask, np.inf, np.abs(weights)), kind="stable")
        within = np.isin(np.arange(20), order[:10])
        grads = {"kernel": jax.random.normal(jax.random.key(seed), (20,))}
        updates, state = update(grads, state, params)
        moves = np.asarray(updates["kernel"])
        assert not moves[~within].any() and moves[within].any()
        entered += np.sum(within & ~before)
        params, before = optax.apply_updates(params, updates), within
    assert entered > 0


def test_ac_dc_follows_the_papers_hundred_epochs():
    # Dense to 10; sparse from 10, 20, ..., 70 and dense from 15, 25, ..., 75; sparse from 85.
    params, plan, context = planned(np.arange(1.0, 9.0, dtype=np.float32), sparsity=0.75)
    method = sj.pruning.ac_dc(10, 85, phase=5)

    def one_step(carry, step):
        own = context(0)._replace(step=step, key=jax.random.key(0))
        masks, state = method.update(*carry, params, params, own)
        return (masks, state), masks["kernel"]

    own = context(0)._replace(key=jax.random.key(0))
    first = method.init(sj.masks.full_masks(params, plan), params, own)
    masks = np.asarray(jax.lax.scan(one_step, first, jnp.arange(100))[1])
    sparse = [step for step in range(100) if masks[step].sum() == 2]
    expected = [e for start in range(10, 71, 10) for e in range(start, start + 5)]
    assert sparse == expected + list(range(85, 100))
    assert np.all(masks.sum(1)[[0, 9, 15, 19, 75, 84]] == 8)
    assert np.all(masks[sparse][:, -2:])


def test_ac_dc_restarts_pruned_weights_from_zero():
    params, plan, _ = planned(np.float32([4.0, 3.0, 2.0, 1.0]))
    tx = sj.sparsify(optax.sgd(0.1), sj.pruning.ac_dc(0, 4, phase=2), plan, key=jax.random.key(0))
    history = steps_of(tx, params, 5, constant({"kernel": np.full(4, -1.0, np.float32)}))
    values = [params["kernel"] for params, _ in history]
    np.testing.assert_allclose(values[1], [4.2, 3.2, 0.0, 0.0], rtol=1e-6)
    np.testing.assert_allclose(values[3], [4.4, 3.4, 0.2, 0.2], rtol=1e-6)
    np.testing.assert_allclose(values[4], [4.5, 3.5, 0.0, 0.0], rtol=1e-6)


def test_errors_at_the_door():
    with pytest.raises(ValueError, match="pdp needs 0 <= begin < end"):
        sj.soft.pdp(5, 5)
    with pytest.raises(ValueError, match="ac_dc needs"):
        sj.pruning.ac_dc(0, 9, phase=5)
    with pytest.raises(ValueError, match="spartan needs num_steps"):
        sj.soft.spartan(10, warmup=0.9)
    with pytest.raises(ValueError, match="initial_sharpness <= sharpness"):
        sj.soft.spartan(10, sharpness=0.5)
    with pytest.raises(ValueError, match="sr_ste needs decay"):
        sj.soft.sr_ste(decay=-1.0)
    with pytest.raises(ValueError, match="soft_movement needs"):
        sj.soft.soft_movement(0, 1, threshold=1.0)
    for method in (sj.soft.str_, functools.partial(sj.soft.soft_movement, 0, 1)):
        for steps in ({"exact_from": -1}, {"exact_from": 3, "exact_by": 3}, {"exact_by": 3}):
            with pytest.raises(ValueError, match="needs exact_from >= 0 or None, and exact_by"):
                method(**steps)
    with pytest.raises(ValueError, match="top_kast needs 0 <= explored"):
        sj.soft.top_kast(explored=1.5)
    params, plan, _ = planned(np.float32([[4.0], [3.0], [-2.0], [1.0]]), sj.NM(3, 4), 0.25)
    for method, message in (
        (sj.soft.str_(), "kernel: a learned threshold needs a pattern"),
        (sj.soft.soft_movement(0, 1), "kernel: a learned threshold needs a pattern"),
    ):
        sgd, key = optax.sgd(0.1), jax.random.key(0)
        tx = sj.sparsify(sgd, method, plan, key=key, learned_tx=sgd)
        with pytest.raises(ValueError, match=message):
            tx.init(params)
