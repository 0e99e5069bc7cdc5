"""The masks that a training starts from: functions (params, plan) -> masks."""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sparsejax.doors import PLAN, checked
from sparsejax.masks.global_threshold import cut_globally
from sparsejax.patterns import Pattern
from sparsejax.patterns.stacked import from_slices, take
from sparsejax.plans.plan import Plan
from sparsejax.plans.planned_leaves import map_params
from sparsejax.reparams.soft_masks import spread
from sparsejax.tree import is_masked_node, leaves_with_paths, map_with_paths

InitialMasks = Callable[[Any, Any], Any]


@checked(plan=PLAN)
def full_masks(params: Any, plan: Plan) -> Any:
    """Masks that keep every weight, with the params' sharding; dense leaves hold a MaskedNode.

    Under `jax.jit(tx.init)` on a mesh of Auto axes XLA chooses the sharding of masks, as of all new
    optimizer state: call `tx.init` outside jit or give `out_shardings`.
    """

    def full(path: str, weights: Any) -> Any:  # a stack as a whole: its slices lose the sharding
        return jnp.ones_like(weights, dtype=bool) if plan.slices(path) else optax.MaskedNode()

    return map_with_paths(full, params)


@checked(plan=PLAN)
def masks_from_zeros(params: Any, plan: Plan) -> Any:
    """Masks that keep the nonzero groups: what continues from a sparse checkpoint starts from.

    A group with any nonzero weight is kept whole, and no more than that.
    """
    return map_params(lambda leaf, weights: _nonzero_groups(weights, leaf.pattern), plan, params)


@partial(jax.jit, static_argnames="pattern")  # one program, also for who calls it without jit
def _nonzero_groups(weights: Any, pattern: Pattern) -> Any:
    nonzero = (weights != 0).astype(jnp.float32)
    masks = [
        spread(factor, jnp.asarray(factor.group_scores(nonzero)), nonzero) > 0
        for factor in pattern.factors()
    ]
    return reduce(jnp.logical_and, masks)


def by_leaves(params: Any, plan: Plan) -> list[Any]:
    """Each leaf of the plan, in its order, out of a tree like the params."""
    arrays = dict(leaves_with_paths(params))
    return [take(leaf, arrays[leaf.array_path]) for leaf in plan.leaves]


def masks_of_leaves(params: Any, plan: Plan, masks: Sequence[Any]) -> Any:
    """The tree of masks given one for each leaf of the plan, in its order."""
    by_path = {leaf.path: mask for leaf, mask in zip(plan.leaves, masks, strict=True)}

    def at(path: str, weights: Any) -> Any:
        leaves = plan.slices(path)
        if not leaves:
            return optax.MaskedNode()
        return from_slices(leaves, [by_path[leaf.path] for leaf in leaves])

    return map_with_paths(at, params)


def masked(params: Any, masks: Any) -> Any:
    """The params with exact zeros where the masks prune."""
    by_path = dict(leaves_with_paths(masks))

    def at(path: str, weights: Any) -> Any:
        mask = by_path[path]
        return weights if is_masked_node(mask) else jnp.where(mask, weights, 0)

    return map_with_paths(at, params)


def masks_from_scores(scores: Any, *, globally: bool = True) -> InitialMasks:
    """Initial masks that keep the highest scores: of the whole network, or leaf by leaf.

    What methods make use of that need a loss, data or a trained network before the first step.

    Args:
      scores: a tree with the paths of the params, or a function params -> such a tree.
      globally: one threshold over all leaves spends the plan's budget (groups compete by the mean
        of their scores), so that leaves end at different sparsities; otherwise each leaf is pruned
        to its own target.

    Example:
      >>> largest = sj.masks.masks_from_scores(jax.tree.map(jnp.abs, params))
      >>> tx = sj.sparsify(tx, method, plan, key=key, initial_masks=largest)
    """

    def initial(params: Any, plan: Plan) -> Any:
        if not jax.tree.leaves(params):  # a placeholder of optax.tree.map_params
            return full_masks(params, plan)
        own = by_leaves(scores(params) if callable(scores) else scores, plan)
        if globally:
            everything = [jnp.ones_like(score, bool) for score in own]
            masks = cut_globally(plan.leaves, own, everything, 1.0)
        else:
            pairs = zip(plan.leaves, own, strict=True)
            masks = [leaf.pattern.mask(score, leaf.sparsity) for leaf, score in pairs]
        return masks_of_leaves(params, plan, masks)

    return initial
