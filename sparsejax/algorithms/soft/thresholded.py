"""Masks that a learned threshold decides, so that the sparsity is an outcome and not a setting."""

from collections.abc import Callable
from typing import Any

import jax

from sparsejax.masks.global_threshold import cut_globally
from sparsejax.masks.initial import by_leaves, masks_of_leaves
from sparsejax.masks.schedules import cubic
from sparsejax.masks.transforms import MaskContext, MaskTransform
from sparsejax.plans.leaf import PlanLeaf
from sparsejax.plans.planned_leaves import map_planned
from sparsejax.reparams.soft_masks import spread


def thresholded(
    excess: Callable[[PlanLeaf, Any, Any, Any], Any],
    exact_from: int | None,
    exact_by: int | None = None,
) -> MaskTransform:
    """Keeps the groups whose `excess(leaf, weights, learned, step)` is positive.

    From step `exact_from` on at least the plan's total is pruned, smallest excess of the network
    first, yet no leaf below a quarter of an equal share of what stays: a network with an empty
    layer is dead. None leaves the number to the threshold alone. With `exact_by` the least number
    rises to the total between the two steps, by the cubic of Zhu and Gupta.

    Raises:
      ValueError: exact_from is negative or exact_by not after it; at `init`, a pattern such as N:M
        does not prune group by group.
    """
    if not _in_order(exact_from, exact_by):
        raise ValueError(
            "A learned threshold needs exact_from >= 0 or None, and exact_by after it or None, "
            f"got exact_from={exact_from} and exact_by={exact_by}."
        )

    def init(masks: Any, params: Any, context: MaskContext) -> tuple[Any, Any]:
        for leaf in context.plan.leaves:
            if leaf.pattern.max_sparsity(leaf.shape) < 1.0:
                raise ValueError(
                    f"{leaf.path}: a learned threshold needs a pattern whose groups go one by one, "
                    f"got {leaf.pattern}; choose a method with a target, such as pdp or sr_ste."
                )
        return masks, ()

    def update(
        masks: Any, state: Any, params: Any, grads: Any, context: MaskContext
    ) -> tuple[Any, Any]:
        def scored(leaf: PlanLeaf, mask: Any, weights: Any, learned: Any, key: Any) -> Any:
            return spread(leaf.pattern, excess(leaf, weights, learned, context.step), mask)

        scores = map_planned(scored, context, masks, params, context.learned)
        masks = jax.tree.map(lambda own: own > 0, scores)
        if exact_from is None:
            return masks, state

        def cut_exactly() -> Any:
            leaves = context.plan.leaves
            own, above = by_leaves(scores, context.plan), by_leaves(masks, context.plan)
            num_kept = context.plan.num_weights - context.plan.num_pruned
            floor = num_kept // (4 * max(len(leaves), 1))
            fraction = 1.0 if exact_by is None else cubic(exact_from, exact_by)(context.step)
            kept = cut_globally(leaves, own, above, fraction, min_weights=floor)
            return masks_of_leaves(masks, context.plan, kept)

        return jax.lax.cond(context.step >= exact_from, cut_exactly, lambda: masks), state

    return MaskTransform(init, update)


def _in_order(exact_from: int | None, exact_by: int | None) -> bool:
    if exact_from is None:
        return exact_by is None
    return 0 <= exact_from < (exact_from + 1 if exact_by is None else exact_by)
