"""Steps that are kept and go on after an interruption, and batches by the number of a step."""

from collections.abc import Callable
from typing import Any

import numpy as np

import sparsejax as sj
from experiments.data.dataset import Dataset, standardize_like
from experiments.runs.table import Interrupted, Job
from experiments.settings.train import ctrl_c

VALIDATION = 6_000  # the last training images
SAVE_EVERY = 50

Step = Callable[[Any, int], tuple[Any, Any]]
"""`step(state, number) -> (state, loss)`."""


def kept_steps(job: Job, name: str, state: Any, step: Step, num_steps: int) -> Any:
    """The state after all steps; it is kept in the job's folder, and goes on from there.

    Raises:
        Interrupted: Ctrl-C was pressed and the state is saved.
    """
    with sj.checkpoint(job.folder / name) as checkpoints, ctrl_c() as pressed:
        start, state = checkpoints.restore(state)
        for done in range(start + 1, num_steps + 1):
            state, loss = step(state, done - 1)
            stopped = pressed() and done < num_steps
            if done % SAVE_EVERY == 0 or done == num_steps or stopped:
                checkpoints.save(done, state)
                job.report(done, num_steps, {"loss": float(loss)})
            if stopped:
                raise Interrupted(f"after step {done} of {num_steps}, {name}")
    return state


def numbered_batches(dataset: Dataset, seed: int, size: int) -> Callable[[int, bool], Any]:
    """`batch(number, of_validation) -> (images, labels)`: the same whenever it is asked for."""
    standardize = standardize_like(dataset.train_images)
    total = len(dataset.train_labels)
    held = min(VALIDATION, total // 2)

    def batch(number: int, of_validation: bool) -> Any:
        rng = np.random.default_rng((seed, number, of_validation))
        low, high = (total - held, total) if of_validation else (0, total - held)
        which = rng.integers(low, high, size)
        images = standardize(dataset.train_images[which])
        return images, dataset.train_labels[which].astype(np.int32)

    return batch
