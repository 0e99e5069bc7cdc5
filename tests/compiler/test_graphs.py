"""compile on small graphs that almost fit a rule: always right, fused only where it may be."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import sparsejax as sj

TOLERANCE = 3e-5
X = jax.random.normal(jax.random.key(0), (2, 6, 6, 8))


compiled = functools.partial(sj.compile, tune=False)


def weights(*shape, seed=1, keep=0.2):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.standard_normal(shape) * (rng.random(shape) < keep), jnp.float32)


PARAMS = {
    "pointwise": weights(1, 1, 8, 8),
    "wider": weights(1, 1, 8, 16),
    "full": weights(3, 3, 8, 8, keep=1),
    "depthwise": weights(3, 3, 1, 8, keep=1),
    "grouped": weights(3, 3, 2, 8, keep=1),
    "multiplied": weights(3, 3, 1, 16, keep=1),
    "matrix": weights(8, 12),
    "scale": weights(8, keep=1),
    "shift": weights(8, seed=2, keep=1),
}


def conv(x, kernel, strides=(1, 1), padding="SAME", **options):
    return lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options
    )


def depthwise(x, p, **options):
    return conv(x, p["depthwise"], feature_group_count=8, **options)


def norm(x, p):
    return (x - p["shift"]) * lax.rsqrt(jnp.square(p["scale"]) + 1e-3) + p["scale"]


def relu_by_where(x):
    return jnp.where(x > 0, x, 0.0)


@jax.custom_vjp
def straight_through(x):
    return jnp.round(x)


straight_through.defvjp(lambda x: (jnp.round(x), None), lambda _, grad: (grad,))


def two_paths(p, x):
    y = conv(x, p["pointwise"])
    return norm(y, p) + jax.nn.relu(y)


def scan(p, x):
    step = lambda c, _: (jax.nn.relu(conv(c, p["pointwise"])), c.mean())
    return lax.scan(step, x, None, length=3)


def repeated(p, x):
    for _ in range(3):
        x = jax.nn.relu(conv(x, p["pointwise"]))
    return x


# name -> function, and the activations that its layers must have drawn in (None: do not look)
GRAPHS = {
    "norm then relu": (lambda p, x: jax.nn.relu(norm(conv(x, p["pointwise"]), p)), ["relu"]),
    "norm then relu6": (lambda p, x: jax.nn.relu6(norm(depthwise(x, p), p)), ["relu6"]),
    "clip to 0..6": (lambda p, x: jnp.clip(conv(x, p["pointwise"]), 0, 6), ["relu6"]),
    "max of min": (
        lambda p, x: jnp.maximum(jnp.minimum(conv(x, p["pointwise"]), 6.0), 0.0),
        ["relu6"],
    ),
    "clip to 0..6.001": (
        lambda p, x: jnp.clip(conv(x, p["pointwise"]), 0, 6.001),
        ["clamp(0, 6.001)"],
    ),
    "clip to -1..6": (lambda p, x: jnp.clip(conv(x, p["pointwise"]), -1, 6), ["clamp(-1, 6)"]),
    "where": (lambda p, x: relu_by_where(conv(x, p["pointwise"])), None),
    "leaky relu": (lambda p, x: jax.nn.leaky_relu(conv(x, p["pointwise"])), ["leaky_relu(0.01)"]),
    "hard swish": (lambda p, x: jax.nn.hard_swish(conv(x, p["pointwise"])), ["hard_swish"]),
    "power": (lambda p, x: conv(x, p["pointwise"]) ** 7, [""]),
    "to integers": (lambda p, x: conv(x, p["pointwise"]).astype(jnp.int32), [""]),
    "swish": (lambda p, x: jax.nn.silu(conv(x, p["pointwise"])), ["silu"]),
    "x plus x": (lambda p, x: (lambda y: y + y)(conv(x, p["pointwise"])), [""]),
    "scalar chain": (lambda p, x: 3.0 - conv(x, p["pointwise"]) / 2.0 * 4.0, [""]),
    "divided by": (lambda p, x: 1.0 / (2.0 + jnp.abs(conv(x, p["pointwise"]))), [""]),
    "two paths": (two_paths, [""]),
    "output is also used": (
        lambda p, x: (lambda y: (y, jax.nn.relu(y)))(conv(x, p["pointwise"])),
        [""],
    ),
    "norm, its input an output": (
        lambda p, x: (lambda y: (norm(y, p), y))(conv(x, p["pointwise"])),
        [""],
    ),
    "residual then relu": (lambda p, x: jax.nn.relu(x + conv(x, p["pointwise"])), ["relu"]),
    "relu then residual": (lambda p, x: x + jax.nn.relu(conv(x, p["pointwise"])), ["relu"]),
    "residual then norm": (lambda p, x: norm(x + conv(x, p["pointwise"]), p), [""]),
    "norm before SAME": (lambda p, x: depthwise(norm(x, p), p), [""]),
    "relu then norm": (lambda p, x: norm(jax.nn.relu(conv(x, p["pointwise"])), p), ["relu"]),
    "norm over rows": (
        lambda p, x: conv(x, p["pointwise"]) * p["scale"][None, :6, None, None],
        [""],
    ),
    "norm per image": (
        lambda p, x: conv(x, p["pointwise"]) * p["scale"][:2, None, None, None],
        [""],
    ),
    "infinite scale": (lambda p, x: conv(x, p["pointwise"]) / jnp.zeros(8), None),
    "scale by zero": (lambda p, x: conv(x, p["pointwise"]) * jnp.zeros(8) + 1, [""]),
    "huge scale": (lambda p, x: conv(x, p["pointwise"]) * 1e30 * 1e-30, [""]),
    "strides of 1x1": (lambda p, x: jax.nn.relu(conv(x, p["wider"], (2, 3))), ["relu"]),
    "1x1 with padding": (lambda p, x: conv(x, p["wider"], padding=((1, 0), (0, 2))), [""]),
    "1x1 dilated input": (
        lambda p, x: conv(x, p["wider"], padding=((0, 0), (0, 0)), lhs_dilation=(2, 2)),
        [""],
    ),
    "depthwise strides": (lambda p, x: jax.nn.relu(depthwise(x, p, strides=(2, 1))), ["relu"]),
    "depthwise VALID": (lambda p, x: depthwise(x, p, padding="VALID"), [""]),
    "depthwise dilated": (lambda p, x: depthwise(x, p, rhs_dilation=(2, 2)), [""]),
    "depthwise crop": (lambda p, x: depthwise(x, p, padding=((-1, 1), (0, 1))), []),
    "multiplier": (lambda p, x: conv(x, p["multiplied"], feature_group_count=8), [""]),
    "grouped": (lambda p, x: conv(x, p["grouped"], feature_group_count=4), [""]),
    "pad of ones": (
        lambda p, x: depthwise(
            jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=1.0), p, padding="VALID"
        ),
        [""],
    ),
    "pools": (
        lambda p, x: lax.reduce_window(
            conv(x, p["wider"]), -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
        ),
        [""],
    ),
    "squeeze and excite": (
        lambda p, x: x * jax.nn.sigmoid(conv(x.mean((1, 2), keepdims=True), p["pointwise"])),
        ["sigmoid"],
    ),
    "matrix product": (lambda p, x: jax.nn.relu(x @ p["matrix"] + 0.5), ["relu"]),
    "matrix on the left": (lambda p, x: p["matrix"].T @ x[0, 0].T, [""]),
    "matrix over images": (lambda p, x: jnp.einsum("nhwc,cd->dnhw", x, p["matrix"]), None),
    "contraction of rows": (lambda p, x: jnp.tensordot(x[:, :, :, :], p["scale"], 1), [""]),
    "product of inputs": (lambda p, x: x[:, 0] @ x[:, 1].swapaxes(1, 2), []),
    "product of params": (lambda p, x: x @ (p["pointwise"][0, 0] @ p["matrix"]), [""]),
    "scan": (scan, ["relu"]),
    "weights used thrice": (repeated, ["relu"] * 3),
    "remat": (lambda p, x: jax.checkpoint(lambda y: jax.nn.relu(conv(y, p["wider"])))(x), ["relu"]),
    "no layer at all": (lambda p, x: jnp.sort(x.ravel())[::2] * p["scale"][0], []),
    "cond": (
        lambda p, x: lax.cond(x.sum() > 0, lambda: conv(x, p["pointwise"]), lambda: -x),
        [""],
    ),
    "constant output": (lambda p, x: (p["scale"] * 2, x.shape[0], x), []),
    "straight through": (lambda p, x: straight_through(conv(x, p["pointwise"])), [""]),
    "pytree": (lambda p, x: {"a": conv(x, p["wider"]), "b": [x.sum(), jnp.float32(3)]}, [""]),
    "double transpose": (
        lambda p, x: conv(x.transpose(0, 2, 1, 3), p["pointwise"]).transpose(0, 2, 1, 3),
        [""],
    ),
}


def assert_close(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert a.shape == b.shape
        scale = np.abs(b[np.isfinite(b)]).max(initial=1e-30)
        np.testing.assert_allclose(a / scale, b / scale, rtol=0, atol=TOLERANCE)


@pytest.mark.filterwarnings("ignore:compile leaves all")
@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_that_almost_fits_is_right(name):
    fn, activations = GRAPHS[name]
    fast = compiled(fn, PARAMS, X)
    assert_close(fast(X), jax.jit(fn)(PARAMS, X))
    if activations is not None:
        taken = [layer for layer in fast.report().layers if layer.kernel != "xla"]
        assert [layer.activation for layer in taken] == activations


@pytest.mark.parametrize("name", ["two paths", "squeeze and excite", "pytree", "scan"])
def test_graphs_may_be_batched(name):
    fn, _ = GRAPHS[name]
    fast = jax.vmap(compiled(fn, PARAMS, X))
    xs = jnp.stack([X, -2 * X])
    assert_close(jax.jit(fast)(xs), jax.jit(jax.vmap(functools.partial(fn, PARAMS)))(xs))


def test_custom_derivatives_are_kept():
    fn, _ = GRAPHS["straight through"]
    fast = compiled(fn, PARAMS, X)
    grad = jax.jit(jax.grad(lambda x: fast(x).sum()))(X)
    assert_close(grad, jax.jit(jax.grad(lambda x: fn(PARAMS, x).sum()))(X))
    assert np.abs(grad).max() > 0


@pytest.mark.filterwarnings("ignore:compile leaves all")
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_models_stay_in_xla_and_right(dtype):
    fn, _ = GRAPHS["norm then relu"]
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), PARAMS)
    fast = compiled(fn, params, X.astype(dtype))
    expected = jax.jit(fn)(params, X.astype(dtype))
    assert fast(X.astype(dtype)).dtype == expected.dtype
    np.testing.assert_allclose(
        np.asarray(fast(X.astype(dtype)), np.float32), np.asarray(expected, np.float32), 2e-2, 2e-2
    )
    (layer,) = fast.report().layers
    assert layer.kernel == "xla" and f"{jnp.dtype(dtype)} (its weights)" in layer.reason


@pytest.mark.parametrize("zeros", ["all", "rows", "columns", "none"])
def test_empty_rows_and_columns_are_right(zeros):
    kernel = np.random.default_rng(0).standard_normal((1, 1, 8, 16)).astype(np.float32)
    if zeros == "all":
        kernel[:] = 0
    elif zeros == "rows":
        kernel[..., 1:15] = 0
    elif zeros == "columns":
        kernel[:, :, 1:] = 0
    bias = np.arange(16, dtype=np.float32) - 8
    fn = lambda p, x: jax.nn.relu(conv(x, p["kernel"]) + p["bias"])
    params = {"kernel": kernel, "bias": bias}
    fast = compiled(fn, params, X)
    assert_close(fast(X), jax.jit(fn)(params, X))
    expected = {"all": 1.0, "rows": 14 / 16, "columns": 7 / 8, "none": 0.0}[zeros]
    assert fast.report().layers[0].sparsity == pytest.approx(expected)
    assert fast.report().layers[0].kernel == ("dense" if zeros == "none" else "sparse")


def test_folding_keeps_zeros_and_nothing_else():
    fn = lambda p, x: norm(conv(x, p["pointwise"]), p)
    fast = compiled(fn, PARAMS, X)
    (row,) = fast.report().layers
    assert row.sparse_multiply_adds == X.size // 8 * int((PARAMS["pointwise"] != 0).sum())


def test_values_that_are_not_finite_pass_through():
    fn, _ = GRAPHS["norm then relu"]
    x = X.at[0, 0, 0, 0].set(jnp.nan).at[1, 1, 1, 1].set(jnp.inf)
    fast, dense = compiled(fn, PARAMS, X)(x), jax.jit(fn)(PARAMS, x)
    touched = np.isnan(np.asarray(dense)) | np.isinf(np.asarray(dense))
    np.testing.assert_allclose(fast[~touched], dense[~touched], rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:compile leaves all")
def test_weights_that_are_not_finite_stay_in_xla():
    kernel = PARAMS["pointwise"].at[0, 0, 0, 0].set(jnp.nan)
    fast = compiled(lambda p, x: conv(x, p), kernel, X)
    (layer,) = fast.report().layers
    assert layer.kernel == "xla" and layer.reason == "weights are not finite"
    np.testing.assert_array_equal(fast(X), conv(X, kernel))


def test_several_inputs_and_shapes_instead_of_arrays():
    fn = lambda p, x, y: conv(x, p["pointwise"]) * y["gate"]
    gate = {"gate": jnp.ones((2, 1, 1, 8)) * 0.5}
    like = jax.eval_shape(lambda: (X, gate))
    fast = compiled(fn, PARAMS, *like)
    assert_close(fast(X, gate), fn(PARAMS, X, gate))


def test_mistakes_are_named():
    with pytest.raises(TypeError, match="compile needs a function"):
        compiled(PARAMS, X, X)
    with pytest.raises(TypeError, match="compile needs arrays as inputs, got 'eval'"):
        compiled(lambda p, x, mode: x, PARAMS, X, "eval")
    with pytest.raises(TypeError, match=r"got a traced array for layer/kernel; call it outside"):
        jax.jit(lambda p: sj.compile(lambda p, x: x, {"layer": {"kernel": p}}, X)(X))(X)


@pytest.mark.filterwarnings("ignore:compile found random numbers")
def test_keys_among_the_params_are_allowed():
    params = {**PARAMS, "key": jax.random.key(0)}
    fn = lambda p, x: conv(x, p["pointwise"]) + jax.random.normal(p["key"], x.shape)
    assert_close(compiled(fn, params, X)(X), jax.jit(fn)(params, X))
