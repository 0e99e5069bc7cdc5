"""The setting of lottery tickets: train, find the masks, start over from some weights or other."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import sparsejax as sj
from experiments.classify import Classify
from experiments.compress import Compress
from experiments.recipes import Setup
from experiments.recipes.magnitude import dense
from experiments.table import Job
from experiments.train import Network

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
    """Train densely, prune once by magnitude, train the survivors again from a start.

    The second training is as long as the first, with the same optimizer and schedule.
    """

    headline: ClassVar[str] = "accuracy"

    start: Start
    pretraining: Classify
    sparsity: float = 0.9

    @property
    def label(self) -> str:
        """pretraining-start-percent."""
        return f"{self.pretraining.label}-{self.start.__name__}-{100 * self.sparsity:g}"

    def run(self, job: Job) -> dict[str, Any]:
        """The accuracies before and after, and how far the largest weights stayed the largest."""
        trained, accuracy = Compress(dense, self.pretraining).pretrained(job)
        initial = self.pretraining.start(job)
        redrawn = self.pretraining.start(job._replace(seed=job.seed + 10_000))
        rules = {self.pretraining.prunable: self.pretraining.pattern}
        plan = sj.plan(initial.params, rules, sparsity=self.sparsity)
        masks = sj.lottery_ticket(lambda masks: trained.params, initial.params, plan).masks

        def fixed(tx: Any, setup: Setup) -> Any:
            return sj.sparsify(
                self.pretraining.method(tx, setup),
                sj.chain(),
                setup.plan,
                key=setup.key,
                initial_masks=lambda params, plan: masks,
            )

        begin = self.start(initial, redrawn, trained)
        second = dataclasses.replace(
            self.pretraining, method=fixed, sparsity=self.sparsity, allocate=sj.uniform
        )
        _, result = second.train_from(
            begin._replace(params=sj.masked(begin.params, masks)),
            job._replace(folder=job.folder / "second"),
        )
        overlap = float(sj.magnitude_overlap(initial.params, trained.params, plan))
        return {"accuracy_dense": accuracy, "overlap": overlap, **result}
