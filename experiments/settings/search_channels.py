"""The setting of AMC: search widths within a budget of multiply-adds, shrink, tune, test."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from flax import nnx

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


@dataclass(frozen=True)
class SearchChannels:
    """Train a classifier, search how many channels each group keeps, cut them, tune and test.

    A choice is tested on validation images, its layers reconstructed by least squares on training
    images, without training.
    """

    headline: ClassVar[str] = "accuracy"

    sampler: Make | None
    """None for the same fraction of each group."""
    pretraining: Classify
    limit: float = 0.5
    """The fraction of the multiply-adds that may be left."""
    num_trials: int = 60
    steps: int = 300
    """After the search."""
    learning_rate: float = 1e-3

    @property
    def label(self) -> str:
        """pretraining-channels-sampler-percent."""
        name = "uniform" if self.sampler is None else self.sampler.__name__
        return f"{self.pretraining.label}-channels-{name}-{100 * self.limit:g}"

    def run(self, job: Job) -> dict[str, Any]:
        """Pre-train or take what is there, search, cut, tune, test."""
        ground = ground_of(self.pretraining, job)
        variables = (ground.network.params, ground.network.statistics)
        own = sj.search.channel_search(
            ground.network.apply, variables, ground.image, limit=self.limit
        )
        keeps = _Keeps(own, ground)
        if self.sampler is None:
            choice, found = uniform(own), {}
        else:
            trials = searched(
                job, keeps.evaluate, self.sampler, own.space, own.observe, self.num_trials
            )
            choice, found = sj.search.best(trials).choice, account(trials, "multiply_adds")
        small = keeps.shrunk(choice)
        untuned = accuracy_of(small.apply, ground.test)((small.params, small.statistics))
        job = job._replace(folder=job.folder / "second")
        tuning = second(self.pretraining, self.steps, self.learning_rate)
        _, result = tuning.train_from(small, job)
        return {
            **result,
            "accuracy_before": ground.accuracy,
            "accuracy_untuned": untuned,
            **keeps.evaluate(choice),
            "multiply_adds_left": own.costs(own.widths(choice)) / own.costs({}),
            "widths": list(own.widths(choice).values()),
            **found,
        }


def uniform(own: sj.search.ChannelSearch) -> dict[str, float]:
    """The largest fraction of every group that the budget allows."""
    for percent in range(100, 0, -1):
        choice = {name: max(percent / 100, low) for name, (low, _) in own.space.items()}
        widths = {
            group.name: min(
                option
                for option in own.options[group.name]
                if option >= round(choice[group.name] * group.size, 6)
            )
            for group in own.groups
        }
        if own.costs(widths) <= own.limit:
            return choice
    raise AssertionError("all groups at their narrowest fit")


class _Keeps:
    """What choices come to, on one network."""

    def __init__(self, own: sj.search.ChannelSearch, ground: Ground):
        self._own, self._ground = own, ground
        network = ground.network
        self._variables = (network.params, network.statistics)
        groups = sj.channel_groups(network.apply, self._variables, ground.image)
        measure = sj.structured.channel_l1()
        self._scores = sj.channel_scores(groups, self._variables, measure, leaves="kernel")
        rules = {"pointwise/kernel|head/kernel": sj.Unstructured()}
        plan = sj.plan(self._variables, rules, sparsity=0.0)
        self._calibration = sj.post.calibrate(
            network.apply, self._variables, plan, [ground.calibration]
        )
        self._accuracy = accuracy_of(network.apply, ground.validation)

    def evaluate(self, choice: Any) -> dict[str, float]:
        """The accuracy on the validation images, without training."""
        accuracy = self._accuracy(self._reconstructed(self._own.keep(choice, self._scores)))
        return {
            "score": accuracy,
            "validation_accuracy": accuracy,
            "multiply_adds": self._own.costs(self._own.widths(choice)),
        }

    def shrunk(self, choice: Any) -> train.Network:
        """The network without the channels."""
        keep = self._own.keep(choice, self._scores)
        module = nnx.merge(self._ground.network.graph, *self._reconstructed(keep), copy=True)
        module.eval()
        of_module = {name.removeprefix("0/"): np.asarray(kept) for name, kept in keep.items()}
        call = lambda module, x: module(x)
        return train.take_apart(sj.shrink(call, module, self._ground.image, keep=of_module).params)

    def _reconstructed(self, keep: Any) -> Any:
        masked = self._own.masked(self._variables, keep)
        return sj.search.reconstructed(self._variables, masked, self._calibration)
