"""What compile returns under JAX's transformations: a pure function like any other."""

import threading
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

import sparsejax as sj
from experiments.models.mobilenet_v2 import MobileNetV2Linen

P = PartitionSpec


@pytest.fixture(scope="module")
def net():
    """apply(params, x), its params with 80 % zeros in the 1x1 convolutions, x, and the compiled."""
    model = MobileNetV2Linen(num_classes=7, width=0.25)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 32, 32, 3)), jnp.float32)
    shapes = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), x)
    rng = np.random.default_rng(1)

    def random(leaf):
        scale = np.sqrt(leaf.shape[-1] / np.prod(leaf.shape)) if leaf.ndim > 1 else 1
        values = scale * rng.uniform(0.5, 1.5, leaf.shape)
        signs = rng.choice([-1, 1], leaf.shape) if leaf.ndim > 1 else 1  # variances are positive
        kept = rng.random(leaf.shape) > (0.8 if leaf.shape[:2] == (1, 1) else 0)
        return (values * signs * kept).astype(np.float32)

    params = jax.tree.map(random, shapes)
    apply = jax.jit(partial(model.apply, train=False))
    return apply, params, x, sj.compile(apply, params, x, tune=False)


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5 * float(jnp.abs(b).max()))


def test_it_is_one_call(net):
    _, _, x, fast = net
    text = jax.jit(fast).lower(x).as_text()
    assert text.count("custom_call") == 1
    assert "convolution" not in text
    assert fast.report().num_regions == 1
    assert fast.report().xla == {}


def test_other_batches_are_right_and_share_the_packed_weights(net):
    apply, params, x, fast = net
    names = set()
    for batch in (1, 3, 4):
        close(fast(x[:batch]), apply(params, x[:batch]))
        text = jax.jit(fast).lower(x[:batch]).as_text()
        names.add(text.split('program = "')[1].split('"')[0])
    assert len(names) == 1


def test_vmap_in_one_and_two_axes(net):
    apply, params, x, fast = net
    expected = apply(params, x)
    close(jax.vmap(lambda image: fast(image[None])[0])(x), expected)
    pairs = x.reshape(2, 2, *x.shape[1:])
    close(jax.jit(jax.vmap(fast))(pairs).reshape(expected.shape), expected)
    nested = jax.vmap(jax.vmap(lambda image: fast(image[None])[0]))
    close(nested(pairs).reshape(expected.shape), expected)


def test_derivatives_both_ways(net):
    apply, params, x, fast = net
    exact = lambda x: apply(params, x)
    one = x[:1]
    grad = lambda f: jax.jit(jax.grad(lambda x: jnp.sum(f(x) ** 2)))(one)
    close(grad(fast), grad(exact))
    tangent = jnp.ones_like(one)
    close(jax.jvp(fast, (one,), (tangent,))[1], jax.jvp(exact, (one,), (tangent,))[1])


def test_scan_and_control_flow(net):
    apply, params, x, fast = net
    _, logits = jax.lax.scan(lambda carry, image: (carry, fast(image[None])[0]), 0, x)
    close(logits, apply(params, x))
    either = jax.jit(lambda flag, x: jax.lax.cond(flag, fast, lambda x: -fast(x), x))
    close(either(False, x), -apply(params, x))


@pytest.mark.skipif(jax.device_count() < 2, reason="needs two devices")
def test_shard_map_over_the_batch(net):
    apply, params, x, fast = net
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharded = jax.jit(jax.shard_map(fast, mesh=mesh, in_specs=P("data"), out_specs=P("data")))
    text = sharded.lower(x).compile().as_text()
    assert "all-gather" not in text
    close(sharded(x), apply(params, x))


def test_threads_get_the_same_bits(net):
    _, _, x, fast = net
    run = jax.jit(fast)
    expected = np.asarray(run(x))
    results = [None] * 6

    def call(i):
        results[i] = [np.asarray(run(x)) for _ in range(5)]

    threads = [threading.Thread(target=call, args=(i,)) for i in range(len(results))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(y, expected) for ys in results for y in ys)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_elsewhere_it_lowers_to_plain_xla(net, platform):
    _, _, x, fast = net
    exported = jax.jit(fast).trace(x).lower(lowering_platforms=(platform,)).as_text()
    assert "custom_call" not in exported
    assert "convolution" in exported


def test_infinities_and_nan_are_where_xla_has_them():
    """Dense weights: every product is there. A pruned one is not: documented."""
    weights = np.random.default_rng(0).uniform(0.5, 1, (5, 6)).astype(np.float32)
    matmul = lambda w, x: jax.nn.relu(x @ w)
    x = np.ones((9, 5), np.float32)
    x[2, 1], x[4, 0], x[6, 2], x[7, 3] = np.nan, np.inf, -np.inf, 1e-42
    fast = sj.compile(matmul, weights, x, tune=False)
    # XLA's, not NumPy's: whether that warns of infinities depends on the CPU's BLAS kernel.
    expected = jax.jit(matmul)(weights, x)
    np.testing.assert_array_equal(np.isnan(fast(x)), np.isnan(expected))
    np.testing.assert_allclose(fast(x), expected, rtol=1e-6)
    weights[0] = 0
    pruned = sj.compile(matmul, weights, x, tune=False)
    assert np.isfinite(pruned(x)[4]).all()
