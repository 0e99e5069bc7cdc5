"""A training that Ctrl-C stops goes on bit for bit."""

import functools
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from flax import nnx

import sparsejax as sj
from experiments.data import fashion
from experiments.data.dataset import Dataset, batches
from experiments.settings import train
from tests.conftest import QUICK_TO_COMPILE

ROOT = Path(__file__).parents[2]


def start(arguments, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": " ".join(QUICK_TO_COMPILE)}
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        **options,
    )


class Small(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(36, 24, rngs=rngs)
        self.norm = nnx.BatchNorm(24, rngs=rngs)
        self.head = nnx.Linear(24, 10, rngs=rngs)

    def __call__(self, x):
        return self.head(jax.nn.relu(self.norm(self.hidden(x.reshape(len(x), -1)))))


@functools.cache
def small_training():
    """The data, a step and a first state for the demo's own loop."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (300, 6, 6)).astype(np.uint8)
    labels = random.integers(0, 10, 300).astype(np.uint8)
    dataset = Dataset("Fashion-MNIST", "", fashion.CLASSES, images, labels, images, labels)
    network = train.take_apart(Small(nnx.Rngs(0)))
    plan = sj.plan(network.params, {"hidden/kernel": sj.Unstructured()}, sparsity=0.9)
    tx = sj.sparsify(optax.adamw(1e-2), sj.gmp(10, 80, every=5), plan, key=jax.random.key(0))
    step = train.make_step(train.make_gradients(network), tx)
    return dataset, step, lambda: train.initial_state(network, tx)


def train_small(folder, *, stop_after=None):
    """The end of 120 steps and the steps that were done; Ctrl-C comes at step `stop_after`."""
    dataset, step, initial_state = small_training()
    done = []

    def report(state, _):
        done.append(int(state.step))
        if done[-1] == stop_after:
            signal.raise_signal(signal.SIGINT)

    with sj.checkpoint(folder) as checkpoints:
        end = train.train(
            step,
            initial_state(),
            batches(dataset, batch_size=16, seed=0),
            num_steps=120,
            checkpoints=checkpoints,
            measure=lambda state: {"sparsity": train.sparsity_of(state.opt_state)},
            measure_every=50,
            report=report,
        )
    return end, done


def test_training_resumes_bit_for_bit_after_ctrl_c(tmp_path):
    (whole, history), done = train_small(tmp_path / "whole")
    assert done == list(range(1, 121))
    kept = 1 - np.rint(36 * 24 * 0.1) / (36 * 24)
    assert train.sparsity_of(whole.opt_state) == kept == history[-1]["sparsity"]

    with pytest.raises(train.Interrupted):
        train_small(tmp_path / "parts", stop_after=37)
    (state, parts), done = train_small(tmp_path / "parts")
    assert 37 <= done[0] - 1 < 120 and done[-1] == 120
    assert repr(parts) == repr(history)
    jax.tree.map(np.testing.assert_array_equal, state, whole)
