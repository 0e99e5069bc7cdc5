"""Models of the table of fusion: their sizes, and a token that sees none behind it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import sparsejax as sj
from experiments.models import compact
from experiments.models.c3d import C3DLinen
from experiments.models.transformers import GPT2Linen, ViTLinen
from experiments.models.unet import UNetLinen

IDS = jax.ShapeDtypeStruct((2, 16), np.int32)
image = lambda side: jax.ShapeDtypeStruct((2, side, side, 3), np.float32)
CLIP = jax.ShapeDtypeStruct((2, 16, 112, 112, 3), np.float32)
# Parameters as published; of U-Net and C3D, whose sides are padded here, none were at hand.
CASES = {
    "GPT-2": (GPT2Linen(), IDS, (2, 16, 50_257), 124_439_808),
    "ViT-B": (ViTLinen(), image(224), (2, 1000), 86_567_656),
    "U-Net": (UNetLinen(), image(64), (2, 64, 64, 2), None),
    "C3D": (C3DLinen(), CLIP, (2, 487), None),
}


@pytest.mark.parametrize("name", CASES)
def test_sizes_are_those_published(name):
    module, x, shape, count = CASES[name]
    y, variables = jax.eval_shape(module.init_with_output, jax.random.key(0), x)
    assert y.shape == shape
    found = sum(leaf.size for leaf in jax.tree.leaves(variables))
    assert count is None or found == count


def test_a_token_sees_none_behind_it():
    model = GPT2Linen(layers=1, heads=2, features=8, vocabulary=16, positions=8)
    ids = jnp.arange(6)[None]
    variables = jax.jit(model.init)(jax.random.key(0), ids)
    run = jax.jit(model.apply)
    before, after = run(variables, ids), run(variables, ids.at[0, 3].set(9))
    np.testing.assert_array_equal(before[:, :3], after[:, :3])
    assert not np.allclose(before[:, 3:], after[:, 3:])


# Multiply-adds of the 3x3 convolutions and of all, of 28 x 28 pixels, counted by hand for two.
SIZES = {
    compact.groups_of_4: (4 * 77_904, 985_696),
    compact.in_16_groups: (335_088, 1_009_168),
    compact.ulsam_4: (77_904 - 9 * 128 * 4, 682_352),
    compact.without_block: (77_904 - 9 * 128 * 4, 681_840),
}


@pytest.mark.parametrize("make", SIZES, ids=lambda make: make.__name__)
def test_tables_compare_networks_of_these_sizes(make):
    def init():
        return nnx.split(make((28, 28, 1), 10, 0), nnx.Param, ...)

    graph, params, rest = jax.eval_shape(init)
    params, rest = jax.tree.map(lambda s: np.ones(s.shape, s.dtype), (params, rest))

    def apply(params, x):
        net = nnx.merge(graph, params, rest)
        net.eval()
        return net(x)

    adds = sj.multiply_adds(apply, params, jax.ShapeDtypeStruct((1, 28, 28, 1), np.float32))
    depthwise = sum(count for path, count in adds.items() if "depthwise/" in path)
    assert (depthwise, sum(adds.values())) == SIZES[make]
