"""One threshold for the whole network: how much each leaf loses to it, with a floor per leaf."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt

from sparsejax.arrays import vary_alike
from sparsejax.plans.leaf import PlanLeaf
from sparsejax.threshold import common_threshold, fill_in_order, kept_by_threshold
from sparsejax.top_k import count_pruned, ordered_keys


def cut_globally(
    leaves: Sequence[PlanLeaf],
    scores: Sequence[Any],
    masks: Sequence[Bool[Array, "..."]],
    fraction: Any,
    *,
    min_weights: int = 0,
) -> list[Bool[Array, "..."]]:
    """The masks of the leaves after one threshold on the scores has spent the plan's budget.

    Groups compete by the mean of their scores. Leaves below the floor are raised to it and the
    others scaled by one common factor until the total is right; each leaf's pattern then prunes to
    its share. Unstructured and N:M leaves meet the total to one weight; others round to whole
    groups. Pruned weights stay pruned.

    Args:
      leaves: of the plan.
      scores: one array a leaf, the highest are kept.
      masks: one a leaf, True where a weight may be kept.
      fraction: of the plan's budget, 0..1, static or traced.
      min_weights: what each leaf keeps at least; leaves that have no more stay dense.
    """
    total = sum(leaf.num_weights for leaf in leaves)
    budget = count_pruned(fraction * (budget_of(leaves) / total), total)
    return _cut(tuple(leaves), list(scores), list(masks), budget, min_weights)


@partial(jax.jit, static_argnames=("leaves", "min_weights"))
def _cut(
    leaves: Sequence[PlanLeaf], scores: Any, masks: Any, budget: Any, min_weights: int
) -> list[Bool[Array, "..."]]:
    total = sum(leaf.num_weights for leaf in leaves)
    pruned = _pruned_under_threshold(leaves, scores, masks, total - budget)
    most = jnp.asarray(most_pruned(leaves, min_weights), jnp.int32)
    counts = _scale_to_budget(pruned, most, budget)

    def cut(leaf: PlanLeaf, own: Any, mask: Any, num_pruned: Any) -> Any:
        sparsity = num_pruned.astype(jnp.float32) / leaf.num_weights
        return leaf.pattern.mask(own, sparsity, allowed=mask) & mask

    return [cut(*parts) for parts in zip(leaves, scores, masks, counts, strict=True)]


def budget_of(leaves: Sequence[PlanLeaf]) -> int:
    """How many weights the plan prunes."""
    return sum(leaf.num_pruned for leaf in leaves)


def most_pruned(leaves: Sequence[PlanLeaf], min_weights: int) -> np.ndarray:
    """How many weights each leaf can lose to its pattern and the floor, in whole groups."""
    by_pattern = [round(x.pattern.max_sparsity(x.shape) * x.num_weights) for x in leaves]
    by_floor = [max(leaf.num_weights - min_weights, 0) for leaf in leaves]
    group_sizes = np.array([leaf.group_size for leaf in leaves])
    return np.minimum(by_pattern, by_floor) // group_sizes * group_sizes


def _pruned_under_threshold(
    leaves: Sequence[PlanLeaf], scores: Sequence[Any], masks: Sequence[Any], num_kept: Any
) -> Int[Array, "num_leaves"]:
    """How many weights of each leaf lie under the threshold that keeps `num_kept` in all."""
    sizes = np.array([leaf.group_size for leaf in leaves], np.int32)
    keys = [_group_keys(*parts) for parts in zip(leaves, scores, masks, strict=True)]
    threshold = common_threshold(keys, sizes, num_kept)
    kept = kept_by_threshold(keys, sizes, threshold, num_kept)
    return jnp.array([leaf.num_weights for leaf in leaves], jnp.int32) - kept


def _group_keys(leaf: PlanLeaf, scores: Any, mask: Any) -> UInt[Array, "..."]:
    """The groups' mean scores in the order of unsigned integers, with 0 for pruned groups."""
    scores = scores.astype(jnp.float32)
    if leaf.group_size == 1:
        return jnp.where(mask, ordered_keys(scores), 0)
    keys = ordered_keys(jnp.asarray(leaf.pattern.group_scores(scores)) / leaf.group_size)
    return jnp.where(leaf.pattern.group_scores(mask.astype(jnp.float32)) > 0, keys, 0)


def _scale_to_budget(pruned: Any, most: Any, budget: Any) -> Int[Array, "num_leaves"]:
    """min(c * pruned, most) for the c that meets the budget, in whole weights."""

    def scaled(factor: Any) -> Any:
        return jnp.minimum(factor * pruned.astype(jnp.float32), most.astype(jnp.float32)).astype(
            jnp.int32
        )

    def halve(_: Any, bounds: Any) -> Any:
        low, high = bounds
        middle = 0.5 * (low + high)
        fits = jnp.sum(scaled(middle), dtype=jnp.int32) <= budget
        return jnp.where(fits, middle, low), jnp.where(fits, high, middle)

    highest = jnp.max(jnp.where(pruned > 0, most / jnp.maximum(pruned, 1), 0.0)) + 1.0
    bounds = vary_alike(jnp.float32(0.0), highest.astype(jnp.float32))
    low, _ = jax.lax.fori_loop(0, 40, halve, bounds)
    base = scaled(low)
    return base + fill_in_order(most - base, budget - jnp.sum(base, dtype=jnp.int32))
