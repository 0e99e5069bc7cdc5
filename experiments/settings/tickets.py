"""The setting of lottery tickets: train, find the masks, start over from some weights or other."""

import dataclasses
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import sparsejax as sj
from experiments.recipes import Setup
from experiments.recipes.initial import fixed_masks
from experiments.recipes.magnitude import dense
from experiments.runs.table import Job
from experiments.settings.classify import Classify
from experiments.settings.compress import Compress
from experiments.settings.train import Network, TrainState

Start = Callable[[Network, Network, Network], Network]


def original(initial: Network, redrawn: Network, trained: Network) -> Network:
    """The lottery ticket: the initial weights of the training that found the masks."""
    return initial


def random_weights(initial: Network, redrawn: Network, trained: Network) -> Network:
    """Random re-initialisation: weights of another seed."""
    return redrawn


def pruned(initial: Network, redrawn: Network, trained: Network) -> Network:
    """Prune and retrain: the trained weights."""
    return trained


@dataclass(frozen=True)
class Tickets:
    """Train densely, prune by magnitude at once or in rounds, train what is left from a start.

    Every training is as long as the dense one, with the same optimizer and schedule.
    """

    headline: ClassVar[str] = "accuracy"

    start: Start
    pretraining: Classify
    sparsity: float = 0.9
    rounds: int = 1
    """1 prunes at once (OMP); more train and prune in turn, from the initial weights (IMP)."""

    @property
    def label(self) -> str:
        """pretraining-start-percent, and the rounds if there are several."""
        label = f"{self.pretraining.label}-{self.start.__name__}-{100 * self.sparsity:g}"
        return label if self.rounds == 1 else f"{label}-{self.rounds}rounds"

    def run(self, job: Job) -> dict[str, Any]:
        """The accuracies before and after, and how far the largest weights stayed the largest."""
        trained, accuracy = Compress(dense, self.pretraining).pretrained(job)
        initial = self.pretraining.start(job)
        redrawn = self.pretraining.start(job._replace(seed=job.seed + 10_000))
        rules = {self.pretraining.prunable: self.pretraining.pattern}
        plan = sj.plan(initial.params, rules, sparsity=self.sparsity)
        index = itertools.count()

        def train(masks: Any) -> Any:
            """The params at the end of a round's training; the first is the dense one."""
            finished = next(index)
            if not finished:
                return trained.params
            return self._train(initial, masks, job, f"round{finished}")[0].params

        masks = sj.studies.lottery_ticket(train, initial.params, plan, rounds=self.rounds).masks
        _, result = self._train(self.start(initial, redrawn, trained), masks, job, "second")
        overlap = float(sj.studies.magnitude_overlap(initial.params, trained.params, plan))
        return {"accuracy_dense": accuracy, "overlap": overlap, **result}

    def _train(
        self, begin: Network, masks: Any, job: Job, folder: str
    ) -> tuple[TrainState, dict[str, Any]]:
        """A training with fixed masks, as long as the dense one."""

        def fixed(tx: Any, setup: Setup) -> Any:
            recipe = fixed_masks(lambda params, plan: masks)
            return recipe(self.pretraining.method(tx, setup), setup)

        setting = dataclasses.replace(
            self.pretraining, method=fixed, sparsity=self.sparsity, allocate=sj.allocate.uniform
        )
        start = begin._replace(params=sj.masked(begin.params, masks))
        return setting.train_from(start, job._replace(folder=job.folder / folder))
