"""The setting of budgets: how sparsities are spread over the layers within equal milliseconds.

Times are those of `measured/budgets.json`, which
`python -m experiments.settings.within_milliseconds` measures.
"""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np

import sparsejax as sj
from experiments.data.dataset import standardize_like
from experiments.models.networks import mobilenet_v1_quarter
from experiments.recipes.magnitude import dense, gmp
from experiments.runs.table import Job
from experiments.settings import train
from experiments.settings.classify import Classify
from experiments.settings.compress import Compress
from sparsejax.plans.leaf import Allocator

FILE = Path(__file__).parent / "measured" / "budgets.json"
TIMED, SEEN = 16, 64  # images of a call, and of those on which outputs' errors are measured
PRETRAINING = Classify(steps=1_500)
RULES = {PRETRAINING.prunable: PRETRAINING.pattern}


class Given(NamedTuple):
    """The trained network, what its layers take, the milliseconds allowed, and some images."""

    network: train.Network
    table: sj.budgets.LatencyTable
    limit: float
    images: np.ndarray


Spread = Callable[[Given], sj.Plan]


def unpruned(given: Given) -> sj.Plan:
    """The dense network, whatever is allowed."""
    return _even(given, sj.allocate.uniform, 0.0)


def planned(given: Given) -> sj.Plan:
    """The plan that loses the least energy of weights."""
    return _planned(given, sj.budgets.energy_lost)


def planned_by_outputs(given: Given) -> sj.Plan:
    """The plan whose layers' outputs change least on some training images."""
    apply, tree = _function(given.network)
    seen = sj.post.calibrate(apply, tree, unpruned(given), [jnp.asarray(given.images)])
    return _planned(given, sj.budgets.output_error(seen))


def uniform(given: Given) -> sj.Plan:
    """The lowest sparsity of all layers that is fast enough."""
    return _first_fitting(given, sj.allocate.uniform)


def erk(given: Given) -> sj.Plan:
    """The same by Erdos-Renyi-Kernel."""
    return _first_fitting(given, sj.allocate.erk)


def _planned(given: Given, losses: Any) -> sj.Plan:
    budget = sj.budgets.milliseconds(given.limit, given.table, losses=losses)
    return sj.plan(given.network.params, RULES, budget=budget)


def _even(given: Given, allocate: Allocator, sparsity: float) -> sj.Plan:
    return sj.plan(given.network.params, RULES, sparsity=sparsity, allocate=allocate)


def _first_fitting(given: Given, allocate: Allocator) -> sj.Plan:
    for thousandths in range(0, 990, 5):
        plan = _even(given, allocate, thousandths / 1e3)
        if given.table.milliseconds_of(plan) <= given.limit:
            return plan
    raise ValueError(f"{allocate.__name__} is never fast enough for {given.limit:.3g} ms.")


@dataclass(frozen=True)
class WithinMilliseconds:
    """Spread sparsities over a trained network, prune it gradually in a short training, test."""

    headline: ClassVar[str] = "accuracy"

    spread: Spread
    fraction: float = 1.0
    """The milliseconds allowed, as a fraction of the dense network's."""
    steps: int = 1_000
    learning_rate: float = 1e-3
    pretraining: Classify = PRETRAINING

    @property
    def label(self) -> str:
        """pretraining-spread-in-percent of the milliseconds."""
        return f"{self.pretraining.label}-{self.spread.__name__}-in-{100 * self.fraction:g}"

    def run(self, job: Job) -> dict[str, Any]:
        """Pre-train or take what is there, choose sparsities, prune while training, test."""
        network, accuracy = Compress(dense, self.pretraining).pretrained(job)
        dataset, table = self.pretraining.data(job.data), load_table()
        images = standardize_like(dataset.train_images)(dataset.train_images[:SEEN])
        given = Given(network, table, 0.0, images)
        limit = self.fraction * table.milliseconds_of(unpruned(given))
        plan = self.spread(given._replace(limit=limit))
        chosen = {leaf.path: leaf.sparsity for leaf in plan.leaves}
        second = dataclasses.replace(
            self.pretraining,
            method=gmp,
            sparsity=plan.sparsity,
            allocate=lambda leaves, weights, sparsity: chosen,
            steps=self.steps,
            learning_rate=self.learning_rate,
        )
        _, result = second.train_from(network, job._replace(folder=job.folder / "second"))
        return {
            "accuracy_before": accuracy,
            "milliseconds": table.milliseconds_of(plan),
            "target": limit,
            "times": f"measured on {table.machine}",
            "sparsities": chosen,
            **result,
        }


def load_table() -> sj.budgets.LatencyTable:
    """The measured times, wherever they were measured."""
    return sj.budgets.LatencyTable.load(FILE, any_machine=True)


def _function(network: train.Network) -> tuple[Callable, Any]:
    """The network in evaluation as `apply(params, images)`."""
    return lambda params, x: network.apply((params, network.statistics), x), network.params


def measure() -> sj.budgets.LatencyTable:
    """The times on this machine."""
    apply, params = _function(
        train.built(functools.partial(mobilenet_v1_quarter, (28, 28, 1), 10, 0))
    )
    return sj.budgets.LatencyTable.measure(apply, params, RULES, jnp.ones((TIMED, 28, 28, 1)))


if __name__ == "__main__":
    measure().save(FILE)
    print(FILE.read_text())
