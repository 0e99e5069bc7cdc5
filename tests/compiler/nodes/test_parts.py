"""Layers that are several of a known kind: convolutions in three dimensions, and experts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.compiler.nodes.conv import Conv
from tests.compiler.graphs import assert_same

LAST = ("NDHWC", "DHWIO", "NDHWC")
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


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"batch_group_count": 2}, "batch-grouped or transposed"),
        ({"lhs_dilation": (2, 1, 1), "padding": ((0, 0),) * 3}, "batch-grouped or transposed"),
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


@pytest.mark.parametrize("spelling", ["ecd,edf->ecf", "ecd,efd->ecf"])
def test_experts_are_layers(spelling):
    stack = drawn(3, 16, 16)
    apply = lambda params, x: jax.nn.relu(jnp.einsum(spelling, x, params["experts"]))
    x = drawn(3, 20, 16)
    fast = sj.compile(apply, {"experts": stack}, x, tune=False)
    assert [row.path for row in fast.report().layers] == [f"experts[{i}]" for i in range(3)]
    assert "dot_general" not in fast.report().xla
    np.testing.assert_allclose(fast(x), apply({"experts": stack}, x), atol=1e-4)
    np.testing.assert_allclose(
        fast(2 * x[:, :7]), apply({"experts": stack}, 2 * x[:, :7]), atol=1e-4
    )


@pytest.mark.parametrize(
    ("spelling", "weights"),
    [("gc,nhwgc->nhwg", (3, 4)), ("nhwgc,gcd->nhwgd", (3, 4, 2)), ("cgd,nhwcg->nhwdg", (4, 3, 2))],
)
def test_of_images_weights_of_a_group_are_a_convolution_in_groups(spelling, weights):
    swapped = spelling.startswith("cgd")
    x = drawn(2, 5, 3, *((4, 3) if swapped else (3, 4)))
    graph = assert_same(
        lambda w, x: jnp.einsum(spelling, *((w, x) if spelling.index("n") > 2 else (x, w))),
        drawn(*weights),
        x,
    )
    (layer,) = (node.op for node in graph.nodes if isinstance(node.op, Conv))
    assert layer.groups == 3 and layer.weights.size == np.prod(weights)
