"""Kept weights, parameters and multiply-adds, against numbers worked by hand."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import linen, nnx

import sparsejax as sj
from experiments.models.mobilenet_v1 import MobileNetV1Linen
from sparsejax import text


def conv_net(params, x):
    """3x3 convolution to 4 channels, stride 2; mean; 4 -> 2."""
    x = jax.lax.conv_general_dilated(
        x, params["conv"], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return x.mean((1, 2)) @ params["head"]


PARAMS = {"conv": jnp.ones((3, 3, 2, 4)), "head": jnp.ones((4, 2)), "bias": jnp.zeros(3)}
X = jnp.ones((5, 8, 8, 2))
PLAN = sj.plan(PARAMS, {"conv": sj.Unstructured()}, sparsity=0.75)


def test_counts_of_a_small_network_by_hand():
    weights = PARAMS["conv"].ravel().at[:54].set(0.0).reshape(3, 3, 2, 4)
    found = sj.report({**PARAMS, "conv": weights}, PLAN, apply_fn=conv_net, example=X)
    bias, conv, head = found.leaves
    assert (conv.parameters, conv.nonzeros, conv.sparsity) == (72, 18, 0.75)
    assert conv.multiply_adds == 5 * 4 * 4 * 72 and conv.sparse_multiply_adds == 5 * 4 * 4 * 18
    assert head.multiply_adds == head.sparse_multiply_adds == 5 * 8
    assert (bias.parameters, bias.nonzeros, bias.multiply_adds) == (3, 3, 0)
    assert (found.planned.parameters, found.planned.nonzeros) == (72, 18)
    assert (found.total.parameters, found.total.nonzeros) == (83, 29)
    assert found.total.sparse_multiply_adds == 5 * 4 * 4 * 18 + 5 * 8


def test_masks_are_counted_whatever_the_weights_are():
    tx = sj.sparsify(optax.sgd(0.1), sj.static_random(), PLAN, key=jax.random.key(0))
    state = tx.init(PARAMS)
    assert sj.report(PARAMS, PLAN, state).planned.nonzeros == 18
    assert sj.report(PARAMS, PLAN).planned.nonzeros == 72


def test_table_and_dict_hold_the_same_sums():
    found = sj.report(PARAMS, PLAN, apply_fn=conv_net, example=X)
    total = found.to_dict()["total"]
    assert f"/{total['multiply_adds'] / 1e6:.3g}" in str(found) and "1 vectors" in str(found)
    assert "MMAdds" not in str(sj.report(PARAMS, PLAN))


def test_kept_weights_that_are_zero_are_counted():
    """Of two units in the middle one has no way in: what it sends out is kept, and 0.0."""
    params = {"in": jnp.ones((4, 2)), "out": jnp.ones((2, 3))}
    plan = sj.plan(params, {"": sj.Unstructured()}, sparsity=0.25)
    tx = sj.sparsify(optax.sgd(0.1), sj.static_random(), plan, key=jax.random.key(0))
    state = tx.init(params)
    masks = {"in": jnp.ones((4, 2), bool), "out": jnp.array([[1, 1, 0], [1, 1, 0]], bool)}
    params = {"in": params["in"], "out": params["out"].at[1].set(0.0).at[0, 2].set(0.0)}
    found = sj.report(params, plan, state._replace(masks=masks))
    assert [leaf.kept_zeros for leaf in found.leaves] == [0, 2]
    assert found.total.kept_zeros == 2 == found.to_dict()["total"]["kept_zeros"]
    assert "kept 0.0 = kept weights" in " ".join(str(found).split())
    assert sj.report(params, plan).total.kept_zeros is None


def test_report_and_plan_fit_80_columns_and_notebooks():
    name = "a_rather_long_name_of_a_layer"
    params = {f"block_{i}": {name: {"kernel": jnp.ones((512, 512))}} for i in range(2)}
    rules = {"block_0": sj.Block(4, 1), "block_1": sj.Unstructured()}
    plan = sj.plan(params, rules, sparsity=0.5)
    net = lambda p, x: x @ p["block_0"][name]["kernel"]
    found = sj.report(params, plan, apply_fn=net, example=jnp.ones((1000, 512)))
    for table in (plan, found):
        assert max(map(len, str(table).splitlines())) <= 80
        assert "block_1" in str(table)
        assert "<table>" in table._repr_html_() and "block_1" in table._repr_html_()


def test_long_paths_break_at_slashes_and_nothing_else_does():
    row = ["1x1x256x512", "Unstructured()", "131,072", "14,729", "0.9438", "0.0147/0.262"]
    columns = ["leaf", "shape", "pattern", "params", "nonzeros", "sparsity", "MMAdds"]
    lines = text.table("", columns, [["blocks/10/pointwise", *row]]).splitlines()
    assert [line.split() for line in lines[-2:]] == [["blocks/10/", *row], ["pointwise"]]
    assert max(map(len, lines)) <= 80
    lines = text.table("", columns, [["blocks/10", *row]]).splitlines()
    assert lines[-1].split() == ["blocks/10", *row]


def test_a_plot_has_a_bar_for_each_leaf():
    import matplotlib

    matplotlib.use("Agg")
    found = sj.report({**PARAMS, "conv": PARAMS["conv"].at[0].set(0.0)}, PLAN)
    axes = sj.reports.plot(found)
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([1 / 3, 0.0])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["conv", "head"]
    again = sj.reports.plot(PLAN, axes=axes)
    assert again is axes and len(axes.patches) == 3
    with pytest.raises(TypeError, match="plot needs a report or a plan, got dict; pass"):
        sj.reports.plot(PARAMS)


def test_mobilenet_has_its_569_million_multiply_adds():
    model = MobileNetV1Linen(num_classes=1000)
    x = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    counts = sj.multiply_adds(model.apply, variables, x)
    assert sum(counts.values()) == 568_740_352
    assert counts["params/head/kernel"] == 1_024_000


def dense(params, x):
    return x @ params


def scanned(params, x):
    return jax.lax.scan(lambda carry, _: (carry @ params, None), x, None, length=3)[0]


def branching(params, x):
    return jax.lax.cond(x.sum() > 0, lambda w: x @ w.T, lambda w: x, params)


NESTINGS = {
    "plain": (dense, 1),
    "jit": (jax.jit(dense), 1),
    "remat": (jax.checkpoint(dense), 1),
    "scan": (scanned, 3),
    "cond": (branching, 1),
    "masked and cast": (lambda w, x: x @ (w * (w > 0)).astype(jnp.float32), 1),
    "vmap": (jax.vmap(dense, (None, 0)), 1),
    "twice": (lambda w, x: (x @ w) @ w, 2),
    "relu in a custom_jvp": (lambda w, x: jax.nn.relu(x @ w), 1),
}


@pytest.mark.parametrize("name", NESTINGS)
def test_multiply_adds_are_found_in_any_nesting(name):
    function, times = NESTINGS[name]
    counts = sj.multiply_adds(function, jnp.ones((4, 4)), jnp.ones((2, 4)))
    assert counts == {"": times * 2 * 4 * 4}


def test_linen_nnx_and_equinox_count_alike():
    x = jnp.ones((2, 3))
    linen_model = linen.Dense(5)
    nnx_graph, nnx_state = nnx.split(nnx.Linear(3, 5, rngs=nnx.Rngs(0)))
    eqx_params, eqx_static = eqx.partition(eqx.nn.Linear(3, 5, key=jax.random.key(0)), eqx.is_array)
    networks = [
        (linen_model.apply, linen_model.init(jax.random.key(0), x), "params/kernel"),
        (lambda state, x: nnx.merge(nnx_graph, state)(x), nnx_state, "kernel"),
        (lambda p, x: jax.vmap(eqx.combine(p, eqx_static))(x), eqx_params, "weight"),
    ]
    for function, params, path in networks:
        assert sj.multiply_adds(function, params, x) == {path: 30}


def test_an_equinox_module_may_hold_functions():
    model = eqx.nn.MLP(3, 2, 4, 1, key=jax.random.key(0))
    plan = sj.plan(model, {"0/weight": sj.Unstructured(output_axis=0)}, sparsity=0.5)
    function = lambda model, x: jax.vmap(model)(x)
    found = sj.report(model, plan, apply_fn=function, example=jnp.ones((5, 3)))
    counts = {leaf.path: leaf.multiply_adds for leaf in found.leaves}
    assert counts["layers/0/weight"] == 5 * 12 and counts["layers/1/weight"] == 5 * 8
    assert found.planned.parameters == 12


def test_errors_name_what_is_missing():
    with pytest.raises(ValueError, match="apply_fn and example together"):
        sj.report(PARAMS, PLAN, apply_fn=conv_net)
    with pytest.raises(ValueError, match="they lack conv"):
        sj.report({"head": PARAMS["head"]}, PLAN)
