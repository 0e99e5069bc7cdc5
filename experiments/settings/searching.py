"""What the settings of searches share: a trained network, its data in three parts, and samplers."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

import sparsejax as sj
from experiments.data.dataset import standardize_like
from experiments.recipes.magnitude import dense
from experiments.runs.table import Interrupted, Job
from experiments.settings import train
from experiments.settings.classify import Classify
from experiments.settings.compress import Compress

Report = Callable[[int, int, Mapping[str, float]], None]
Observe = Callable[[Sequence[float]], np.ndarray]
Make = Callable[[Any, Observe | None, int, int], sj.search.Sampler]
"""(space, observe, seed, number of trials) -> sampler."""

NUM_CALIBRATION = 256
BATCH = 500


def ddpg(space: Any, observe: Observe | None, seed: int, num_trials: int) -> sj.search.Sampler:
    """The agent of the papers, its rates raised for a search of a tenth of their length."""
    assert observe is not None
    settings = sj.search.DDPGSettings(
        num_random=num_trials // 4, actor_rate=1e-3, critic_rate=1e-2, sigma_decay=0.93
    )
    return sj.search.ddpg(space, observe, seed=seed, settings=settings)


def tpe(space: Any, observe: Observe | None, seed: int, num_trials: int) -> sj.search.Sampler:
    """Optuna's sampler."""
    return sj.search.tpe(space, seed=seed)


def random_search(
    space: Any, observe: Observe | None, seed: int, num_trials: int
) -> sj.search.Sampler:
    """The control."""
    return sj.search.random_search(space, seed=seed)


class Ground(NamedTuple):
    """Where a search starts.

    Attributes:
        network: trained.
        accuracy: its own, on the test images.
        calibration: training images.
        image: one of them.
        validation, test: images and labels.
    """

    network: train.Network
    accuracy: float
    calibration: np.ndarray
    image: np.ndarray
    validation: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


def ground_of(pretraining: Classify, job: Job) -> Ground:
    """The trained network, from the working folder if it is there, and its data."""
    network, accuracy = Compress(dense, pretraining).pretrained(job)
    dataset = pretraining.data(job.data)
    standardize = standardize_like(dataset.train_images)
    images = standardize(dataset.train_images[:NUM_CALIBRATION])
    parts = [
        (standardize(images), np.asarray(labels))
        for images, labels in (
            (dataset.on_the_way.test_images, dataset.on_the_way.test_labels),
            (dataset.test_images, dataset.test_labels),
        )
    ]
    if job.smoke:
        parts = [(images[:BATCH], labels[:BATCH]) for images, labels in parts]
    return Ground(network, accuracy, images, images[:1], *parts)


def accuracy_of(
    run: Callable[..., Any], part: tuple[np.ndarray, np.ndarray]
) -> Callable[..., float]:
    """`accuracy(*variables)` of `run(*variables, images)`, compiled once."""
    images, labels = part
    right = jax.jit(sj.accelerate(lambda own, x, y: (run(*own, x).argmax(-1) == y).sum()))

    def accuracy(*variables: Any) -> float:
        steps = [slice(at, at + BATCH) for at in range(0, len(labels), BATCH)]
        return sum(int(right(variables, images[own], labels[own])) for own in steps) / len(labels)

    return accuracy


def searched(
    job: Job,
    evaluate: Callable[[Any], Mapping[str, float]],
    make: Make,
    space: Any,
    observe: Observe | None,
    num_trials: int,
) -> list[sj.search.Trial]:
    """The trials of a search that goes on from the job's folder."""
    num_trials = 3 if job.smoke else num_trials
    with stopped_by_ctrl_c(job) as report:
        return sj.search.optimize(
            evaluate,
            make(space, observe, job.seed, num_trials),
            num_trials=num_trials,
            file=job.folder / "search.log",
            report=report,
        )


@contextlib.contextmanager
def stopped_by_ctrl_c(job: Job) -> Iterator[Report]:
    """The job's report, which ends a search behind the trial in which Ctrl-C was pressed."""
    with train.ctrl_c() as pressed:

        def report(done: int, total: int, numbers: Mapping[str, float]) -> None:
            job.report(done, total, numbers)
            if pressed() and done < total:
                raise Interrupted(f"after trial {done} of {total}")

        yield report


def account(
    trials: Sequence[sj.search.Trial], cost: str, gain: str = "validation_accuracy"
) -> dict[str, Any]:
    """What a record keeps of a search: each trial's cost and gain, for its page."""
    return {
        "num_trials": len(trials),
        "axes": [cost, gain],
        "trials": [[_short(t.numbers[cost]), _short(t.numbers[gain])] for t in trials],
    }


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def second(pretraining: Classify, steps: int, learning_rate: float) -> Classify:
    """The training after the search."""
    return dataclasses.replace(pretraining, steps=steps, learning_rate=learning_rate)
