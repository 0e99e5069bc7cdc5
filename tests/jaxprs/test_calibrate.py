"""Calibration finds what each planned layer sees, however the function is written."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from jax import lax

import sparsejax as sj
from tests import cases

TOLERANCE = 1e-5  # float32 sums of at most some hundred squares


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def plan_of(params, *rules):
    return sj.plan(params, {rule: sj.Unstructured() for rule in rules}, sparsity=0.5)


def dense_oracle(inputs):
    """The Gram matrix of the rows, in float64."""
    rows = np.asarray(inputs, np.float64).reshape(-1, inputs.shape[-1])
    return rows.T @ rows


def assert_explains(inputs, leaf, rows, outputs):
    """The matrices times the rows are the layer's outputs: positions and Gram have one order."""
    matrices = np.asarray(inputs.to_matrices(leaf), np.float64)
    energy = np.einsum("goi,gij,goj->go", matrices, inputs.gram, matrices).ravel()
    wanted = np.square(np.asarray(outputs, np.float64)).reshape(rows, -1).sum(0)
    np.testing.assert_allclose(energy, wanted, rtol=1e-4)


@pytest.mark.parametrize("name", cases.TREES)
def test_every_framework_gives_its_first_layers_inputs(name):
    tree = cases.TREES[name]()
    plan = sj.plan(tree.params, tree.rules, sparsity=0.5)
    calls = sj.post.calibrate(
        lambda params, batch: tree.loss(params), tree.params, plan, [0.0, 0.0]
    )
    (path,) = calls
    gram = 2 * dense_oracle(cases._inputs())
    np.testing.assert_allclose(calls[path].gram[0], gram, rtol=TOLERANCE, atol=TOLERANCE)
    np.testing.assert_allclose(calls[path].squares[0], np.diag(gram), rtol=TOLERANCE)
    leaf = dict(sj.tree.leaves_with_paths(tree.params))[path]
    back = calls[path].from_matrices(calls[path].to_matrices(leaf), leaf.shape)
    np.testing.assert_array_equal(back, leaf)


def test_a_hand_worked_layer():
    x = jnp.array([[1.0, 2.0], [3.0, -1.0]])
    params = {"kernel": jnp.ones((2, 3))}
    apply = lambda params, x: x @ params["kernel"]
    inputs = sj.post.calibrate(apply, params, plan_of(params, "kernel"), [x[:1], x[1:]])["kernel"]
    np.testing.assert_array_equal(inputs.gram, [[[10.0, -1.0], [-1.0, 5.0]]])
    np.testing.assert_array_equal(inputs.squares, [[10.0, 5.0]])
    np.testing.assert_array_equal(inputs.positions, [[[0, 3], [1, 4], [2, 5]]])


def through_jit(w, x):
    return jax.jit(lambda w, x: x @ jax.jit(jnp.transpose)(w.T))(w, x)


def through_remat(w, x):
    return jax.checkpoint(lambda w: x @ w)(w)


def through_mask(w, x):
    return x @ jnp.where(jnp.arange(w.size).reshape(w.shape) >= 0, w, 0.0)


def through_custom_derivative(w, x):
    double = jax.custom_vjp(lambda w, x: x @ w)
    double.defvjp(lambda w, x: (x @ w, None), lambda residual, g: (g, g))
    return double(w, x)


def through_scan(w, x):
    return lax.scan(lambda carry, row: (carry, row @ w), 0.0, x)[1]


def through_vmap(w, x):
    return jax.vmap(lambda row: w.T @ row)(x)


def through_reshape(w, x):
    return x.reshape(-1, 2, 4).reshape(-1, 8) @ w.reshape(2, 4, 6).reshape(8, 6)


@pytest.mark.parametrize(
    "apply",
    [
        *(through_jit, through_remat, through_mask, through_custom_derivative, through_scan),
        *(through_vmap, through_reshape),
    ],
)
def test_the_leaf_is_followed(apply):
    w, x = draw(8, 6), draw(5, 8, seed=1)
    call = lambda params, x: apply(params["w"], x)
    inputs = sj.post.calibrate(call, {"w": w}, plan_of({"w": w}, "w"), [x])["w"]
    np.testing.assert_allclose(inputs.gram[0], dense_oracle(x), rtol=TOLERANCE, atol=TOLERANCE)
    assert_explains(inputs, w, 5, x @ w)


CONVOLUTIONS = {
    "same": linen.Conv(6, (3, 3), use_bias=False),
    "strides": linen.Conv(6, (3, 2), (2, 1), "VALID", use_bias=False),
    "groups": linen.Conv(6, (3, 3), feature_group_count=2, use_bias=False),
    "depthwise": linen.Conv(4, (3, 3), feature_group_count=4, use_bias=False),
    "dilated": linen.Conv(6, (3, 3), kernel_dilation=2, use_bias=False),
    "pointwise": linen.Conv(6, (1, 1), use_bias=False),
    "line": linen.Conv(6, (3,), use_bias=False),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_are_patches(name):
    model = CONVOLUTIONS[name]
    x = draw(2, 6, 4) if name == "line" else draw(2, 6, 5, 4)
    params = model.init(jax.random.key(0), x)
    outputs = model.apply(params, x)
    inputs = sj.post.calibrate(model.apply, params, plan_of(params, "kernel"), [x])["params/kernel"]
    kernel = params["params"]["kernel"]
    assert_explains(inputs, kernel, outputs.size // outputs.shape[-1], outputs)
    groups = getattr(model, "feature_group_count", 1)
    assert inputs.gram.shape == (groups, *[kernel[..., 0].size] * 2)


def test_equinox_convolutions_are_patches():
    model = eqx.nn.Conv2d(4, 6, 3, use_bias=False, key=jax.random.key(0))
    x = draw(3, 4, 5, 5)
    params, static = eqx.partition(model, eqx.is_inexact_array)
    call = lambda params, x: jax.vmap(eqx.combine(params, static))(x)
    inputs = sj.post.calibrate(call, params, plan_of(params, "weight"), [x])["weight"]
    outputs = jnp.moveaxis(jax.vmap(model)(x), 1, -1)
    assert_explains(inputs, model.weight, 27, outputs)


def test_heads_of_attention_are_one_layer():
    model = linen.MultiHeadDotProductAttention(2, qkv_features=6)
    x = draw(2, 3, 4)
    params = model.init(jax.random.key(0), x)
    calls = sj.post.calibrate(model.apply, params, plan_of(params, "kernel"), [x])
    gram = dense_oracle(x)
    for name in ("query", "key", "value"):
        inputs = calls[f"params/{name}/kernel"]
        assert inputs.positions.shape == (1, 6, 4)
        np.testing.assert_allclose(inputs.gram[0], gram, rtol=TOLERANCE, atol=TOLERANCE)
    assert calls["params/out/kernel"].positions.shape == (1, 4, 6)


def test_squares_alone_are_the_diagonal():
    w, x = draw(8, 6), draw(5, 8, seed=1)
    call = lambda params, x, scale: x * scale @ params["w"]
    plan = plan_of({"w": w}, "w")
    both = [sj.post.calibrate(call, {"w": w}, plan, [(x, 2.0)], gram=g)["w"] for g in (True, False)]
    np.testing.assert_allclose(both[0].squares, both[1].squares, rtol=TOLERANCE)
    assert both[1].gram is None


def test_a_weight_used_twice_sees_both_inputs():
    w, x = draw(4, 4), draw(5, 4, seed=1)
    call = lambda params, x: x @ params["w"] @ params["w"]
    inputs = sj.post.calibrate(call, {"w": w}, plan_of({"w": w}, "w"), [x])["w"]
    gram = dense_oracle(x) + dense_oracle(x @ w)
    np.testing.assert_allclose(inputs.gram[0], gram, rtol=1e-4, atol=1e-4)


REFUSED = {
    "no product": (lambda p, x: x * p["w"][0, 0], "no matrix product .* it meets none"),
    "unused": (lambda p, x: x, "no matrix product .* it meets none"),
    "both ways": (lambda p, x: x @ p["w"] @ p["w"].T, "used one way, got two products"),
    "in part": (lambda p, x: x @ p["w"][:, 1:], "the whole leaf in products, got 12 of its 16"),
    "sorted": (lambda p, x: x @ jnp.sort(p["w"]), "cannot be followed through `sort`"),
    "curved": (lambda p, x: x @ jnp.tanh(p["w"]), "the leaf itself .* what `tanh` made of it"),
    "infinite": (lambda p, x: (x / 0.0) @ p["w"], "its inputs are not finite"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_traced_is_said(name):
    call, message = REFUSED[name]
    w = draw(4, 4)
    with pytest.raises(ValueError, match=f"w: .*{message}"):
        sj.post.calibrate(call, {"w": w}, plan_of({"w": w}, "w"), [draw(5, 4)])


def test_wrong_operands_are_said():
    w = draw(4, 4)
    plan = plan_of({"w": w}, "w")
    call = lambda params, x: x @ params["w"]
    with pytest.raises(ValueError, match="calibrate needs at least one batch, got none"):
        sj.post.calibrate(call, {"w": w}, plan, [])
    with pytest.raises(ValueError, match=r"w has shape \(4, 4\) in the plan and \(4, 5\)"):
        sj.post.calibrate(call, {"w": draw(4, 5)}, plan, [draw(5, 4)])
