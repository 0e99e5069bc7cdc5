"""compile on whole models: equal to the dense function, in every framework and transformation."""

import functools
import threading

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import sparsejax as sj
from experiments.models.mobilenet_v1 import MobileNetV1, MobileNetV1Linen, shifted_depthwise

TOLERANCE = 3e-5  # between two float32 orders of summation


compiled = functools.partial(sj.compile, tune=False)


def drawn(shapes, sparsity=0.9, pattern=None):
    """Variables of these shapes: batch norms that do something, zeros in the 1x1 kernels."""
    rng = np.random.default_rng(0)
    pattern = pattern or sj.Unstructured()

    def draw(path, leaf):
        if path.endswith(("scale", "var")):
            return jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), leaf.dtype)
        if len(leaf.shape) < 2:
            return jnp.asarray(rng.normal(0, 0.2, leaf.shape), leaf.dtype)
        weights = rng.normal(0, np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape).astype(np.float32)
        if path.endswith("pointwise/kernel"):
            return jnp.where(pattern.mask(jnp.abs(weights), sparsity), 3 * weights, 0)
        return jnp.asarray(weights)

    return sj.tree.map_with_paths(draw, shapes)


def relative_error(y, expected):
    return float(np.abs(np.asarray(y) - np.asarray(expected)).max() / np.abs(expected).max())


def assert_as_exact(fast, apply_fn, oracle, params, x):
    """Within 3e-5 of the dense function, and at most twice as far from the oracle in float64."""
    dense, ours = jax.jit(apply_fn)(params, x), jax.jit(fast)(x)
    with jax.enable_x64(True):
        double = lambda leaf: np.asarray(leaf, np.float64)
        exact = np.asarray(jax.jit(oracle)(jax.tree.map(double, params), double(x)))
    assert relative_error(ours, dense) <= TOLERANCE
    assert relative_error(ours, exact) <= max(2 * relative_error(dense, exact), 2e-6)


@functools.cache
def linen_mobilenet():
    model = MobileNetV1Linen(num_classes=10, width=0.25)
    x = jax.random.normal(jax.random.key(1), (2, 64, 64, 3))
    params = drawn(jax.eval_shape(model.init, jax.random.key(0), x))
    apply_fn = functools.partial(model.apply, train=False)
    return apply_fn, params, x, compiled(apply_fn, params, x)


def test_linen_mobilenet_is_exact():
    apply_fn, params, x, fast = linen_mobilenet()
    shifted = MobileNetV1Linen(num_classes=10, width=0.25, depthwise=shifted_depthwise)
    oracle = functools.partial(shifted.apply, train=False)  # compiles faster
    assert_as_exact(fast, apply_fn, oracle, params, x)


def test_every_layer_of_mobilenet_is_recognised_under_its_path():
    *_, fast = linen_mobilenet()
    report = fast.report()
    blocks = [f"params/block{i}_{kind}" for i in range(13) for kind in ("depthwise", "pointwise")]
    names = ["params/stem", *blocks, "params/head"]
    assert [layer.path for layer in report.layers] == [f"{name}/kernel" for name in names]
    assert report.xla == {} and report.num_regions == 1
    by_kind = {layer.kind: layer for layer in report.layers[:-1]}  # the last of each
    assert all(layer.activation == "relu6" for layer in report.layers[:-1])
    assert by_kind["depthwise"].kernel == "depthwise"
    assert by_kind["pointwise"].kernel == "sparse"
    assert by_kind["pointwise"].pattern in ("CSR", "mask groups")
    assert by_kind["pointwise"].sparsity == pytest.approx(0.9, abs=1e-4)


def test_report_counts_multiply_adds_and_prints_a_table():
    *_, fast = linen_mobilenet()
    first = fast.report().layers[2]
    assert first.shape == (1, 1, 8, 16)
    assert first.multiply_adds == 2 * 32 * 32 * 8 * 16
    nonzeros = round((1 - first.sparsity) * 8 * 16)
    assert first.sparse_multiply_adds == 2 * 32 * 32 * nonzeros
    table = str(fast.report())
    assert "block12_pointwise" in table and "1 custom calls" in table
    assert fast.report().to_dict()["layers"][-2]["kernel"] == "sparse"


def test_other_batches_vmap_and_eager_calls_agree():
    apply_fn, params, x, fast = linen_mobilenet()
    expected = np.asarray(jax.jit(apply_fn)(params, x))
    assert relative_error(fast(x), expected) <= TOLERANCE
    assert relative_error(fast(x[:1]), expected[:1]) <= TOLERANCE
    assert relative_error(fast(np.asarray(x)), expected) <= TOLERANCE
    one_by_one = jax.vmap(lambda image: fast(image[None])[0])
    assert relative_error(jax.jit(one_by_one)(x), expected) <= TOLERANCE


def test_threads_may_call_it():
    apply_fn, params, x, _ = linen_mobilenet()
    fast = compiled(apply_fn, params, x)
    expected = np.asarray(fast(x))
    results = {}

    def call(i):
        results[i] = np.asarray(fast(x[: 1 + i % 2]))

    threads = [threading.Thread(target=call, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(relative_error(results[i], expected[: 1 + i % 2]) <= 1e-6 for i in range(6))


def evaluated(**options):
    model = MobileNetV1(width=0.25, rngs=nnx.Rngs(0), **options)
    model.eval()
    return model


def test_nnx_mobilenet_in_blocks_is_exact():
    graph, shapes = nnx.split(nnx.eval_shape(lambda: evaluated(num_classes=10)))
    state = drawn(shapes, pattern=sj.Block(4, 1))
    apply_fn = lambda state, x: nnx.merge(graph, state)(x)
    x = jax.random.normal(jax.random.key(1), (1, 64, 64, 3))
    fast = compiled(apply_fn, state, x)
    assert relative_error(fast(x), jax.jit(apply_fn)(state, x)) <= TOLERANCE
    layers = {layer.path: layer for layer in fast.report().layers}
    assert layers["blocks/12/pointwise/kernel"].pattern in ("4x1", "2x1")
    assert layers["blocks/12/pointwise/kernel"].activation == "relu6"


def test_an_nnx_module_may_be_the_params():
    graph, shapes = nnx.split(nnx.eval_shape(lambda: evaluated(num_classes=4, small_images=True)))
    model = nnx.merge(graph, drawn(shapes))
    x = jax.random.normal(jax.random.key(1), (1, 28, 28, 3))
    fast = compiled(lambda model, x: model(x), model, x)
    assert relative_error(fast(x), nnx.jit(lambda model, x: model(x))(model, x)) <= TOLERANCE
    assert fast.report().layers[0].path == "stem/kernel"


class Net(eqx.Module):
    """Channels first, one image at a time, as Equinox has it."""

    convs: list
    head: eqx.nn.Linear

    def __init__(self, key):
        keys = iter(jax.random.split(key, 8))
        channels, self.convs = 3, []
        for out, size, stride, groups in [
            (8, 3, 2, 1),
            (8, 3, 1, 8),
            (16, 1, 1, 1),
            (16, 3, 2, 16),
        ]:
            conv = eqx.nn.Conv2d(
                channels, out, size, stride, padding=size // 2, groups=groups, key=next(keys)
            )
            self.convs.append(conv)
            channels = out
        self.head = eqx.nn.Linear(channels, 5, key=next(keys))

    def __call__(self, x):
        for conv in self.convs:
            x = jax.nn.relu(conv(x))
        return self.head(x.mean(axis=(1, 2)))


def test_equinox_net_under_vmap_is_exact():
    net = Net(jax.random.key(0))
    pruned = jnp.where(jnp.arange(128).reshape(16, 8, 1, 1) % 9 == 0, net.convs[2].weight, 0)
    head = jnp.where(jnp.arange(80).reshape(5, 16) % 9 == 0, net.head.weight, 0)
    net = eqx.tree_at(lambda n: (n.convs[2].weight, n.head.weight), net, (pruned, head))
    apply_fn = lambda net, x: jax.vmap(net)(x)
    x = jax.random.normal(jax.random.key(1), (2, 3, 16, 16))
    fast = compiled(apply_fn, net, x)
    dense = jax.vmap(net)(x)
    assert relative_error(fast(x), dense) <= TOLERANCE
    kinds = {layer.path: (layer.kind, layer.kernel) for layer in fast.report().layers}
    assert kinds.pop("convs/0/weight")[0] == "convolution"
    assert kinds == {
        "convs/1/weight": ("depthwise", "depthwise"),
        "convs/2/weight": ("pointwise", "sparse"),
        "convs/3/weight": ("depthwise", "depthwise"),
        "head/weight": ("linear", "sparse"),
    }
    assert all(layer.activation == "relu" for layer in fast.report().layers[:-1])
    assert fast.report().xla == {}


class Pooled(eqx.Module):
    """What Equinox pools lies in NHWC, what it convolves in NCHW."""

    convs: list
    norm: eqx.nn.BatchNorm
    head: eqx.nn.Linear

    def __init__(self, key):
        keys = jax.random.split(key, 3)
        conv = lambda channels, key: eqx.nn.Conv2d(channels, 8, 3, padding=1, key=key)
        self.convs = [conv(3, keys[0]), conv(8, keys[1])]
        self.norm = eqx.nn.BatchNorm(8, "batch", mode="batch")
        self.head = eqx.nn.Linear(32, 5, key=keys[2])

    def __call__(self, x, state):
        x, _ = self.norm(self.convs[0](x), state)
        x = eqx.nn.MaxPool2d(3, 2, padding=1)(jax.nn.relu(x))
        x = eqx.nn.AvgPool2d(2, 2)(jax.nn.relu(x + self.convs[1](x)))
        return self.head(jnp.where(x > 0, x, 0.2 * x).reshape(-1))


def test_pools_of_equinox_are_in_the_same_region():
    net, state = eqx.nn.make_with_state(Pooled)(jax.random.key(0))
    params, rest = eqx.partition(eqx.nn.inference_mode(net), eqx.is_array)
    one = lambda net, x: jax.vmap(lambda x: net(x, state), axis_name="batch")(x)
    apply_fn = lambda params, x: one(eqx.combine(params, rest), x)
    x = jax.random.normal(jax.random.key(1), (2, 3, 8, 8))
    fast = compiled(apply_fn, params, x)
    assert relative_error(fast(x), jax.jit(apply_fn)(params, x)) <= TOLERANCE
    assert fast.report().xla == {} and fast.report().num_regions == 1


class Perceptron(nn.Module):
    """Dense layers over the last axis."""

    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            x = nn.relu(nn.Dense(32)(x))
        return nn.Dense(7)(x)


@pytest.mark.parametrize("shape", [(16,), (3, 16), (2, 3, 16)], ids=str)
def test_multilayer_perceptron_takes_any_leading_axes(shape):
    model = Perceptron()
    x = jax.random.normal(jax.random.key(0), shape)
    params = model.init(jax.random.key(1), x)
    prune = lambda leaf: jnp.where(jnp.abs(leaf) > 0.35, leaf, 0) if leaf.ndim > 1 else leaf + 0.3
    params = jax.tree.map(prune, params)
    fast = compiled(model.apply, params, x)
    assert relative_error(fast(x), model.apply(params, x)) <= TOLERANCE
    assert [layer.kernel for layer in fast.report().layers] == ["sparse"] * 3
    assert [layer.activation for layer in fast.report().layers] == ["relu", "relu", ""]


def test_gradients_with_respect_to_the_input():
    apply_fn, params, x, fast = linen_mobilenet()
    expected = jax.jit(jax.grad(lambda x: apply_fn(params, x).sum()))(x)
    actual = jax.jit(jax.grad(lambda x: fast(x).sum()))(x)
    assert relative_error(actual, expected) <= 1e-3
