"""The masks that a training starts from: functions (params, plan) -> masks."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax

from sparsejax.distributions import PlanLeaf
from sparsejax.tree import map_with_paths

InitialMasks = Callable[[Any, Any], Any]


def full_masks(params: Any, plan: Any) -> Any:
    """Masks that keep every weight, with the params' sharding; dense leaves hold a MaskedNode.

    Under `jax.jit(tx.init)` on a mesh of Auto axes XLA chooses the sharding of masks, as of all new
    optimizer state: call `tx.init` outside jit or give `out_shardings`.
    """
    return planned_masks(params, plan, lambda leaf, weights: jnp.ones_like(weights, dtype=bool))


def masks_from_zeros(params: Any, plan: Any) -> Any:
    """Masks that keep the nonzero groups: what continues from a sparse checkpoint starts from.

    A group with any nonzero weight is kept whole.
    """

    def nonzero_groups(leaf: PlanLeaf, weights: Any) -> Any:
        nonzero = weights != 0
        if leaf.group_size == 1:
            return nonzero
        scores = nonzero.astype(jnp.float32)
        num_kept = jnp.sum(leaf.pattern.group_scores(scores) > 0)
        num_groups = leaf.pattern.num_groups(leaf.shape)
        return leaf.pattern.mask(scores, (num_groups - num_kept) / num_groups)

    return planned_masks(params, plan, nonzero_groups)


def planned_masks(params: Any, plan: Any, mask_of: Callable[[PlanLeaf, Any], Any]) -> Any:
    """The tree of `mask_of(plan leaf, weights)`; a MaskedNode where the plan has no leaf."""

    def at(path: str, weights: Any) -> Any:
        leaf = plan.get(path)
        return optax.MaskedNode() if leaf is None else mask_of(leaf, weights)

    return map_with_paths(at, params)
