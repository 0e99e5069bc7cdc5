"""Sparse-refined straight-through estimator (SR-STE)."""

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
    map_weights,
    memoized,
    nothing_learned,
)
from sparsejax.reparams.soft_masks import add_to_gradient


def sr_ste(*, decay: float = 2e-4, every: int = 1) -> Method:
    """SR-STE: N:M from the first step on, by straight-through gradients that decay pruned weights.

    The forward pass uses w * mask, with the plan's fraction of the largest weights kept (n of every
    m under `NM`); the gradient of w is that of w * mask, plus decay * w where w is pruned, which
    keeps weights from going in and out of the mask.

    The loss needs one more line: compute it at `forward(params, opt_state)`.

    Args:
      decay: lambda_w, of pruned weights only; 2e-4 in the paper, with SGD.
      every: steps between two updates of the masks.

    Reference: Zhou et al., "Learning N:M Fine-grained Structured Sparse Neural Networks From
    Scratch", ICLR 2021, arXiv 2102.04010, equation 9.
    """
    if decay < 0:
        raise ValueError(f"sr_ste needs decay >= 0, got {decay}.")
    largest = prune(magnitude, lambda step: 1.0, regrow=True)
    return Method(chain(start(magnitude), at_every(every, largest)), _refined(decay))


@memoized
def _refined(decay: float) -> Reparam:
    def refine(leaf: PlanLeaf, weights: Any, mask: Any) -> Any:
        pruned = jnp.where(mask, jnp.zeros((), weights.dtype), weights)
        decayed = add_to_gradient(weights, decay * pruned)
        return in_place_of(decayed, jnp.where(mask, weights, jnp.zeros((), weights.dtype)))

    def apply(params: Any, masks: Any, learned: Any, context: MaskContext) -> Any:
        return map_weights(refine, context, params, masks)

    return Reparam(nothing_learned, apply, keeps_pruned=True)
