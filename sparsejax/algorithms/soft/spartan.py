"""Spartan: a soft top-k by optimal transport, hard in the forward pass."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from sparsejax.masks.prune_and_grow import prune
from sparsejax.masks.scores import magnitude
from sparsejax.masks.transforms import MaskContext, Method
from sparsejax.masks.transforms import every as at_every
from sparsejax.plans.leaf import PlanLeaf
from sparsejax.reparams.reparam import (
    Reparam,
    in_place_of,
    map_weights,
    memoized,
    nothing_learned,
)
from sparsejax.reparams.soft_masks import group_means, soft_top_k, spread


def spartan(
    num_steps: int,
    *,
    sharpness: float = 20.0,
    initial_sharpness: float = 1.0,
    warmup: float = 0.2,
    finetune: float = 0.2,
) -> Method:
    """Spartan: w times a soft top-k mask, of which the forward pass keeps only the k largest.

    m(|w|) has sum k and is the sharper the larger the sharpness; the gradient is that of m w,
    through w and through m, for pruned weights too. Groups go by their mean |w| and a sharpness
    larger by the root of their size.

    The loss needs one more line: compute it at `forward(params, opt_state)`.

    Args:
      num_steps: of the whole training.
      sharpness: the beta reached when fine-tuning starts.
      initial_sharpness: beta at step 0; it rises on a straight line.
      warmup: the fraction of the steps in which the leaves ramp to their targets, linearly.
      finetune: the fraction of the steps at the end in which masks are fixed.

    Differs: each leaf has its own budget of the plan, where the paper's default is one for the
    network; while fine-tuning, m still follows the size of kept weights, without a gradient of
    its own.

    Reference: Tai et al., "Spartan: Differentiable Sparsity via Regularized Transportation",
    NeurIPS 2022, arXiv 2205.14107, sections 2 and 3.
    """
    if num_steps < 1 or not 0 < warmup <= 1.0 - finetune < 1.0 + warmup:
        raise ValueError(
            "spartan needs num_steps >= 1, warmup > 0, finetune >= 0 and warmup + finetune <= 1, "
            f"got num_steps={num_steps}, warmup={warmup}, finetune={finetune}."
        )
    if not 0 < initial_sharpness <= sharpness:
        raise ValueError(
            "spartan needs 0 < initial_sharpness <= sharpness, "
            f"got initial_sharpness={initial_sharpness}, sharpness={sharpness}."
        )
    freeze = max(num_steps - round(finetune * num_steps), 1)
    ramp = optax.linear_schedule(0.0, 1.0, max(round(warmup * num_steps), 1))
    follow = at_every(1, prune(magnitude, ramp, regrow=True), end=freeze)
    return Method(follow, _transported(initial_sharpness, sharpness, freeze))


@memoized
def _transported(initial: float, final: float, freeze: int) -> Reparam:
    anneal = optax.linear_schedule(initial, final, freeze)

    def apply(params: Any, masks: Any, learned: Any, context: MaskContext) -> Any:
        step = context.step

        def soften(leaf: PlanLeaf, weights: Any, mask: Any) -> Any:
            values = group_means(leaf.pattern, jnp.sign(weights) * weights)
            num_kept = jnp.sum(mask, dtype=jnp.int32) // leaf.group_size
            soft = soft_top_k(values, num_kept, anneal(step) * leaf.group_size**0.5)
            soft = spread(leaf.pattern, soft, weights)
            frozen = jnp.where(mask, jax.lax.stop_gradient(soft), 0.0)
            soft = jnp.where(step < freeze, soft, frozen)
            weights = (soft * weights).astype(weights.dtype)
            return in_place_of(weights, jnp.where(mask, weights, jnp.zeros((), weights.dtype)))

        return map_weights(soften, context, params, masks)

    return Reparam(nothing_learned, apply, keeps_pruned=True)
