"""Experts, and products of groups."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.compiler.nodes.conv import Conv
from tests.compiler.graphs import assert_same

RNG = np.random.default_rng(0)


def drawn(*shape):
    return (RNG.normal(size=shape) * (RNG.random(shape) < 0.5)).astype(np.float32)


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
