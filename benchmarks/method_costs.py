"""What a training step costs under each method: against the dense step, in time and in state.

    taskset -c 1 python -m benchmarks.method_costs --json method_costs.json

MobileNet-v1 of width 0.25 on Fashion-MNIST, 90 % of the 1x1 weights, batch 64, AdamW: the common
setting of `experiments`. A turn of a method is as many steps as lie between two changes of its
masks in the recipe, from the middle of its schedule, so that each change is in the time with its
share. Turns of all methods alternate with dense ones; the ratio is the median over the rounds. The
state is the optimizer's bytes over those of dense AdamW. What a method computes before the first
step (gradients of SNIP, rounds of SynFlow) is timed apart.
"""

import argparse
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
from rich.progress import track

from benchmarks import publish
from experiments.papers import suite
from experiments.recipes import Recipe
from experiments.runs.table import Job
from experiments.settings import train
from experiments.settings.classify import Classify

STEPS = 3_000
TURN = 30  # steps between two changes of the masks in most recipes


class Trainer:
    """One method at the middle of its training."""

    def __init__(self, setting: Classify, network: train.Network, gradients: Any, batch: Any):
        started = time.perf_counter()
        tx, _ = setting.optimizer(network, setting.data(None), STEPS, seed=0)
        state = jax.block_until_ready(train.initial_state(network, tx))
        self.setup_seconds = time.perf_counter() - started
        self.bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state.opt_state))
        middle = lambda leaf: jnp.full_like(leaf, STEPS // 2) if _counts_steps(leaf) else leaf
        self._state = state._replace(opt_state=jax.tree.map(middle, state.opt_state))
        self._step, self._batch = train.make_step(gradients, tx), batch
        self.turn(2)

    def turn(self, num_steps: int = TURN) -> float:
        """Milliseconds of a step."""
        started = time.perf_counter()
        for _ in range(num_steps):
            self._state, _ = self._step(self._state, *self._batch)
        jax.block_until_ready(self._state)
        return 1e3 * (time.perf_counter() - started) / num_steps


def _counts_steps(leaf: Any) -> bool:
    return leaf.shape == () and jnp.issubdtype(leaf.dtype, jnp.integer)


def recipes() -> list[Recipe]:
    """Every recipe that some paper's rows use on the common network."""
    settings = [row.setting for paper in suite.PAPERS for row in paper.ROWS]
    common = [s for s in settings if isinstance(s, Classify) and s.net is Classify.net]
    return list(dict.fromkeys(setting.method for setting in common))


def measure(rounds: int) -> dict[str, Any]:
    """Times, ratios and bytes by the recipe's name."""
    dense = Classify(steps=STEPS)
    job = Job(0, False, None, None, lambda *_: None)
    network = dense.start(job)
    gradients = train.make_gradients(network)
    batch = dense.batches(dense.data(None), seed=0, count=1)[0]
    trainers = {
        recipe.__name__: Trainer(
            Classify(recipe, 0.0 if recipe is Classify.method else 0.9, steps=STEPS),
            *(network, gradients, batch),
        )
        for recipe in track(recipes(), "Compiling")
    }
    times: dict[str, list[float]] = {name: [] for name in trainers}
    for _ in track(range(rounds), "Timing"):
        for name, trainer in trainers.items():
            times[name].append(trainer.turn())
    base = trainers["dense"]
    return {
        name: {
            "ms_per_step": statistics.median(times[name]),
            "of_dense": statistics.median(
                own / other for own, other in zip(times[name], times["dense"], strict=True)
            ),
            "state_of_dense": trainer.bytes / base.bytes,
            "setup_seconds": trainer.setup_seconds,
        }
        for name, trainer in trainers.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", help="file for the results")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each method")
    options = parser.parse_args()
    publish(measure(options.rounds), options.json)


if __name__ == "__main__":
    main()
