"""Patterns go along the axes that are contracted, or say which option they need."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from flax import linen, nnx

import sparsejax as sj


def attention():
    model = linen.MultiHeadDotProductAttention(4, qkv_features=64)
    return model.init(jax.random.key(0), jnp.ones((2, 3, 64)))["params"]


def nnx_attention():
    model = nnx.MultiHeadAttention(4, 64, decode=False, rngs=nnx.Rngs(0))
    return nnx.state(model, nnx.Param)


PARAMS = {
    "linen": attention,
    "nnx": nnx_attention,
    "equinox": lambda: eqx.filter(eqx.nn.Linear(8, 12, key=jax.random.key(0)), eqx.is_array),
    "equinox_conv": lambda: eqx.filter(
        eqx.nn.Conv2d(8, 12, 3, key=jax.random.key(0)), eqx.is_array
    ),
    "table": lambda: {"embedding": jnp.ones((16, 8))},
    "line": lambda: {"kernel": jnp.ones((3, 8, 4))},
    "fused": lambda: {"qkv": jnp.ones((64, 3, 4, 16)), "out": jnp.ones((4, 16, 64))},
    "windows": lambda: {
        "odd": {"kernel": jnp.ones((3, 5, 8, 4))},
        "speech": {"w": jnp.ones((41, 11, 8, 4))},
        "long": {"kernel": jnp.ones((10, 4, 8, 12)), "bias": jnp.ones(12)},
        "layers": [{"kernel": jnp.ones((6, 8, 12)), "bias": jnp.ones(12)}],
        "conv1d": {"kernel": jnp.ones((6, 8, 12))},
        "Conv_0": {"kernel": jnp.ones((20, 8, 8, 4))},
        "volume": {"kernel": jnp.ones((3, 5, 6, 8, 4))},
        "ConvTranspose_0": {"kernel": jnp.ones((4, 6, 8, 12)), "bias": jnp.ones(12)},
        "scanned": {"kernel": jnp.ones((2, 10, 4, 8, 12)), "bias": jnp.ones((2, 12))},
    },
    "turned_round": lambda: {
        "conv": {"kernel": jnp.ones((3, 3, 8, 12)), "bias": jnp.ones(8)},
        "line": {"w": jnp.ones((3, 8, 12)), "b": jnp.ones(8)},
    },
    "heads": lambda: {
        "qkv": {"kernel": jnp.ones((3, 3, 4, 16)), "bias": jnp.ones((3, 4, 16))},
        "layers": jnp.ones((12, 64, 4, 16)),
        "three": jnp.ones((3, 64, 4, 16)),
        "odd": jnp.ones((63, 4, 16)),
        "ConvAttention_0": {"kernel": jnp.ones((64, 3, 4, 16))},
    },
    "torch": lambda: {"weight": jnp.ones((12, 8, 3, 5)), "bias": jnp.ones(12)},
    "equinox_line": lambda: eqx.filter(
        eqx.nn.Conv1d(8, 12, 3, key=jax.random.key(0)), eqx.is_array
    ),
    "equinox_transposed": lambda: eqx.filter(
        eqx.nn.ConvTranspose2d(8, 12, (3, 5), key=jax.random.key(0)), eqx.is_array
    ),
    "conv": lambda: {"kernel": jnp.ones((3, 3, 8, 4)), "row": jnp.ones((1, 8, 8, 4))},
}
REFUSED = [
    ("linen", "query/kernel", sj.NM(2, 4), "axis=0 or 1, counted from the front"),
    ("linen", "out/kernel", sj.Block(4, 4), "output_axis=2, counted from the front"),
    ("nnx", "key/kernel", sj.NM(2, 4), "axis=0 or 1"),
    ("line", "kernel", sj.NM(2, 4), "axis=0 or 1"),
    ("equinox", "weight", sj.NM(2, 4), "pass axis=1"),
    ("equinox", "weight", sj.Block(4, 1), "pass output_axis=0"),
    ("equinox", "weight", sj.Channel(), "axis=0 for outputs, axis=1 for inputs"),
    ("equinox_conv", "weight", sj.KernelGroup(2), "pass output_axis=0"),
    ("equinox_conv", "weight", sj.BlockColumnRow(4, 4), "pass output_axis=0"),
    ("table", "embedding", sj.NM(2, 4), "pass axis=1"),
    ("fused", "qkv", sj.NM(2, 4), "axis=0 or 1, counted from the front, or axis=-2 if it is meant"),
    ("fused", "qkv", sj.Block(4, 4), "output_axis=3, counted from the front"),
    ("fused", "out", sj.NM(2, 4), "axis=0 or 1"),
    ("turned_round", "conv/kernel", sj.NM(2, 4), "outputs are axis 2; pass axis=3"),
    ("turned_round", "conv/kernel", sj.Channel(), "outputs are axis 2; pass axis=2"),
    ("turned_round", "line/w", sj.Block(4, 4), "outputs are axis 1; pass output_axis=1"),
    *(("heads", name, sj.NM(2, 4), "axis=0 or 1") for name in ("layers", "three", "odd")),
    *(("heads", f"{x}/kernel", sj.NM(2, 4), "axis=0 or 1") for x in ("qkv", "ConvAttention_0")),
    ("torch", "weight", sj.NM(2, 4), "pass axis=1"),
    ("equinox_transposed", "weight", sj.NM(2, 4), "pass axis=1"),
]
TAKEN = [
    ("linen", "query/kernel", sj.NM(2, 4, axis=0)),
    ("linen", "out/kernel", sj.NM(2, 4, axis=1)),
    ("linen", "query/kernel", sj.Block(4, 1)),
    ("line", "kernel", sj.NM(2, 4, axis=1)),
    ("equinox", "weight", sj.NM(2, 4, axis=-1)),
    ("equinox", "weight", sj.Block(4, 1, output_axis=0)),
    ("equinox", "weight", sj.Unstructured()),
    ("equinox_conv", "weight", sj.KernelGroup(2, 0, 1)),
    ("table", "embedding", sj.NM(2, 4, axis=1)),
    ("linen", "query/kernel", sj.NM(2, 4, axis=-2)),
    ("line", "kernel", sj.NM(2, 4, axis=-2)),
    ("line", "kernel", sj.Block(4, 4, output_axis=-1)),
    ("equinox", "weight", sj.Channel(axis=-1)),
    ("fused", "qkv", sj.NM(2, 4, axis=0)),
    ("fused", "qkv", sj.Block(4, 1)),
    ("fused", "out", sj.NM(2, 4, axis=-2)),
    ("conv", "kernel", sj.NM(2, 4)),
    *(
        ("windows", f"{name}/.*(kernel|w)$", sj.NM(2, 4))
        for name in ("odd", "speech", "long", "layers", "conv1d", "Conv_0", "volume")
    ),
    ("windows", "layers/.*kernel", sj.Block(4, 4)),
    ("windows", "ConvTranspose_0/kernel", sj.NM(2, 4)),
    ("windows", "scanned/kernel", sj.Stacked(sj.NM(2, 4))),
    ("turned_round", "conv/kernel", sj.NM(2, 4, axis=3)),
    ("equinox_line", "weight", sj.NM(2, 4)),
    *(
        (name, "weight", sj.NM(2, 4, axis=1))
        for name in ("torch", "equinox_line", "equinox_transposed")
    ),
    ("conv", "row", sj.Block(4, 8)),
]


@pytest.mark.parametrize(("params", "rule", "pattern", "option"), REFUSED)
def test_axes_that_are_not_known_are_asked_for(params, rule, pattern, option):
    with pytest.raises(ValueError, match=rf"{rule}: .* of the rule '{rule}' .*{option}"):
        sj.plan(PARAMS[params](), {rule: pattern}, sparsity=0.5)


@pytest.mark.parametrize(("params", "rule", "pattern"), TAKEN)
def test_axes_that_are_given_are_taken(params, rule, pattern):
    assert sj.plan(PARAMS[params](), {rule: pattern}, sparsity=0.5).sparsity == 0.5


def test_wanda_refuses_groups_across_outputs():
    params = {"w": jnp.ones((8, 4, 4))}
    apply = lambda p, x: jnp.einsum("ri,ihe->rhe", x, p["w"])
    for axis in (1, 2):
        plan = sj.plan(params, {"w": sj.NM(2, 4, axis=axis)}, sparsity=0.5)
        calibration = sj.post.calibrate(apply, params, plan, [jnp.ones((3, 8))], gram=False)
        with pytest.raises(ValueError, match=f"wanda needs NM.* along the inputs.* axis {axis}"):
            sj.post.wanda(calibration)(params, plan)


def test_vectors_among_matrices_are_said():
    params = {"layer": {"weight": jnp.ones((8, 4))}, "norm": {"weight": jnp.ones(8)}}
    with pytest.warns(sj.SparsityWarning, match=r"prunes norm/weight .* rule '\.\*weight'"):
        sj.plan(params, {r".*weight": sj.Unstructured()}, sparsity=0.5)
    sj.plan(params, {"norm": None, r".*weight": sj.Unstructured()}, sparsity=0.5)
    sj.plan(params, {"norm": sj.Unstructured(), r".*weight": sj.Unstructured()}, sparsity=0.5)


def test_a_pattern_that_does_not_reach_the_sparsity_is_said():
    params = {"kernel": jnp.ones((8, 4))}
    with pytest.warns(sj.SparsityWarning, match="kernel at sparsity 0.5, not 0.9: .*'kern'"):
        plan = sj.plan(params, {"kern": sj.NM(2, 4)}, sparsity=0.9)
    assert plan.sparsity == 0.5
    sj.plan(params, {"kern": (sj.NM(2, 4), 0.5)}, sparsity=0.9)


@pytest.mark.parametrize(
    ("shape", "pattern", "sparsity", "some"),
    [
        ((8, 4), sj.Block(4, 8), 0.5, "all"),
        ((8, 4), sj.Block(4, 8), 0.4, "none"),
        ((8, 4), sj.Channel(), 0.1, "none"),
        ((8, 4), sj.Channel(), 0.9, "all"),
        ((8, 4), sj.Unstructured(), 0.01, "none"),
        ((8, 4), (sj.NM(1, 8), 0.01), 0.5, "none"),
        ((3, 3, 2, 4), sj.KernelGroup(4), 0.02, "none"),
        ((2, 8, 4), sj.Stacked(sj.Channel()), 0.1, "none"),
    ],
)
def test_a_sparsity_that_rounds_to_no_group_or_to_all_is_said(shape, pattern, sparsity, some):
    params = {"kernel": jnp.ones(shape)}
    with pytest.warns(sj.SparsityWarning, match=f"prunes {some} of kernel.* of the rule 'kern'"):
        sj.plan(params, {"kern": pattern}, sparsity=sparsity)
    sj.plan(params, {"kern": (sj.Unstructured(), 0.0)}, sparsity=sparsity)


@pytest.mark.parametrize(
    ("params", "rule", "sparsity"),
    [
        ({"a": jnp.ones((4, 4)), "b": jnp.ones(40)}, sj.Unstructured(), 0.5),
        ({"a": jnp.ones((8, 4))}, sj.NM(2, 4), 0.9),
        ({"a": jnp.ones((2, 2))}, sj.Channel(axis=1), 0.1),
    ],
    ids=["vectors", "cap", "rounding"],
)
def test_warnings_point_at_the_line_that_asked_for_the_plan(params, rule, sparsity):
    with pytest.warns(sj.SparsityWarning) as caught:
        sj.plan(params, {".*": rule}, sparsity=sparsity)
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize(
    ("leaf", "rule", "wanted"),
    [
        (jnp.ones((3, 6)), sj.NM(2, 4), "to be a multiple of 4"),
        (jnp.ones((8, 6)), sj.Block(4, 1), "in multiples of 4"),
        (jnp.ones((8, 6)), sj.Channel(axis=2), "needs axis 2"),
        (jnp.ones((8, 6)), sj.KernelPattern(), "3x3"),
        (jnp.ones((8, 6), int), sj.Unstructured(), "must be floating point, got int32"),
        (jnp.ones((8, 6)), (sj.NM(2, 4), 0.75), "needs a sparsity in"),
        (jnp.ones((8, 6)), sj.Stacked(sj.Unstructured(), 2), "Stacked needs axes"),
        (jnp.ones((2, 8, 6)), sj.Stacked(sj.Block(4, 1)), "in multiples of 4"),
    ],
)
def test_errors_name_the_leaf_and_the_rule(leaf, rule, wanted):
    with pytest.raises((TypeError, ValueError), match=f"a/kernel: .*{wanted}.*; the rule 'kern' "):
        sj.plan({"a": {"kernel": leaf}}, {"kern": rule}, sparsity=0.5)
