"""One-shot pruning with reconstruction, column by column (SparseGPT)."""

import math
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float

from sparsejax.algorithms.post_training.surgeon import (
    Calibration,
    Layer,
    Mask,
    Matrix,
    eliminate,
    inverse_hessian,
    prune_layers,
)
from sparsejax.doors import PLAN, checked
from sparsejax.plans.plan import Plan


@checked(plan=PLAN)
def sparse_gpt(
    params: Any,
    plan: Plan,
    calibration: Calibration,
    *,
    damping: float = 0.01,
    block_size: int = 128,
) -> tuple[Any, Any]:
    """The params pruned to the plan's target with the rest reconstructed, and their masks.

    With H the Gram matrix of a layer's inputs and H^-1 = U^T U, U upper triangular, the columns of
    the weights go from left to right: those with the lowest w^2 / U_jj^2 of each block of columns
    (n:m: the m - n lowest of each m in each output) become zero and the columns to their right move
    by -w / U_jj * U_j:. One sweep serves all outputs: outputs * inputs^2 operations, in float64 on
    the host.

    Args:
      params: any pytree.
      plan: leaves are `Unstructured` or `NM` along the inputs.
      calibration: of `calibrate` with this plan, in one pass over the dense network.
      damping: what is added to the diagonal of H, as a fraction of its mean.
      block_size: how many columns choose what they lose together.

    Returns:
      The params, exactly 0 where pruned, and the masks.

    Raises:
      ValueError: a leaf with another pattern or without a Gram matrix, or a block_size < 1.

    Differs: all layers are calibrated on the dense network, where the paper's code feeds each layer
    what the layers pruned before it put out; call this for one layer after the other to have that.

    Example:
      >>> calibration = sj.post.calibrate(model.apply, params, plan, [x])
      >>> params, masks = sj.post.sparse_gpt(params, plan, calibration)

    Reference: Frantar and Alistarh, "SparseGPT: Massive Language Models Can Be Accurately Pruned in
    One-Shot", ICML 2023, arXiv 2301.00774, section 3 and algorithm 1.
    """
    if block_size < 1:
        raise ValueError(f"sparse_gpt needs a block_size >= 1, got {block_size}.")
    sweep = partial(_sweep, damping=damping, block_size=block_size)
    return prune_layers(sweep, params, plan, calibration, "sparse_gpt")


def _sweep(layer: Layer, *, damping: float, block_size: int) -> tuple[Matrix, Mask]:
    """The weights after all columns, and which are kept."""
    upper = np.linalg.cholesky(inverse_hessian(layer.gram, damping)).T
    weights, kept = layer.weights.copy(), np.ones(layer.weights.shape, bool)
    num_columns = weights.shape[1]
    span = block_size
    if layer.n_of_m is not None:
        _, span = layer.n_of_m
        block_size = math.ceil(block_size / span) * span
    diagonal = np.diag(upper)
    for start in range(0, num_columns, block_size):
        block = slice(start, min(start + block_size, num_columns))
        # What the columns right of the block still have to make up for, in one product per block.
        errors = np.zeros((len(weights), block.stop - start))
        for column in range(start, block.stop):
            if column % span == 0:
                ahead = slice(column, min(column + span, num_columns))
                scores = np.square(weights[:, ahead] / diagonal[ahead])
                kept[:, ahead] = _kept(scores, layer, ahead)
            pruned, rest = ~kept[:, column], slice(column, block.stop)
            lost = np.where(pruned, weights[:, column], 0.0)
            errors[:, column - start] = lost / diagonal[column]
            weights[:, rest] = eliminate(weights[:, rest], 0, upper[column, rest], pruned)
        weights[:, block.stop :] -= errors @ upper[block, block.stop :]
    return weights, kept


def _kept(scores: Float[np.ndarray, "outputs span"], layer: Layer, columns: slice) -> Mask:
    """Which weights of these columns stay: n of each row, or the layer's share of all."""
    if layer.n_of_m is not None:
        n, m = layer.n_of_m
        ranks = np.argsort(np.argsort(scores, axis=1, kind="stable"), axis=1)
        return ranks >= m - n
    num_columns = layer.weights.shape[1]
    before, after = (layer.num_pruned * i // num_columns for i in (columns.start, columns.stop))
    kept = np.ones(scores.size, bool)
    kept[np.argsort(scores, axis=None, kind="stable")[: after - before]] = False
    return kept.reshape(scores.shape)
