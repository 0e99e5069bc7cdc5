"""Models in half precision run on the kernels where float32 is asked for."""

import pickle

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import sparsejax as sj

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 8, 8, 3)).astype(np.float32)
HALVES = {"bfloat16": jnp.bfloat16, "float16": jnp.float16}


class Net(nn.Module):
    dtype: type

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(8, (3, 3), dtype=self.dtype)(x))
        x = nn.BatchNorm(use_running_average=True, dtype=self.dtype)(x)
        return nn.Dense(4, dtype=self.dtype)(x.mean((1, 2)))


def net(dtype, x):
    model = Net(dtype)
    params = jax.jit(model.init)(jax.random.key(0), x)
    return model.apply, params


@pytest.mark.parametrize("name", HALVES)
@pytest.mark.parametrize("params_too", [False, True])
def test_a_model_in_halves_is_one_region_in_float32(name, params_too):
    dtype = HALVES[name]
    apply, params = net(dtype, X)
    exact = Net(jnp.float32).apply
    if params_too:
        params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    x = jnp.asarray(X, dtype)
    fast = sj.compile(apply, params, x, tune=False, precision="float32")
    assert fast.report().num_regions == 1
    assert set(fast.report().xla) <= {"convert_element_type"}
    y = fast(x)
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    expected = np.asarray(exact(wide, x.astype(jnp.float32)))
    assert y.dtype == dtype
    unit = float(jnp.finfo(dtype).eps) / 2
    np.testing.assert_allclose(np.asarray(y, np.float32), expected, rtol=unit * 1.01, atol=1e-5)


def loops(p, h):
    half = p.astype(jnp.bfloat16)
    h, rows = lax.scan(lambda h, _: (jnp.tanh(h @ half), h.sum()), h, None, length=3)
    h = lax.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, jnp.tanh(c[1] @ half)), (0, h))[1]
    h = lax.cond(h.sum() > 0, lambda h: h @ half, lambda h: jax.nn.relu(h), h)
    return h, rows, (h * jnp.bfloat16(0.1)).astype(jnp.float32), h > 0


def test_loops_and_branches_are_widened():
    p = (RNG.normal(size=(8, 8)) / 3).astype(np.float32)
    h = jnp.asarray(RNG.normal(size=(2, 8)), jnp.bfloat16)
    fast = sj.compile(loops, p, h, tune=False, precision="float32")
    expected = loops(jnp.asarray(p), h)
    for a, b in zip(fast(h), expected, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_allclose(np.float32(a), np.float32(b), rtol=0.05, atol=0.05)
    assert fast.report().num_regions >= 3
    again = pickle.loads(pickle.dumps(fast))
    np.testing.assert_array_equal(np.float32(again(h)[0]), np.float32(fast(h)[0]))


def test_another_precision_is_refused():
    with pytest.raises(ValueError, match="got 'half'; leave it out"):
        sj.compile(loops, np.ones((8, 8)), jnp.ones((2, 8)), precision="half")
