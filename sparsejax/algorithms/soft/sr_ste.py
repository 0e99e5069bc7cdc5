"""Sparse-refined straight-through estimator (SR-STE)."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

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


def sr_ste(
    *, decay: float = 2e-4, every: int = 1, rate: float | optax.Schedule | None = None
) -> Method:
    """SR-STE: N:M from the first step on, by straight-through gradients that decay pruned weights.

    The forward pass uses w * mask, with the plan's fraction of the largest weights kept (n of every
    m under `NM`); the gradient of w is that of w * mask, plus decay * w where w is pruned, which
    keeps weights from going in and out of the mask.

    That is the paper's rule for SGD. Adam divides what is in the gradient by its size, so that a
    pruned weight would decay at Adam's pace whatever `decay` is, as L2 does there; with `rate` the
    decay follows the optimizer's step instead, as AdamW's does: w -= rate * decay * w.

    The loss needs one more line: compute it at `forward(params, opt_state)`.

    Args:
      decay: lambda_w, of pruned weights only; 2e-4 in the paper, with SGD.
      every: steps between two updates of the masks.
      rate: None for the paper's rule; else the optimizer's learning rate or schedule.

    Reference: Zhou et al., "Learning N:M Fine-grained Structured Sparse Neural Networks From
    Scratch", ICLR 2021, arXiv 2102.04010, equation 9.
    """
    if decay < 0:
        raise ValueError(f"sr_ste needs decay >= 0, got {decay}.")
    if rate is not None and not callable(rate) and rate < 0:
        raise ValueError(f"sr_ste needs rate >= 0, got {rate}.")
    largest = prune(magnitude, lambda step: 1.0, regrow=True)
    return Method(chain(start(magnitude), at_every(every, largest)), _refined(decay, rate))


@memoized
def _refined(decay: float, rate: float | optax.Schedule | None) -> Reparam:
    def refine(leaf: PlanLeaf, weights: Any, mask: Any) -> Any:
        zero = jnp.zeros((), weights.dtype)
        tried = weights
        if rate is None:
            tried = add_to_gradient(weights, decay * jnp.where(mask, zero, weights))
        return in_place_of(tried, jnp.where(mask, weights, zero))

    def apply(params: Any, masks: Any, learned: Any, context: MaskContext) -> Any:
        return map_weights(refine, context, params, masks)

    def drift(params: Any, masks: Any, learned: Any, context: MaskContext) -> Any:
        now = rate(context.step) if callable(rate) else float(rate or 0.0)
        by = jnp.asarray(now * decay, jnp.float32)
        shrunk = lambda leaf, zeros, mask, w: jnp.where(mask, zeros, -by.astype(w.dtype) * w)
        return map_weights(shrunk, context, jax.tree.map(jnp.zeros_like, params), masks, params)

    return Reparam(nothing_learned, apply, keeps_pruned=True, drift=None if rate is None else drift)
