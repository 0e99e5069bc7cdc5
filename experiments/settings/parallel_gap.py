"""The setting of parallel grow-and-prune: copies that grow one part each, combined every round."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

import sparsejax as sj
from experiments.recipes.initial import fixed_masks
from experiments.runs.table import Job
from experiments.settings.classify import Classify
from experiments.settings.train import Network, TrainState
from sparsejax.masks.initial import InitialMasks, masks_from_zeros


@dataclass(frozen=True)
class ParallelGap:
    """Rounds of a training for each part, one after the other here, and a last one with all pruned.

    Every training has the steps and the whole schedule of `training`: the learning rate restarts.
    With a device for each part the time would be that of rounds + 1 trainings.
    """

    headline: ClassVar[str] = "accuracy"

    training: Classify
    num_parts: int = 2
    rounds: int = 2

    @property
    def label(self) -> str:
        """p-gap, parts, rounds, and the label of a training."""
        return f"p-gap-{self.num_parts}x{self.rounds}-{self.training.label}"

    def run(self, job: Job) -> dict[str, Any]:
        """The result of the last training."""
        network = self.training.start(job)
        plan = self.training.plan(network.params)
        for number in range(self.rounds):
            copies = [
                self._train(
                    network,
                    sj.sparse_training.grown_part(part, self.num_parts),
                    job,
                    f"{number}-{part}",
                )[0]
                for part in range(self.num_parts)
            ]
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[c.params for c in copies])
            params = sj.sparse_training.combine_parts(stacked, plan, self.num_parts)
            mean = lambda *leaves: (sum(leaves) / len(leaves)).astype(leaves[0].dtype)
            statistics = jax.tree.map(mean, *[copy.statistics for copy in copies])
            network = network._replace(params=params, statistics=statistics)
        return self._train(network, masks_from_zeros, job, "last")[1]

    def _train(
        self, network: Network, masks: InitialMasks, job: Job, folder: str
    ) -> tuple[TrainState, dict[str, Any]]:
        setting = dataclasses.replace(self.training, method=fixed_masks(masks))
        return setting.train_from(network, job._replace(folder=job.folder / folder))
