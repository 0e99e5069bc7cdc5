"""Convolutions in three dimensions, transposed ones among them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from tests.compiler.graphs import assert_same

LAST = ("NDHWC", "DHWIO", "NDHWC")
FIRST = ("NCDHW", "OIDHW", "NCDHW")
RNG = np.random.default_rng(0)


def drawn(*shape):
    return (RNG.normal(size=shape) * (RNG.random(shape) < 0.5)).astype(np.float32)


def conv(x, kernel, strides=(1, 1, 1), padding="SAME", numbers=LAST, **options):
    return jax.lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=numbers, **options
    )


def volumes(params, x):
    y = jax.nn.relu(conv(x, params["a"], (1, 2, 2)) * params["scale"] + params["shift"])
    return conv(y, params["b"], (2, 1, 1), ((1, 2), (0, 1), (0, 0)), rhs_dilation=(2, 1, 3))


def test_volumes_are_images_of_the_depths_that_a_window_sees():
    params = {"a": drawn(3, 3, 2, 4, 8), "scale": drawn(8), "shift": drawn(8)}
    params["b"] = drawn(2, 2, 1, 8, 6)
    x = drawn(2, 6, 8, 7, 4)
    fast = sj.compile(volumes, params, x, tune=False)
    report = fast.report()
    assert [(row.path, row.activation) for row in report.layers] == [("a", "relu"), ("b", "")]
    assert "conv_general_dilated" not in report.xla
    np.testing.assert_allclose(fast(x), volumes(params, x), atol=1e-4)


def test_a_volume_by_hand():
    """Ones times ones along depth alone: 2, 3 and 2 of three depths lie inside."""
    apply = lambda kernel, x: conv(x, kernel, padding=((1, 1), (0, 0), (0, 0)))
    fast = sj.compile(
        apply, np.ones((3, 1, 1, 1, 1), np.float32), jnp.ones((1, 3, 2, 2, 1)), tune=False
    )
    np.testing.assert_array_equal(fast(jnp.ones((1, 3, 2, 2, 1)))[0, :, 1, 0, 0], [2, 3, 2])


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(
    "numbers",
    [LAST, ("NCDHW", "OIDHW", "NCDHW"), ("NDHWC", "IODHW", "NDHWC")],
    ids="-".join,
)
def test_volumes_in_groups_and_with_channels_first(numbers, groups):
    sizes = {"N": 2, "C": 4, "D": 5, "H": 6, "W": 7} | {"I": 4 // groups, "O": 8}
    x = drawn(*map(sizes.get, numbers[0]))
    kernel = drawn(*map((sizes | {"D": 3, "H": 2, "W": 1}).get, numbers[1]))
    options = {"feature_group_count": groups, "rhs_dilation": (2, 1, 1), "numbers": numbers}
    assert_same(lambda k, x: jax.nn.relu(conv(x, k, (1, 2, 1), **options)), kernel, x)
    fast = sj.compile(lambda k, x: conv(x, k, (2, 1, 1), **options), kernel, x, tune=False)
    assert "conv_general_dilated" not in fast.report().xla
    np.testing.assert_allclose(fast(x), conv(x, kernel, (2, 1, 1), **options), atol=1e-4)


@pytest.mark.parametrize("numbers", [LAST, FIRST], ids="-".join)
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(
    ("window", "apart"),
    [
        ((2, 2, 2), (2, 2, 2)),
        ((4, 3, 1), (2, 2, 1)),
        ((1, 2, 3), (1, 2, 2)),
        ((3, 3, 5), (2, 3, 1)),
    ],
)
def test_transposed_volumes_are_phases(window, apart, padding, numbers):
    sizes = {"N": 2, "C": 4, "D": 3, "H": 4, "W": 5}
    x = drawn(*map(sizes.get, numbers[0]))
    own = dict(zip("DHW", window, strict=True)) | {"I": 4, "O": 6}
    kernel = drawn(*map(own.get, numbers[1]))

    def apply(kernel, x):
        y = jax.lax.conv_transpose(x, kernel, apart, padding, dimension_numbers=numbers)
        return jax.nn.relu(y)

    assert_same(apply, kernel, x)
    fast = sj.compile(apply, kernel, x, tune=False)
    assert "conv_general_dilated" not in fast.report().xla
    np.testing.assert_allclose(fast(x), apply(kernel, x), atol=1e-4)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"batch_group_count": 2}, "batch-grouped"),
        (
            {"lhs_dilation": (2, 1, 1), "padding": ((1, 1),) * 3, "rhs_dilation": (1, 2, 1)},
            "transposed with groups, strides or dilation",
        ),
        ({"numbers": ("DNHWC", "DHWIO", "DNHWC")}, "neither last nor first"),
    ],
)
def test_what_else_has_three_dimensions_stays_in_xla(options, reason):
    x, kernel = drawn(2, 4, 4, 4, 4), drawn(3, 3, 3, 4, 4)
    apply = lambda kernel, x: conv(x, kernel, **options)
    with pytest.warns(sj.SparsityWarning, match="stays in XLA|stay in XLA|in XLA"):
        fast = sj.compile(apply, kernel, x, tune=False)
    assert reason in fast.report().reasons["conv_general_dilated"]
    np.testing.assert_allclose(fast(x), apply(kernel, x), atol=1e-4)
