"""The setting of sparse activation maps: go on from a trained network with L1 on its maps."""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax

import sparsejax as sj
from experiments.data.dataset import standardize_like
from experiments.recipes.magnitude import dense
from experiments.runs.table import Job
from experiments.settings import train
from experiments.settings.classify import Classify
from experiments.settings.compress import Compress

BITS = (16, 12, 8, 4)


@dataclass(frozen=True)
class SparseMaps:
    """Train a classifier, go on with the penalty, test, and count what the maps take."""

    headline: ClassVar[str] = "accuracy"

    strength: float
    """Of every layer: of the sum over a map, the mean over the batch."""
    pretraining: Classify
    steps: int = 1_000
    """After the pre-training, those of the base, too."""
    learning_rate: float = 1e-3
    images: int = 200
    """Of the test set, whose maps are counted."""

    @property
    def label(self) -> str:
        """pretraining-maps-strength."""
        return f"{self.pretraining.label}-maps-{self.strength:g}"

    def run(self, job: Job) -> dict[str, Any]:
        """Pre-train or take what is there, go on, test and count."""
        network, accuracy = Compress(dense, self.pretraining).pretrained(job)
        second = dataclasses.replace(
            self.pretraining, steps=self.steps, learning_rate=self.learning_rate
        )
        gradients = functools.partial(penalized_gradients, strength=self.strength)
        state, result = second.train_from(
            network, job._replace(folder=job.folder / "second"), gradients=gradients
        )
        dataset = second.data(job.data)
        images = standardize_like(dataset.train_images)(dataset.test_images[: self.images])
        forward = jax.jit(sj.activations.with_maps(network.apply))
        maps = forward((state.params, state.statistics), images)[1]
        return {"accuracy_before": accuracy, **account(maps), **result}


def account(maps: dict[str, Any]) -> dict[str, Any]:
    """The density, that of each map, and the bits per value of each code at several widths."""
    counts: dict[str, Any] = {}
    for bits in BITS:
        found = sj.activations.density(maps, bits=bits)
        for name in found.total.bits:
            counts[f"{name}_{bits}_bits"] = found.total.bits_per_value(name)
    densities = {own.path: own.density for own in found.maps}
    return {"density": found.total.density, "densities": densities, **counts}


def penalized_gradients(network: train.Network, *, strength: float) -> Callable:
    """As `train.make_gradients`, of the loss with the penalty."""
    loss_of = train.make_loss(network)

    def penalized(*operands: Any) -> Any:
        (loss, rest), maps = sj.activations.with_maps(loss_of)(*operands)
        return loss + sj.activations.l1(maps, strength), rest

    return train.gradients_of(penalized if strength else loss_of)
