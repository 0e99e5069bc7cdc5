"""spmm equals the dense product in value and in gradient, in every layout, block and batch."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj

KINDS = {"csr": sj.Unstructured(), **{f"block{r}": sj.Block(r, 1) for r in (2, 4, 8)}}
ACTIVATIONS = {"none": None, "relu": jax.nn.relu, "relu6": jax.nn.relu6, "tanh": jnp.tanh}


def packed_matrix(kind, rows, cols, sparsity=0.7, seed=0):
    """A packed matrix and its dense (rows, cols) float64 twin."""
    rng = np.random.default_rng(seed)
    block = 1 if kind == "csr" else int(kind[5:])
    kept = np.repeat(rng.random((rows // block, cols)) >= sparsity, block, axis=0)
    dense = np.where(kept, rng.uniform(0.1, 1, kept.shape), 0).astype(np.float32)
    mask = kept.T
    return KINDS[kind].pack(dense.T, mask), dense.astype(np.float64)


def with_values(packed, values):
    return dataclasses.replace(packed, values=values)


def oracle(dense, x, bias, grad_y, channels_last):
    """Product and gradients in float64, before any activation."""
    x, grad_y = (a if channels_last else np.swapaxes(a, -1, -2) for a in (x, grad_y))
    y = x @ dense.T + bias
    grad_dense = grad_y.reshape(-1, dense.shape[0]).T @ x.reshape(-1, dense.shape[1])
    grad_x = grad_y @ dense
    if not channels_last:
        y, grad_x = np.swapaxes(y, -1, -2), np.swapaxes(grad_x, -1, -2)
    return y, grad_dense, grad_x, grad_y.reshape(-1, grad_y.shape[-1]).sum(0)


@pytest.mark.parametrize("channels_last", [True, False], ids=["nhwc", "channel-major"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pixels", [1, 3, 49, 130])
def test_spmm_and_its_gradients_are_those_of_the_dense_product(kind, pixels, channels_last):
    rows, cols, lead = 24, 37, (2,)
    packed, dense = packed_matrix(kind, rows, cols)
    rng = np.random.default_rng(1)
    shape = (*lead, pixels, cols) if channels_last else (*lead, cols, pixels)
    x = rng.standard_normal(shape).astype(np.float32)
    bias = rng.standard_normal(rows).astype(np.float32)
    out = (*lead, pixels, rows) if channels_last else (*lead, rows, pixels)
    grad_y = rng.standard_normal(out).astype(np.float32)

    @jax.jit
    def run(values, x, bias):
        f = lambda v, x, b: sj.spmm(with_values(packed, v), x, b, channels_last=channels_last)
        y, vjp = jax.vjp(f, values, x, bias)
        return y, vjp(jnp.asarray(grad_y))

    y, (grad_values, grad_x, grad_bias) = run(packed.values, x, bias)
    expected = oracle(dense, x.astype(np.float64), bias, grad_y.astype(np.float64), channels_last)
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-4)
    close(y, expected[0])
    close(grad_values, packed.gather(expected[1].T.astype(np.float32)).values)
    close(grad_x, expected[2])
    close(grad_bias, expected[3])


@pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_activations_and_their_gradients_are_those_of_the_reference(activation):
    packed, _ = packed_matrix("block4", 16, 20)
    x = 4 * np.random.default_rng(0).standard_normal((5, 20)).astype(np.float32)
    bias = np.linspace(-2, 4, 16, dtype=np.float32)

    def results(op):
        f = lambda v, x, b: op(with_values(packed, v), x, b, activation=activation)
        y, vjp = jax.vjp(f, packed.values, x, bias)
        return y, *vjp(jnp.cos(y))

    ours, reference = (jax.jit(partial(results, op)) for op in (sj.spmm, sj.ops.spmm_reference))
    for got, expected in zip(ours(), reference(), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_fused_relu_keeps_nan():
    packed, _ = packed_matrix("csr", 8, 8, sparsity=0.0)
    y = sj.spmm(packed, jnp.full((3, 8), jnp.nan), activation=jax.nn.relu6)
    assert np.isnan(y).all()


@pytest.mark.parametrize("sparsity", [0.0, 1.0])
def test_full_and_empty_matrices_work(sparsity):
    packed, dense = packed_matrix("csr", 8, 12, sparsity)
    x = jnp.ones((4, 12))
    np.testing.assert_allclose(sj.spmm(packed, x), np.ones((4, 12)) @ dense.T, rtol=1e-5)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0)])
@pytest.mark.parametrize("channels_last", [True, False], ids=["nhwc", "channel-major"])
def test_zero_sized_dimensions_give_what_the_reference_gives(shape, channels_last):
    rows, cols = shape
    indices = np.tile(np.arange(cols, dtype=np.int32), rows)
    starts = np.arange(rows + 1, dtype=np.int32) * cols
    packed = sj.patterns.CSR(
        np.ones(rows * cols, np.float32), indices, starts, (rows, cols), (cols, rows)
    )
    for pixels in (0, 3):
        x = np.ones((2, pixels, cols) if channels_last else (2, cols, pixels), np.float32)
        bias = np.arange(rows, dtype=np.float32)
        got = sj.spmm(packed, x, bias, channels_last=channels_last)
        expected = sj.ops.spmm_reference(packed, x, bias, channels_last=channels_last)
        assert got.shape == expected.shape
        np.testing.assert_array_equal(got, expected)


def test_a_wide_matrix_is_taken_in_chunks():
    packed, dense = packed_matrix("csr", 8, 5_000, 0.9)
    x = np.random.default_rng(0).standard_normal((3, 5_000)).astype(np.float32)
    np.testing.assert_allclose(sj.spmm(packed, x), x @ dense.T, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_other_dtypes_run_as_the_reference(dtype):
    packed, _ = packed_matrix("csr", 8, 12)
    packed = with_values(packed, jnp.asarray(packed.values, dtype))
    x = jnp.ones((4, 12), dtype)
    y = sj.spmm(packed, x)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, sj.ops.spmm_reference(packed, x))
    assert "custom_call" not in jax.jit(sj.spmm).lower(packed, x).as_text()


@pytest.mark.parametrize("channels_last", [True, False], ids=["nhwc", "channel-major"])
def test_vmap_equals_a_loop_over_any_operand(channels_last):
    packed, _ = packed_matrix("block2", 6, 9)
    normal = lambda *shape: np.random.default_rng(0).normal(size=shape).astype(np.float32)
    values, bias = normal(3, *packed.values.shape), normal(3, 6)
    x = normal(3, 2, 4, 9) if channels_last else normal(3, 2, 9, 4)

    def loss(values, x, bias):
        y = sj.spmm(
            with_values(packed, values),
            x,
            bias,
            activation=jax.nn.relu,
            channels_last=channels_last,
        )
        return (y**2).sum()

    f = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
    for axes in ((0, 0, 0), (None, 0, None), (0, None, None), (None, None, 0)):
        operands = [
            a if axis == 0 else a[0] for a, axis in zip((values, x, bias), axes, strict=True)
        ]
        got = jax.jit(jax.vmap(f, axes))(*operands)
        for i in range(3):
            one = [a[i] if axis == 0 else a for a, axis in zip(operands, axes, strict=True)]
            for g, e in zip(got, f(*one), strict=True):
                np.testing.assert_allclose(g[i], e, rtol=1e-5, atol=1e-5)


def test_nested_vmap_equals_leading_dimensions():
    packed, _ = packed_matrix("csr", 6, 9)
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 9))
    nested = jax.jit(jax.vmap(jax.vmap(partial(sj.spmm, packed))))(x)
    np.testing.assert_array_equal(nested, jax.jit(sj.spmm)(packed, x))


def test_gradients_run_as_custom_calls():
    packed, _ = packed_matrix("csr", 8, 12)
    f = jax.grad(lambda v, x: sj.spmm(with_values(packed, v), x).sum(), argnums=(0, 1))
    text = jax.jit(f).lower(packed.values, jnp.ones((4, 12))).as_text()
    assert "sparsejax.spmm_grad_values.v1" in text
    assert "sparsejax.spmm.v1" in text
    assert "dot_general" not in text


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_other_platforms_lower_to_the_reference(platform):
    packed, _ = packed_matrix("csr", 8, 12)
    lowered = (
        jax.jit(sj.spmm).trace(packed, jnp.ones((4, 12))).lower(lowering_platforms=(platform,))
    )
    assert "sparsejax" not in lowered.as_text()
    assert "dot_general" in lowered.as_text()
