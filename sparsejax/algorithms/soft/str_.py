"""Soft threshold reparametrisation (STR)."""

from typing import Any

import jax
import jax.numpy as jnp

from sparsejax.algorithms.soft.thresholded import thresholded
from sparsejax.masks.transforms import MaskContext, Method
from sparsejax.plans.leaf import PlanLeaf
from sparsejax.plans.planned_leaves import map_params
from sparsejax.reparams.reparam import Reparam, map_weights, memoized
from sparsejax.reparams.soft_masks import group_norms, soft_threshold

_ZERO_SLOPE = -30.0  # sigmoid and its slope are below 1e-13: no gradient moves s from here


def str_(
    *, initial: float = -3200.0, exact_from: int | None = None, exact_by: int | None = None
) -> Method:
    """STR: the forward pass uses sign(w) max(|w| - sigmoid(s), 0), with one learned s per leaf.

    The plan names the leaves; how sparse each becomes is learned. sigmoid(-3200) is 0 and so is its
    slope: at first only weight decay moves s, by the factor 1 - rate * decay a step. So the
    optimizer of s (`sparsify(..., learned_tx=)`) must decay it, and this decay together with
    `initial` decides the sparsity: 2.25e-5 and -3200 give 90 % of ResNet-50 in 100 epochs. Groups
    (channels, blocks) shrink as one, by max(1 - sigmoid(s) / r, 0) with r their root mean square.

    The loss needs one more line: compute it at `forward(params, opt_state)`.

    Args:
      initial: s at step 0.
      exact_from: a step from which on at least the plan's total is pruned, the smallest forward
        weights of the network first, to compare runs at one sparsity; None is the paper's way.
      exact_by: the step at which that total is reached; from `exact_from` on the least number rises
        as in `gmp`. None asks for all of it at once.

    Raises:
      ValueError: exact_from is negative or exact_by not after it; at `init`, a leaf is N:M, or
        learned_tx has no weight decay where nothing else moves s and exact_from is None.

    Reference: Kusupati et al., "Soft Threshold Weight Reparameterization for Learnable Sparsity",
    ICML 2020, arXiv 2002.03231, equations 4 to 6.
    """

    def excess(leaf: PlanLeaf, weights: Any, learned: Any, step: Any) -> Any:
        return group_norms(weights, leaf.pattern) - jax.nn.sigmoid(learned)

    stuck = initial < _ZERO_SLOPE and exact_from is None
    return Method(thresholded(excess, exact_from, exact_by), _shrunk(float(initial), stuck))


@memoized
def _shrunk(initial: float, stuck: bool) -> Reparam:
    def init(params: Any, context: MaskContext) -> Any:
        return map_params(lambda leaf, weights: jnp.float32(initial), context.plan, params)

    def shrink(leaf: PlanLeaf, weights: Any, mask: Any, learned: Any) -> Any:
        shrunk = soft_threshold(weights, jax.nn.sigmoid(learned), leaf.pattern)
        return jnp.where(mask, shrunk, jnp.zeros((), weights.dtype))

    def apply(params: Any, masks: Any, learned: Any, context: MaskContext) -> Any:
        return map_weights(shrink, context, params, masks, learned)

    return Reparam(init, apply, keeps_pruned=True, needs_decay=stuck)
