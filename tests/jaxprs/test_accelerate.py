"""accelerate: the same function and derivatives, without a slow depthwise convolution in it."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from jax.extend.core import jaxprs_in_params

import sparsejax as sj
from experiments.models.mobilenet_v1 import DepthwiseSeparable

CHANNELS = 4
X = jax.random.normal(jax.random.key(0), (2, 7, 6, CHANNELS))
KERNEL = jax.random.normal(jax.random.key(1), (3, 3, 1, CHANNELS)) / 3


def conv(x, kernel, strides=(1, 1), padding="SAME", **options):
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[3],
        **options,
    )


def conv_planes(x, kernel):
    x, kernel = x.transpose(0, 3, 1, 2), kernel.transpose(3, 2, 0, 1)
    return lax.conv_general_dilated(x, kernel, (2, 1), "SAME", feature_group_count=CHANNELS)


@jax.custom_jvp
def with_jvp(x, kernel):
    return conv(x, kernel)


@with_jvp.defjvp
def _with_jvp(primals, tangents):
    return with_jvp(*primals), 7 * tangents[0]  # wrong on purpose: it has to survive


@jax.custom_vjp
def with_vjp(x, kernel):
    return conv(x, kernel)


with_vjp.defvjp(lambda x, kernel: (conv(x, kernel), kernel), lambda kernel, y: (3 * y, 5 * kernel))


def scan(x, kernel):
    return lax.scan(lambda c, _: (jnp.tanh(conv(c, kernel)), c.sum()), x, None, length=3)


def fori(x, kernel):
    return lax.fori_loop(0, 3, lambda i, c: jnp.tanh(conv(c, kernel)), x)


def while_loop(x, kernel):
    step = lambda c: (c[0] + 1, jnp.tanh(conv(c[1], kernel)))
    return lax.while_loop(lambda c: c[0] < 3, step, (0, x))


def cond(x, kernel):
    return lax.cond(x.sum() > 0, lambda: conv(x, kernel), lambda: conv(x, 2 * kernel))


def inner_vmap(x, kernel):
    return jax.vmap(lambda image: conv(image[None], kernel)[0])(x)


def named_axis(x, kernel):
    mean = lambda image: lax.pmean(conv(image[None], kernel)[0], "batch")
    return jax.vmap(mean, axis_name="batch")(x)


def inner_grad(x, kernel):
    return jax.grad(lambda x, kernel: (conv(x, kernel) ** 2).sum(), (0, 1))(x, kernel)


dots = jax.checkpoint_policies.dots_saveable
WRAPPED = {
    "plain": conv,
    "strides": functools.partial(conv, strides=(2, 2)),
    "valid": functools.partial(conv, padding="VALID"),
    "padding": functools.partial(conv, padding=((2, 0), (0, 3))),
    "planes": conv_planes,
    "jit": jax.jit(conv),
    "remat": jax.checkpoint(conv),
    "remat_policy": jax.checkpoint(conv, policy=dots),
    "scan": scan,
    "scan_of_remat": jax.checkpoint(scan),
    "fori": fori,
    "while_loop": while_loop,
    "cond": cond,
    "custom_jvp": with_jvp,
    "custom_vjp": with_vjp,
    "relu": lambda x, kernel: jax.nn.relu(conv(x, kernel)),
    "inner_vmap": inner_vmap,
    "named_axis": named_axis,
    "inner_grad": inner_grad,
}


def primitives(fn, *args):
    """How often each primitive occurs, at any depth."""
    counts = {}

    def count(jaxpr):
        for eqn in jaxpr.eqns:
            counts[eqn.primitive.name] = counts.get(eqn.primitive.name, 0) + 1
            for inner in jaxprs_in_params(eqn.params):
                count(inner)

    count(jax.make_jaxpr(fn)(*args).jaxpr)
    return counts


def total(fn):
    """A scalar that depends on every element of every output."""
    return lambda *args: sum(jnp.sin(leaf).sum() for leaf in jax.tree.leaves(fn(*args)))


def assert_close(actual, expected, tolerance=2e-5):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        scale = np.abs(b).max() + 1e-30
        np.testing.assert_allclose(a / scale, b / scale, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", WRAPPED)
def test_value_gradient_and_batching_are_the_same_inside(name):
    fn, fast = WRAPPED[name], sj.accelerate(WRAPPED[name])
    assert_close(jax.jit(fast)(X, KERNEL), jax.jit(fn)(X, KERNEL))
    over_both = jnp.stack([X, 2 * X]), jnp.stack([KERNEL, -KERNEL])
    assert_close(jax.jit(jax.vmap(fast))(*over_both), jax.jit(jax.vmap(fn))(*over_both))
    if name != "while_loop":  # has no reverse mode in JAX
        grads = [jax.jit(jax.grad(total(f), (0, 1)))(X, KERNEL) for f in (fast, fn)]
        assert_close(*grads, 2e-4)


@pytest.mark.parametrize("name", [name for name in WRAPPED if name != "inner_grad"])
def test_no_depthwise_convolution_is_left_and_wrappers_stay(name):
    fast = sj.accelerate(WRAPPED[name])
    assert "stablehlo.convolution" not in jax.jit(fast).lower(X, KERNEL).as_text()
    before, after = primitives(WRAPPED[name], X, KERNEL), primitives(fast, X, KERNEL)
    kept = ("scan", "while", "checkpoint", "remat2", "custom_jvp_call", "psum")
    assert {k: before.get(k) for k in kept} == {k: after.get(k) for k in kept}


@pytest.mark.parametrize(
    ("fn", "x", "kernel"),
    [
        (functools.partial(conv, rhs_dilation=(2, 2)), X, KERNEL),
        (functools.partial(conv, padding=((1, 1), (1, 1)), lhs_dilation=(2, 1)), X, KERNEL),
        (functools.partial(conv, padding=((-1, 1), (0, 0))), X, KERNEL),
        (conv, X.astype(jnp.bfloat16), KERNEL.astype(jnp.bfloat16)),
        (conv, X.astype(jnp.float16), KERNEL.astype(jnp.float16)),
        (conv, X[:0], KERNEL),
        (conv, X[..., :1], KERNEL[..., :1]),
    ],
    ids=["dilation", "transposed", "crop", "bf16", "f16", "empty", "one channel"],
)
def test_what_the_kernel_does_not_take_is_left_alone(fn, x, kernel):
    fast = sj.accelerate(fn)
    assert primitives(fast, x, kernel) == primitives(fn, x, kernel)
    np.testing.assert_array_equal(jax.jit(fast)(x, kernel), jax.jit(fn)(x, kernel))


def test_other_arguments_are_handed_on_as_they_are():
    seen = []

    def fn(x, kernel, name, *, padding, times, table):
        seen.append((name, times, table))
        return conv(x, kernel, padding=padding) * times

    table = np.arange(3)
    sj.accelerate(fn)(X, KERNEL, "a name", padding="VALID", times=2, table=table)
    assert seen == [("a name", 2, table)]


def test_shard_map_works_inside_and_around():
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    x = jnp.concatenate([X, 2 * X])
    body = lambda x, kernel: lax.psum(conv(x, kernel), "batch")
    specs = {"mesh": mesh, "in_specs": (jax.P("batch"), jax.P()), "out_specs": jax.P()}
    expected = jax.jit(jax.shard_map(body, **specs))(x, KERNEL)
    inside = jax.shard_map(sj.accelerate(body), **specs)
    assert_close(jax.jit(inside)(x, KERNEL), expected)
    assert "sparsejax_kernel" in primitives(inside, x, KERNEL)
    assert_close(jax.jit(sj.accelerate(jax.shard_map(body, **specs)))(x, KERNEL), expected)


class Small(nn.Module):
    """Two depthwise-separable blocks with batch norm, as flax writes them."""

    @nn.compact
    def __call__(self, x):
        for stride in (1, 2):
            x = nn.Conv(x.shape[-1], (3, 3), stride, feature_group_count=x.shape[-1])(x)
            x = nn.relu(nn.BatchNorm(use_running_average=False)(x))
            x = nn.Conv(6, (1, 1))(x)
        return x


def test_training_gradients_are_no_further_from_float64():
    variables = jax.jit(Small().init)(jax.random.key(3), X)

    def loss(params, x):
        stats = {"batch_stats": variables["batch_stats"]}
        y, _ = Small().apply({"params": params, **stats}, x, mutable=["batch_stats"])
        return jnp.square(y).mean()

    fast = jax.jit(jax.grad(sj.accelerate(loss)))(variables["params"], X)
    slow = jax.jit(jax.grad(loss))(variables["params"], X)
    with jax.enable_x64(True):
        double = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), variables["params"])
        exact = jax.jit(jax.grad(loss))(double, jnp.asarray(X, jnp.float64))

    def distance(grads):
        flat, exact_flat = (
            np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(g)])
            for g in (grads, exact)
        )
        return np.linalg.norm(flat - exact_flat) / np.linalg.norm(exact_flat)

    assert distance(fast) <= max(2 * distance(slow), 1e-6)


class Counting(nnx.Module):
    """A block with batch norm, a counter, and a name for what a wrong function could do to it."""

    def __init__(self, rngs):
        self.block = DepthwiseSeparable(
            3, 5, 1, momentum=0.9, depthwise=lax.conv_general_dilated, rngs=rngs
        )
        self.calls = nnx.BatchStat(jnp.array(0))

    def __call__(self, x):
        self.calls[...] += 1
        return self.block(x)


IMAGES = jax.random.normal(jax.random.key(4), (4, 8, 8, 3))


def square(module, x):
    return jnp.square(module(x)).mean()


@pytest.mark.parametrize("transform", [lambda f: f, nnx.value_and_grad], ids=["call", "grad"])
def test_an_nnx_module_is_updated_as_without_accelerate(transform):
    stock, fast = Counting(nnx.Rngs(0)), Counting(nnx.Rngs(0))
    for _ in range(2):
        expected = nnx.jit(transform(square))(stock, IMAGES)
        actual = nnx.jit(transform(sj.accelerate(square)))(fast, IMAGES)
    assert_close(actual, expected, 1e-4)
    assert_close(nnx.state(fast), nnx.state(stock), 1e-4)
    assert fast.calls[...] == 2


def test_modules_that_share_a_variable_still_share_it():
    module = Counting(nnx.Rngs(0))
    output = sj.accelerate(lambda pair, x: square(pair["a"], x) + square(pair["b"], x))(
        {"a": module, "b": module}, IMAGES
    )
    assert module.calls[...] == 2
    assert_close(output, 2 * square(Counting(nnx.Rngs(0)), IMAGES), 1e-4)


def test_a_change_of_a_modules_variables_is_refused_by_name():
    def grow(module, x):
        module.extra = nnx.Param(jnp.ones(2))
        return module(x)

    with pytest.raises(TypeError, match=r"nnx\.Module.*create them before the call"):
        sj.accelerate(grow)(Counting(nnx.Rngs(0)), IMAGES)
    with pytest.raises(TypeError, match=r"return nnx\.state"):
        sj.accelerate(lambda module: module)(Counting(nnx.Rngs(0)))


def test_linen_modules_need_no_change():
    layer = nn.Conv(CHANNELS, (5, 5), 2, feature_group_count=CHANNELS)
    params = layer.init(jax.random.key(0), X)
    assert_close(jax.jit(sj.accelerate(layer.apply))(params, X), jax.jit(layer.apply)(params, X))


def grouped(x, kernel, strides=(2, 1)):
    return lax.conv_general_dilated(
        x, kernel, strides, "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[3] // kernel.shape[2],
    )  # fmt: skip


@pytest.mark.parametrize(("size", "outputs"), [(2, 6), (1, 8), (2, 2)])
def test_groups_of_channels_are_depthwise_ones(size, outputs):
    """Value and gradients, with several outputs for each channel, and fewer than there are."""
    kernel = jax.random.normal(jax.random.key(2), (3, 3, size, outputs)) / 3
    loss = lambda fn: jax.jit(jax.value_and_grad(lambda x, k: (fn(x, k) ** 2).sum(), (0, 1)))
    fast = sj.accelerate(grouped)
    assert "conv_general_dilated" not in str(jax.make_jaxpr(fast)(X, kernel)).split("ffi")[0]
    for got, expected in zip(
        jax.tree.leaves(loss(fast)(X, kernel)),
        jax.tree.leaves(loss(grouped)(X, kernel)),
        strict=True,
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_an_infinity_stays_in_its_group():
    x = X.at[0, 3, 3, 0].set(jnp.inf)
    kernel = jnp.ones((3, 3, 2, 4))
    y = jax.jit(sj.accelerate(grouped))(x, kernel)
    assert jnp.isinf(y[0, 1, 3, :2]).all() and jnp.isfinite(y[..., 2:]).all()
