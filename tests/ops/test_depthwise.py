"""depthwise_conv2d equals a sum over taps in float64, in value and in gradient."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import sparsejax as sj

PADS = ((2, 1), (0, 3))
# height and width, channels, kernel, strides, padding, dilation
CASES = [
    ((9, 11), 16, (3, 3), (1, 1), "SAME", (1, 1)),
    ((9, 11), 16, (3, 3), (2, 2), "SAME", (1, 1)),
    ((8, 8), 40, (3, 3), (2, 2), "VALID", (1, 1)),
    ((12, 7), 5, (5, 5), (1, 1), "SAME", (1, 1)),
    ((12, 7), 5, (5, 5), (2, 2), PADS, (1, 1)),
    ((10, 10), 24, (7, 7), (1, 1), "SAME", (1, 1)),
    ((10, 10), 24, (7, 7), (2, 2), "SAME", (1, 1)),
    ((9, 9), 3, (2, 4), (1, 3), PADS, (1, 1)),
    ((9, 9), 17, (3, 3), (1, 1), "SAME", (2, 3)),
    ((9, 9), 17, (3, 1), (2, 2), ((-1, 0), (3, -2)), (2, 1)),
    ((3, 3), 1, (1, 1), (4, 4), "VALID", (1, 1)),
    ((2, 2), 8, (5, 5), (1, 1), "SAME", (1, 1)),
]


def explicit(padding, size, kernel, strides, dilation):
    if not isinstance(padding, str):
        return padding
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    return lax.padtype_to_pads(size, reach, strides, padding)


def oracle(x, kernel, bias, grad_y, strides, pads, dilation):
    """The convolution of NHWC arrays in float64 and its three gradients."""
    x, kernel, grad_y = (a.astype(np.float64) for a in (x, kernel[:, :, 0], grad_y))
    y, grad_x, grad_kernel = grad_y * 0, x * 0, kernel * 0
    for oy, ox, i, j in np.ndindex(*y.shape[1:3], *kernel.shape[:2]):
        iy = oy * strides[0] + i * dilation[0] - pads[0][0]
        ix = ox * strides[1] + j * dilation[1] - pads[1][0]
        if 0 <= iy < x.shape[1] and 0 <= ix < x.shape[2]:
            y[:, oy, ox] += x[:, iy, ix] * kernel[i, j]
            grad_x[:, iy, ix] += grad_y[:, oy, ox] * kernel[i, j]
            grad_kernel[i, j] += (grad_y[:, oy, ox] * x[:, iy, ix]).sum(0)
    return y + bias, grad_x, grad_kernel[:, :, None], grad_y.sum((0, 1, 2))


def to(layout, array):
    return array if layout == "nhwc" else np.moveaxis(array, -1, -3)


@pytest.mark.parametrize("layout", ["nhwc", "channel-major"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_depthwise_and_its_gradients_are_sums_over_taps(case, layout):
    size, channels, kernel_size, strides, padding, dilation = case
    rng = np.random.default_rng(0)
    normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)
    x, kernel, bias = (
        normal(3, *size, channels),
        normal(*kernel_size, 1, channels),
        normal(channels),
    )
    op = partial(
        sj.depthwise_conv2d,
        strides=strides,
        padding=padding,
        dilation=dilation,
        channels_last=layout == "nhwc",
    )
    pads = explicit(padding, size, kernel_size, strides, dilation)
    out = [
        (n + sum(p) - (k - 1) * d - 1) // s + 1
        for n, p, k, d, s in zip(size, pads, kernel_size, dilation, strides, strict=True)
    ]
    grad_y = normal(3, *out, channels)
    expected = oracle(x, kernel, bias, grad_y, strides, pads, dilation)

    @jax.jit
    def run(x, kernel, bias, grad_y):
        y, vjp = jax.vjp(op, x, kernel, bias)
        return y, *vjp(grad_y)

    y, grad_x, grad_kernel, grad_bias = run(to(layout, x), kernel, bias, to(layout, grad_y))
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-4)
    close(y, to(layout, expected[0]))
    close(grad_x, to(layout, expected[1]))
    close(grad_kernel, expected[2])
    close(grad_bias, expected[3])


@pytest.mark.parametrize("padding", ["SAME", "VALID", PADS])
def test_reference_is_the_same_function(padding):
    key = jax.random.key(0)
    x, kernel = jax.random.normal(key, (2, 9, 8, 6)), jax.random.normal(key, (3, 3, 1, 6))
    options = {"strides": (2, 1), "padding": padding, "dilation": (1, 2), "activation": jnp.tanh}
    got = jax.jit(partial(sj.depthwise_conv2d, **options))(x, kernel, jnp.ones(6))
    reference = jax.jit(partial(sj.ops.depthwise_conv2d_reference, **options))
    expected = reference(x, kernel, jnp.ones(6))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("activation", [jax.nn.relu, jax.nn.relu6])
def test_fused_activations_and_their_gradients_are_those_of_jax(activation):
    key = jax.random.key(0)
    x, kernel = 5 * jax.random.normal(key, (1, 6, 6, 20)), jax.random.normal(key, (3, 3, 1, 20))

    def results(fused):
        inside, behind = (activation, lambda y: y) if fused else (None, activation)
        f = lambda *a: behind(sj.depthwise_conv2d(*a, activation=inside))
        y, vjp = jax.vjp(f, x, kernel, jnp.ones(20))
        return y, *vjp(jnp.sin(y))

    fused, separate = (jax.jit(partial(results, fused))() for fused in (True, False))
    for got, expected in zip(fused, separate, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("shape", [(0, 5, 5, 3), (2, 0, 5, 3), (2, 5, 5, 0)])
def test_zero_sized_dimensions_give_what_the_reference_gives(shape):
    x, kernel, bias = jnp.ones(shape), jnp.ones((3, 3, 1, shape[-1])), jnp.ones(shape[-1])
    for padding in ("SAME", ((2, 2), (2, 2))):
        got = sj.depthwise_conv2d(x, kernel, bias, padding=padding)
        expected = sj.ops.depthwise_conv2d_reference(x, kernel, bias, padding=padding)
        assert got.shape == expected.shape
        np.testing.assert_array_equal(got, expected)


def test_an_image_smaller_than_a_valid_kernel_gives_nothing():
    x, kernel = jnp.ones((1, 2, 9, 3)), jnp.ones((3, 3, 1, 3))
    assert sj.depthwise_conv2d(x, kernel, padding="VALID").shape == (1, 0, 7, 3)


def test_any_leading_dimensions_are_batches():
    key = jax.random.key(0)
    x, kernel = jax.random.normal(key, (2, 3, 5, 5, 4)), jax.random.normal(key, (3, 3, 1, 4))
    op = jax.jit(sj.depthwise_conv2d)
    np.testing.assert_array_equal(op(x, kernel)[1, 2], op(x[1, 2], kernel))


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)])
def test_vmap_equals_a_loop_over_any_operand(axes):
    key = jax.random.key(0)
    x = jax.random.normal(key, (3, 2, 6, 6, 5))
    kernel = jax.random.normal(key, (3, 3, 3, 1, 5))
    loss = lambda x, w: (sj.depthwise_conv2d(x, w, strides=(2, 2)) ** 2).sum()
    f = jax.jit(jax.grad(loss, argnums=(0, 1)))
    operands = [a if axis == 0 else a[0] for a, axis in zip((x, kernel), axes, strict=True)]
    got = jax.jit(jax.vmap(f, axes))(*operands)
    for i in range(3):
        one = [a[i] if axis == 0 else a for a, axis in zip(operands, axes, strict=True)]
        for g, e in zip(got, f(*one), strict=True):
            np.testing.assert_allclose(g[i], e, rtol=1e-5, atol=1e-4)


def test_gradients_run_as_custom_calls():
    x, kernel = jnp.ones((1, 8, 8, 4)), jnp.ones((3, 3, 1, 4))
    f = jax.jit(jax.grad(lambda x, w: sj.depthwise_conv2d(x, w).sum(), (0, 1)))
    text = f.lower(x, kernel).as_text()
    assert "sparsejax.depthwise_grad_x.v1" in text
    assert "sparsejax.depthwise_grad_kernel.v1" in text
    assert "convolution" not in text


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_other_platforms_lower_to_the_reference(platform):
    x, kernel = jnp.ones((1, 8, 8, 4)), jnp.ones((3, 3, 1, 4))
    traced = jax.jit(jax.grad(lambda x: sj.depthwise_conv2d(x, kernel).sum())).trace(x)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert "sparsejax" not in text
    assert "convolution" in text


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_other_dtypes_run_as_the_reference(dtype):
    x, kernel = jnp.ones((1, 8, 8, 4), dtype), jnp.ones((3, 3, 1, 4), dtype)
    assert sj.depthwise_conv2d(x, kernel).dtype == dtype
    assert "custom_call" not in jax.jit(sj.depthwise_conv2d).lower(x, kernel).as_text()


def test_kernels_of_many_taps_run_as_the_reference():
    x, kernel = jnp.ones((1, 40, 8, 4)), jnp.ones((33, 3, 1, 4))
    got = sj.depthwise_conv2d(x, kernel)
    np.testing.assert_allclose(got, sj.ops.depthwise_conv2d_reference(x, kernel), rtol=1e-5)
