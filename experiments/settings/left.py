"""What pruning leaves of a network: its sparsest layer, dead weights, multiply-adds."""

from typing import Any

import numpy as np

import sparsejax as sj
from experiments.data.dataset import Dataset, standardize_like
from experiments.settings import train


def left(
    network: train.Network, state: train.TrainState, plan: sj.Plan, dataset: Dataset
) -> dict[str, Any]:
    """Quantities of deployed weights for the tables; nothing where no weight was to be pruned.

    `smallest_density` is that of the sparsest planned leaf, `dead_weights` are kept by the masks
    and 0.0, `multiply_adds_left` is the part of the dense network's that has nonzero weights.
    """
    if not plan.num_pruned:
        return {}
    leaves = dict(sj.tree.leaves_with_paths(state.params))
    density = {path: float(np.mean(np.asarray(leaf) != 0)) for path, leaf in leaves.items()}
    images = standardize_like(dataset.train_images[:1])(dataset.train_images[:1])
    apply = lambda params, x: network.apply((params, network.statistics), x)
    work = sj.multiply_adds(apply, state.params, images)
    nonzero = sum(density[path] * count for path, count in work.items())
    return {
        "smallest_density": min(density[leaf.path] for leaf in plan.leaves),
        "dead_weights": _dead(leaves, state, plan),
        "multiply_adds": sum(work.values()),
        "multiply_adds_left": nonzero / sum(work.values()),
    }


def _dead(leaves: dict[str, Any], state: train.TrainState, plan: sj.Plan) -> int:
    """Weights that a mask keeps and that are 0.0."""
    if not train.is_sparse(state.opt_state):
        return 0
    masks = dict(sj.tree.leaves_with_paths(sj.masks_of(state.opt_state)))
    kept = {leaf.path: np.asarray(masks[leaf.path]) for leaf in plan.leaves}
    return sum(int((mask & (np.asarray(leaves[path]) == 0)).sum()) for path, mask in kept.items())
