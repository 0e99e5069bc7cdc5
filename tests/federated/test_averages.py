"""The weighted average: by hand, exact where it must be, one program on a mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import sparsejax as sj

AVERAGE = sj.federated.weighted_average
RNG = np.random.default_rng(0)


def test_averages_by_hand_weigh_by_samples():
    trees = {"kernel": jnp.array([[4.0, 0.0], [8.0, 0.0]]), "mean": jnp.array([1.0, 3.0])}
    found = AVERAGE(trees, jnp.array([1, 3]))
    assert found["kernel"].tolist() == [7.0, 0.0]  # (1 * 4 + 3 * 8) / 4
    assert found["mean"] == 2.5


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_what_all_agree_on_comes_back_bit_for_bit(dtype):
    leaf = jnp.asarray(RNG.normal(size=(7, 3)), dtype).at[0].set(0)
    found = AVERAGE(jnp.stack([leaf] * 3), jnp.array([3, 5, 11]))
    assert found.dtype == leaf.dtype
    np.testing.assert_array_equal(found, leaf)


def test_a_client_alone_gets_its_weights_back_and_others_may_hold_nan():
    stacked = jnp.asarray(RNG.normal(size=(3, 5)), jnp.float32).at[0].set(jnp.nan)
    np.testing.assert_array_equal(AVERAGE(stacked, jnp.array([0, 7, 0])), stacked[1])


def test_the_average_is_that_of_float64():
    stacked = RNG.normal(size=(6, 40)).astype(np.float32)
    counts = np.array([1, 0, 60, 7, 300, 2])
    wide = np.average(stacked.astype(np.float64), axis=0, weights=counts)
    np.testing.assert_allclose(AVERAGE(stacked, counts), wide, rtol=0, atol=8 * 2**-24 * 3)


@pytest.mark.parametrize(
    "leaf", [jnp.zeros(2, jnp.int32), jnp.zeros(2, bool), jax.random.split(jax.random.key(0), 2)]
)
def test_what_has_no_average_is_refused_by_its_path(leaf):
    with pytest.raises(TypeError, match=rf"got {leaf.dtype!s:.4}.* at 'rngs/count'; take it"):
        AVERAGE({"rngs": {"count": leaf}}, jnp.array([1, 1]))


def test_no_weight_at_all_is_refused_and_nan_where_it_is_traced():
    with pytest.raises(ValueError, match="needs a client with a positive weight, got none"):
        AVERAGE(jnp.ones((2, 3)), jnp.array([0, 0]))
    assert jnp.isnan(jax.jit(AVERAGE)(jnp.ones((2, 3)), jnp.array([0, 0]))).all()
    with pytest.raises(ValueError, match=r"weights of shape \(3,\) and a leaf of shape \(2, 3\)"):
        AVERAGE(jnp.ones((2, 3)), jnp.ones(3))


@pytest.mark.skipif(jax.device_count() < 4, reason="needs four devices")
def test_a_mesh_sums_and_gathers_no_client():
    mesh = jax.make_mesh((4,), ("clients",), (AxisType.Auto,))
    stacked = jnp.asarray(RNG.normal(size=(8, 6)), jnp.float32)
    counts = jnp.arange(8)
    cut = jax.device_put(stacked, NamedSharding(mesh, P("clients")))
    program = jax.jit(AVERAGE).lower(cut, counts).compile()
    assert "all-gather" not in program.as_text()
    np.testing.assert_allclose(program(cut, counts), AVERAGE(stacked, counts), rtol=1e-6, atol=1e-7)
