"""AC/DC: alternating compressed and decompressed training."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from sparsejax.doors import SCORE, checked
from sparsejax.masks.prune_and_grow import prune
from sparsejax.masks.scores import magnitude
from sparsejax.masks.transforms import MaskContext, MaskTransform, Score


@checked(score=SCORE)
def ac_dc(
    begin: int, end: int, *, phase: int, globally: bool = True, score: Score = magnitude
) -> MaskTransform:
    """Alternating compressed / decompressed training: sparse and dense phases in turn.

    Dense until `begin`; then phases of so many steps, sparse first: each sparse one keeps the
    plan's budget of the largest weights and holds that mask, each dense one trains all weights,
    the pruned ones from zero with zero moments. As many whole pairs as fit come before `end`, the
    last dense phase lasts until then, and from `end` on the network is sparse.

    Args:
      begin: the first step that prunes; epoch 10 of 100 in the paper.
      end: the step that prunes for good; epoch 85.
      phase: steps in a sparse and in a dense phase; 5 epochs.
      globally: one threshold on the scores for the whole network; else each leaf meets its target.
      score: the highest scores are kept.

    Raises:
      ValueError: begin, end and phase leave no room for a pair of phases.

    Reference: Peste et al., "AC/DC: Alternating Compressed/DeCompressed Training of Deep Neural
    Networks", NeurIPS 2021, arXiv 2106.12379, algorithm 1 and section 4.
    """
    if begin < 0 or phase < 1 or end - begin < 2 * phase:
        raise ValueError(
            "ac_dc needs begin >= 0, phase >= 1 and end >= begin + 2 * phase, "
            f"got begin={begin}, end={end}, phase={phase}."
        )
    last_dense = begin + ((end - begin) // (2 * phase) * 2 - 1) * phase
    compress = prune(score, lambda step: 1.0, globally=globally)

    def starts_sparse(step: Int[Array, ""]) -> Bool[Array, ""]:
        periodic = (step >= begin) & ((step - begin) % (2 * phase) == 0) & (step < last_dense)
        return periodic | (step == end)

    def starts_dense(step: Int[Array, ""]) -> Bool[Array, ""]:
        odd = (step - begin) % (2 * phase) == phase
        return (step > begin) & odd & (step <= last_dense)

    def update(
        masks: Any, state: Any, params: Any, grads: Any, context: MaskContext
    ) -> tuple[Any, Any]:
        step, dense = context.step, jax.tree.map(jnp.ones_like, masks)
        masks = jax.lax.switch(
            jnp.where(starts_dense(step), 2, starts_sparse(step).astype(jnp.int32)),
            [
                lambda: masks,
                lambda: compress.update(dense, state, params, grads, context)[0],
                lambda: dense,
            ],
        )
        return masks, state

    return MaskTransform(compress.init, update)
