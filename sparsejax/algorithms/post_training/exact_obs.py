"""The optimal brain surgeon on layers: what is kept makes up exactly for what is pruned."""

import heapq
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from sparsejax.algorithms.post_training.surgeon import (
    Calibration,
    Layer,
    Mask,
    Matrix,
    damped,
    eliminate,
    gram_of,
    inverse_hessian,
    prune_layers,
)
from sparsejax.doors import PLAN, checked
from sparsejax.jaxprs.calibrate import LayerInputs, inputs_of
from sparsejax.patterns.stacked import name_of
from sparsejax.plans.plan import Plan
from sparsejax.tree import is_masked_node, map_with_paths

MAX_BYTES = 2**28  # of the inverses that are held at once, one for each output


@checked(plan=PLAN)
def exact_obs(
    params: Any, plan: Plan, calibration: Calibration, *, damping: float = 0.01
) -> tuple[Any, Any]:
    """The params pruned by the exact greedy optimal brain surgeon, and their masks.

    With H the Gram matrix of a layer's inputs, each output loses p = argmin w_p^2 / [H^-1]_pp, its
    other weights move by -w_p / [H^-1]_pp * [H^-1]_:p, p leaves H^-1 by one step of elimination,
    and so on. How many weights each output loses follows from the errors of all outputs of the
    layer; n:m leaves lose m - n of each group. Takes outputs * inputs^3 operations: for small
    layers, `sparse_gpt` is the fast one.

    Args:
      params: any pytree.
      plan: leaves are `Unstructured` or `NM` along the inputs.
      calibration: of `calibrate` with this plan.
      damping: what is added to the diagonal of H, as a fraction of its mean.

    Returns:
      The params, exactly 0 where pruned, and the masks.

    Raises:
      ValueError: a leaf with another pattern or without a Gram matrix.

    Example:
      >>> calibration = sj.post.calibrate(model.apply, params, plan, [x])
      >>> params, masks = sj.post.exact_obs(params, plan, calibration)

    Reference: Frantar and Alistarh, "Optimal Brain Compression: A Framework for Accurate
    Post-Training Quantization and Pruning", NeurIPS 2022, arXiv 2208.11580, section 4; after
    Hassibi and Stork, "Second order derivatives for network pruning: Optimal Brain Surgeon",
    NeurIPS 1992.
    """
    return prune_layers(partial(_greedy, damping=damping), params, plan, calibration, "exact_obs")


def obs_correct(params: Any, masks: Any, calibration: Calibration, *, damping: float = 0.01) -> Any:
    """The params with zeros where any masks prune and the rest moved to make up for them best.

    For each output with pruned weights Q: w - [H^-1]_:Q [H^-1]_QQ^-1 w_Q, which is the minimum of
    |x (w - w')|^2 over the calibration rows x, plus the damping. Follows magnitude pruning or
    `wanda` as well. One linear system for each output.

    Args:
      params: any pytree.
      masks: in the params' tree, True where a weight is kept, a MaskedNode where a leaf is dense.
      calibration: of `calibrate`, with Gram matrices.
      damping: what is added to the diagonal of H, as a fraction of its mean.

    Raises:
      ValueError: a masked leaf without a Gram matrix.

    Reference: Frantar and Alistarh, "Optimal Brain Compression", NeurIPS 2022, arXiv 2208.11580,
    section 4, where a whole group Q goes in one step.
    """

    def correct(path: str, weights: Any, mask: Any) -> Any:
        if is_masked_node(mask):
            return weights
        layers = [
            key for key, own in calibration.items() if own.at and key == name_of(path, own.at)
        ]
        new = np.array(weights)
        for key in layers or [path]:
            inputs = inputs_of(calibration, key, "obs_correct")
            own = dict(inputs.at)
            where = tuple(own.get(axis, slice(None)) for axis in range(new.ndim))
            new[where] = corrected(key, inputs, new[where], np.asarray(mask)[where])
        return jnp.asarray(new)

    def corrected(path: str, inputs: LayerInputs, weights: Any, mask: Any) -> Any:
        matrices = inputs.to_matrices(weights.astype(np.float64))
        grams = gram_of(inputs, path, "obs_correct")
        layers = zip(matrices, grams, inputs.to_matrices(mask), strict=True)
        new = np.stack([_reconstructed(*own, damping) for own in layers])
        return inputs.from_matrices(new, weights.shape).astype(weights.dtype)

    return map_with_paths(correct, params, masks)


def _reconstructed(weights: Matrix, gram: Matrix, kept: Mask, damping: float) -> Matrix:
    """The best weights with this mask, row by row: H_KK w'_K = H_K: w."""
    hessian = damped(gram, damping)
    targets = weights @ hessian
    new = np.zeros_like(weights)
    for row, own in enumerate(kept):
        new[row, own] = np.linalg.solve(hessian[np.ix_(own, own)], targets[row, own])
    return new


def _greedy(layer: Layer, *, damping: float) -> tuple[Matrix, Mask]:
    """The weights and masks after greedy removal from every row."""
    num_rows = len(layer.weights)
    inverse = inverse_hessian(layer.gram, damping)
    step = max(MAX_BYTES // inverse.nbytes, 1)
    parts = [
        _traces(layer.weights[start : start + step], inverse, layer)
        for start in range(0, num_rows, step)
    ]
    order, errors = (np.concatenate(part) for part in zip(*parts, strict=True))
    if layer.n_of_m is not None:
        counts = np.full(num_rows, order.shape[1])
    else:
        counts = _counts(errors, layer.num_pruned)
    kept = np.ones(layer.weights.shape, bool)
    for row, count in enumerate(counts):
        kept[row, order[row, :count]] = False
    return _reconstructed(layer.weights, layer.gram, kept, damping), kept


def _traces(
    weights: Matrix, inverse: Matrix, layer: Layer
) -> tuple[Int[np.ndarray, "rows steps"], Float[np.ndarray, "rows steps"]]:
    """The order in which each row loses its weights, and the error that each step adds."""
    rows, num_columns = np.arange(len(weights)), weights.shape[1]
    inverses = np.repeat(inverse[None], len(weights), axis=0)
    n, m = layer.n_of_m or (0, num_columns)
    left = np.full((len(weights), num_columns // m), m - n)
    gone = np.zeros(weights.shape, bool)
    order, errors = [], []
    for _ in range(num_columns // m * (m - n)):
        # Each row has its own inverse, as each loses other weights: rows * columns^2 floats. The
        # error of removing weight i is w_i^2 / inverse_ii.
        diagonal = np.einsum("rii->ri", inverses)
        free = ~gone & np.repeat(left > 0, m, axis=1)
        scores = np.where(free, np.square(weights) / np.where(free, diagonal, 1.0), np.inf)
        chosen = scores.argmin(axis=1)
        order.append(chosen)
        errors.append(scores[rows, chosen])
        pivots = inverses[rows, chosen]
        weights = eliminate(weights, chosen, pivots)
        corner = pivots[rows, chosen][:, None, None]
        inverses -= pivots[:, :, None] * pivots[:, None, :] / corner
        gone[rows, chosen] = True
        left[rows, chosen // m] -= 1
    return np.stack(order, 1), np.stack(errors, 1)


def _counts(errors: Float[np.ndarray, "rows steps"], num_pruned: int) -> Int[np.ndarray, " rows"]:
    """How many weights each row loses when the lowest next error of all rows always goes first."""
    counts = np.zeros(len(errors), int)
    following = [(own[0], row) for row, own in enumerate(errors)]
    heapq.heapify(following)
    for _ in range(num_pruned):
        _, row = heapq.heappop(following)
        counts[row] += 1
        if counts[row] < errors.shape[1]:
            heapq.heappush(following, (errors[row, counts[row]], row))
    return counts
