"""Global magnitude pruning: one threshold for the whole network, and a floor per layer."""

from typing import Any

from sparsejax.doors import SCHEDULE, SCORE, checked
from sparsejax.masks.global_threshold import budget_of, cut_globally, most_pruned
from sparsejax.masks.initial import masks_of_leaves
from sparsejax.masks.schedules import cubic
from sparsejax.masks.scores import magnitude
from sparsejax.masks.transforms import MaskContext, MaskTransform, Schedule, Score
from sparsejax.masks.transforms import every as at_every
from sparsejax.plans.leaf import PlanLeaf
from sparsejax.plans.planned_leaves import each_leaf


@checked(score=SCORE)
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


@checked(score=SCORE, ramp=SCHEDULE)
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
        free = int(most_pruned(context.plan.leaves, min_weights).sum())
        budget = budget_of(context.plan.leaves)
        if min_weights < 0 or budget > free:
            raise ValueError(
                f"prune_globally(min_weights={min_weights}) leaves {free} weights to prune, the "
                f"plan asks for {budget}; lower min_weights or the sparsity."
            )
        return masks, ()

    def update(
        masks: Any, state: Any, params: Any, grads: Any, context: MaskContext
    ) -> tuple[Any, Any]:
        def scored(leaf: PlanLeaf, mask: Any, weights: Any, grad: Any, key: Any) -> Any:
            return score(weights, grad, key), mask

        pairs = each_leaf(scored, context, masks, params, grads)
        scores, allowed = zip(*pairs, strict=True)
        cut = cut_globally(
            context.plan.leaves, scores, allowed, ramp(context.step), min_weights=min_weights
        )
        return masks_of_leaves(masks, context.plan, cut), state

    return MaskTransform(init, update)
