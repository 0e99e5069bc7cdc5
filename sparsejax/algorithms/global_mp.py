"""Global magnitude pruning: one threshold for the whole network, and a floor per layer."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt

from sparsejax.distributions import PlanLeaf
from sparsejax.masks import MaskContext, MaskTransform, Schedule, Score, map_planned
from sparsejax.masks import every as at_every
from sparsejax.schedules import cubic
from sparsejax.scores import magnitude
from sparsejax.tree import count_pruned, ordered_keys


def global_mp(
    begin: int = 0,
    end: int | None = None,
    every: int = 1,
    *,
    min_weights: int = 0,
    score: Score = magnitude,
) -> MaskTransform:
    """Global magnitude pruning: one-shot at `begin`, or gradually until `end`.

    The plan gives the budget (the sum of its leaves' targets) and one threshold on the scores
    spends it, so that leaves end at different sparsities. The gradual form ramps the budget with
    the cubic of Zhu and Gupta; the paper leaves its ramp open.

    Args:
      begin: the first step that prunes.
      end: the step that reaches the target; None prunes once, at `begin`.
      every: steps between two updates of the masks.
      min_weights: the minimum threshold (MT): a layer keeps at least so many weights, and layers
        that have no more stay dense. 0.2 % of all weights for MobileNet-v1 at 90 %.
      score: the highest scores are kept; they are compared between layers.

    Reference: Gupta et al., "Is Complexity Required for Neural Network Pruning? A Case Study on
    Global Magnitude Pruning", 2022, arXiv 2209.14624, section 3 and algorithm 1.
    """
    if end is None:
        cut = prune_globally(score, lambda step: 1.0, min_weights=min_weights)
        return at_every(1, cut, begin=begin, end=begin)
    cut = prune_globally(score, cubic(begin, end), min_weights=min_weights)
    return at_every(every, cut, begin=begin, end=end)


def prune_globally(score: Score, ramp: Schedule, *, min_weights: int = 0) -> MaskTransform:
    """Prunes to `ramp(step)` times the plan's total, lowest scores of the network first.

    A threshold over all scores (of groups, by their mean) gives each leaf its share. Leaves below
    the floor are raised to it and the others scaled by one common factor until the total is right;
    each leaf's pattern then prunes to its share. Unstructured and N:M leaves meet the total to one
    weight; others round to whole groups. Pruned weights stay pruned.

    Raises:
      ValueError: the floor or the patterns leave too few weights to prune.
    """

    def init(masks: Any, params: Any, context: MaskContext) -> tuple[Any, Any]:
        free = int(_most_pruned(context.plan.leaves, min_weights).sum())
        budget = _budget(context.plan.leaves)
        if min_weights < 0 or budget > free:
            raise ValueError(
                f"prune_globally(min_weights={min_weights}) leaves {free} weights to prune, the "
                f"plan asks for {budget}; lower min_weights or the sparsity."
            )
        return masks, ()

    def update(
        masks: Any, state: Any, params: Any, grads: Any, context: MaskContext
    ) -> tuple[Any, Any]:
        leaves = context.plan.leaves
        total = sum(leaf.num_weights for leaf in leaves)
        budget = count_pruned(ramp(context.step) * (_budget(leaves) / total), total)
        scored: dict[str, Any] = {}

        def collect(leaf: PlanLeaf, mask: Any, weights: Any, grad: Any, key: Any) -> Any:
            scored[leaf.path] = score(weights, grad, key), mask
            return mask

        map_planned(collect, context, masks, params, grads)
        pruned = _pruned_under_threshold(leaves, scored, total - budget)
        most = jnp.asarray(_most_pruned(leaves, min_weights), jnp.int32)
        shares = _scale_to_budget(pruned, most, budget)

        def cut(leaf: PlanLeaf, mask: Any, key: Any) -> Any:
            share = shares[leaves.index(leaf)].astype(jnp.float32) / leaf.num_weights
            return leaf.pattern.mask(scored[leaf.path][0], share, allowed=mask) & mask

        return map_planned(cut, context, masks), state

    return MaskTransform(init, update)


def _budget(leaves: Sequence[PlanLeaf]) -> int:
    """How many weights the plan prunes."""
    return sum(leaf.num_pruned for leaf in leaves)


def _most_pruned(leaves: Sequence[PlanLeaf], min_weights: int) -> np.ndarray:
    """How many weights each leaf can lose to its pattern and the floor, in whole groups."""
    by_pattern = [round(x.pattern.max_sparsity(x.shape) * x.num_weights) for x in leaves]
    by_floor = [max(leaf.num_weights - min_weights, 0) for leaf in leaves]
    group_sizes = np.array([leaf.group_size for leaf in leaves])
    return np.minimum(by_pattern, by_floor) // group_sizes * group_sizes


def _pruned_under_threshold(
    leaves: Sequence[PlanLeaf], scored: dict[str, Any], num_kept: Any
) -> Int[Array, "num_leaves"]:
    """How many weights of each leaf lie under the threshold that keeps `num_kept` in all."""
    sizes = np.array([leaf.group_size for leaf in leaves], np.int32)
    keys = [_group_keys(leaf, *scored[leaf.path]) for leaf in leaves]

    def count(test: Any) -> Int[Array, "num_leaves"]:
        return jnp.stack([jnp.sum(test(own), dtype=jnp.int32) for own in keys]) * sizes

    def try_bit(step: Any, found: Any) -> Any:
        candidate = found | (jnp.uint32(1) << (31 - step).astype(jnp.uint32))
        return jnp.where(count(lambda own: own >= candidate).sum() >= num_kept, candidate, found)

    threshold = jax.lax.fori_loop(0, 32, try_bit, jnp.uint32(0))
    kept = count(lambda own: own > threshold)
    kept += _fill(count(lambda own: own == threshold), num_kept - kept.sum())
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
        return jnp.minimum(factor * pruned, most.astype(jnp.float32)).astype(jnp.int32)

    def halve(_: Any, bounds: Any) -> Any:
        low, high = bounds
        middle = 0.5 * (low + high)
        fits = scaled(middle).sum() <= budget
        return jnp.where(fits, middle, low), jnp.where(fits, high, middle)

    highest = jnp.max(jnp.where(pruned > 0, most / jnp.maximum(pruned, 1), 0.0)) + 1.0
    low, _ = jax.lax.fori_loop(0, 40, halve, (jnp.float32(0.0), highest.astype(jnp.float32)))
    base = scaled(low)
    return base + _fill(most - base, budget - base.sum())


def _fill(room: Int[Array, "num_leaves"], amount: Any) -> Int[Array, "num_leaves"]:
    """`amount` spread over the leaves in order, each up to its room."""
    before = jnp.cumsum(room) - room
    return jnp.clip(amount - before, 0, room)
