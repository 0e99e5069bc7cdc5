"""The setting of MEST's data efficiency: a part of the training examples is left out half-way."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Int

import sparsejax as sj
from experiments.data import datasets
from experiments.data.dataset import Dataset, standardize_like
from experiments.runs.table import Job
from experiments.settings import train
from experiments.settings.classify import Classify, Lesson

NUM_IMAGES = 9_600
Choose = Callable[[sj.studies.ForgettingCounts, int, int, int], Int[np.ndarray, "kept"]]


def fashion_mnist_9600(folder: Path | None) -> Dataset:
    """Fashion-MNIST with the first 9,600 training images: 150 steps of 64 are an epoch."""
    dataset = datasets.fashion_mnist(folder)
    return _kept(dataset, np.arange(NUM_IMAGES))


def most_forgotten(
    counts: sj.studies.ForgettingCounts, num_removed: int, num_epochs: int, seed: int
) -> Int[np.ndarray, "kept"]:
    """All but the least forgotten."""
    del seed
    return sj.studies.most_forgotten(counts, num_removed, num_epochs)


def any_others(
    counts: sj.studies.ForgettingCounts, num_removed: int, num_epochs: int, seed: int
) -> Int[np.ndarray, "kept"]:
    """As many, drawn at random."""
    del num_epochs
    count = len(counts.events)
    return np.sort(np.random.default_rng(seed).permutation(count)[num_removed:])


@dataclass(frozen=True)
class FewerExamples:
    """Train some epochs on all examples, the rest without those that `choose` leaves out.

    An example counts as forgotten where the network of the end of an epoch has it wrong and that of
    the epoch before had it right.
    """

    headline: ClassVar[str] = "accuracy"

    training: Classify
    choose: Choose
    num_epochs: int = 7
    """Until examples are left out: MEST's 70 of 160 for trainings of 16."""
    removed: float = 0.24
    """The share left out: MEST's 12,000 of 50,000."""

    @property
    def label(self) -> str:
        """training-choose-percent."""
        return f"{self.training.label}-{self.choose.__name__}-{100 * self.removed:g}"

    def run(self, job: Job) -> dict[str, Any]:
        """The training's result; an interrupted one goes on from its checkpoint."""
        network = self.training.start(job)
        kept: list[int] = []

        def course(
            lesson: Lesson, state: train.TrainState, dataset: Dataset, steps: int, job: Job
        ) -> tuple[train.TrainState, list[dict[str, Any]]]:
            epoch = max(1, len(dataset.train_labels) // self.training.batch_size)
            right = _judge(network, dataset)
            state, notes = lesson(
                state,
                dataset,
                min(steps, self.num_epochs * epoch),
                job.folder / "all",
                measure=lambda state: {"right": _packed(right(state))},
                measure_every=epoch,
            )
            indices = self._chosen([note["right"] for note in notes], dataset, job.seed)
            kept.append(len(indices))
            return lesson(state, _kept(dataset, indices), steps, job.folder / "fewer")

        return {**self.training.train_from(network, job, course)[1], "kept_examples": kept[0]}

    def _chosen(self, epochs: list[str], dataset: Dataset, seed: int) -> Int[np.ndarray, "kept"]:
        """From what was right after each epoch."""
        num_examples = len(dataset.train_labels)
        counts = sj.studies.no_forgetting(num_examples)
        everything = np.arange(num_examples)
        for right in epochs:
            counts = sj.studies.count_forgetting(counts, everything, _bits(right, num_examples))
        return self.choose(counts, int(self.removed * num_examples), len(epochs), seed)


def _judge(network: train.Network, dataset: Dataset) -> Callable[[train.TrainState], Any]:
    """A function of the state: which training examples its weights have right."""
    images = standardize_like(dataset.train_images)(dataset.train_images)
    judge = train.make_judge(network, images, dataset.train_labels, batch_size=400)

    def right(state: train.TrainState) -> Bool[np.ndarray, "examples"]:
        return judge(train.forward(state), state.statistics)

    return right


def _packed(right: Bool[np.ndarray, "examples"]) -> str:
    """For the notes of a checkpoint."""
    return np.packbits(right).tobytes().hex()


def _bits(packed: str, count: int) -> Bool[np.ndarray, "examples"]:
    return np.unpackbits(np.frombuffer(bytes.fromhex(packed), np.uint8), count=count).astype(bool)


def _kept(dataset: Dataset, indices: Int[np.ndarray, "kept"]) -> Dataset:
    return dataset._replace(
        train_images=dataset.train_images[indices], train_labels=dataset.train_labels[indices]
    )
