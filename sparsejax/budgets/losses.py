"""What a leaf loses at each sparsity: functions (leaf, weights, sparsities) -> losses in [0, 1]."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.budgets.budget import Losses
from sparsejax.jaxprs.calibrate import LayerInputs, inputs_of
from sparsejax.plans.leaf import PlanLeaf
from sparsejax.top_k import count_pruned


def energy_lost(leaf: PlanLeaf, weights: Any, sparsities: Sequence[float]) -> np.ndarray:
    """The sum of squares of the weights that magnitude pruning takes, over that of all.

    Example:
      >>> leaf = sj.plan({"w": weights}, {"w": sj.Unstructured()}, sparsity=0.5).leaves[0]
      >>> sj.budgets.energy_lost(leaf, weights, [0.0, 1.0]).tolist()
      [0.0, 1.0]
    """
    values = np.asarray(weights).astype(np.float64)
    quota = leaf.pattern.quota(leaf.shape)
    if quota is not None and not quota.unlimited:  # chosen by place as well as by score
        pruned = ~masks_at(leaf, values, sparsities)
        lost = np.where(pruned, np.square(values), 0.0).reshape(len(sparsities), -1).sum(1)
        return lost / max(np.square(values).sum(), np.finfo(float).tiny)
    scores = np.asarray(leaf.pattern.group_scores(np.abs(values))).ravel()
    energies = np.asarray(leaf.pattern.group_scores(np.square(values))).ravel()
    lost = np.cumsum([0.0, *energies[np.argsort(scores, kind="stable")]])
    counts = [int(count_pruned(sparsity, scores.size)) for sparsity in sparsities]
    return lost[counts] / max(lost[-1], np.finfo(float).tiny)


def output_error(calibration: Mapping[str, LayerInputs]) -> Losses:
    """The squared error of the layer's outputs on the calibration inputs, over their squares.

    Weights go by magnitude. With `gram=True` the error is exact, ||dW X||^2 / ||W X||^2; without it
    the inputs count as uncorrelated.

    Args:
      calibration: of `sj.post.calibrate` with the same leaves.

    Example:
      >>> calibration = sj.post.calibrate(model.apply, params, plan, [x])
      >>> losses = sj.budgets.output_error(calibration)
      >>> budget = sj.budgets.parameters(0.5, losses=losses)
    """

    def losses(leaf: PlanLeaf, weights: Any, sparsities: Sequence[float]) -> np.ndarray:
        inputs = inputs_of(calibration, leaf.path, "output_error")
        values = np.asarray(weights).astype(np.float64)
        whole = _squares(inputs, values)
        errors = [
            _squares(inputs, np.where(mask, 0.0, values))
            for mask in masks_at(leaf, values, sparsities)
        ]
        return np.array(errors) / max(whole, np.finfo(float).tiny)

    return losses


def masks_at(leaf: PlanLeaf, weights: np.ndarray, sparsities: Sequence[float]) -> np.ndarray:
    """The masks by magnitude at each sparsity, one in front of the other."""
    levels = np.asarray(sparsities, np.float32)
    return np.asarray(_masks_at(np.abs(weights).astype(np.float32), levels, leaf.pattern))


@partial(jax.jit, static_argnames="pattern")  # one program for all leaves that are alike
def _masks_at(scores: Any, levels: Any, pattern: Any) -> Any:
    return jax.lax.map(lambda level: pattern.mask(jnp.asarray(scores), level), levels)


def _squares(inputs: LayerInputs, weights: np.ndarray) -> float:
    """The sum of squares of the layer's outputs with these weights."""
    matrices = inputs.to_matrices(weights)
    if inputs.gram is None:
        return float(np.einsum("goi,gi->", np.square(matrices), inputs.squares))
    return float(np.sum((matrices @ inputs.gram) * matrices))
