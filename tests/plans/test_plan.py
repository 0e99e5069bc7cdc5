"""Plans: rules on normalised paths, JSON, tables, and errors that help."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import sparsejax as sj

PARAMS = {
    "layers": [{"kernel": jnp.ones((8, 12)), "bias": jnp.ones(12)} for _ in range(2)],
    "head": {"kernel": jnp.ones((12, 4)), "bias": jnp.ones(4)},
}
RULES = {r"head": None, r"layers/1": (sj.NM(1, 4), 0.5), r"bias": None, r"kernel": sj.Block(4, 1)}


def test_the_first_matching_rule_wins():
    plan = sj.plan(
        PARAMS,
        {"head": None, "0/kernel": sj.Block(4, 1), "kernel$": (sj.NM(2, 4), 0.5)},
        sparsity=0.75,
    )
    assert [(leaf.path, leaf.pattern, leaf.sparsity) for leaf in plan.leaves] == [
        ("layers/0/kernel", sj.Block(4, 1), 0.75),
        ("layers/1/kernel", sj.NM(2, 4), 0.5),
    ]
    assert plan.get("head/kernel") is None
    assert plan["layers/0/kernel"].shape == (8, 12)
    assert (plan.num_weights, plan.num_pruned, plan.sparsity) == (192, 72 + 48, 120 / 192)


def test_a_rule_may_give_the_sparsity():
    plan = sj.plan(PARAMS, {"head/kernel": (sj.Unstructured(), 0.25), r"kernel": sj.NM(1, 4)})
    assert [leaf.sparsity for leaf in plan.leaves] == [0.25, 0.75, 0.75]
    dense = sj.plan(PARAMS, {"head/kernel": (sj.NM(1, 4), 0.0)})
    assert dense.num_pruned == 0


def linen_params():
    return linen.Dense(4).init(jax.random.key(0), jnp.ones((1, 8)))["params"]


TREES = {
    "linen": linen_params,
    "nnx_state": lambda: nnx.state(nnx.Linear(8, 4, rngs=nnx.Rngs(0)), nnx.Param),
    "tuple": lambda: (jnp.ones((8, 4)), jnp.ones(4)),
    "equinox": lambda: eqx.nn.MLP(8, 4, 8, 0, key=jax.random.key(0)),
}


@pytest.mark.parametrize("name", TREES)
def test_every_kind_of_params_is_planned(name):
    rule = {"equinox": "weight", "tuple": "^0$"}.get(name, "kernel")
    plan = sj.plan(TREES[name](), {rule: sj.Unstructured()}, sparsity=0.5)
    assert [leaf.num_pruned for leaf in plan.leaves] == [16]


def test_plans_hash_compare_and_survive_json():
    rules = {
        "head/kernel": sj.Channel(),
        "0/kernel": sj.Block(4, 2),
        "1/kernel": (sj.NM(2, 4), 0.5),
        "bias": sj.Unstructured(0),
    }
    plan = sj.plan(PARAMS, rules, sparsity=1 / 3, allocate=sj.allocate.erk)
    again = sj.Plan.from_json(plan.to_json())
    assert again == plan and hash(again) == hash(plan)
    assert again["layers/0/kernel"].shape == (8, 12)
    assert json.loads(plan.to_json())["leaves"][0]["path"] == plan.leaves[0].path
    assert jax.jit(lambda x, plan: x * plan.sparsity, static_argnums=1)(1.0, plan) > 0


def test_the_table_shows_each_leaf_and_the_total():
    plan = sj.plan(PARAMS, {"head": None, "kernel": sj.Block(4, 1)}, sparsity=0.75)
    lines = str(plan).splitlines()
    row = next(line for line in lines if "layers/1/kernel" in line)
    assert row.split() == ["layers/1/kernel", "8x12", "Block(4)", "96", "0.7500", "24"]
    assert any("total" in line and "192" in line and "48" in line for line in lines)
    assert "sparsity = zeros / weights of the leaves listed here" in lines[-1]


def test_the_plans_masks_have_the_plans_counts():
    rng = np.random.default_rng(0)
    params = {"a": rng.normal(size=(8, 12)), "b": rng.normal(size=(3, 3, 4, 8))}
    plan = sj.plan(
        params,
        {"a": (sj.NM(2, 4), 0.5), "b": sj.Block(2, 2)},
        sparsity=0.6,
        allocate=sj.allocate.lamp,
    )
    for leaf in plan.leaves:
        mask = leaf.pattern.mask(jnp.abs(jnp.asarray(params[leaf.path])), leaf.sparsity)
        assert int((~mask).sum()) == leaf.num_pruned


BLOCK = sj.Block(4, 1)
ERRORS = {
    "no_match": (
        {"kernal": BLOCK},
        0.5,
        ValueError,
        r"'kernal' claims none; nearest paths: .*head/kernel",
    ),
    "nothing_near": ({"zzz": BLOCK}, 0.5, ValueError, r"'zzz' claims none; the paths are "),
    "shadowed": (
        {"kernel": BLOCK, "head/k": None},
        0.5,
        ValueError,
        r"'head/k' claims none; its leaves are claimed by 'kernel' before it",
    ),
    "no_sparsity": ({"kernel": BLOCK}, None, ValueError, r"sparsity in \[0, 1\), got None"),
    "full_sparsity": ({"kernel": BLOCK}, 1.0, ValueError, r"sparsity in \[0, 1\), got 1.0"),
    "negative": ({"kernel": BLOCK}, -0.1, ValueError, r"got -0.1"),
    "shape": (
        {"kernel": sj.Block(5, 1)},
        0.5,
        ValueError,
        r"^layers/0/kernel: Block\(5, 1\)|^head",
    ),
    "vector": ({"bias": sj.NM(2, 4)}, 0.5, ValueError, r"bias: NM\(2, 4\) needs axis -2"),
    "nm_too_sparse": ({"kernel": (sj.NM(2, 4), 0.9)}, 0.5, ValueError, r"\[0, 0.5\], got 0.9"),
}


@pytest.mark.parametrize("error", ERRORS)
def test_errors_say_who_what_and_got(error):
    rules, sparsity, kind, message = ERRORS[error]
    with pytest.raises(kind, match=message):
        sj.plan(PARAMS, rules, sparsity=sparsity)


def test_leaves_must_be_floating_point():
    with pytest.raises(TypeError, match="steps: a sparse leaf must be floating point, got int32"):
        sj.plan({"steps": jnp.zeros((4, 4), jnp.int32)}, {"steps": sj.Unstructured()}, sparsity=0.5)


def test_an_unknown_path_names_its_neighbours():
    plan = sj.plan(PARAMS, {"kernel": sj.Unstructured()}, sparsity=0.5)
    with pytest.raises(KeyError, match=r"no leaf 'head/kernl'; nearest paths: head/kernel"):
        plan["head/kernl"]
