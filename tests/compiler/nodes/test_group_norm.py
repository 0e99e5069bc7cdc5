"""Group norm and instance norm, told by their values however they are spelled."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import sparsejax as sj
from tests.compiler.graphs import assert_close, assert_same, kinds, regions, rewritten

RNG = np.random.default_rng(0)
CHANNELS = 8
P = {name: np.float32(RNG.normal(size=CHANNELS)) for name in ("scale", "bias")}
KINDS = ["Moments", "Channels", "Channels", "sub", "mul", "Affine"]


def images(*shape):
    return np.float32(RNG.normal(size=shape) * 3 + 1)


def linen(groups, used=("scale", "bias"), **options):
    options |= {f"use_{name}": name in used for name in P}
    module = nn.GroupNorm(groups, **options)
    return lambda p, x: module.apply({"params": {name: p[name] for name in used}}, x)


def of_nnx(p, x):
    module = nnx.GroupNorm(CHANNELS, 2, rngs=nnx.Rngs(0), use_fast_variance=False)
    module.scale, module.bias = nnx.Param(p["scale"]), nnx.Param(p["bias"])
    return module(x)


def equinox(p, x):
    module = eqx.nn.GroupNorm(4, CHANNELS)
    leaves = lambda m: (m.weight, m.bias)
    return jax.vmap(eqx.tree_at(leaves, module, (p["scale"], p["bias"])))(x)


# name -> function, groups, epsilon, the parameters that it has
NORMS = {
    "linen": (linen(4), 4, 1e-6, ("scale", "bias")),
    "linen, slow": (linen(2, use_fast_variance=False, epsilon=1e-3), 2, 1e-3, ("scale", "bias")),
    "linen, one group": (linen(1), 1, 1e-6, ("scale", "bias")),
    "linen, instances": (linen(CHANNELS), CHANNELS, 1e-6, ("scale", "bias")),
    "linen, scale": (linen(4, ("scale",)), 4, 1e-6, ("scale",)),
    "linen, bias": (linen(4, ("bias",)), 4, 1e-6, ("bias",)),
    "linen, neither": (linen(4, ()), 4, 1e-6, ()),
    "nnx": (of_nnx, 2, 1e-6, ("scale", "bias")),
    "equinox": (equinox, 4, 1e-5, ("scale", "bias")),
}


@pytest.mark.parametrize("name", NORMS)
def test_a_group_norm_is_told_however_it_is_spelled(name):
    function, groups, epsilon, used = NORMS[name]
    x = images(4, *((CHANNELS, 5, 3) if name == "equinox" else (5, 3, CHANNELS)))
    graph = rewritten(function, P, x)
    moments = graph.nodes[0].op
    assert kinds(graph) == KINDS[: 6 if "bias" in used else 5]
    assert moments.groups == groups and moments.channels_last == (name != "equinox")
    np.testing.assert_allclose(moments.epsilon, epsilon, rtol=1e-6)
    scale = P["scale"] if "scale" in used else np.ones(CHANNELS)
    np.testing.assert_allclose(moments.scale, [*scale, *np.ones(CHANNELS)], rtol=1e-6)
    assert not moments.shift.any()
    if "bias" in used:
        np.testing.assert_allclose(graph.nodes[-1].op.shift, P["bias"], rtol=1e-6)
    assert [node.op.index[0] for node in graph.nodes[1:3]] == [0, CHANNELS]


def test_lines_are_images_of_one_row():
    x = images(4, 11, CHANNELS)
    function = lambda p, x: linen(4)(p, x) @ np.eye(CHANNELS, 3, dtype=np.float32)
    graph = assert_same(function, P, x)
    assert [kind for kind in kinds(graph) if kind not in ("Reshape", "Linear", "Conv")] == KINDS[:5]
    first = lambda p, x: equinox(p, x).transpose(0, 2, 1)
    assert "Moments" in kinds(assert_same(first, P, x.transpose(0, 2, 1)))


def centred(x):
    return x - jnp.mean(x, (1, 2), keepdims=True)


def variance(x, axes=(1, 2)):
    return jnp.mean(jnp.square(x), axes, keepdims=True)


@pytest.mark.parametrize(
    "function",
    [
        lambda p, x: x * jax.lax.rsqrt(variance(x) + 1e-6),
        lambda p, x: centred(x) * jax.lax.rsqrt(variance(x) + 1e-6),
        lambda p, x: centred(x) * jax.lax.rsqrt(variance(centred(x), (1, 2, 3)) + 1e-6),
        lambda p, x: centred(x) * jax.lax.rsqrt(variance(centred(x), 0) + 1e-6),
        lambda p, x: centred(x) * jax.lax.rsqrt(jnp.maximum(variance(centred(x)), 1e-3)),
        lambda p, x: linen(CHANNELS)(p, jax.lax.slice(x, (0, 0, 0, 0), (2, 1, 1, CHANNELS))),
        lambda p, x: linen(4)(p, x.astype(jnp.bfloat16)),
        lambda p, x: linen(4)({**p, "scale": 0 * p["scale"]}, x),
    ],
)
def test_what_is_nearly_a_group_norm_is_none(function):
    graph = rewritten(function, P, images(2, 5, 3, CHANNELS))
    assert "Moments" not in kinds(graph)


class Block(nn.Module):
    """As in a ResNet."""

    @nn.compact
    def __call__(self, x):
        y = nn.Conv(CHANNELS, (3, 3))(x)
        y = nn.relu(nn.GroupNorm(4)(y))
        y = nn.GroupNorm(2, use_fast_variance=False)(nn.Conv(CHANNELS, (3, 3))(y))
        return nn.Conv(CHANNELS, (1, 1))(nn.relu(x + y))


def block_params():
    conv = lambda *shape: {"kernel": np.float32(RNG.normal(size=shape)), "bias": P["bias"]}
    wide = lambda: conv(3, 3, CHANNELS, CHANNELS)
    own = {"Conv_0": wide(), "Conv_1": wide(), "Conv_2": conv(1, 1, CHANNELS, CHANNELS)}
    return {"params": own | {"GroupNorm_0": P, "GroupNorm_1": P}}


def test_a_block_is_one_region_and_a_file(tmp_path):
    params, function = block_params(), Block().apply
    x = images(4, 5, 3, CHANNELS)
    x[1, 2, 1, 3], x[2, 0, 0, 0] = np.nan, np.inf
    graph = rewritten(function, params, x)
    assert len(regions(graph)) == 1 and graph.left == {}
    fast = sj.compile(function, params, x, tune=False)
    sj.save(fast, tmp_path / "block.npz")
    for call, batch in ((fast, 1), (sj.load(tmp_path / "block.npz"), 4)):
        assert_close(call(x[:batch]), jax.jit(function)(params, x[:batch]), 1e-5)


def test_moments_of_equal_pixels_do_not_cancel():
    x = np.full((1, 2, 4, CHANNELS), 3, np.float32)
    params = {**P, "one": np.eye(CHANNELS, dtype=np.float32)[None, None]}

    def function(p, x):
        x = jax.lax.conv_general_dilated(
            x, p["one"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return linen(4)(p, x)

    actual = sj.compile(function, params, x, tune=False)(x)
    np.testing.assert_array_equal(actual, np.broadcast_to(P["bias"], x.shape))
