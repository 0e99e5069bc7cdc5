"""What a function prints or calls back stays, in its order and as often as it was."""

import jax
import jax.numpy as jnp
import numpy as np

import sparsejax as sj


def test_callbacks_run_as_often_and_in_the_same_order():
    weights = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    x = jnp.ones((3, 6))
    seen = []
    tell = lambda name: jax.debug.callback(lambda: seen.append(name), ordered=True)

    def apply(weights, x):
        tell("start")
        y = jax.nn.relu(x @ weights)
        jax.debug.print("{}", y.sum())
        jax.debug.callback(lambda total: seen.append("total"), y.sum(), ordered=True)
        z = y @ weights.T
        tell("between")
        for _ in range(2):
            z, _ = jax.lax.scan(lambda c, _: (tell("loop"), (c, None))[1], z, None, length=2)
        return z

    expected = apply(weights, x)
    jax.effects_barrier()
    before = list(seen)
    fast = sj.compile(apply, weights, x, tune=False)
    seen.clear()
    for run in (fast, jax.jit(fast)):
        np.testing.assert_allclose(run(x), expected, rtol=1e-5)
        jax.effects_barrier()
        assert seen == before == ["start", "total", "between", *["loop"] * 4]
        seen.clear()
    assert fast.report().num_regions == 1
