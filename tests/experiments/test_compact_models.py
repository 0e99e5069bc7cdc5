"""Models of the table of fusion: their sizes, and a token that sees none behind it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
