"""SynFlow: pruning at initialisation without data."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sparsejax.doors import FUNCTION, checked
from sparsejax.masks.global_threshold import cut_globally
from sparsejax.masks.initial import (
    InitialMasks,
    by_leaves,
    full_masks,
    masked,
    masks_of_leaves,
)
from sparsejax.plans.plan import Plan


@checked(apply_fn=FUNCTION)
def synflow(
    apply_fn: Callable[[Any, Any], Float[Array, "..."]],
    example: Float[Array, "..."],
    *,
    rounds: int = 100,
) -> InitialMasks:
    """Initial masks that keep the largest |w| * dR/d|w|, R = the sum of outputs for params |w|.

    Round k of n prunes the network to the density rho^(k/n) by one threshold and scores anew what
    is left, so that no layer loses all its weights while another could give some. It needs no data
    and no loss.

    Args:
      apply_fn: `f(params, x) -> logits` in inference mode, with normalisation as at initialisation
        (the identity).
      example: the input, all ones; without biases any other positive constant ranks weights alike.
        A deep network needs a smaller one: R grows with depth, and bounded activations such as
        ReLU6 stop the flow where they are full.
      rounds: n.

    Raises:
      ValueError: rounds < 1; no finite flow passes a leaf, or none is left after pruning (seen only
        outside `jax.jit`).

    Example:
      >>> masks = sj.before.synflow(model.apply, jnp.ones_like(x[:1]), rounds=10)
      >>> tx = sj.sparsify(tx, sj.chain(), plan, key=key, initial_masks=masks)

    Reference: Tanaka, Kunin, Yamins, Ganguli, "Pruning neural networks without any data by
    iteratively conserving synaptic flow", NeurIPS 2020, arXiv 2006.05467, algorithm 1.
    """
    if rounds < 1:
        raise ValueError(f"synflow needs rounds >= 1, got {rounds}.")

    def flow(magnitudes: Any) -> Float[Array, ""]:
        return jnp.sum(apply_fn(magnitudes, example))

    def initial(params: Any, plan: Plan) -> Any:
        everything = full_masks(params, plan)
        if not jax.tree.leaves(params) or not plan.num_pruned:
            return everything
        masks, flows, end = in_rounds(params, by_leaves(everything, plan), plan)
        for leaf, before in zip(plan.leaves, flows, strict=True):
            _check_flow(before, f"{leaf.path}; pass a smaller positive example")
        _check_flow(end, "the end; pass a larger example, or more rounds")
        return masks_of_leaves(params, plan, masks)

    @partial(jax.jit, static_argnames="plan")  # one program, also for who calls it without jit
    def in_rounds(params: Any, everything: Any, plan: Plan) -> tuple[Any, list[Any], Any]:
        magnitudes = jax.tree.map(jnp.abs, params)
        density = 1.0 - plan.sparsity

        def left(masks: Any) -> Any:
            return masked(magnitudes, masks_of_leaves(params, plan, masks))

        def one_round(index: Any, carry: Any) -> Any:
            masks, flows = carry
            kept = left(masks)
            scores = by_leaves(jax.tree.map(jnp.multiply, kept, jax.grad(flow)(kept)), plan)
            now = jnp.stack([own.sum(dtype=jnp.float32) for own in scores])
            fraction = (1.0 - density ** ((index + 1) / rounds)) / (1.0 - density)
            masks = cut_globally(plan.leaves, scores, masks, fraction)
            return masks, jnp.where(index == 0, now, flows)

        start = everything, jnp.zeros(len(plan.leaves), jnp.float32)
        masks, flows = jax.lax.fori_loop(0, rounds, one_round, start)
        return masks, list(flows), flow(left(masks))

    return initial


def _check_flow(total: Float[Array, ""], where: str) -> None:
    if not isinstance(total, jax.core.Tracer) and not 0.0 < float(total) < math.inf:
        raise ValueError(f"synflow needs a finite flow above 0, got {total} at {where}.")
