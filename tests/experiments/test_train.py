"""A training that Ctrl-C stops goes on bit for bit."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np

from tests.conftest import QUICK_TO_COMPILE

ROOT = Path(__file__).parents[2]

# A training of a small network through the demo's own loop: prints its progress and, at the end,
# a hash of every bit of the state.
TRAINING = """
    import hashlib, sys
    import jax, numpy as np, optax
    from flax import nnx
    import sparsejax as sj
    from experiments.data import fashion
    from experiments.data.dataset import Dataset, batches
    from experiments.settings import train

    class Small(nnx.Module):
        def __init__(self, rngs):
            self.hidden = nnx.Linear(36, 24, rngs=rngs)
            self.norm = nnx.BatchNorm(24, rngs=rngs)
            self.head = nnx.Linear(24, 10, rngs=rngs)

        def __call__(self, x):
            return self.head(jax.nn.relu(self.norm(self.hidden(x.reshape(len(x), -1)))))

    random = np.random.default_rng(0)
    images = random.integers(0, 256, (300, 6, 6)).astype(np.uint8)
    labels = random.integers(0, 10, 300).astype(np.uint8)
    dataset = Dataset("Fashion-MNIST", "", fashion.CLASSES, images, labels, images, labels)
    network = train.take_apart(Small(nnx.Rngs(0)))
    plan = sj.plan(network.params, {"hidden/kernel": sj.Unstructured()}, sparsity=0.9)
    tx = sj.sparsify(optax.adamw(1e-2), sj.gmp(10, 80, every=5), plan, key=jax.random.key(0))
    with sj.checkpoint(sys.argv[1]) as checkpoints:
        try:
            state, history = train.train(
                train.make_step(train.make_gradients(network), tx),
                train.initial_state(network, tx),
                batches(dataset, batch_size=16, seed=0),
                num_steps=120,
                checkpoints=checkpoints,
                measure=lambda state: {"sparsity": train.sparsity_of(state.opt_state)},
                measure_every=50,
                report=lambda state, smooth: print(int(state.step), flush=True),
            )
        except train.Interrupted as stop:
            print("stopped", stop)
            sys.exit(130)
    digest = hashlib.sha256(repr(history).encode())
    for leaf in jax.tree.leaves(state):
        digest.update(np.asarray(leaf).tobytes())
    print("state", digest.hexdigest(), train.sparsity_of(state.opt_state))
"""


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


def train_small(folder, *, stop_after=None):
    """Lines that the small training prints; with `stop_after`, Ctrl-C comes at that step."""
    lines = []
    with start(["-c", textwrap.dedent(TRAINING), str(folder)]) as process:
        for line in process.stdout:
            lines.append(line.split())
            if lines[-1] == [str(stop_after)]:
                process.send_signal(signal.SIGINT)
    return process.returncode, lines


def test_training_resumes_bit_for_bit_after_ctrl_c(tmp_path):
    code, whole = train_small(tmp_path / "whole")
    assert code == 0
    assert whole[-1][2] == str(1 - np.rint(36 * 24 * 0.1) / (36 * 24))

    code, first = train_small(tmp_path / "parts", stop_after=37)
    assert code == 130
    assert first[-1][0] == "stopped"
    last_step = int(first[-2][0])
    assert 37 <= last_step < 120

    code, second = train_small(tmp_path / "parts")
    assert code == 0
    assert second[0] == [str(last_step + 1)]
    assert second[-1] == whole[-1]
