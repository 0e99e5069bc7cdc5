"""Settings of recurrent networks: ranks of FastGRNN, and a trained GRU that runs packed."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import numpy as np
from flax import nnx

import sparsejax as sj
from experiments.data.dataset import standardize_like
from experiments.models.recurrent import with_packed
from experiments.runs.table import Job
from experiments.settings.classify import Classify
from experiments.settings.product_latency import num_bytes
from sparsejax.plans.leaf import PlanLeaf


def to_ranks_6_8(leaves: list[PlanLeaf], weights: Any, sparsity: float) -> dict[str, float]:
    """FastGRNN's ranks 6 (of the input) and 8 (recurrent), whatever the sparsity asked for."""
    return _to_ranks(leaves, 6, 8)


def to_ranks_6_7(leaves: list[PlanLeaf], weights: Any, sparsity: float) -> dict[str, float]:
    """Ranks 6 and 7."""
    return _to_ranks(leaves, 6, 7)


def to_ranks_5_7(leaves: list[PlanLeaf], weights: Any, sparsity: float) -> dict[str, float]:
    """Ranks 5 and 7."""
    return _to_ranks(leaves, 5, 7)


def _to_ranks(leaves: list[PlanLeaf], input_rank: int, recurrent_rank: int) -> dict[str, float]:
    ranks = {"input1/kernel": input_rank, "recurrent1/kernel": recurrent_rank}
    return {leaf.path: 1 - ranks[leaf.path] / leaf.shape[-1] for leaf in leaves}


@dataclass(frozen=True)
class PackedGRU:
    """Train a GRU and run it with its recurrent matrix packed: the same predictions, in bytes."""

    headline: ClassVar[str] = "accuracy"

    training: Classify

    @property
    def label(self) -> str:
        """packed-, and the training's."""
        return f"packed-{self.training.label}"

    def run(self, job: Job) -> dict[str, Any]:
        """The training's result with the packed network's accuracy, error and size."""
        network = self.training.start(job)
        state, result = self.training.train_from(network, job)
        model = nnx.merge(network.graph, state.params, state.statistics)
        dataset = self.training.data(job.data)
        windows = standardize_like(dataset.train_images)(dataset.test_images)
        kernel = np.asarray(model.recurrent.kernel[...])
        packed = self.training.pattern.pack(kernel)
        dense, sparse = (
            jax.jit(f)(windows) for f in (lambda x: model(x), with_packed(model, packed))
        )
        return {
            **result,
            "dense_accuracy": result["accuracy"],
            "accuracy": float((sparse.argmax(-1) == dataset.test_labels).mean()),
            "relative_error": float(abs(sparse - dense).max() / abs(dense).max()),
            "packed_bytes": num_bytes(packed),
            "csr_bytes": num_bytes(sj.Unstructured().pack(kernel)),
            "dense_bytes": kernel.nbytes,
        }
