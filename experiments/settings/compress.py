"""The setting of methods that start from a trained network: pre-train, then compress."""

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np

import sparsejax as sj
from experiments.data.stored import read_npz
from experiments.models.networks import MakeNet
from experiments.recipes import Recipe
from experiments.runs.records import slug
from experiments.runs.table import Job
from experiments.settings import train
from experiments.settings.classify import UNSTRUCTURED, Classify

Account = Callable[[Any, sj.Plan], dict[str, Any]]
Prepare = Callable[[train.Network, Classify, Job], train.Network]


def no_account(params: Any, plan: sj.Plan) -> dict[str, Any]:
    """Nothing more is measured."""
    del params, plan
    return {}


def as_it_is(network: train.Network, setting: Classify, job: Job) -> train.Network:
    """Nothing is done to the trained network before."""
    del setting, job
    return network


@dataclass(frozen=True)
class Compress:
    """Train a classifier, then go on from it with a recipe that compresses, and test the result.

    What is compressed are the leaves that the pre-training names `prunable`.
    Settings of the same pre-training share it: the first to need it keeps its variables in the
    working folder.
    """

    headline: ClassVar[str] = "accuracy"

    method: Recipe
    pretraining: Classify
    sparsity: float = 0.0
    pattern: sj.Pattern = UNSTRUCTURED
    steps: int = 1_000
    """After the pre-training."""
    learning_rate: float = 1e-3
    """Peak of the one-cycle schedule; 0 leaves the weights and lets batch norm settle."""
    net: MakeNet | None = None
    """The network from here on, of the same variables; None for the one that was trained."""
    account: Account = no_account
    """`account(deployed params, plan) -> dict` of what else is reported."""
    prepare: Prepare = as_it_is
    """`prepare(trained network, the setting of what follows, job) -> network` to go on from."""

    @property
    def label(self) -> str:
        """pretraining-method-percent."""
        return f"{self.pretraining.label}-{self.method.__name__}-{100 * self.sparsity:g}"

    def run(self, job: Job) -> dict[str, Any]:
        """Pre-train or take what is there, compress, test."""
        network, accuracy = self.pretrained(job)
        second = dataclasses.replace(
            self.pretraining,
            method=self.method,
            sparsity=self.sparsity,
            pattern=self.pattern,
            steps=self.steps,
            learning_rate=self.learning_rate,
            net=self.net or self.pretraining.net,
        )
        network = network._replace(graph=second.start(job).graph)
        network = self.prepare(network, second, job)
        state, result = second.train_from(network, job._replace(folder=job.folder / "second"))
        plan = sj.plan(network.params, {second.prunable: self.pattern}, sparsity=self.sparsity)
        return {
            "accuracy_before": accuracy,
            "reach_before": _reach(network.params, plan),
            **self.account(state.params, plan),
            **result,
        }

    def pretrained(self, job: Job) -> tuple[train.Network, float]:
        """The trained network and its test accuracy."""
        network = self.pretraining.start(job)
        leaves, structure = jax.tree.flatten((network.params, network.statistics))
        folder = job.folder.parent.parent / "pretrained"
        file = folder / f"{slug(self.pretraining)}-{job.seed}.npz"
        if not file.exists():
            first = job._replace(folder=job.folder / "first")
            state, result = self.pretraining.train_from(network, first)
            trained = jax.tree.leaves((state.params, state.statistics))
            _save(file, [np.asarray(leaf) for leaf in trained], result["accuracy"])
        shapes = {str(index): np.shape(leaf) for index, leaf in enumerate(leaves)}
        stored = read_npz(file, {**shapes, "accuracy": ()}, "delete it to train it again")
        trained, accuracy = [stored[name] for name in shapes], float(stored["accuracy"])
        params, statistics = jax.tree.unflatten(structure, trained)
        return network._replace(params=params, statistics=statistics), accuracy


def _save(file: Path, leaves: list[np.ndarray], accuracy: float) -> None:
    """Write in one rename: several processes may want the same pre-training."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(f".{os.getpid()}.part")
    with open(partial, "wb") as out:
        arrays = {str(index): leaf for index, leaf in enumerate(leaves)}
        np.savez(out, accuracy=accuracy, **arrays)
    partial.replace(file)


def _reach(params: Any, plan: sj.Plan) -> float:
    """max|w| / std(w), the mean over the plan's leaves."""
    leaves = dict(sj.tree.leaves_with_paths(params))
    weights = [np.asarray(leaves[leaf.path], np.float64) for leaf in plan.leaves]
    return float(np.mean([np.abs(w).max() / w.std() for w in weights]))


def distinct_values(params: Any, plan: sj.Plan) -> dict[str, Any]:
    """The most values, zero apart, that one of the plan's leaves holds."""
    leaves = dict(sj.tree.leaves_with_paths(params))
    weights = [np.asarray(leaves[leaf.path]) for leaf in plan.leaves]
    return {"distinct_values": max(len(np.unique(w[w != 0])) for w in weights)}


def unified_bits(params: Any, plan: sj.Plan) -> dict[str, Any]:
    """Blocks by kind and the share of the dense bits that they take."""
    storage = sj.structured.unified_storage(params, plan)
    return {**storage._asdict(), "bits_ratio": storage.ratio}
