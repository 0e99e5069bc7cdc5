"""Groups of one size: which convolution it is, and what the counts are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import sparsejax as sj

# Channels and side of the output of the 13 depthwise layers of MobileNet-v1, and the stride.
LAYERS = [
    *((32, 112, 1), (64, 56, 2), (128, 56, 1), (128, 28, 2), (256, 28, 1), (256, 14, 2)),
    *((512, 14, 1),) * 5,
    *((512, 7, 2), (1024, 7, 1)),
]


def test_a_group_convolution_is_a_block_diagonal_one():
    x = np.random.default_rng(0).normal(size=(2, 5, 4, 6)).astype(np.float32)
    module = sj.nn.GroupConv(6, 9, (3, 3), group_size=2, rngs=nnx.Rngs(0))
    kernel = np.asarray(module.kernel[...])
    assert kernel.shape == (3, 3, 2, 9)
    whole = np.zeros((3, 3, 6, 9), np.float32)
    for group in range(3):
        inputs, outputs = slice(2 * group, 2 * group + 2), slice(3 * group, 3 * group + 3)
        whole[:, :, inputs, outputs] = kernel[..., outputs]
    expected = jax.lax.conv_general_dilated(
        x, whole, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(jax.jit(module)(x), expected, rtol=1e-5, atol=1e-5)
    layer = sj.nn.GroupConvLinen(9, (3, 3), group_size=2)
    params = {"kernel": jnp.asarray(kernel), "bias": jnp.zeros(9)}
    np.testing.assert_allclose(layer.apply({"params": params}, x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("size", "groups"), [(1, 8), (4, 2), (8, 1), (64, 1)])
def test_one_channel_is_depthwise_and_all_are_an_ordinary_convolution(size, groups):
    module = sj.nn.GroupConv(8, 16, 3, group_size=size, use_bias=False, rngs=nnx.Rngs(0))
    assert module.feature_group_count == groups
    own = jax.eval_shape(
        sj.nn.GroupConvLinen(16, (3,), group_size=size).init, jax.random.key(0), jnp.ones((1, 5, 8))
    )
    other = jax.eval_shape(
        linen.Conv(16, (3,), feature_group_count=groups).init,
        jax.random.key(0),
        jnp.ones((1, 5, 8)),
    )
    assert own == other


def test_costs_by_hand():
    cost = sj.nn.group_conv_cost(4, 8, 5, 6, group_size=2, stride=2)
    assert cost == (9 * 2 * 8 * 30, 9 * 2 * 8, 30 * (4 * 4 + 8))
    assert cost.words == 144 + 720 and cost.arithmetic_intensity == 4320 / 864
    pointwise = sj.nn.group_conv_cost(4, 8, 5, 6, group_size=4, kernel_size=1)
    assert pointwise.multiply_adds == 4 * 8 * 30


def test_counts_are_those_of_the_traced_function():
    module = sj.nn.GroupConv(8, 16, (3, 3), group_size=4, use_bias=False, rngs=nnx.Rngs(0))
    graph, params = nnx.split(module)
    x = jnp.zeros((1, 6, 5, 8))
    counted = sj.multiply_adds(lambda p, x: nnx.merge(graph, p)(x), params, x)
    assert counted == {"kernel": sj.nn.group_conv_cost(8, 16, 6, 5, group_size=4).multiply_adds}


@pytest.mark.parametrize(
    ("size", "of_size", "of_number"),
    [
        (8, (139.1, 5.35), (133.7, 5.78)),
        (16, (278.2, 5.71), (267.3, 6.56)),
        (32, (556.4, 6.42), (534.7, 8.13)),
    ],
)
def test_one_size_moves_less_than_one_number_at_like_multiply_adds(size, of_size, of_number):
    """Against the sums worked by hand, which the guide prints."""

    def sums(group_size):
        costs = [
            sj.nn.group_conv_cost(m, m, side, side, group_size=group_size(m), stride=stride)
            for m, side, stride in LAYERS
        ]
        return [sum(c.multiply_adds for c in costs) / 1e6, sum(c.words for c in costs) / 1e6]

    number = 256 // size
    fixed, varying = sums(lambda _: size), sums(lambda m: max(m // number, 1))
    np.testing.assert_allclose(fixed, of_size, rtol=2e-3)
    np.testing.assert_allclose(varying, of_number, rtol=2e-3)
    assert fixed[1] < varying[1] and fixed[0] < 1.05 * varying[0]


def test_the_best_size_grows_with_the_square_root_of_the_channels():
    sizes = [
        sj.nn.best_group_size(m, m, side, side)
        for m, side in ((128, 56), (256, 28), (512, 14), (1024, 7))
    ]
    assert sizes == [8, 16, 16, 32]
    assert sj.nn.best_group_size(64, 64, 8, 8, balance=0.0) == 1
    assert sj.nn.best_group_size(64, 64, 8, 8, balance=1e6) == 64
    assert sj.nn.best_group_size(96, 96, 8, 8, candidates=[3, 48]) in (3, 48)


@pytest.mark.parametrize(
    ("inputs", "outputs", "size"), [(6, 8, 4), (8, 6, 2), (8, 8, 0), (8, 8, -1)]
)
def test_sizes_that_do_not_divide_are_refused(inputs, outputs, size):
    with pytest.raises(ValueError, match=f"group_size={size} .* got {inputs} to {outputs} chan"):
        sj.nn.GroupConv(inputs, outputs, 3, group_size=size, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="choose another size"):
        sj.nn.group_conv_cost(inputs, outputs, 4, 4, group_size=size)
    with pytest.raises(ValueError, match="pass candidates"):
        sj.nn.best_group_size(8, 8, 4, 4, candidates=[])
