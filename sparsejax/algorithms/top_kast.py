"""Top-KAST: sparse in the forward and in the backward pass."""

from typing import Any

import jax.numpy as jnp

from sparsejax.distributions import PlanLeaf
from sparsejax.masks import MaskContext, MaskTransform, Method, chain, prune, start
from sparsejax.masks import every as at_every
from sparsejax.reparams import Reparam, map_weights, memoized, nothing_learned
from sparsejax.scores import magnitude
from sparsejax.soft_masks import add_to_gradient, in_place_of


def top_kast(*, backward_sparsity: float = 0.5, every: int = 100, decay: float = 1e-4) -> Method:
    """Top-KAST: the forward pass uses the largest weights A, the gradient reaches a larger set B.

    Each leaf keeps the plan's share of its weights in the forward pass. The gradient passes
    straight through to the 1 - backward_sparsity largest, B, which include A; so weights in B but
    not in A are tried and may enter A. To the gradient in B come `decay` w in A and `decay` w / D
    outside, with D the density of A. A weight outside B rests (give the optimizer no weight decay
    of its own).

    Args:
      backward_sparsity: 1 - (D + M), at most the target of every leaf.
      every: steps between two choices of A; 1 in the paper's main results, 100 as good.
      decay: of the L2 exploration loss; 1e-4 in the paper.

    Raises:
      ValueError: at `init`, a leaf's target is below backward_sparsity.

    Reference: Jayakumar et al., "Top-KAST: Top-K Always Sparse Training", NeurIPS 2020,
    arXiv 2106.03517, sections 2.1 to 2.3.
    """
    if not 0.0 <= backward_sparsity < 1.0 or decay < 0:
        raise ValueError(
            "top_kast needs backward_sparsity in [0, 1) and decay >= 0, "
            f"got backward_sparsity={backward_sparsity}, decay={decay}."
        )

    def check(masks: Any, params: Any, context: MaskContext) -> tuple[Any, Any]:
        for leaf in context.plan.leaves:
            if leaf.sparsity < backward_sparsity:
                raise ValueError(
                    f"{leaf.path}: top_kast needs a target of at least its backward_sparsity="
                    f"{backward_sparsity:g}, got {leaf.sparsity:g}; lower backward_sparsity."
                )
        return masks, ()

    checked = MaskTransform(check, lambda masks, state, *rest: (masks, state))
    largest = prune(magnitude, lambda step: 1.0, regrow=True)
    choose = chain(checked, start(magnitude), at_every(every, largest, begin=every))
    return Method(choose, _explored(backward_sparsity, decay))


@memoized
def _explored(backward_sparsity: float, decay: float) -> Reparam:
    def explore(leaf: PlanLeaf, weights: Any, mask: Any) -> Any:
        zero = jnp.zeros((), weights.dtype)
        scores = magnitude(weights, None, None)
        reached = leaf.pattern.mask(scores, backward_sparsity, keep=mask) | mask
        penalty = decay * jnp.where(mask, weights, weights / max(1.0 - leaf.sparsity, 1e-6))
        # Read from the outside in: straight through the forward mask, plus the penalty, within B.
        tried = add_to_gradient(jnp.where(reached, weights, zero), penalty)
        return in_place_of(tried, jnp.where(mask, weights, zero))

    def apply(params: Any, masks: Any, learned: Any, context: MaskContext) -> Any:
        return map_weights(explore, context, params, masks)

    return Reparam(nothing_learned, apply, keeps_pruned=True)
