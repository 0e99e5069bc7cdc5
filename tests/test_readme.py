"""The README's lines run as they stand."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen

import sparsejax as sj

README = Path(__file__).parents[1] / "README.md"


class Net(linen.Module):
    """A convolution, a hidden layer and a head."""

    @linen.compact
    def __call__(self, x):
        x = jax.nn.relu(linen.Conv(8, (3, 3), name="stem")(x))
        x = jax.nn.relu(linen.Dense(32, name="body")(x.reshape(x.shape[0], -1)))
        return linen.Dense(4, name="head")(x)


def ten_lines():
    """The README's first Python block that trains, with a schedule of 4 steps."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    source = next(block for block in blocks if "sj.sparsify" in block)
    long, short = "begin=500, end=5_000, every=100", "begin=0, end=4, every=2"
    assert long in source
    return source.replace(long, short)


def test_the_ten_lines_run(capsys):
    model = Net()
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 3)), jnp.float32)
    params = model.init(jax.random.key(0), x)
    names = {"sj": sj, "jax": jax, "optax": optax, "key": jax.random.key(0), "x": x}
    names |= {"model": model, "params": params, "batches": [x] * 6}
    names["loss"] = lambda params, batch: jnp.mean(model.apply(params, batch) ** 2)
    exec(ten_lines(), names)
    plan, params = names["plan"], names["params"]
    weights = dict(sj.tree.leaves_with_paths(params))
    pruned = sum(np.sum(np.asarray(weights[leaf.path]) == 0.0) for leaf in plan.leaves)
    assert plan.get("params/head/kernel") is None
    assert pruned == plan.num_pruned == round(0.9 * plan.num_weights)
    dense = model.apply(params, x)
    np.testing.assert_allclose(names["logits"], dense, rtol=1e-4, atol=1e-5)
    assert "body" in capsys.readouterr().out
