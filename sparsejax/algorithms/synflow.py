"""SynFlow: pruning at initialisation without data."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sparsejax.global_threshold import cut_globally
from sparsejax.initial_masks import InitialMasks, full_masks, planned_masks
from sparsejax.tree import leaves_with_paths, map_with_paths


def synflow(
    apply_fn: Callable[[Any, Any], Float[Array, "..."]],
    x: Float[Array, "..."],
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
      x: the input, all ones; without biases any other positive constant ranks weights alike. A deep
        network needs a smaller one: R grows with depth, and bounded activations such as ReLU6 stop
        the flow where they are full.
      rounds: n.

    Raises:
      ValueError: rounds < 1; no finite flow passes a leaf, or none is left after pruning (seen only
        outside `jax.jit`).

    Example:
      >>> masks = sj.synflow(model.apply, jnp.ones_like(x[:1]), rounds=10)
      >>> tx = sj.sparsify(tx, sj.chain(), plan, key=key, initial_masks=masks)

    Reference: Tanaka, Kunin, Yamins, Ganguli, "Pruning neural networks without any data by
    iteratively conserving synaptic flow", NeurIPS 2020, arXiv 2006.05467, algorithm 1.
    """
    if rounds < 1:
        raise ValueError(f"synflow needs rounds >= 1, got {rounds}.")

    def flow(magnitudes: Any) -> Float[Array, ""]:
        return jnp.sum(apply_fn(magnitudes, x))

    def initial(params: Any, plan: Any) -> Any:
        if not jax.tree.leaves(params) or not plan.num_pruned:
            return full_masks(params, plan)
        magnitudes = jax.tree.map(jnp.abs, params)
        scores = _scores(flow, magnitudes)
        for leaf in plan.leaves:
            _check_flow(scores[leaf.path].sum(), f"{leaf.path}; pass a smaller positive x")
        density = 1.0 - plan.sparsity
        paths = [leaf.path for leaf in plan.leaves]

        def left(masks: Any) -> Any:
            own = dict(zip(paths, masks, strict=True))
            return map_with_paths(
                lambda path, w: jnp.where(own[path], w, 0) if path in own else w, magnitudes
            )

        def one_round(index: Any, masks: Any) -> Any:
            scores = _scores(flow, left(masks))
            share = (1.0 - density ** ((index + 1) / rounds)) / (1.0 - density)
            return cut_globally(plan.leaves, [scores[path] for path in paths], masks, share)

        everything = dict(leaves_with_paths(full_masks(params, plan)))
        masks = jax.lax.fori_loop(0, rounds, one_round, [everything[path] for path in paths])
        _check_flow(flow(left(masks)), "the end; pass a larger x, or more rounds")
        by_path = dict(zip(paths, masks, strict=True))
        return planned_masks(params, plan, lambda leaf, weights: by_path[leaf.path])

    return initial


def _scores(flow: Callable[[Any], Any], magnitudes: Any) -> dict[str, Any]:
    """|w| * dR/d|w| by path."""
    return dict(
        leaves_with_paths(jax.tree.map(jnp.multiply, magnitudes, jax.grad(flow)(magnitudes)))
    )


def _check_flow(total: Float[Array, ""], where: str) -> None:
    if not isinstance(total, jax.core.Tracer) and not (jnp.isfinite(total) and total > 0):
        raise ValueError(f"synflow needs a finite flow above 0, got {total} at {where}.")
