"""Lottery tickets: rounds by hand, what starts over from what, and the jackpot test."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

import sparsejax as sj
from tests import cases


def two_layers():
    params = {
        "a": {"kernel": jnp.array([8.0, 1.0, -7.0, 2.0])},
        "b": {"kernel": jnp.array([-6.0, 0.5, 5.0, 0.1])},
        "bias": jnp.ones(2),
    }
    return params, sj.plan(params, {"kernel": sj.Unstructured()}, sparsity=0.75)


def test_one_shot_takes_the_largest_weights_of_the_trained_network():
    params, plan = two_layers()
    trained = jax.tree.map(lambda w: 10.0 - w, params)  # 2 9 17 8, 16 9.5 5 9.9
    masks, kept = sj.studies.lottery_ticket(lambda masks: trained, params, plan)
    np.testing.assert_array_equal(masks["a"]["kernel"], [0, 0, 1, 0])
    np.testing.assert_array_equal(masks["b"]["kernel"], [1, 0, 0, 0])
    assert kept is trained
    rewound = sj.masked(params, masks)
    np.testing.assert_array_equal(rewound["a"]["kernel"], [0, 0, -7, 0])
    np.testing.assert_array_equal(rewound["bias"], [1, 1])


def test_rounds_take_the_same_share_of_what_is_left():
    # 1 - 0.8^5 of 1,000 weights in five rounds: 800, 640, 512, 410, 328 are left.
    params = {"kernel": jnp.asarray(np.random.default_rng(0).normal(size=1000), jnp.float32)}
    plan = sj.plan(params, {"kernel": sj.Unstructured()}, sparsity=1 - 0.8**5)
    left = []

    def train(masks):
        left.append(int(masks["kernel"].sum()))
        return sj.masked(jax.tree.map(lambda w: w + 0.1 * len(left), params), masks)

    masks, trained = sj.studies.lottery_ticket(train, params, plan, rounds=5)
    assert [*left, int(masks["kernel"].sum())] == [1000, 800, 640, 512, 410, 328]
    assert np.all(np.asarray(trained["kernel"])[np.asarray(masks["kernel"])] != 0.0)
    with pytest.raises(ValueError, match="rounds >= 1"):
        sj.studies.lottery_ticket(train, params, plan, rounds=0)


def test_a_ticket_trains_from_rewound_weights_and_stays_sparse():
    params = cases.dict_params()
    plan = cases.planned(sj.Unstructured(), 0.8)
    goal = jax.tree.map(lambda w: jnp.roll(w, 1), params)
    loss = lambda p: sum(
        jnp.sum((a - b) ** 2) for a, b in zip(*map(jax.tree.leaves, (p, goal)), strict=True)
    )

    def train(masks):
        fixed = lambda params, plan: masks
        key = jax.random.key(0)
        tx = sj.sparsify(optax.sgd(0.1), sj.chain(), plan, key=key, initial_masks=fixed)

        def one_step(carry, _):
            updates, state = tx.update(jax.grad(loss)(carry[0]), carry[1], carry[0])
            return (optax.apply_updates(carry[0], updates), state), None

        start = sj.masked(params, masks)
        return jax.lax.scan(one_step, (start, tx.init(start)), length=30)[0][0]

    ticket = sj.studies.lottery_ticket(jax.jit(train), params, plan, rounds=2)
    trained = train(ticket.masks)
    largest = np.sort(
        np.abs(np.concatenate([np.ravel(goal[m]["kernel"]) for m in ("conv", "dense")]))
    )
    threshold = largest[plan.num_pruned]
    for module in ("conv", "dense"):
        mask = np.asarray(ticket.masks[module]["kernel"])
        np.testing.assert_array_equal(mask, np.abs(np.asarray(goal[module]["kernel"])) >= threshold)
        assert np.all(np.asarray(trained[module]["kernel"])[~mask] == 0.0)
    assert float(loss(trained)) < float(loss(sj.masked(params, ticket.masks)))


def test_overlap_counts_the_common_largest_weights():
    params, plan = two_layers()
    assert float(sj.studies.magnitude_overlap(params, params, plan)) == 1.0
    other = params | {"b": {"kernel": jnp.array([9.0, 0.0, 0.0, 0.0])}}  # 8, -7 against 9, 8
    assert float(sj.studies.magnitude_overlap(params, other, plan)) == 0.5


def test_the_interval_is_welchs():
    one, other = [92.0, 92.5, 93.1], [91.0, 91.1, 90.2, 91.4]
    result = sj.studies.jackpot(one, other, one)
    wanted = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    np.testing.assert_allclose(result.interval_reinitialised, [wanted.low, wanted.high])
    np.testing.assert_allclose(result.over_reinitialised, np.mean(one) - np.mean(other))


def test_the_verdicts():
    wins, fails, dense = [92.0, 92.1, 92.2], [91.0, 91.1, 91.2], [92.3, 92.4, 92.5]
    assert sj.studies.jackpot(wins, fails, dense).verdict == "jackpot"
    assert sj.studies.jackpot(wins, fails, [x + 1 for x in dense]).verdict == "secondary prize"
    assert sj.studies.jackpot(wins, wins, dense).verdict == "no ticket"
    assert sj.studies.jackpot(wins, [x - 0.4 for x in wins], dense).verdict == "no ticket", (
        "too close"
    )
    noisy = [88.0, 91.0, 94.0]
    assert sj.studies.jackpot(wins, noisy, dense).verdict == "no ticket", "the interval holds 0"
    with pytest.raises(ValueError, match="two seeds each, got 3 tickets, 1 re-init"):
        sj.studies.jackpot(wins, [91.0], dense)
