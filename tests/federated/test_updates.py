"""Sparse messages: exactly what was asked for, exact zeros, and every byte."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj
from sparsejax.federated.messages import num_bytes, pack, unpack
from sparsejax.federated.variables import Variables, split
from tests.federated.federations import HEAD, KEY, PARAMS, PARTS, clients, close, same, sgd

RNG = np.random.default_rng(1)
BASE = split(Variables(PARAMS), HEAD)[0]
TRAINED = jax.tree.map(
    lambda leaf: leaf + jnp.asarray(RNG.normal(size=leaf.shape), "float32"), BASE
)
PLAN = sj.plan(PARAMS, {"body/kernel": sj.Unstructured()}, sparsity=0.75)  # 3 of 12 stay
NO_MASK = optax.MaskedNode()
LARGEST = sj.Unstructured().mask(jnp.abs(PARAMS["body"]["kernel"]), 0.75)
MASKS = {"body": {"kernel": LARGEST, "bias": NO_MASK}, "head": {"kernel": NO_MASK}}


def line(*values):
    return Variables({"w": jnp.array(values, jnp.float32)})


def test_the_largest_changes_by_hand_and_the_rest_waits():
    half = sj.plan({"w": jnp.zeros(4)}, {"w": (sj.Unstructured(), 0.5)})
    update = sj.federated.top_k_update(half)
    first, sent, kept = update.send(
        line(1, -3, 2, 0.5), line(0, 0, 0, 0), update.init(line(0, 0, 0, 0))
    )
    assert first.params["w"].tolist() == [0, -3, 2, 0]
    assert sent.params["w"].tolist() == [False, True, True, False]
    assert kept["w"].tolist() == [1, 0, 0, 0.5]
    second, sent, kept = update.send(line(0.25, -3, 2, 1), first, kept)
    assert second.params["w"].tolist() == [1.25, -3, 2, 1.5]
    assert kept["w"].tolist() == [0, 0, 0, 0]


def test_without_error_feedback_the_rest_is_forgotten():
    half = sj.plan({"w": jnp.zeros(4)}, {"w": (sj.Unstructured(), 0.5)})
    update = sj.federated.top_k_update(half, error_feedback=False)
    start = update.init(line(0, 0, 0, 0))
    _, _, kept = update.send(line(1, -3, 2, 0.5), line(0, 0, 0, 0), start)
    same(kept, start)


@pytest.mark.parametrize("pattern", [sj.Unstructured(), sj.Block(2, 1), sj.Channel()])
def test_exactly_as_many_are_sent_as_the_plan_says(pattern):
    plan = sj.plan(PARAMS, {"body/kernel": pattern}, sparsity=0.5)
    update = sj.federated.top_k_update(plan)
    received, sent, _ = update.send(TRAINED, BASE, update.init(BASE))
    kernel = plan["body/kernel"]
    assert int(sent.params["body"]["kernel"].sum()) == kernel.num_weights - kernel.num_pruned
    # What the plan does not name comes as it was trained, what was not sent as it was before.
    np.testing.assert_array_equal(received.params["body"]["bias"], TRAINED.params["body"]["bias"])
    stays = ~np.asarray(sent.params["body"]["kernel"])
    before = np.asarray(BASE.params["body"]["kernel"])
    np.testing.assert_array_equal(
        np.asarray(received.params["body"]["kernel"])[stays], before[stays]
    )


# Size, how many, bytes a value -> bytes: all values, a bit for each position, or indices.
FORMS = {
    (10, 0, 4): 0,
    (10, 10, 4): 40,
    (10, 1, 4): 4 + 2,
    (1000, 100, 4): 100 * 4 + 125,
    (1000, 10, 4): 10 * (4 + 2),
    (1000, 999, 4): 4000,
    (1000, 62, 2): 62 * (2 + 2),
    (1000, 63, 2): 63 * 2 + 125,
    (65536, 3, 4): 3 * (4 + 2),
    (65537, 3, 4): 3 * (4 + 4),
    (65537, 3, 2): 3 * (2 + 4),
}


@pytest.mark.parametrize("form", FORMS)
def test_bytes_are_those_of_the_arrays_that_are_sent(form):
    size, count, each = form
    dtype = {2: jnp.bfloat16, 4: jnp.float32}[each]
    places = RNG.permutation(size) < count
    leaf = jnp.where(places, jnp.asarray(RNG.normal(size=size), dtype), 0)
    base, positions = Variables({"w": leaf}), Variables({"w": places})
    message = pack(base, positions, None)
    assert num_bytes(base, positions, None) == FORMS[form] == sum(a.nbytes for a in message)
    before = Variables({"w": jnp.zeros(size, dtype)})
    found, sent = unpack(message, before, None)
    np.testing.assert_array_equal(found.params["w"], leaf)
    assert (sent.params["w"] >= places).all()


UPDATES = {
    "whole": sj.federated.whole_update,
    "masked": lambda: sj.federated.masked_update(MASKS),
    "top-k": lambda: sj.federated.top_k_update(PLAN),
    "top-k, forgotten": lambda: sj.federated.top_k_update(PLAN, error_feedback=False),
}
BYTES_UP = {"whole": 48 + 16, "masked": 3 * 4 + 16, "top-k": 3 * 4 + 2 + 16}


@functools.cache
def federation(name):
    plan = sj.plan(PARAMS, {"body/kernel": sj.Unstructured()}, sparsity=0.75)
    tx = optax.sgd(0.05)
    if name == "masked":
        tx = sj.sparsify(tx, sj.chain(), plan, key=KEY, initial_masks=lambda params, plan: MASKS)
    fed = sj.federated.fedper(sgd(tx=tx), HEAD, update=UPDATES[name]())
    return fed, fed.init(sj.masked(PARAMS, MASKS), num_clients=4)


@pytest.mark.parametrize("name", UPDATES)
def test_a_message_holds_what_the_server_is_to_know(name):
    update = UPDATES[name]()
    received, sent, _ = update.send(TRAINED, BASE, update.init(BASE))
    shared = update.shared(BASE)
    message = pack(received, sent, shared)
    same(unpack(message, BASE, shared), (received, sent))
    assert num_bytes(BASE, sent, shared) == sum(array.nbytes for array in message)
    assert num_bytes(BASE, sent, shared) == BYTES_UP[name.partition(",")[0]]


@pytest.mark.parametrize("name", ["masked", "top-k"])
def test_bytes_of_rounds_by_hand(name):
    fed, state = federation(name)
    up = BYTES_UP[name]
    state, report = fed.round(state, clients(), KEY)
    assert report.bytes_up.tolist() == [up, up, 0, up]
    assert report.bytes_down.tolist() == [64, 64, 0, 64]  # all of the base at first
    # A round with the first client alone: then it knows what it sent, and the others do not.
    state, report = fed.round(state, clients(), KEY, jnp.arange(4) == 0)
    told = {"masked": [up], "top-k": [3 * 4 + 2 + 16, *(k * 4 + 2 + 16 for k in range(3, 10))]}
    assert report.bytes_down[0] in told[name] and not report.bytes_down[1:].any()
    missed = state.stale.params["body"]["kernel"]
    once, twice = missed[0].sum(), missed[1].sum()
    assert (once, twice) == (3, 3) if name == "masked" else once == 3 <= twice <= 12
    assert missed[2].all()  # it never took part


def test_masked_rounds_keep_zeros_exact_on_the_server_and_with_everybody():
    fed, state = federation("masked")
    for _ in range(3):
        state, _ = fed.round(state, clients(), KEY)
    zeros = ~np.asarray(MASKS["body"]["kernel"])
    kernel = np.asarray(state.base.params["body"]["kernel"])
    assert zeros.sum() == 9 and (kernel[zeros] == 0).all() and (kernel[~zeros] != 0).all()
    assert (np.asarray(fed.models(state).params["body"]["kernel"])[:, zeros] == 0).all()
    moved = kernel != np.asarray(sj.masked(PARAMS, MASKS)["body"]["kernel"])
    assert (moved == ~zeros).all()


def test_top_k_rounds_change_what_was_sent_and_nothing_else():
    fed, start = federation("top-k")
    state, _ = fed.round(start, clients(), KEY)
    before, after = (np.asarray(s.base.params["body"]["kernel"]) for s in (start, state))
    told = np.asarray(state.stale.params["body"]["kernel"][0])
    np.testing.assert_array_equal(before[~told], after[~told])
    assert 3 <= told.sum() <= 3 * sum(map(bool, PARTS))
    assert not np.asarray(state.kept["body"]["kernel"])[2].any()


def test_top_k_of_everything_is_the_whole_update():
    plan = sj.plan(PARAMS, {"body/kernel": (sj.Unstructured(), 0.0)})
    update = sj.federated.top_k_update(plan)
    received, sent, kept = update.send(TRAINED, BASE, update.init(BASE))
    close(received, TRAINED)
    assert all(leaf.all() for leaf in jax.tree.leaves(sent))
    assert not any(leaf.any() for leaf in jax.tree.leaves(kept))


REFUSED = {
    "no masks": (lambda: sj.federated.masked_update({}), "got a tree without any"),
    "scores for masks": (lambda: sj.federated.masked_update(PARAMS), "got float32 at 'body/bias'"),
    "masks of others": (
        lambda: sj.federated.masked_update({"tail": jnp.ones(3, bool)}).shared(BASE),
        "got one at 'tail', where they have nothing",
    ),
    "a plan of the head": (
        lambda: sj.federated.top_k_update(
            sj.plan(PARAMS, {"kernel": sj.Unstructured()}, sparsity=0.5)
        ).init(BASE),
        "it names 'head/kernel', which is not sent; give that path the rule None",
    ),
    "rules for a plan": (lambda: sj.federated.top_k_update({}), "needs a plan made by sj.plan"),
    "a message of another network": (lambda: unpack([], BASE, None), "has 4 arrays, got 0"),
    "a message of another type": (
        lambda: unpack([np.zeros(1, "float16"), np.zeros(0, "uint8")], line(0), None),
        "has values for it, got 1 of float16",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_said_with_what_to_do(case):
    call, message = REFUSED[case]
    with pytest.raises((TypeError, ValueError), match=message):
        call()
