"""The setting of HAQ: search bits of weights and inputs within a budget, tune, test."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax

import sparsejax as sj
from experiments.runs.table import Job
from experiments.settings import train
from experiments.settings.classify import Classify
from experiments.settings.searching import (
    Ground,
    Make,
    account,
    accuracy_of,
    ground_of,
    searched,
    second,
)

HIGH = 8
CostsOf = Callable[[Sequence[sj.search.WeightLayer]], Callable[[Any], float]]


def fpga_milliseconds(layers: Sequence[sj.search.WeightLayer]) -> sj.search.BitTable:
    """Modelled, by an example device."""
    return sj.search.example_fpga().bit_table(layers, high=HIGH)


@dataclass(frozen=True)
class SearchBits:
    """Train a classifier, search each layer's bits, train on through the rounding, and test.

    A choice is tested on validation images, rounded after training, as far as the search goes.
    """

    headline: ClassVar[str] = "accuracy"

    sampler: Make | None
    """None for the same bits in every layer, as many as fit; the first and the last have 8."""
    pretraining: Classify
    costs: CostsOf = sj.search.weight_bytes
    limit: float = 0.385
    """The fraction of the costs of 8 bits everywhere; uniform 3 bits are just below this one."""
    num_trials: int = 60
    steps: int = 300
    """After the search."""
    learning_rate: float = 5e-4

    @property
    def label(self) -> str:
        """pretraining-costs-sampler-percent."""
        name = "uniform" if self.sampler is None else self.sampler.__name__
        costs = self.costs.__name__  # type: ignore[attr-defined]
        return f"{self.pretraining.label}-{costs}-{name}-{100 * self.limit:g}"

    def run(self, job: Job) -> dict[str, Any]:
        """Pre-train or take what is there, search, tune, test."""
        ground = ground_of(self.pretraining, job)
        rounds = _Rounds(self, ground)
        own = rounds.search
        if self.sampler is None:
            bits, kept = uniform(own), {}
        else:
            trials = searched(
                job, rounds.evaluate, self.sampler, own.space, own.observe, self.num_trials
            )
            bits = own.bits(sj.search.best(trials).choice)
            kept = account(trials, "cost")
        untuned = rounds.tested(ground.network.params, ground.network.statistics, bits)
        job = job._replace(folder=job.folder / "second")
        tuning = second(self.pretraining, self.steps, self.learning_rate)
        through = lambda network: rounded_gradients(network, rounds.grids.at(bits))
        state, result = tuning.train_from(ground.network, job, gradients=through)
        return {
            **result,
            "accuracy": rounds.tested(state.params, state.statistics, bits),
            "accuracy_before": ground.accuracy,
            "accuracy_untuned": untuned,
            "cost": own.costs(bits),
            "cost_left": self.limit * own.costs(bits) / own.limit,
            "bits": [list(pair) for pair in bits.values()],
            **kept,
        }


class _Rounds:
    """What choices come to, on one network."""

    def __init__(self, setting: SearchBits, ground: Ground):
        self._ground, network = ground, ground.network
        self._call = lambda params, statistics, x: network.apply((params, statistics), x)
        example = (network.params, network.statistics, ground.image)
        layers = sj.search.weight_layers(self._call, *example)
        costs = setting.costs(layers)
        limit = setting.limit * costs({layer.path: (HIGH, HIGH) for layer in layers})
        self.search = sj.search.bit_search(layers, costs, limit=limit, high=HIGH)
        self.grids = self._grids(network.params, network.statistics)
        self._run = sj.search.rounded(self._call)
        self._accuracy = accuracy_of(self._run, ground.validation)

    def evaluate(self, choice: Any) -> dict[str, float]:
        """The accuracy on the validation images, rounded after training."""
        bits, network = self.search.bits(choice), self._ground.network
        accuracy = self._accuracy(network.params, self.grids.at(bits), network.statistics)
        cost = self.search.costs(bits)
        return {"score": accuracy, "validation_accuracy": accuracy, "cost": cost}

    def tested(self, params: Any, statistics: Any, bits: Any) -> float:
        """The accuracy on the test images, on grids of these params."""
        grids = self._grids(params, statistics).at(bits)
        return accuracy_of(self._run, self._ground.test)(params, grids, statistics)

    def _grids(self, params: Any, statistics: Any) -> sj.search.Grids:
        calibration = self._ground.calibration
        return sj.search.layer_grids(self._call, params, statistics, calibration, high=HIGH)


def uniform(own: sj.search.BitSearch) -> dict[str, tuple[int, int]]:
    """The most bits for all layers but the first and the last that the budget allows."""
    for bits in range(own.high, own.low - 1, -1):
        found = {layer.path: (bits, bits) for layer in own.layers}
        found |= {layer.path: (own.high, own.high) for layer in (own.layers[0], own.layers[-1])}
        if own.costs(found) <= own.limit:
            return found
    raise AssertionError("all layers at their fewest bits fit")


def rounded_gradients(network: train.Network, grids: Any) -> Callable[..., Any]:
    """As `train.make_gradients`, through the rounding."""
    loss_of = sj.accelerate(sj.search.rounded(train.make_loss(network)))

    def loss(params: Any, *rest: Any) -> Any:
        return loss_of(params, grids, *rest)

    return jax.jit(lambda *operands: _split(jax.grad(loss, has_aux=True)(*operands)))


def _split(found: Any) -> Any:
    grads, (statistics, metrics) = found
    return grads, statistics, metrics
