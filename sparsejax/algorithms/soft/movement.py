"""Movement pruning: weights stay that move away from zero, not those that are large."""

from typing import Any

import jax
import jax.numpy as jnp

from sparsejax.algorithms.soft.thresholded import thresholded
from sparsejax.masks.schedules import cubic
from sparsejax.masks.transforms import MaskContext, MaskTransform, Method
from sparsejax.masks.transforms import every as at_every
from sparsejax.plans.leaf import PlanLeaf
from sparsejax.plans.planned_leaves import map_params, map_planned
from sparsejax.reparams.reparam import Reparam, map_weights, memoized
from sparsejax.reparams.soft_masks import add_to_gradient, group_means


def movement(begin: int, end: int, *, every: int = 1) -> Method:
    """Movement pruning (hard): each leaf keeps the weights with the highest learned scores S.

    The forward pass uses w * mask; straight through the mask, S receives the gradient
    dL/d(w * mask) * w: it rises where a weight moves away from zero, pruned or not. The sparsity
    follows the cubic of Zhu and Gupta to the plan's targets. A pruned weight keeps its value. Give
    S an optimizer of its own, without weight decay (`learned_tx=optax.adam(1e-2)`).

    The loss needs one more line: compute it at `forward(params, opt_state)`.

    Args:
      begin: the first step that prunes; let it be > 0, as all scores start equal.
      end: the step that reaches the target.
      every: steps between two updates of the masks.

    Reference: Sanh, Wolf, Rush, "Movement Pruning: Adaptive Sparsity by Fine-Tuning", NeurIPS 2020,
    arXiv 2005.07683, section 4.
    """
    ramp = cubic(begin, end)

    def update(
        masks: Any, state: Any, params: Any, grads: Any, context: MaskContext
    ) -> tuple[Any, Any]:
        reached = ramp(context.step)

        def cut(leaf: PlanLeaf, mask: Any, scores: Any, key: Any) -> Any:
            return leaf.pattern.mask(scores, reached * leaf.sparsity)

        return map_planned(cut, context, masks, context.learned), state

    transform = MaskTransform(lambda masks, params, context: (masks, ()), update)
    return Method(at_every(every, transform, begin=begin), _scored(begin, end, 0.0))


def soft_movement(
    begin: int,
    end: int,
    *,
    threshold: float = 0.1,
    penalty: float = 400.0,
    exact_from: int | None = None,
    exact_by: int | None = None,
) -> Method:
    """Movement pruning (soft): weights stay whose learned score has sigmoid(S) above a threshold.

    As `movement`, with one threshold for all leaves, so that their sparsities are an outcome. S
    pays `penalty` times the mean of sigmoid(S) over all planned weights; this gradient is added to
    its own. Threshold and penalty rise from 0 along the cubic of Zhu and Gupta. S starts at 0.

    The loss needs one more line: compute it at `forward(params, opt_state)`.

    Args:
      begin: the first step with a threshold above 0.
      end: the step at which it and the penalty are reached.
      threshold: between 0 and 1.
      penalty: lambda, the knob that decides the sparsity; 400 for BERT in the authors' code.
      exact_from: a step from which on at least the plan's total is pruned, the lowest scores of
        the network first, to compare runs at one sparsity; None is the paper's way.
      exact_by: the step at which that total is reached; from `exact_from` on the least number rises
        as in `gmp`. None asks for all of it at once.

    Raises:
      ValueError: at `init`, a leaf is N:M.

    Differs: the authors' code averages the means of the leaves; they are alike in BERT, but small
    and large ones would lose very unlike shares.

    Reference: Sanh, Wolf, Rush, "Movement Pruning: Adaptive Sparsity by Fine-Tuning", NeurIPS 2020,
    arXiv 2005.07683, section 4.
    """
    if not 0.0 < threshold < 1.0 or penalty < 0.0:
        raise ValueError(
            "soft_movement needs 0 < threshold < 1 and penalty >= 0, "
            f"got threshold={threshold}, penalty={penalty}."
        )
    ramp = cubic(begin, end)

    def excess(leaf: PlanLeaf, weights: Any, learned: Any, step: Any) -> Any:
        level = threshold * ramp(step)
        return group_means(leaf.pattern, learned) - (jnp.log(level) - jnp.log1p(-level))

    return Method(thresholded(excess, exact_from, exact_by), _scored(begin, end, float(penalty)))


@memoized
def _scored(begin: int, end: int, penalty: float) -> Reparam:
    """w * mask; the scores receive the gradient of the mask, and of the penalty on the ramp."""
    ramp = cubic(begin, end)

    def init(params: Any, context: MaskContext) -> Any:
        zeros = lambda leaf, weights: jnp.zeros_like(weights, jnp.float32)
        return map_params(zeros, context.plan, params)

    def apply(params: Any, masks: Any, learned: Any, context: MaskContext) -> Any:
        strength = penalty * ramp(context.step) / max(context.plan.num_weights, 1)

        def score(leaf: PlanLeaf, weights: Any, mask: Any, scores: Any) -> Any:
            open_ = jax.nn.sigmoid(scores)
            scores = add_to_gradient(scores, strength * open_ * (1.0 - open_))
            own = (scores - jax.lax.stop_gradient(scores)) * jax.lax.stop_gradient(weights)
            kept = jnp.where(mask, weights, jnp.zeros((), weights.dtype))
            return kept + own.astype(weights.dtype)  # own is 0; its slope is w

        return map_weights(score, context, params, masks, learned)

    return Reparam(init, apply, keeps_pruned=True)
