"""Budgets are met to one group; the published allocations come out as published."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsejax as sj
from sparsejax.masks.global_threshold import cut_globally

POINTWISE = [(32, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512)]
POINTWISE += [(512, 512)] * 5 + [(512, 1024), (1024, 1024)]


def mobilenet_v1():
    """The kernels of MobileNet-v1 1.0 for 1,000 classes."""
    shapes = {"conv1": (3, 3, 3, 32), "fc": (1024, 1000)}
    for index, (inputs, outputs) in enumerate(POINTWISE, 1):
        shapes |= {f"dw{index}": (3, 3, 1, inputs), f"pw{index}": (1, 1, inputs, outputs)}
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}


def planned(params, allocate, sparsity=0.9, pattern=None):
    rules = {".*": pattern or sj.Unstructured()}
    return sj.plan(params, rules, sparsity=sparsity, allocate=allocate)


def test_erk_gives_the_published_densities_of_mobilenet_v1():
    plan = planned(mobilenet_v1(), sj.allocate.erk)
    expected = {"pw2": 0.687, "pw3": 0.457, "pw4": 0.342, "pw5": 0.228, "pw6": 0.1705}
    expected |= {f"pw{index}": 0.1136 for index in range(7, 12)}
    expected |= {"pw12": 0.0851, "pw13": 0.0567, "fc": 0.0574}
    for leaf in plan.leaves:
        tolerance = 6e-4 if expected.get(leaf.path, 1.0) > 0.2 else 6e-5
        assert abs(1 - leaf.sparsity - expected.get(leaf.path, 1.0)) < tolerance, leaf.path
    assert plan.num_pruned == round(0.9 * plan.num_weights)


def test_erk_by_hand():
    params = {"a": jnp.ones((10, 10)), "b": jnp.ones((40, 40))}  # densities as 20/100 : 80/1600
    plan = planned(params, sj.allocate.erk, sparsity=0.9)  # 170 kept, of 20 e + 80 e: e = 1.7
    assert plan["a"].sparsity == 0.66
    assert plan["b"].num_pruned == 1600 - 136


def test_a_minimum_of_weights_leaves_the_small_layers_of_mobilenet_v1_dense():
    params = mobilenet_v1()
    assert sum(leaf.size for leaf in params.values()) == 4_209_088
    plan = planned(params, sj.allocate.global_magnitude_with_minimum(percent=0.2))
    dense = {"conv1", "pw1", "pw2", *(f"dw{index}" for index in range(1, 13))}
    assert {leaf.path for leaf in plan.leaves if leaf.sparsity == 0.0} == dense
    assert all(
        leaf.num_weights - leaf.num_pruned >= min(8418, leaf.num_weights) for leaf in plan.leaves
    )
    assert plan.num_pruned == round(0.9 * plan.num_weights)
    assert plan == planned(params, sj.allocate.global_magnitude_with_minimum(min_weights=8418))


def test_a_minimum_by_hand():
    params = {"tiny": np.full((3,), 0.1), "low": np.full((10,), 0.2), "high": np.full((10,), 1.0)}
    plan = planned(params, sj.allocate.global_magnitude_with_minimum(min_weights=4), sparsity=0.5)
    # tiny is smaller than 4; low may lose 6; high gives the rest of round(0.5 * 23)
    assert [plan[path].num_pruned for path in ("tiny", "low", "high")] == [0, 6, 6]


def test_global_magnitude_by_hand():
    params = {"a": np.array([1.0, 2.0, 3.0, 4.0]), "b": np.array([2.5, -2.6, 9.0, 8.0])}
    plan = planned(params, sj.allocate.global_magnitude, sparsity=0.5)
    assert (plan["a"].sparsity, plan["b"].sparsity) == (0.5, 0.5)
    plan = planned(
        {"a": params["a"], "b": params["b"] * 10}, sj.allocate.global_magnitude, sparsity=0.5
    )
    assert (plan["a"].sparsity, plan["b"].sparsity) == (1.0, 0.0)


@pytest.mark.parametrize("pattern", [sj.Unstructured(), sj.Block(2, 1)], ids=str)
def test_the_plan_and_the_masks_have_one_threshold_for_ties_too(pattern):
    rng = np.random.default_rng(0)
    params = {name: rng.integers(-4, 5, (6, 8)).astype(np.float32) for name in "abc"}
    plan = planned(params, sj.allocate.global_magnitude, 0.5, pattern)
    scores = [np.abs(params[leaf.path]) for leaf in plan.leaves]
    everything = [np.ones_like(score, bool) for score in scores]
    masks = cut_globally(plan.leaves, scores, everything, 1.0)
    assert [np.sum(~np.asarray(mask)) for mask in masks] == [
        leaf.num_pruned for leaf in plan.leaves
    ]


def test_lamp_by_hand():
    # scores: a 1/14, 4/13, 1; b 100/10300, 1600/10200... the leaf's scale does not matter
    params = {"a": np.array([1.0, 2.0, 3.0]), "b": np.array([10.0, 40.0, 90.0])}
    scores = {"a": [1 / 14, 4 / 13, 1.0], "b": [100 / 9800, 1600 / 9700, 1.0]}
    everything = sorted((score, name) for name in scores for score in scores[name])
    for pruned in range(5):
        plan = planned(params, sj.allocate.lamp, sparsity=pruned / 6)
        lowest = [name for _, name in everything[:pruned]]
        assert [plan[name].num_pruned for name in "ab"] == [lowest.count(name) for name in "ab"]


def test_lamp_never_empties_a_leaf():
    params = {"faint": np.full((4, 4), 1e-6), "loud": np.full((40, 40), 1e3)}
    plan = planned(params, sj.allocate.lamp, sparsity=0.99)
    assert all(leaf.num_pruned < leaf.num_weights for leaf in plan.leaves)


ALLOCATORS = {
    "erk": sj.allocate.erk,
    "lamp": sj.allocate.lamp,
    "global_magnitude": sj.allocate.global_magnitude,
    "minimum": sj.allocate.global_magnitude_with_minimum(min_weights=1),
}


@pytest.mark.parametrize("name", ALLOCATORS)
@settings(max_examples=25, deadline=None)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=5),
    sparsity=st.floats(0.0, 0.8),
)
def test_the_budget_is_met_to_one_weight(name, shapes, sparsity):
    rng = np.random.default_rng(0)
    params = {str(index): rng.normal(size=shape) for index, shape in enumerate(shapes)}
    total = sum(leaf.size for leaf in params.values())
    if name == "minimum" and sparsity * total > sum(leaf.size - 1 for leaf in params.values()):
        return
    plan = planned(params, ALLOCATORS[name], sparsity)
    assert abs(plan.num_pruned - sparsity * total) <= 1.0
    assert all(0.0 <= leaf.sparsity <= 1.0 for leaf in plan.leaves)


@pytest.mark.parametrize("name", ALLOCATORS)
def test_mixed_groups_meet_the_budget_to_one_group_of_the_smallest(name):
    rng = np.random.default_rng(0)
    params = {"a": rng.normal(size=(16, 64)), "b": rng.normal(size=(64, 32)), "c": np.ones((8, 8))}
    rules = {"a": sj.Channel(), "b": sj.Block(4, 1), "c": (sj.NM(2, 4), 0.5)}
    plan = sj.plan(params, rules, sparsity=0.7, allocate=ALLOCATORS[name])
    pruned = plan["a"].num_pruned + plan["b"].num_pruned
    slack = 4 if name in ("erk", "minimum") else 16  # by threshold the last group may be a channel
    assert abs(pruned - 0.7 * (16 * 64 + 64 * 32)) <= slack
    assert plan["c"].sparsity == 0.5  # its own, outside the budget


def test_uniform_gives_each_leaf_the_sparsity():
    plan = planned({"a": np.ones((7, 3)), "b": np.ones((5, 2))}, sj.allocate.uniform, sparsity=0.9)
    assert [leaf.sparsity for leaf in plan.leaves] == [0.9, 0.9]
    assert [leaf.num_pruned for leaf in plan.leaves] == [19, 9]


def test_shapes_are_enough_where_only_shapes_are_looked_at():
    shapes = {"a": jax.ShapeDtypeStruct((8, 8), jnp.float32)}
    assert planned(shapes, sj.allocate.erk).num_pruned == 58
    with pytest.raises(TypeError, match=r"a: an allocator by magnitude needs concrete weights"):
        planned(shapes, sj.allocate.lamp)
    with pytest.raises(TypeError, match=r"outside jax\.jit"):
        jax.jit(lambda w: planned({"a": w}, sj.allocate.lamp).sparsity)(jnp.ones((8, 8)))


def test_errors():
    with pytest.raises(ValueError, match="either min_weights or percent"):
        sj.allocate.global_magnitude_with_minimum()
    with pytest.raises(ValueError, match=r"minimum of 9 weights a leaf .* at most 0\.1"):
        planned({"a": np.ones(10)}, sj.allocate.global_magnitude_with_minimum(min_weights=9), 0.5)
