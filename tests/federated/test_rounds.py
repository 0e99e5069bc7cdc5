"""Rounds: by hand, against the obvious loop, and what must not change anything."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import sparsejax as sj
from sparsejax.federated.variables import Variables, merge, split
from tests.federated.federations import (
    HEAD,
    KEY,
    PARAMS,
    PARTS,
    STATISTICS,
    X,
    Y,
    clients,
    close,
    loss,
    loss_with_statistics,
    same,
    sgd,
)

COUNT = {"rngs": {"count": jnp.zeros((), jnp.uint32)}}


@functools.cache
def fedper():
    """One program for many tests: samples of length 5."""
    return sj.federated.fedper(sgd(), HEAD)


@functools.cache
def after_a_round():
    state = fedper().init(PARAMS, num_clients=4)
    return state, *fedper().round(state, clients(), KEY)


def test_a_round_of_two_clients_by_hand():
    # loss = w x + v y, a step of 1 on the mean: w goes down by mean(x), v by mean(y).
    values = lambda params, batch: params["w"] * batch[0] + params["v"] * batch[1]
    train = sj.federated.local_sgd(values, optax.sgd(1.0), epochs=1, batch_size=None)
    fed = sj.federated.fedper(train, ["v"])
    state = fed.init({"w": jnp.array(10.0), "v": jnp.array(5.0)}, num_clients=2)
    x, y = np.array([1.0, 3.0, 4.0], np.float32), np.array([2.0, 4.0, 1.0], np.float32)
    samples = sj.federated.stack_clients((x, y), [[0, 1], [2]])
    state, report = fed.round(state, samples, KEY)
    # w: 10 - 2 and 10 - 4, weighed 2 to 1; v stays where it is: 5 - 3 and 5 - 1.
    np.testing.assert_allclose(state.base.params["w"], (2 * 8 + 1 * 6) / 3, rtol=1e-6)
    assert state.personal.params["v"].tolist() == [2.0, 4.0]
    assert report.loss.tolist() == [(10 * 1 + 5 * 2 + 10 * 3 + 5 * 4) / 2, 10 * 4 + 5 * 1]
    assert report.bytes_up.tolist() == report.bytes_down.tolist() == [4, 4]


def test_one_full_batch_step_of_fedavg_is_a_step_of_sgd_on_all_samples():
    train = sgd(epochs=1, batch_size=None, tx=optax.sgd(0.1))
    fed = sj.federated.fedper(train, ())
    state, _ = fed.round(fed.init(PARAMS, num_clients=4), clients(), KEY)
    grads = jax.grad(lambda params: jnp.mean(loss(params, (X, Y))))(PARAMS)
    close(state.base.params, jax.tree.map(lambda w, g: w - 0.1 * g, PARAMS, grads))
    assert jax.tree.leaves(state.personal) == []


def test_the_base_is_the_average_of_what_clients_train_by_themselves():
    start, state, report = after_a_round()
    train, own = sgd(), []
    for number, part in enumerate(PARTS):
        if part:
            samples = jax.tree.map(lambda a: a[np.array(part)], (X, Y))  # noqa: B023
            key = jax.random.fold_in(KEY, number)
            begin = Variables(PARAMS), train.init(PARAMS)
            own.append((len(part), number, *train.run(*begin, samples, len(part), key)))
    weigh = lambda *leaves: sum(n * leaf for n, leaf in zip([5, 2, 5], leaves, strict=True)) / 12
    average = jax.tree.map(weigh, *[trained.params for _, _, trained, _, _ in own])
    close(state.base, split(Variables(average), HEAD)[0])
    for _, number, trained, opt_state, mean_loss in own:
        at = lambda tree: jax.tree.map(lambda leaf: leaf[number], tree)  # noqa: B023
        close(at(state.personal), split(trained, HEAD)[1])
        close(at(state.opt_states), opt_state)
        close(report.loss[number], mean_loss)
    del start


def test_personal_layers_are_not_in_the_base_and_not_in_a_message():
    _, state, report = after_a_round()
    assert state.base.params["head"]["kernel"] == optax.MaskedNode()
    body = PARAMS["body"]["kernel"].nbytes + PARAMS["body"]["bias"].nbytes
    assert report.bytes_up.tolist() == [body, body, 0, body]
    heads = np.asarray(state.personal.params["head"]["kernel"])
    assert len({head.tobytes() for head in heads}) == 4


def test_a_client_without_samples_keeps_what_it_has_and_does_not_count():
    start, state, report = after_a_round()
    of_third = lambda tree: jax.tree.map(lambda leaf: leaf[2], tree)
    same(of_third((state.personal, state.opt_states)), of_third((start.personal, start.opt_states)))
    assert not report.took_part[2] and report.loss[2] == 0
    # It never got the base, so that all of it is stale there as on the first day.
    assert all(leaf.all() for leaf in jax.tree.leaves(of_third(state.stale)))


@pytest.mark.parametrize("number", [0, 3])
def test_a_killed_client_loses_nothing_and_the_others_do_not_wait(number):
    start = after_a_round()[1]
    active = jnp.arange(4) != number
    state, report = fedper().round(start, clients(), KEY, active)
    at = lambda tree: jax.tree.map(lambda leaf: leaf[number], tree)
    same(at((state.personal, state.opt_states)), at((start.personal, start.opt_states)))
    assert report.took_part.tolist() == [bool(part) and i != number for i, part in enumerate(PARTS)]
    # The others train as if it had never been there.
    emptied = [[] if i == number else part for i, part in enumerate(PARTS)]
    other, _ = fedper().round(start, clients(emptied, length=5), KEY)
    same(state.base, other.base)


def test_a_round_of_nobody_changes_nothing():
    start = after_a_round()[1]
    state, report = fedper().round(start, clients(), KEY, jnp.zeros(4, bool))
    same(state, start)
    assert not report.bytes_up.any() and not report.bytes_down.any()


def test_padding_changes_nothing_whatever_it_holds():
    start, expected, report = after_a_round()
    longer = clients(length=9)
    padding = jnp.arange(9)[None] >= longer.num_samples[:, None]
    poisoned = jax.tree.map(lambda a: jnp.where(padding[..., None], jnp.nan, a), longer.samples)
    state, other = fedper().round(start, longer._replace(samples=poisoned), KEY)
    same(state, expected)
    same(other, report)


def test_clients_may_train_a_few_at_once():
    start, expected, _ = after_a_round()
    fed = sj.federated.fedper(sgd(), HEAD, at_once=3)
    close(fed.round(start, clients(), KEY)[0], expected)


def counting(params, statistics, batch):
    values, new = loss_with_statistics(params, statistics, batch)
    return values, {**new, "rngs": {"count": statistics["rngs"]["count"] + 1}}


def test_batch_statistics_of_the_base_are_averaged_by_samples_and_integers_stay():
    train = sj.federated.local_sgd(
        counting, optax.sgd(0.0), epochs=1, batch_size=None, has_statistics=True
    )
    fed = sj.federated.fedper(train, ["head", "rngs"])  # head_norm, too
    state = fed.init(PARAMS, {**STATISTICS, **COUNT}, num_clients=4)
    state, _ = fed.round(state, clients(), KEY)
    assert state.personal.statistics["rngs"]["count"].tolist() == [1, 1, 0, 1]
    assert state.base.statistics["head_norm"]["mean"] == optax.MaskedNode()
    assert state.personal.statistics["head_norm"]["mean"].shape == (4, 2)
    # Free places of a batch repeat samples: of two in five places one counts 3 times, one twice.
    hidden = X @ np.asarray(PARAMS["body"]["kernel"])
    ends = hidden[:5].sum(0) + hidden[7:12].sum(0)
    either = [ends + 2 * (3 * hidden[a] + 2 * hidden[b]) / 5 for a, b in ((5, 6), (6, 5))]
    found = np.asarray(state.base.statistics["norm"]["mean"]) * 12 / 0.5
    assert any(np.allclose(found, sums, rtol=1e-4, atol=1e-5) for sums in either)


def test_models_are_the_base_with_each_clients_own_layers():
    _, state, _ = after_a_round()
    models = fedper().models(state)
    np.testing.assert_array_equal(
        models.params["body"]["bias"][3], state.base.params["body"]["bias"]
    )
    np.testing.assert_array_equal(
        models.params["head"]["kernel"], state.personal.params["head"]["kernel"]
    )


def test_each_client_may_begin_with_its_own_head():
    own = Variables(jax.tree.map(lambda w: jnp.stack([w, 2 * w, 3 * w, 4 * w]), PARAMS))
    state = fedper().init(PARAMS, num_clients=4, own=own)
    np.testing.assert_array_equal(
        state.personal.params["head"]["kernel"], own.params["head"]["kernel"]
    )
    same(state.base, split(Variables(PARAMS), HEAD)[0])


def test_with_all_layers_personal_each_client_trains_alone():
    fed = sj.federated.fedper(sgd(), [""])
    state, report = fed.round(fed.init(PARAMS, num_clients=4), clients(), KEY)
    alone, _ = fed.round(
        fed.init(PARAMS, num_clients=4), clients(), KEY, jnp.array([True, False, False, False])
    )
    first = lambda tree: jax.tree.map(lambda leaf: leaf[0], tree)
    same(first(state.personal), first(alone.personal))
    assert not report.bytes_up.any() and fed.models(state).params["head"]["kernel"].shape[0] == 4


def test_split_and_merge_are_inverse():
    variables = Variables(PARAMS, STATISTICS)
    for rules in ((), HEAD, ("",), ("bias", "norm")):
        same(merge(*split(variables, rules)), variables)


REFUSED = {
    "a rule for nothing": (lambda: fed("tail").init(PARAMS, num_clients=2), "'tail' claims none;"),
    "a rule in a string": (lambda: sj.federated.fedper(sgd(), "head"), r'pass \(r"head/",\)'),
    "a glob": (lambda: fed("*head"), r"got '\*head': nothing to repeat"),
    "an integer": (
        lambda: fed("head").init(PARAMS, COUNT, num_clients=2),
        "got uint32 at 'rngs/count'; name it among the personal layers",
    ),
    "a function": (
        lambda: fed("head").init({**PARAMS, "act": jax.nn.relu}, num_clients=2),
        "needs arrays, got .* at 'act'; pass the arrays alone",
    ),
    "a tuple for clients": (
        lambda: fedper().round(after_a_round()[0], (X, Y), KEY),
        "round needs Clients, got tuple",
    ),
    "another number of clients": (
        lambda: fedper().round(after_a_round()[0], clients(PARTS[:2]), KEY),
        "samples of 4 clients as its state has",
    ),
    "a mean for a loss": (
        lambda: one_round(lambda params, batch: jnp.mean(loss(params, batch))),
        r"a loss for each sample, shape \(5,\), got \(\); leave out the mean",
    ),
    "no epochs": (lambda: sgd(epochs=0), "at least 1, got 0 and 2"),
    "an optimizer for a training": (
        lambda: sj.federated.fedper(optax.sgd(0.1), ["head"]),
        "fedper needs a LocalTraining",
    ),
    "an update not called": (
        lambda: sj.federated.fedper(sgd(), ["head"], update=sj.federated.whole_update),
        "fedper needs a BaseUpdate, got the function whole_update",
    ),
}


def fed(rule):
    return sj.federated.fedper(sgd(), [rule])


def one_round(values):
    train = sj.federated.local_sgd(values, optax.sgd(0.1), epochs=1, batch_size=None)
    own = sj.federated.fedper(train, HEAD)
    return own.round(own.init(PARAMS, num_clients=4), clients(), KEY)


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_said_with_what_to_do(case):
    call, message = REFUSED[case]
    with pytest.raises((TypeError, ValueError), match=message):
        call()


@pytest.mark.skipif(jax.device_count() < 4, reason="needs four devices")
def test_a_mesh_trains_each_client_on_one_device_and_gathers_none():
    start, expected, _ = after_a_round()
    mesh = jax.make_mesh((4,), ("clients",), (AxisType.Auto,))
    cut, whole = NamedSharding(mesh, P("clients")), NamedSharding(mesh, P())
    base = jax.device_put(start.base, whole)
    start = start._replace(
        base=base,
        **{
            name: jax.device_put(getattr(start, name), cut)
            for name in ("personal", "opt_states", "kept", "stale")
        },
    )
    program = jax.jit(fedper().round).lower(start, jax.device_put(clients(), cut), KEY).compile()
    assert "all-gather" not in program.as_text()
    state, _ = program(start, jax.device_put(clients(), cut), KEY)
    close(state, expected)
    head = state.personal.params["head"]["kernel"]
    assert head.sharding.is_equivalent_to(cut, 3)
