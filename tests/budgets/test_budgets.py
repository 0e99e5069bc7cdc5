"""Budgets are kept, and nothing that keeps them loses less."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj
from sparsejax.budgets.knapsack import cheapest_loss

RNG = np.random.default_rng(0)
PARAMS = {
    name: {"kernel": (scale * RNG.normal(size=shape)).astype(np.float32)}
    for name, shape, scale in (("a", (16, 32), 1.0), ("b", (32, 8), 0.1), ("c", (8, 16), 3.0))
}
RULES = {"kernel": sj.Unstructured()}
TABLE = sj.budgets.LatencyTable(
    "here",
    {
        (f"{name}/kernel", str(sj.Unstructured())): (
            (0.0, 0.5, 0.9),
            (100.0 * size, 60.0 * size, 20.0 * size),
        )
        for name, size in (("a", 1), ("b", 4), ("c", 2))
    },
    fixed=100.0,
    scale=2.0,
)


def apply(params, x):
    for name in "abc":
        x = jax.nn.relu(x @ params[name]["kernel"])
    return x


@pytest.mark.parametrize("seed", range(20))
def test_the_choice_is_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    costs = [rng.integers(1, 40, size=4).astype(float) for _ in range(5)]
    losses = [np.round(rng.uniform(size=4), 3) for _ in range(5)]
    limit = float(max(sum(own.min() for own in costs), rng.integers(40, 120)))
    chosen = cheapest_loss(costs, losses, limit)
    best = min(
        sum(own[i] for own, i in zip(losses, options, strict=True))
        for options in itertools.product(range(4), repeat=5)
        if sum(own[i] for own, i in zip(costs, options, strict=True)) <= limit
    )
    assert sum(own[i] for own, i in zip(costs, chosen, strict=True)) <= limit
    assert abs(sum(own[i] for own, i in zip(losses, chosen, strict=True)) - best) < 1e-12


def counts():
    return sj.multiply_adds(apply, PARAMS, jnp.ones((2, 16)))


def kept(plan):
    return sum(leaf.num_weights - leaf.num_pruned for leaf in plan.leaves)


BUDGETS = {
    "a fraction of the weights": (lambda: sj.budgets.parameters(0.3), kept, 0.3 * 896),
    "a number of weights": (lambda: sj.budgets.parameters(200), kept, 200),
    "bytes": (
        lambda: sj.budgets.stored_bytes(2000),
        lambda plan: sum(
            min(8 * (x.num_weights - x.num_pruned), 4 * x.num_weights) for x in plan.leaves
        ),
        2000,
    ),
    "multiply-adds": (
        lambda: sj.budgets.multiply_adds_left(0.25, counts()),
        lambda plan: 2 * kept(plan),  # a batch of 2
        0.25 * 2 * 896,
    ),
    "milliseconds": (lambda: sj.budgets.milliseconds(0.6, TABLE), TABLE.milliseconds_of, 0.6),
}


@pytest.mark.parametrize("name", BUDGETS)
def test_a_plan_keeps_its_budget_and_uses_it(name):
    make, cost, limit = BUDGETS[name]
    plan = sj.plan(PARAMS, RULES, budget=make())
    assert 0.8 * limit <= cost(plan) <= limit * (1 + 1e-9)
    assert len({leaf.sparsity for leaf in plan.leaves}) > 1, "it is no uniform plan"
    state = sj.sparsify(optax.sgd(0.1), sj.one_shot(0), plan, key=jax.random.key(0)).init(PARAMS)
    assert state is not None


def test_a_budget_of_all_keeps_all_and_one_of_too_little_is_refused():
    assert sj.plan(PARAMS, RULES, budget=sj.budgets.parameters(1.0)).sparsity == 0.0
    with pytest.raises(
        ValueError, match=r"2 weights cannot be met: the plan's leaves cost at least"
    ):
        sj.plan(PARAMS, RULES, budget=sj.budgets.parameters(2))
    with pytest.raises(ValueError, match=r"0.2 ms cannot be met.*0.1 of them whatever is pruned"):
        sj.plan(PARAMS, RULES, budget=sj.budgets.milliseconds(0.2, TABLE))


def test_leaves_that_lose_less_for_their_cost_are_pruned_more():
    """Two leaves of one size: one all but empty, one whose weights are all alike."""
    params = {"empty": np.zeros((10, 10), np.float32), "full": np.ones((10, 10), np.float32)}
    params["empty"][0, :5] = 1.0
    plan = sj.plan(params, {"": sj.Unstructured()}, budget=sj.budgets.parameters(105))
    assert {leaf.path: leaf.sparsity for leaf in plan.leaves} == {"empty": 0.95, "full": 0.0}


def test_patterns_are_chosen_with_the_sparsity():
    choice = {"kernel": [sj.Unstructured(), sj.Block(4, 1)]}
    layers = {}
    for path, cheap in (("a/kernel", 1), ("b/kernel", 0), ("c/kernel", 0)):
        for number, pattern in enumerate(choice["kernel"]):
            times = (100.0, 10.0) if number == cheap else (100.0, 90.0)
            layers[path, str(pattern)] = ((0.0, 0.75), times)
    table = sj.budgets.LatencyTable("here", layers, 0.0, 1.0)
    plan = sj.plan(PARAMS, choice, budget=sj.budgets.milliseconds(0.05, table))
    chosen = {leaf.path: type(leaf.pattern).__name__ for leaf in plan.leaves}
    assert chosen == {"a/kernel": "Block", "b/kernel": "Unstructured", "c/kernel": "Unstructured"}


def test_patterns_with_a_limit_and_fixed_sparsities_stay_within_them():
    rules = {"a": sj.NM(2, 4), "b": (sj.Unstructured(), 0.25), "c": sj.Unstructured()}
    plan = sj.plan(PARAMS, rules, budget=sj.budgets.parameters(0.55))
    sparsities = {leaf.path: leaf.sparsity for leaf in plan.leaves}
    assert sparsities["b/kernel"] == 0.25 and sparsities["a/kernel"] <= 0.5
    assert kept(plan) <= 0.55 * 896


def test_layers_of_a_stack_share_the_count_of_their_array():
    params = {"layers": {"kernel": RNG.normal(size=(3, 8, 8)).astype(np.float32)}}
    budget = sj.budgets.multiply_adds_left(0.5, {"layers/kernel": 3000})
    plan = sj.plan(params, {"layers": sj.Stacked(sj.Unstructured())}, budget=budget)
    assert len(plan.leaves) == 3 and kept(plan) <= 96


def test_output_errors_are_those_of_the_pruned_layer():
    params, x = {"a": PARAMS["a"]}, RNG.normal(size=(40, 16)).astype(np.float32)
    layer = lambda params, x: x @ params["a"]["kernel"]
    dense = sj.plan(params, RULES, sparsity=0.0)
    leaf, weights = dense.leaves[0], np.asarray(params["a"]["kernel"], np.float64)
    calibration = sj.post.calibrate(layer, params, dense, [x])
    found = sj.budgets.output_error(calibration)(leaf, weights, [0.0, 0.5, 1.0])
    pruned = np.where(np.asarray(leaf.pattern.mask(jnp.abs(weights), 0.5)), 0.0, weights)
    expected = np.square(x @ pruned).sum() / np.square(x @ weights).sum()
    np.testing.assert_allclose(found, [0.0, expected, 1.0], rtol=1e-6)


@pytest.mark.parametrize("pattern", [sj.Block(4, 1), sj.NM(2, 4), sj.Channel()], ids=str)
def test_energy_is_that_of_what_the_pattern_prunes(pattern):
    weights = np.asarray(PARAMS["a"]["kernel"])
    leaf = sj.plan({"w": weights}, {"w": (pattern, 0.25)}, sparsity=0.0).leaves[0]
    mask = np.asarray(pattern.mask(jnp.abs(weights), 0.5))
    expected = np.square(weights[~mask]).sum() / np.square(weights).sum()
    np.testing.assert_allclose(sj.budgets.energy_lost(leaf, weights, [0.5]), [expected], rtol=1e-5)


def test_a_table_is_measured_saved_and_refused_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARSEJAX_CACHE", str(tmp_path / "times.json"))
    x = jnp.ones((16, 16))
    table = sj.budgets.LatencyTable.measure(apply, PARAMS, RULES, x, sparsities=[0.0, 0.5, 0.9])
    assert {path for path, _ in table.layers} == {"a/kernel", "b/kernel", "c/kernel"}
    for levels, micros in table.layers.values():
        assert levels == (0.0, 0.5, 0.9) and all(np.diff(micros) <= 0) and min(micros) > 0
    table.save(tmp_path / "table.json")
    assert sj.budgets.LatencyTable.load(tmp_path / "table.json") == table
    other = sj.budgets.LatencyTable("elsewhere", table.layers, table.fixed, table.scale)
    other.save(tmp_path / "other.json")
    with pytest.raises(ValueError, match="was measured on 'elsewhere', this is"):
        sj.budgets.LatencyTable.load(tmp_path / "other.json")
    assert sj.budgets.LatencyTable.load(tmp_path / "other.json", any_machine=True) == other
    (tmp_path / "table.json").write_text("{}")
    with pytest.raises(ValueError, match="is no latency table that save wrote"):
        sj.budgets.LatencyTable.load(tmp_path / "table.json")


@pytest.mark.parametrize(("sparsity", "micros"), [(0.0, 100), (0.25, 80), (0.7, 40), (0.95, 20)])
def test_a_table_has_what_lies_between_its_sparsities_by_hand(sparsity, micros):
    plan = sj.plan(PARAMS, RULES, sparsity=sparsity, allocate=sj.allocate.uniform)
    expected = (100.0 + 2.0 * (1 + 4 + 2) * micros) / 1e3
    assert TABLE.milliseconds_of(plan) == pytest.approx(expected)


def test_what_is_asked_wrongly_is_said():
    with pytest.raises(ValueError, match=r"parameters needs .* fraction .* got 1.5"):
        sj.budgets.parameters(1.5)
    with pytest.raises(ValueError, match="either a budget or a sparsity"):
        sj.plan(PARAMS, RULES, sparsity=0.5, budget=sj.budgets.parameters(0.5))
    with pytest.raises(TypeError, match="a list of patterns to choose from needs budget="):
        sj.plan(PARAMS, {"kernel": [sj.Unstructured(), sj.Block(4, 1)]}, sparsity=0.5)
    with pytest.raises(KeyError, match="needs a/kernel as Block"):
        sj.plan(PARAMS, {"a": sj.Block(4, 1)}, budget=sj.budgets.milliseconds(1.0, TABLE))
    with pytest.raises(
        ValueError, match="multiply_adds_left needs a count for a/kernel, got those of b"
    ):
        sj.plan(
            PARAMS, {"a": sj.Unstructured()}, budget=sj.budgets.multiply_adds_left(0.5, {"b": 1})
        )
    with pytest.raises(ValueError, match="needs rules without sparsities, got one for a/kernel"):
        sj.budgets.LatencyTable.measure(
            apply, PARAMS, {"a": (sj.Unstructured(), 0.5)}, jnp.ones((1, 16))
        )
