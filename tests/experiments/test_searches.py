"""The settings of searches: cut encoders, measured times, steps that go on."""

import functools
import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from experiments.models import narrow_bert, paths
from experiments.models.minilm import MiniLM
from experiments.models.narrow_bert import Sizes
from experiments.models.networks import mobilenet_v1_quarter
from experiments.models.small_conv import small_conv
from experiments.runs.table import Interrupted, Job
from experiments.settings import (
    search_encoder,
    search_paths,
    search_pruning,
    within_milliseconds,
)
from experiments.settings.kept_steps import kept_steps, numbered_batches
from experiments.settings.train import take_apart
from tests.experiments.small_settings import bright_half

SMALL = MiniLM(vocabulary=20, positions=8, layers=3, features=12, hidden=20, heads=3)
IDS = np.arange(16, dtype=np.int32).reshape(2, 8) % 20
MASK = np.array([[1.0] * 8, [1.0] * 5 + [0.0] * 3], np.float32)


@functools.cache
def small_params():
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(SMALL.init, jax.random.key(0), IDS, MASK)["params"]
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


def test_an_encoder_of_which_nothing_is_cut_is_minilm():
    params = narrow_bert.cut_out(small_params(), Sizes(3, 12, 20, 3), heads=3)
    found = jax.jit(functools.partial(narrow_bert.encode, heads=3))(params, IDS, MASK)
    expected = jax.jit(SMALL.apply)({"params": small_params()}, IDS, MASK)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_what_is_cut_is_the_least():
    large = jax.tree.map(np.array, small_params())
    large["word"]["embedding"][:, 4] = 0.0
    large["layer2_out"]["kernel"][4:8] = 0.0  # the second head's
    large["layer2_up"]["kernel"][:, 7] = 0.0
    small = narrow_bert.cut_out(large, Sizes(2, 11, 19, 2), heads=3)
    layers = small["layers"]
    assert layers["up"]["kernel"].shape == (2, 11, 19)
    assert layers["out"]["kernel"].shape == (2, 8, 11)
    features = np.arange(12) != 4
    heads = np.r_[0:4, 8:12]
    np.testing.assert_array_equal(
        layers["out"]["kernel"][1], large["layer2_out"]["kernel"][heads][:, features]
    )
    assert (np.linalg.norm(layers["up"]["kernel"][1], axis=0) > 0).all()
    np.testing.assert_array_equal(small["word"], large["word"]["embedding"][:, features])


def test_measured_times_have_all_that_is_searched():
    costs = search_paths.load_costs()
    assert tuple(map(len, costs.edges)) == paths.NUM_PATHS
    for widths in itertools.product(*search_encoder.WIDTHS.values()):
        assert search_encoder.milliseconds(Sizes(2, *widths)) > 0
    narrower = search_encoder.FULL._replace(hidden=384)
    assert search_encoder.milliseconds(narrower) <= search_encoder.milliseconds(search_encoder.FULL)
    shapes = jax.eval_shape(lambda: take_apart(small_conv((14, 14, 1), 10, 0))[1])
    weights = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
    space = sj.search.pruning_space(weights, search_pruning.RULES, search_pruning.load_table())
    dense = dict.fromkeys(space.leaves, "dense")
    assert len(space.leaves) == 6
    pruned = dense | {"three/0/kernel": space.space["three/0/kernel"][-1]}
    assert 0 < space.milliseconds(pruned) < space.milliseconds(dense)


def test_spreads_take_the_milliseconds_that_they_are_given():
    table = within_milliseconds.load_table()
    build = functools.partial(mobilenet_v1_quarter, (28, 28, 1), 10, 0)
    shapes = jax.eval_shape(lambda: take_apart(build())[1])
    rng = np.random.default_rng(0)
    weights = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    spent = table.milliseconds_of
    given = within_milliseconds.Given(SimpleNamespace(params=weights), table, 0.0, np.zeros(()))
    dense = spent(within_milliseconds.unpruned(given))
    planned = within_milliseconds.planned(given._replace(limit=0.6 * dense))
    assert 0.95 <= spent(planned) / (0.6 * dense) <= 1
    for spread in (within_milliseconds.uniform, within_milliseconds.erk):
        plan = spread(given._replace(limit=0.6 * dense))
        assert 0.95 <= spent(plan) / (0.6 * dense) <= 1 and plan.sparsity < 0.99
    with pytest.raises(ValueError, match="never fast enough"):
        within_milliseconds.uniform(given._replace(limit=0.5 * dense))


def test_steps_go_on_where_they_were_stopped(tmp_path):
    job = Job(0, False, None, tmp_path, lambda *said: None)
    calls = []

    def step(state, number):
        calls.append(number)
        if number == 60 and len(calls) == 61:
            raise Interrupted("killed")
        return state + number, 0.0

    with pytest.raises(Interrupted):
        kept_steps(job, "own", jnp.zeros(()), step, 70)
    assert kept_steps(job, "own", jnp.zeros(()), step, 70) == sum(range(70))
    assert calls[61:] == list(range(50, 70))  # from the last one that was kept


def test_batches_are_those_of_their_number_and_never_held_back():
    data = bright_half(None)
    batch = numbered_batches(data, 3, 16)
    (first, labels), (again, _) = batch(7, False), batch(7, False)
    np.testing.assert_array_equal(first, again)
    assert first.shape == (16, 6, 6, 1) and labels.dtype == np.int32
    assert not np.array_equal(first, batch(8, False)[0])
    held = batch(7, True)[0].reshape(16, -1)
    seen = np.concatenate([batch(i, False)[0].reshape(16, -1) for i in range(40)])
    assert not (held[:, None] == seen[None]).all(-1).any()


def test_blocks_are_punched_and_other_patterns_go_by_magnitude():
    weights = np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype(np.float32)
    rules = {"a/kernel": search_pruning.BLOCK}
    leaf = sj.plan({"a": {"kernel": weights}}, rules, sparsity=0.5).leaves[0]
    mask = search_pruning._mask(leaf, weights)
    np.testing.assert_array_equal(mask > 0, sj.search.block_punched(weights, 0.5))
    assert search_pruning._mask(None, weights).all()
