"""The extension, built for aarch64, loads and runs under the emulated Python (tests/arm/run.sh)."""

import platform

import jax
import jax.numpy as jnp
import pytest

pytestmark = pytest.mark.skipif(
    platform.machine() not in {"aarch64", "arm64"}, reason="make test-arm runs these on aarch64"
)


def test_jax_runs():
    assert float(jax.jit(jnp.sum)(jnp.arange(4.0))) == 6.0


def test_extension_loads():
    from sparsejax import _xla_ops

    assert isinstance(_xla_ops.targets(), dict)
