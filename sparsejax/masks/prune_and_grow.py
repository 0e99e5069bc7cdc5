"""The mask transforms that prune and grow: by a score, to a size, leaf by leaf or globally."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from sparsejax.doors import SCHEDULE, SCORE, checked
from sparsejax.masks.global_threshold import budget_of, cut_globally, most_pruned
from sparsejax.masks.initial import masks_of_leaves
from sparsejax.masks.transforms import MaskContext, MaskTransform, Schedule, Score
from sparsejax.patterns import Unstructured
from sparsejax.plans.leaf import PlanLeaf
from sparsejax.plans.planned_leaves import each_leaf, map_planned


@checked(score=SCORE)
def start(score: Score) -> MaskTransform:
    """Prunes to the plan's target before the first step, lowest scores first.

    There are no gradients yet: `score` is called with None for them.
    """

    def init(masks: Any, params: Any, context: MaskContext) -> tuple[Any, Any]:
        def cut(leaf: PlanLeaf, mask: Any, weights: Any, key: Any) -> Any:
            scores = score(weights, None, key)
            return leaf.pattern.mask(scores, leaf.sparsity, allowed=mask) & mask

        return map_planned(cut, context, masks, params), ()

    return MaskTransform(init, lambda masks, state, params, grads, context: (masks, state))


@checked(score=SCORE, ramp=SCHEDULE)
def prune(
    score: Score,
    ramp: Schedule,
    *,
    regrow: bool = False,
    globally: bool = False,
    min_weights: int = 0,
) -> MaskTransform:
    """Prunes each leaf to `ramp(step)` times its target, lowest scores first.

    Globally, the targets are one budget, which a threshold over all scores (of groups, by their
    mean) divides anew at each update. Leaves below the floor are raised to it and the others scaled
    by one common factor until the total is right; each leaf's pattern then prunes to its share.
    Unstructured and N:M leaves meet the total to one weight; others round to whole groups.

    Args:
      score: `f(weights, grads, key) -> scores`, the highest are kept.
      ramp: step -> 0..1.
      regrow: whether a pruned weight may come back. Pruned weights are zero unless a Reparam keeps
        them, so that by magnitude only a Reparam makes use of it.
      globally: whether leaves compete for one budget, instead of each meeting its target.
      min_weights: the floor, what each leaf keeps at least if they compete; leaves that have no
        more stay dense.

    Raises:
      ValueError: the floor or the patterns leave too few weights to prune.
    """
    if globally:
        return _prune_globally(score, ramp, regrow, min_weights)
    if min_weights:
        raise ValueError(
            f"prune needs globally=True for a floor of weights, got min_weights={min_weights}."
        )

    def cut(leaf: PlanLeaf, mask: Any, scores: Any, reached: Any) -> Any:
        if regrow:
            return leaf.pattern.mask(scores, reached * leaf.sparsity)
        return leaf.pattern.mask(scores, reached * leaf.sparsity, allowed=mask) & mask

    return _by_score(score, ramp, cut)


def _prune_globally(score: Score, ramp: Schedule, regrow: bool, min_weights: int) -> MaskTransform:
    def init(masks: Any, params: Any, context: MaskContext) -> tuple[Any, Any]:
        free = int(most_pruned(context.plan.leaves, min_weights).sum())
        budget = budget_of(context.plan.leaves)
        if min_weights < 0 or budget > free:
            raise ValueError(
                f"Global pruning with min_weights={min_weights} leaves {free} weights to prune, "
                f"the plan asks for {budget}; lower min_weights or the sparsity."
            )
        return masks, ()

    def update(
        masks: Any, state: Any, params: Any, grads: Any, context: MaskContext
    ) -> tuple[Any, Any]:
        def scored(leaf: PlanLeaf, mask: Any, weights: Any, grad: Any, key: Any) -> Any:
            return score(weights, grad, key), jnp.ones_like(mask) if regrow else mask

        pairs = each_leaf(scored, context, masks, params, grads)
        scores, allowed = zip(*pairs, strict=True)
        cut = cut_globally(
            context.plan.leaves, scores, allowed, ramp(context.step), min_weights=min_weights
        )
        return masks_of_leaves(masks, context.plan, cut), state

    return MaskTransform(init, update)


@checked(score=SCORE, fraction=SCHEDULE)
def drop(score: Score, fraction: Schedule) -> MaskTransform:
    """Prunes `fraction(step)` of what each leaf still keeps, lowest scores first.

    The number of dropped groups is floor(fraction * kept + 0.5). N:M leaves drop single weights.
    """

    def cut(leaf: PlanLeaf, mask: Any, scores: Any, part: Any) -> Any:
        num_kept = _num_kept(leaf, mask)
        dropped = jnp.asarray(part, jnp.float32) * num_kept.astype(jnp.float32)
        num_left = num_kept - jnp.floor(dropped + 0.5).astype(jnp.int32)
        return _single(leaf).mask(scores, _sparsity(leaf, num_left), allowed=mask) & mask

    return _by_score(score, fraction, cut)


@checked(score=SCORE)
def grow(score: Score) -> MaskTransform:
    """Regrows each leaf to the number it kept at init, highest scores first.

    What is kept stays; the count is remembered as state, so that it never drifts. Above 2**23
    groups the fraction that stands for the count is rounded to float32: off by at most 2.
    """

    def init(masks: Any, params: Any, context: MaskContext) -> tuple[Any, Any]:
        counts = map_planned(lambda leaf, mask, key: _num_kept(leaf, mask), context, masks)
        return masks, counts

    def update(
        masks: Any, state: Any, params: Any, grads: Any, context: MaskContext
    ) -> tuple[Any, Any]:
        def add(leaf: PlanLeaf, mask: Any, weights: Any, grad: Any, count: Any, key: Any) -> Any:
            return _resized(leaf, mask, score(weights, grad, key), count)

        return map_planned(add, context, masks, params, grads, state), state

    return MaskTransform(init, update)


@checked(score=SCORE, size=SCHEDULE)
def resize(score: Score, size: Schedule) -> MaskTransform:
    """Prunes or regrows each leaf to `size(step)` times what its target keeps, best scores first.

    Whatever the scores, what is kept ranks before what is pruned: below the present size some of
    the kept weights go, above it all of them stay. The number of kept groups is
    floor(size * kept at the target + 0.5).
    """

    def cut(leaf: PlanLeaf, mask: Any, scores: Any, reached: Any) -> Any:
        num_groups = leaf.pattern.num_groups(leaf.shape)
        target = num_groups - leaf.num_pruned // leaf.group_size
        count = jnp.floor(jnp.asarray(reached, jnp.float32) * target + 0.5).astype(jnp.int32)
        return _resized(leaf, mask, scores, jnp.minimum(count, num_groups))

    return _by_score(score, size, cut)


def _by_score(score: Score, schedule: Schedule, cut: Callable[..., Any]) -> MaskTransform:
    """Each leaf's mask is `cut(leaf, mask, scores, schedule(step))`; there is no state."""

    def update(
        masks: Any, state: Any, params: Any, grads: Any, context: MaskContext
    ) -> tuple[Any, Any]:
        now = schedule(context.step)

        def own(leaf: PlanLeaf, mask: Any, weights: Any, grad: Any, key: Any) -> Any:
            return cut(leaf, mask, score(weights, grad, key), now)

        return map_planned(own, context, masks, params, grads), state

    return MaskTransform(lambda masks, params, context: (masks, ()), update)


def _single(leaf: PlanLeaf) -> Any:
    """The pattern by which single groups go: an N:M leaf stays N:M whatever weight it loses."""
    return leaf.pattern if leaf.pattern.max_sparsity(leaf.shape) == 1.0 else Unstructured()


def _resized(leaf: PlanLeaf, mask: Any, scores: Any, num_kept: Int[Array, ""]) -> Any:
    """The mask with so many groups; those that it keeps already rank first."""
    sparsity = _sparsity(leaf, num_kept)
    resized = leaf.pattern.mask(scores, sparsity, keep=mask)
    if _single(leaf) is leaf.pattern:
        return resized
    # The pattern's own highest sparsity may keep more than the count.
    return _single(leaf).mask(scores, sparsity, keep=mask & resized, allowed=resized)


def _num_kept(leaf: PlanLeaf, mask: Bool[Array, "..."]) -> Int[Array, ""]:
    """How many groups the mask keeps."""
    return jnp.sum(mask, dtype=jnp.int32) // leaf.group_size


def _sparsity(leaf: PlanLeaf, num_kept: Int[Array, ""]) -> Any:
    num_groups = leaf.pattern.num_groups(leaf.shape)
    return (num_groups - num_kept).astype(jnp.float32) / num_groups
