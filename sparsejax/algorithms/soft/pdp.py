"""Parameter-free differentiable pruning (PDP)."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from sparsejax.masks.prune_and_grow import prune
from sparsejax.masks.scores import magnitude
from sparsejax.masks.transforms import MaskContext, MaskTransform, Method
from sparsejax.masks.transforms import every as at_every
from sparsejax.plans.leaf import PlanLeaf
from sparsejax.plans.planned_leaves import map_planned
from sparsejax.reparams.reparam import Reparam, map_weights, memoized, nothing_learned
from sparsejax.reparams.soft_masks import sigmoid_mask, squared_magnitude


def pdp(
    begin: int,
    end: int,
    *,
    temperature: float = 1e-4,
    globally: bool = True,
    every: int = 1,
) -> Method:
    """PDP: soft masks that follow from the weights alone, so that pruned ones may come back.

    The forward pass uses m w with m = sigmoid((w^2 - t^2) / temperature). Its slope,
    m + (2 w^2 / temperature) m (1 - m), is large beside the threshold, at |w| = t it is
    1/2 + t^2 / (2 temperature): clip the gradients. t lies midway between the smallest kept and the
    largest pruned |w| of the leaf, of each m weights under N:M; groups (channels, blocks) go by
    their L2 norm in place of |w|. In the end the mask is hard: `harden` gives w where
    m > 1/2. Statistics of batch norms saw the soft network; estimate them anew after that.

    The loss needs one more line: compute it at `forward(params, opt_state)`.

    Args:
      begin: the first step that prunes; epoch 16 of 100 in the paper.
      end: the step that reaches the targets, on a straight line; 67 epochs later (0.015 an epoch).
      temperature: of the soft mask, on the scale of w^2 or of a group's squared norm.
      globally: whether one threshold over the network at step `begin` divides the plan's budget
        among its leaves, as in the paper; else each leaf has its own target of the plan. For
        channels use the latter: a channel's size is mostly its layer's, and one threshold may
        prune all channels of some layers.
      every: steps between two updates of the thresholds.

    Differs: the targets rise by steps and not by epochs; under N:M and in groups the paper's soft
    mask is used with the threshold and the norm named above.

    Reference: Cho, Adya, Naik, "PDP: Parameter-free Differentiable Pruning is All You Need",
    NeurIPS 2023, arXiv 2305.11203, section 3.
    """
    if not 0 <= begin < end or temperature <= 0:
        raise ValueError(
            "pdp needs 0 <= begin < end and temperature > 0, "
            f"got begin={begin}, end={end}, temperature={temperature}."
        )
    if globally:
        cut = _prune_to_global_targets(begin, end)
    else:
        cut = prune(squared_magnitude, _ramp(begin, end), regrow=True)
    return Method(at_every(every, cut, begin=begin), _soft_masks(temperature))


def _ramp(begin: int, end: int) -> Any:
    return optax.linear_schedule(0.0, 1.0, end - begin, begin)


def _prune_to_global_targets(begin: int, end: int) -> MaskTransform:
    """The ramp to what one threshold at step `begin` prunes of each leaf; these are the state."""
    spread_budget = prune(magnitude, lambda step: 1.0, globally=True)
    ramp = _ramp(begin, end)

    def init(masks: Any, params: Any, context: MaskContext) -> tuple[Any, Any]:
        masks, _ = spread_budget.init(masks, params, context)
        target = lambda leaf, mask, key: jnp.float32(leaf.sparsity)
        return masks, map_planned(target, context, masks)

    def update(
        masks: Any, targets: Any, params: Any, grads: Any, context: MaskContext
    ) -> tuple[Any, Any]:
        def spread() -> Any:
            dense = jax.tree.map(jnp.ones_like, masks)
            final, _ = spread_budget.update(dense, (), params, grads, context)
            fraction = lambda leaf, mask, key: jnp.mean(~mask, dtype=jnp.float32)
            return map_planned(fraction, context, final)

        targets = jax.lax.cond(context.step == begin, spread, lambda: targets)
        reached = ramp(context.step)

        def cut(leaf: PlanLeaf, mask: Any, weights: Any, target: Any, key: Any) -> Any:
            return leaf.pattern.mask(squared_magnitude(weights, None, key), reached * target)

        return map_planned(cut, context, masks, params, targets), targets

    return MaskTransform(init, update)


@memoized
def _soft_masks(temperature: float) -> Reparam:
    def soften(leaf: PlanLeaf, weights: Any, mask: Any) -> Any:
        soft = sigmoid_mask(weights, mask, leaf.pattern, temperature)
        return (soft * weights).astype(weights.dtype)

    def apply(params: Any, masks: Any, learned: Any, context: MaskContext) -> Any:
        return map_weights(soften, context, params, masks)

    def harden(params: Any, masks: Any, learned: Any, context: MaskContext) -> Any:
        return params

    return Reparam(nothing_learned, apply, harden, keeps_pruned=True)
