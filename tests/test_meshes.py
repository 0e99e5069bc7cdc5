"""Laws on meshes: each device runs the kernel on its own part of the batch, without a gather."""

import contextlib
import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import sparsejax as sj

pytestmark = pytest.mark.skipif(jax.device_count() < 4, reason="needs four devices")

RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(16, 8)).astype(np.float32) * (RNG.random((16, 8)) > 0.5)
CSR = jax.tree.map(jnp.asarray, sj.Unstructured().pack(WEIGHTS))
BCRC = jax.tree.map(jnp.asarray, sj.BlockColumnRow(2, 4).pack(WEIGHTS))
FILTERS = jnp.asarray(RNG.normal(size=(3, 3, 1, 4)), jnp.float32)
ROWS = jnp.asarray(RNG.normal(size=(8, 16)), jnp.float32)
IMAGES = jnp.asarray(RNG.normal(size=(8, 5, 4, 4)), jnp.float32)
CUSTOM_CALL = 'custom_call_target="sparsejax'


def convolve(kernel, x):
    dims = ("NHWC", "HWIO", "NHWC")
    y = lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=dims, feature_group_count=4
    )
    return jax.nn.relu(y)


def two_layers(weights, x):
    return jax.nn.relu(x @ weights) @ weights.T


def scaled(fast):
    """What is compiled has no params: a number that stands for them."""
    return lambda scale, x: scale * fast(x)


@functools.cache
def op(name):
    """A function of weights and a batch, both, and how many custom calls its gradient has."""
    ops = {
        "spmm": lambda: (
            lambda v, x: sj.spmm(replace(CSR, values=v), x, activation=jax.nn.relu),
            *(CSR.values, ROWS, 3),
        ),
        "bcr": lambda: (lambda v, x: sj.spmm(replace(BCRC, values=v), x), BCRC.values, ROWS, 3),
        "depthwise": lambda: (
            lambda k, x: sj.depthwise_conv2d(x, k, activation=jax.nn.relu6),
            *(FILTERS, IMAGES, 3),
        ),
        "accelerate": lambda: (sj.accelerate(convolve), FILTERS, IMAGES, 3),
        "compiled rows": lambda: (
            scaled(sj.compile(two_layers, WEIGHTS, ROWS, tune=False)),
            *(jnp.ones(()), ROWS, 1),
        ),
        "compiled images": lambda: (
            scaled(sj.compile(convolve, np.asarray(FILTERS), IMAGES, tune=False)),
            *(jnp.ones(()), IMAGES, 1),
        ),
    }
    return ops[name]()


OPS = ("spmm", "bcr", "depthwise", "accelerate", "compiled rows", "compiled images")
MESHES = {
    "one device": ((1,), ("data",), P("data")),
    "four": ((4,), ("data",), P("data")),
    "two of two": ((2, 2), ("data", "model"), P("data")),
    "two axes": ((2, 2), ("data", "model"), P(("data", "model"))),
}
# Each op on each mesh; the ways to make a mesh known are spread over them.
CASES = [
    (name, mesh, (AxisType.Auto, AxisType.Explicit)[(i + j) % 2], (i + j) % 4 < 2)
    for i, name in enumerate(OPS)
    for j, mesh in enumerate(MESHES)
]
CASES += [
    ("spmm", "four", kind, known)
    for kind in (AxisType.Auto, AxisType.Explicit)
    for known in (True, False)
]
CASES += [("compiled rows", "four", AxisType.Explicit, True)]


def mesh_of(name, axis_type):
    shape, axes, spec = MESHES[name]
    devices = jax.devices()[: int(np.prod(shape))]
    return jax.make_mesh(shape, axes, (axis_type,) * len(axes), devices=devices), spec


def step_of(f):
    """Outputs and gradients of a loss, in one program."""

    def step(weights, x):
        loss = lambda weights, x: ((y := f(weights, x)) ** 2).sum() + 0 * y.sum()
        return f(weights, x), *jax.grad(loss, (0, 1))(weights, x)

    return jax.jit(step)


@functools.cache
def on_one_device(name):
    f, weights, x, _ = op(name)
    return step_of(f)(weights, x)


def close(actual, expected):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5 * np.abs(b).max())


@pytest.mark.parametrize(("name", "mesh_name", "axis_type", "is_set"), CASES)
def test_the_kernel_runs_on_each_devices_part_of_the_batch(name, mesh_name, axis_type, is_set):
    f, weights, x, num_calls = op(name)
    mesh, spec = mesh_of(mesh_name, axis_type)
    with jax.set_mesh(mesh) if is_set else contextlib.nullcontext():
        placed = jax.device_put(x, NamedSharding(mesh, spec))
        shared = jax.device_put(weights, NamedSharding(mesh, P()))
        compiled = step_of(f).lower(shared, placed).compile()
        y, grad_weights, grad_x = results = compiled(shared, placed)
    close(results, on_one_device(name))
    assert y.sharding.is_equivalent_to(NamedSharding(mesh, spec), y.ndim)
    assert grad_x.sharding.is_equivalent_to(placed.sharding, x.ndim)
    assert grad_weights.sharding.is_fully_replicated
    text = compiled.as_text()
    assert text.count(CUSTOM_CALL) >= num_calls
    assert "all-gather" not in text


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("name", ["bcr", "compiled rows"])
def test_the_kernel_runs_inside_shard_map(name, check_vma):
    f, weights, x, _ = op(name)
    mesh, spec = mesh_of("four", AxisType.Auto)
    run = jax.jit(
        jax.shard_map(f, mesh=mesh, in_specs=(P(), spec), out_specs=spec, check_vma=check_vma)
    )
    close(run(weights, x), on_one_device(name)[0])
    text = run.lower(weights, x).compile().as_text()
    assert CUSTOM_CALL in text and "all-gather" not in text


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_what_is_cut_otherwise_is_made_whole_first(axis_type):
    """Channels of x, and weights: devices get all of them, and the result is right."""
    f, weights, x, _ = op("spmm")
    mesh, _ = mesh_of("two of two", axis_type)
    placed = jax.device_put(x, NamedSharding(mesh, P("data", "model")))
    cut = jax.device_put(FILTERS, NamedSharding(mesh, P(None, None, None, "model")))
    y = jax.jit(f)(weights, placed)
    assert y.sharding.is_equivalent_to(NamedSharding(mesh, P("data")), 2)
    close(y, on_one_device("spmm")[0])
    images = jax.device_put(IMAGES, NamedSharding(mesh, P("data")))
    run, *_ = op("depthwise")
    got = step_of(run)(cut, images)
    close(got, on_one_device("depthwise"))
    assert got[0].sharding.is_equivalent_to(NamedSharding(mesh, P("data")), 4)


def test_a_batch_that_devices_cannot_share_evenly_is_right():
    f, weights, x, _ = op("spmm")
    mesh, spec = mesh_of("four", AxisType.Auto)
    uneven = jax.jit(lambda v, x: f(v, lax.with_sharding_constraint(x, NamedSharding(mesh, spec))))
    loss = lambda g: lambda v, x: (g(v, x) ** 2).sum()
    close(
        jax.jit(jax.grad(loss(uneven)))(weights, x[:6]), jax.jit(jax.grad(loss(f)))(weights, x[:6])
    )


def test_a_mapped_axis_may_be_the_one_that_is_cut():
    f, weights, x, _ = op("depthwise")
    mesh, spec = mesh_of("four", AxisType.Auto)
    placed = jax.device_put(x, NamedSharding(mesh, spec))
    run = jax.jit(jax.vmap(lambda image: f(weights, image[None])[0]))
    compiled = run.lower(placed).compile()
    close(compiled(placed), on_one_device("depthwise")[0])
    assert "all-gather" not in compiled.as_text()


@pytest.mark.parametrize("check_vma", [True, False])
def test_masks_are_made_inside_shard_map(check_vma):
    scores = jnp.asarray(RNG.normal(size=(4, 8)), jnp.float32).at[1].set(1.0)
    mesh, spec = mesh_of("four", AxisType.Auto)
    mask = lambda scores: sj.Unstructured().mask(scores, 0.5)
    run = jax.shard_map(mask, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=check_vma)
    expected = jnp.stack([mask(row[None])[0] for row in scores])
    np.testing.assert_array_equal(jax.jit(run)(scores), expected)
