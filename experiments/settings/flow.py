"""The setting of gradient flow: filters of a barely trained net are ranked and pruned in rounds."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import optax
from flax import nnx

import sparsejax as sj
from experiments.recipes import Setup
from experiments.runs.table import Job
from experiments.settings.classify import Classify
from experiments.settings.train import Network

MakeLoss = Callable[[float], Callable[[Any, Any], Any]]
MakeMeasure = Callable[[MakeLoss, list], sj.before.FlowMeasure]


def magnitude(loss: MakeLoss, batches: list) -> sj.before.FlowMeasure:
    """The filters' norms."""
    return sj.before.flow_magnitude()


def loss_based(loss: MakeLoss, batches: list) -> sj.before.FlowMeasure:
    """Loss preservation, logits / 5."""
    return sj.before.flow_loss(loss(5.0), batches)


def biased_loss(loss: MakeLoss, batches: list) -> sj.before.FlowMeasure:
    """The same, biased by magnitude."""
    return sj.before.flow_biased_loss(loss(5.0), batches)


def grasp(loss: MakeLoss, batches: list) -> sj.before.FlowMeasure:
    """GraSP, logits / 200."""
    return sj.before.flow_gradient_norm(loss(200.0), batches)


def gradient_preserving(loss: MakeLoss, batches: list) -> sj.before.FlowMeasure:
    """The size of GraSP's score, logits as they are."""
    return sj.before.flow_gradient_preserving(loss(1.0), batches)


@dataclass(frozen=True)
class Flow:
    """Prune filters by a measure in rounds from the start, and train on."""

    headline: ClassVar[str] = "accuracy"

    measure: MakeMeasure
    rounds: int
    training: Classify
    """Its pattern and sparsity say which filters and how many."""
    batches: int = 5
    """Of which a measure is the mean."""

    @property
    def label(self) -> str:
        """training-measure-rounds."""
        return f"{self.training.label}-{self.measure.__name__}-{self.rounds}"

    def run(self, job: Job) -> dict[str, Any]:
        """Train with the pruning inside; a round is a sixtieth of the steps."""
        network = self.training.start(job)

        def recipe(tx: optax.GradientTransformation, setup: Setup) -> Any:
            measure = self.measure(_losses(network), setup.batches(self.batches))
            every = max(1, setup.steps // 60)
            method = sj.before.gradient_flow(measure, every=every, rounds=self.rounds)
            return sj.sparsify(tx, method, setup.plan, key=setup.key)

        training = dataclasses.replace(self.training, method=recipe)
        return training.train_from(network, job)[1]


def _losses(network: Network) -> MakeLoss:
    """The cross-entropy of logits / temperature, with the statistics of the batch."""

    def at(temperature: float) -> Callable[[Any, Any], Any]:
        def loss(params: Any, batch: Any) -> Any:
            images, labels = batch
            module = nnx.merge(network.graph, params, network.statistics, copy=True)
            module.train()
            logits = module(images) / temperature
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        return loss

    return at
