"""The ops on several devices, threads and instruction sets."""

import hashlib
import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import sparsejax as sj
from sparsejax.ops import _ffi

PACKED = sj.Block(4, 1).pack(np.where(np.arange(64 * 32).reshape(64, 32) // 4 % 5, 0, 1.0))
PACKED = jax.tree.map(lambda a: jnp.asarray(a, a.dtype if a.dtype == np.int32 else "f4"), PACKED)


def loss(kernel, values, x):
    """Both ops, one behind the other."""
    y = sj.depthwise_conv2d(x, kernel, strides=(2, 2), activation=jax.nn.relu)
    packed = sj.patterns.BSR(values, PACKED.indices, PACKED.row_starts, (4, 1), (32, 64), (64, 32))
    return (sj.spmm(packed, y) ** 2).sum()


def operands():
    keys = jax.random.split(jax.random.key(0))
    kernel = jax.random.normal(keys[0], (3, 3, 1, 64))
    return kernel, PACKED.values, jax.random.normal(keys[1], (4, 6, 6, 64))


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_shard_map_over_images_equals_one_device(axis_type, check_vma):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(axis_type,), devices=jax.devices()[:2])

    def per_device(kernel, values, x):
        grads = jax.grad(loss, argnums=(0, 1, 2))(kernel, values, x)
        if check_vma:  # JAX sums the gradients of what all devices share
            return grads
        return *jax.lax.psum(grads[:2], "data"), grads[2]

    specs = (P(), P(), P("data"))
    sharded = jax.jit(
        jax.shard_map(per_device, mesh=mesh, in_specs=specs, out_specs=specs, check_vma=check_vma)
    )
    kernel, values, x = operands()
    placed = jax.device_put(x, NamedSharding(mesh, P("data")))
    kernel, values = (jax.device_put(a, NamedSharding(mesh, P())) for a in (kernel, values))
    expected = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*operands())
    for got, want in zip(sharded(kernel, values, placed), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-3)
    assert "all-gather" not in sharded.lower(kernel, values, placed).compile().as_text()


PROBE = """
import os, sys
if sys.argv[1] != "all":
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import hashlib, jax
from tests.ops.test_devices import digest
print(digest())
"""


def digest():
    """A hash of every bit of both ops' results and gradients."""
    value, grads = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(*operands())
    wide = jax.jit(partial(sj.spmm, PACKED, channels_last=False))(jnp.ones((64, 9_000)))
    arrays = [value, *grads, wide]
    return hashlib.sha256(b"".join(np.asarray(a).tobytes() for a in arrays)).hexdigest()


def probe(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-c", PROBE, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux to bind to one core")
@pytest.mark.skipif(os.cpu_count() == 1, reason="needs two cores")
def test_results_do_not_depend_on_the_number_of_threads():
    one, all_cores = probe("one"), probe("all")
    assert one.returncode == 0, one.stderr
    assert one.stdout == all_cores.stdout


def test_instruction_set_is_the_forced_or_the_best_one():
    usable = _ffi._xla_ops.usable_isas()
    assert _ffi.instruction_set() == os.environ.get("SPARSEJAX_ISA", usable[0])


@pytest.mark.parametrize("isa", _ffi._xla_ops.usable_isas())
def test_each_instruction_set_can_be_forced(isa):
    script = (
        "import sparsejax as sj, jax.numpy as jnp; from sparsejax.ops import _ffi;"
        "y = sj.depthwise_conv2d(jnp.ones((1, 5, 5, 20)), jnp.ones((3, 3, 1, 20)));"
        f"assert _ffi.instruction_set() == {isa!r} and float(y.sum()) == 169 * 20"
    )
    environment = {**os.environ, "SPARSEJAX_ISA": isa}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=300)


def test_an_instruction_set_that_the_cpu_lacks_is_refused():
    done = probe("all", SPARSEJAX_ISA="avx1024")
    assert done.returncode != 0
    assert "SPARSEJAX_ISA needs" in done.stderr
