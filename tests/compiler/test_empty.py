"""Arrays without elements: what compile returns is what the function does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import sparsejax as sj


def conv(x, kernel, padding="SAME"):
    order = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=order)


def turns(p, x):
    return lax.scan(lambda h, x: (jnp.tanh(h @ p + x), h), jnp.zeros((2, 4)), x)


def two(p, x):
    return jnp.concatenate([conv(x, p[..., :0]), conv(x, p)], -1)


def upsampled(p, x):
    return lax.conv_transpose(x, p, (2, 2), "SAME")


# name -> function, shapes of weights and input
EMPTY = {
    "batch": (lambda p, x: conv(x, p), (3, 3, 4, 5), (0, 6, 6, 4)),
    "height": (lambda p, x: conv(x, p).sum((1, 2)), (3, 3, 4, 5), (2, 0, 6, 4)),
    "inputs": (lambda p, x: conv(x, p) + 1, (3, 3, 0, 5), (2, 5, 6, 0)),
    "outputs of one": (two, (3, 3, 4, 5), (2, 5, 6, 4)),
    "outputs": (lambda p, x: conv(x, p, "VALID"), (7, 7, 4, 5), (2, 3, 3, 4)),
    "crop": (lambda p, x: conv(x, p)[:, :0], (3, 3, 4, 5), (2, 5, 6, 4)),
    "transposed": (upsampled, (3, 3, 4, 5), (0, 6, 6, 4)),
    "columns": (lambda p, x: jax.nn.relu(x @ p + 1), (0, 5), (3, 0)),
    "rows": (lambda p, x: jax.nn.relu(x @ p + 1), (4, 5), (0, 4)),
    "turns": (turns, (4, 4), (0, 2, 4)),
}


@pytest.mark.filterwarnings("ignore:compile")
@pytest.mark.parametrize("name", EMPTY)
def test_arrays_without_elements_are_no_exception(name):
    fn, of_weights, of_input = EMPTY[name]
    weights, x = np.ones(of_weights, np.float32), jnp.ones(of_input)
    fast = sj.compile(fn, weights, x, tune=False)
    for run, exact in ((fast, fn), (jax.vmap(fast), jax.vmap(fn, (None, 0)))):
        actual = jax.tree.leaves(run(x))
        for a, b in zip(actual, jax.tree.leaves(exact(weights, x)), strict=True):
            assert a.shape == b.shape
            np.testing.assert_allclose(a, b)
        x = x[None]
    assert str(fast.report())
