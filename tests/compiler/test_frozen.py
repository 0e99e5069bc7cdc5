"""compile takes weights and function as they are: nothing that changes later mixes with them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import sparsejax as sj
from sparsejax.compiler.frozen import frozen

compiled = partial(sj.compile, tune=False)
WEIGHTS = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
ONE, TWO = np.ones((1, 4), np.float32), np.ones((2, 4), np.float32)


def multiply(params, x):
    return jax.nn.relu(x @ params["a"]) @ params["b"]


def two(dtype=np.float32):
    return {"a": WEIGHTS.astype(dtype), "b": WEIGHTS.T.astype(dtype)}


@pytest.mark.parametrize("name", ["a", "b"])
def test_params_that_are_changed_in_place_stay_what_they_were(name):
    params, expected = two(), multiply(two(), TWO)
    fast = compiled(multiply, params, ONE)
    params[name] *= 2
    np.testing.assert_allclose(fast(TWO), expected, rtol=1e-5)


def read_only(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("array", "shared"),
    [
        (read_only(np.ones(4)), True),
        (read_only(np.ones(4))[::2], True),
        (np.asarray(jnp.ones(4)), True),
        (np.frombuffer(bytes(16), np.float32), True),
        (np.ones(4), False),
        (read_only(np.ones(4)[1:]), False),
        (read_only(np.frombuffer(bytearray(16), np.float32)), False),
    ],
    ids=lambda kind: None if isinstance(kind, np.ndarray) else "shared" if kind else "copied",
)
def test_memory_that_nobody_may_write_to_is_shared(array, shared):
    assert np.shares_memory(frozen(array), array) == shared
    np.testing.assert_array_equal(frozen(array), array)


def test_donated_params_stay_what_they_were():
    params = jax.tree.map(jnp.asarray, two())
    fast = compiled(multiply, params, ONE)
    jax.jit(lambda p: jax.tree.map(lambda a: 2 * a, p), donate_argnums=0)(params)
    for leaf in jax.tree.leaves(params):
        leaf.is_deleted() or leaf.delete()
    np.testing.assert_allclose(fast(TWO), multiply(two(), TWO), rtol=1e-5)
    with pytest.raises(ValueError, match=r"an array of shape \(4, 4\) was donated"):
        compiled(multiply, params, ONE)


@pytest.mark.parametrize("kind", [np.array, jnp.array])
@pytest.mark.parametrize("name", ["a", "b"])
def test_other_params_stay_what_they_were(name, kind):
    fast = compiled(multiply, two(), ONE)
    other = {**two(), name: kind(3 * two()[name])}
    later, expected = fast.with_params(other), [multiply(other, x) for x in (ONE, TWO)]
    if kind is np.array:
        other[name] *= 3
    else:
        other[name].delete()
    for x, y in zip((ONE, TWO), expected, strict=True):
        np.testing.assert_allclose(later(x), y, rtol=1e-5)


def closed_array(dtype):
    weights = WEIGHTS.astype(dtype)

    def change():
        weights[0] = 3

    return lambda params, x: x @ weights, change


def closed_number():
    held = {"scale": 2.0}
    return lambda params, x: x @ params["a"] * held["scale"], lambda: held.update(scale=3.0)


def closed_module():
    module = nnx.Linear(4, 4, rngs=nnx.Rngs(0))

    def change():
        module.bias[...] = module.bias[...] + 1

    return lambda params, x: module(x), change


CLOSED = {
    "float32": lambda: closed_array(np.float32),
    "float64": lambda: closed_array(np.float64),
    "number": closed_number,
    "module": closed_module,
}


@pytest.mark.parametrize("name", CLOSED)
def test_what_is_closed_over_and_changes_is_refused(name):
    fn, change = CLOSED[name]()
    fast, expected = compiled(fn, two(), ONE), np.asarray(fn(two(), ONE))
    np.testing.assert_allclose(fast(TWO), fn(two(), TWO), rtol=1e-5)  # unchanged: fine
    change()
    np.testing.assert_allclose(fast(ONE), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="stays as it was"):
        jax.jit(fast)(np.ones((3, 4), np.float32))


def test_constants_that_depend_on_the_shape_are_no_change():
    fn = lambda params, x: x @ params["a"] + np.full(4, len(x), np.float32) * float(len(x))
    fast = compiled(fn, two(), ONE)
    np.testing.assert_allclose(fast(TWO), fn(two(), TWO), rtol=1e-5)


@pytest.mark.parametrize("jitted", [False, True])
def test_float64_weights_are_cast_as_jit_casts_them(jitted):
    fast = compiled(multiply, two(np.float64), ONE.astype(np.float64))
    assert fast.report().num_regions == 1 and not fast.report().xla
    run = jax.jit(fast) if jitted else fast
    np.testing.assert_allclose(run(ONE), multiply(two(), ONE), rtol=1e-5)
    assert run(ONE).dtype == np.float32
