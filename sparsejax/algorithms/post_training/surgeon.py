"""What layer-wise pruning by second moments shares: layers as matrices, and the OBS step."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from sparsejax.jaxprs.calibrate import LayerInputs, inputs_of
from sparsejax.masks.initial import by_leaves, masks_of_leaves
from sparsejax.patterns.pattern import Quota
from sparsejax.patterns.stacked import from_slices
from sparsejax.plans.leaf import PlanLeaf
from sparsejax.plans.plan import Plan
from sparsejax.tree import map_with_paths

Calibration = Mapping[str, LayerInputs]
Matrix = Float[np.ndarray, "outputs inputs"]
Mask = Bool[np.ndarray, "outputs inputs"]


class Layer(NamedTuple):
    """A layer, or one group of a grouped convolution, in float64; (n, m) runs along the columns."""

    weights: Matrix
    gram: Float[np.ndarray, "inputs inputs"]
    num_pruned: int
    n_of_m: tuple[int, int] | None


def inverse_hessian(gram: Float[np.ndarray, "n n"], damping: float) -> Float[np.ndarray, "n n"]:
    """The inverse of `damped(gram, damping)`."""
    hessian = damped(gram, damping)
    try:
        np.linalg.cholesky(hessian)
    except np.linalg.LinAlgError as error:
        raise ValueError(
            f"Pruning by second moments needs inputs of full rank, got a singular Gram matrix with "
            f"damping={damping}; pass more batches to calibrate or raise the damping."
        ) from error
    return np.linalg.inv(hessian)


def damped(gram: Float[np.ndarray, "n n"], damping: float) -> Float[np.ndarray, "n n"]:
    """The Gram matrix with `damping` times its mean diagonal added to the diagonal.

    The identity where all inputs are zero: then nothing matters and nothing is to be moved.
    """
    mean = np.trace(gram) / len(gram)
    return gram + damping * mean * np.eye(len(gram)) if mean > 0.0 else np.eye(len(gram))


def eliminate(
    weights: Float[np.ndarray, "rows n"],
    columns: int | Int[np.ndarray, " rows"],
    pivots: Float[np.ndarray, "*rows n"],
    pruned: Bool[np.ndarray, " rows"] | bool = True,
) -> Float[np.ndarray, "rows n"]:
    """The rows after one OBS step each: w_p goes to 0 and the others make up for it.

    w - w_p [H^-1]_p: / [H^-1]_pp, where `pivots` are the rows [H^-1]_p:, in any scale, and
    `columns` the p. Rows that are not `pruned` stay.
    """
    rows = np.arange(len(weights))
    pivots = np.broadcast_to(pivots, weights.shape)
    directions = pivots / pivots[rows, columns][:, None]
    return weights - np.where(pruned, weights[rows, columns], 0.0)[:, None] * directions


def prune_layers(
    prune: Callable[[Layer], tuple[Matrix, Mask]],
    params: Any,
    plan: Plan,
    calibration: Calibration,
    asker: str,
) -> tuple[Any, Any]:
    """The params and masks after `prune` on each planned layer: (weights, kept) of a Layer."""
    done = {
        leaf.path: _prune_leaf(prune, weights, leaf, calibration, asker)
        for leaf, weights in zip(plan.leaves, by_leaves(params, plan), strict=True)
    }

    def pruned(path: str, weights: Any) -> Any:
        leaves = plan.slices(path)
        return from_slices(leaves, [done[leaf.path][0] for leaf in leaves]) if leaves else weights

    masks = [done[leaf.path][1] for leaf in plan.leaves]
    return map_with_paths(pruned, params), masks_of_leaves(params, plan, masks)


def _prune_leaf(
    prune: Callable[[Layer], tuple[Matrix, Mask]],
    weights: Any,
    leaf: PlanLeaf,
    calibration: Calibration,
    asker: str,
) -> tuple[Any, Any]:
    inputs = inputs_of(calibration, leaf.path, asker)
    grams = gram_of(inputs, leaf.path, asker)
    orders = column_orders(leaf, inputs, asker)
    quota = quota_of(leaf, asker)
    before = inputs.to_matrices(np.asarray(weights).astype(np.float64))
    before = np.where(inputs.squares[:, None] > 0.0, before, 0.0)  # of no use: these go first
    after, kept = before.copy(), np.ones(before.shape, bool)
    done = 0
    for group, order in enumerate(orders):
        due = leaf.num_pruned * (group + 1) // len(orders)
        layer = Layer(
            before[group][:, order],
            grams[group][np.ix_(order, order)],
            due - done,
            None if quota.unlimited else (quota.kept, math.prod(quota.box)),
        )
        done = due
        after[group][:, order], kept[group][:, order] = prune(layer)
    new, mask = (inputs.from_matrices(array, leaf.shape) for array in (after, kept))
    return jnp.asarray(new.astype(weights.dtype)), jnp.asarray(mask)


def gram_of(inputs: LayerInputs, path: str, asker: str) -> Float[np.ndarray, "groups n n"]:
    """The Gram matrices of a leaf's inputs, or a ValueError."""
    if inputs.gram is None:
        raise ValueError(
            f"{asker} needs the Gram matrix of the inputs of {path}, the calibration has squares "
            "only; call calibrate(..., gram=True)."
        )
    return inputs.gram


def quota_of(leaf: PlanLeaf, asker: str) -> Quota:
    """How many of which weights the leaf may keep, or a ValueError if they go in groups."""
    quota = leaf.pattern.quota(leaf.shape)
    if quota is None:
        raise ValueError(
            f"{leaf.path}: {asker} needs Unstructured or NM along the inputs, got {leaf.pattern}; "
            "make a plan with one of them."
        )
    return quota


def column_orders(
    leaf: PlanLeaf, inputs: LayerInputs, asker: str
) -> list[Int[np.ndarray, " inputs"]]:
    """For each group, its inputs in an order in which n:m groups are consecutive."""
    num_inputs = inputs.positions.shape[2]
    quota = quota_of(leaf, asker)
    if quota.unlimited:
        return [np.arange(num_inputs)] * len(inputs.positions)
    m = math.prod(quota.box)
    boxes = [size // own for size, own in zip(leaf.shape, quota.box, strict=True)]
    own_box = np.kron(np.arange(math.prod(boxes)).reshape(boxes), np.ones(quota.box, int))
    groups = inputs.to_matrices(own_box)
    orders = [np.argsort(rows[0], kind="stable") for rows in groups]
    for rows, order in zip(groups, orders, strict=True):
        together = rows[:, order].reshape(len(rows), -1, m) if num_inputs % m == 0 else None
        if together is None or (together != together[..., :1]).any():
            along = leaf.pattern.orientation()
            raise ValueError(
                f"{leaf.path}: {asker} needs {leaf.pattern} along the inputs of the layer, got "
                f"axis {along and along.axis} of shape {leaf.shape}; choose another axis."
            )
    return orders
