"""Top-KAST: sparse in the forward and in the backward pass."""

from typing import Any

import jax.numpy as jnp

from sparsejax.masks.prune_and_grow import prune, start
from sparsejax.masks.scores import magnitude
from sparsejax.masks.transforms import MaskContext, Method, chain
from sparsejax.masks.transforms import every as at_every
from sparsejax.plans.leaf import PlanLeaf
from sparsejax.reparams.reparam import (
    Reparam,
    in_place_of,
    map_masked,
    map_weights,
    memoized,
    nothing_learned,
)
from sparsejax.reparams.soft_masks import add_to_gradient


def top_kast(*, explored: float = 0.375, every: int = 100, decay: float = 1e-4) -> Method:
    """Top-KAST: the forward pass uses the largest weights A, the gradient reaches a larger set B.

    Each leaf keeps the plan's fraction of its weights in the forward pass. The gradient passes
    straight through to B: A and the largest of the others, which so may enter A. In B comes
    `decay` w to the gradient where w is in A, and `decay` w / D elsewhere, with D the density of
    A. A weight outside B rests, and its moments with it, whatever momentum or weight decay the
    optimizer has; weight decay of its own would come on top of `decay` in B.

    The loss needs one more line: compute it at `forward(params, opt_state)`.

    Args:
      explored: the fraction of the pruned weights that B adds; 0.375 of 80 % leaves 50 % outside B.
      every: steps between two choices of A.
      decay: of the L2 exploration loss.

    Reference: Jayakumar et al., "Top-KAST: Top-K Always Sparse Training", NeurIPS 2020,
    arXiv 2106.03517, sections 2.1 to 2.3.
    """
    if not 0.0 <= explored <= 1.0 or decay < 0:
        raise ValueError(
            "top_kast needs 0 <= explored <= 1 and decay >= 0, "
            f"got explored={explored}, decay={decay}."
        )
    largest = prune(magnitude, lambda step: 1.0, regrow=True)
    choose = chain(start(magnitude), at_every(every, largest, begin=every))
    return Method(choose, _exploring(explored, decay))


@memoized
def _exploring(explored: float, decay: float) -> Reparam:
    def within_b(leaf: PlanLeaf, weights: Any, mask: Any) -> Any:
        scores = magnitude(weights, None, None)
        return mask | leaf.pattern.mask(scores, (1.0 - explored) * leaf.sparsity, keep=mask)

    def explore(leaf: PlanLeaf, weights: Any, mask: Any) -> Any:
        zero = jnp.zeros((), weights.dtype)
        penalty = decay * jnp.where(mask, weights, weights / max(1.0 - leaf.sparsity, 1e-6))
        # Read from the outside in: straight through the forward mask, plus the penalty, within B.
        reached = jnp.where(within_b(leaf, weights, mask), weights, zero)
        return in_place_of(add_to_gradient(reached, penalty), jnp.where(mask, weights, zero))

    def apply(params: Any, masks: Any, learned: Any, context: MaskContext) -> Any:
        return map_weights(explore, context, params, masks)

    def moving(params: Any, masks: Any, learned: Any, context: MaskContext) -> Any:
        return map_masked(within_b, context, params, masks)

    return Reparam(nothing_learned, apply, keeps_pruned=True, moving=moving)
