"""Micro-structured unification: the weights of a block share one magnitude, or are zero."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sparsejax.algorithms.structured.admm import Projection, leafwise_projection
from sparsejax.doors import PLAN, checked
from sparsejax.masks.initial import by_leaves
from sparsejax.plans.leaf import PlanLeaf
from sparsejax.plans.plan import Plan
from sparsejax.plans.planned_leaves import map_params
from sparsejax.reparams.reparam import Reparam, map_weights, memoized
from sparsejax.reparams.soft_masks import group_means, spread
from sparsejax.top_k import top_k_mask


@checked(plan=PLAN)
def onto_unified(plan: Plan, *, fraction: float) -> Projection:
    """The projection onto pruned and unified blocks: prune first, then unify among the rest.

    Blocks are the groups of each leaf's pattern. The plan's target of them with the least energy
    become 0. Of those left, that fraction with the least loss sum (|w| - m)^2, m = mean |w| of the
    block, becomes sign(w) m: the nearest weights with one magnitude. Zeros count as positive.

    Args:
      plan: such as `Block(4, 4)` on each kernel at the fraction of blocks to prune, or at 0.
      fraction: unified blocks / kept blocks, in [0, 1].

    Example:
      >>> project = sj.structured.onto_unified(plan, fraction=0.8)
      >>> tx = optax.chain(sj.structured.admm(project, every=100, end=1_000), optax.adam(1e-3))

    Reference: Lin et al., "Efficient Micro-Structured Weight Unification and Pruning for Neural
    Network Compression", 2021, arXiv 2106.08301.
    """
    _check_fraction("onto_unified", fraction)

    def nearest(leaf: PlanLeaf, weights: Float[Array, "..."]) -> Float[Array, "..."]:
        kept = leaf.pattern.mask(weights**2, leaf.sparsity)
        return jnp.where(kept, _tie(leaf, weights, _choose(leaf, weights, kept, fraction)), 0.0)

    return leafwise_projection(plan, nearest)


@memoized
def tied_blocks(fraction: float, *, at: int = 0) -> Reparam:
    """The Reparam that unifies blocks at step `at` and then trains one magnitude for each.

    The choice and the signs are those of `onto_unified`, among the blocks that the masks keep. A
    unified block uses s m with fixed signs s and m = mean(s w); dL/dm = sum(s g) over the block,
    and every w of it gets s dL/dm. `learned` holds s, or 0 where a weight is free; the optimizer
    does not move it. Pruned blocks stay at 0, so that this is the masked retraining after `admm`.

    The loss needs one more line: compute it at `forward(params, opt_state)`.

    Args:
      fraction: unified blocks / kept blocks, in [0, 1].
      at: the step after which blocks are tied; 0 takes them from the first params.

    Example:
      >>> method = sj.one_shot(at=1_000)
      >>> tied = sj.structured.tied_blocks(0.8, at=1_000)
      >>> tx = sj.sparsify(tx, method, plan, key=key, reparam=tied)

    Reference: Lin et al., "Efficient Micro-Structured Weight Unification and Pruning", 2021,
    arXiv 2106.08301. Differs: the paper's retraining of unified blocks is not known to us; this
    is the gradient of its constraint.
    """
    _check_fraction("tied_blocks", fraction)

    def choose(leaf: PlanLeaf, weights: Any, mask: Any) -> Any:
        return _choose(leaf, weights.astype(jnp.float32), mask, fraction)

    def init(params: Any, context: Any) -> Any:
        def start(leaf: PlanLeaf, weights: Any) -> Any:
            if at > 0:
                return jnp.zeros_like(weights, jnp.float32)
            return choose(leaf, weights, weights != 0)

        return map_params(start, context.plan, params)

    def apply(params: Any, masks: Any, learned: Any, context: Any) -> Any:
        def at_leaf(leaf: PlanLeaf, weights: Any, mask: Any, ties: Any) -> Any:
            tied = _tie(leaf, weights.astype(jnp.float32), ties).astype(weights.dtype)
            return jnp.where(mask, tied, weights - jax.lax.stop_gradient(weights))

        return map_weights(at_leaf, context, params, masks, learned)

    def refresh(params: Any, masks: Any, learned: Any, context: Any) -> Any:
        def at_leaf(leaf: PlanLeaf, ties: Any, mask: Any, weights: Any) -> Any:
            fixed = jnp.round(
                ties
            )  # chained with what trains, its optimizer's weight decay has shrunk it
            due = (context.step == at) & (at > 0)
            return jax.lax.cond(due, lambda: choose(leaf, weights, mask), lambda: fixed)

        return map_weights(at_leaf, context, learned, masks, params)

    return Reparam(init, apply, refresh=refresh, trains=False)


class UnifiedStorage(NamedTuple):
    """Blocks by kind and the bits that they take; `dense_bits` is 32 for each weight."""

    num_pruned: int
    num_unified: int
    num_free: int
    bits: int
    dense_bits: int

    @property
    def ratio(self) -> float:
        """Bits / bits of the dense float32 leaves."""
        return self.bits / max(self.dense_bits, 1)


@checked(plan=PLAN)
def unified_storage(params: Any, plan: Plan, *, kind_bits: int = 2) -> UnifiedStorage:
    """What the plan's leaves take when unified blocks store one value and their signs.

    A block of n weights takes 0 bits if it is zero, 32 + n if all |w| are equal, 32 n otherwise,
    and `kind_bits` more to say which.

    Args:
      params: deployed weights, as `harden` gives them.
      plan: names the leaves and their blocks.
      kind_bits: 2, or 0 to count as papers that leave the kinds out.

    Reference: Lin et al., "Efficient Micro-Structured Weight Unification and Pruning", 2021,
    arXiv 2106.08301.
    """
    pruned = unified = free = bits = 0
    for leaf, weights in zip(plan.leaves, by_leaves(params, plan), strict=True):
        sizes = jnp.abs(weights.astype(jnp.float32))
        means = group_means(leaf.pattern, sizes)
        own = spread(leaf.pattern, means, sizes)
        off = (jnp.abs(sizes - own) > 1e-6 * own).astype(jnp.float32)
        num_zero = int(jnp.sum(means == 0))
        num_equal = int(jnp.sum(group_means(leaf.pattern, off) == 0)) - num_zero
        num_other = means.size - num_zero - num_equal
        n = leaf.group_size
        bits += num_equal * (32 + n) + num_other * 32 * n + means.size * kind_bits
        pruned, unified, free = pruned + num_zero, unified + num_equal, free + num_other
    return UnifiedStorage(pruned, unified, free, bits, 32 * plan.num_weights)


def _check_fraction(name: str, fraction: float) -> None:
    if not 0.0 <= fraction <= 1.0:
        raise ValueError(f"{name} needs a fraction of the kept blocks in [0, 1], got {fraction}.")


def _choose(
    leaf: PlanLeaf, weights: Float[Array, "..."], kept: Bool[Array, "..."], fraction: float
) -> Float[Array, "..."]:
    """The signs of that fraction of the kept blocks with the least loss; 0 elsewhere."""
    sizes = jnp.abs(weights)
    means = spread(leaf.pattern, group_means(leaf.pattern, sizes), sizes)
    losses = group_means(leaf.pattern, (sizes - means) ** 2)
    allowed = group_means(leaf.pattern, kept.astype(jnp.float32)) > 0
    num_tied = jnp.floor(fraction * jnp.sum(allowed).astype(jnp.float32) + 0.5).astype(jnp.int32)
    tied = top_k_mask(-losses, num_tied, allowed=allowed)
    signs = jnp.where(weights < 0, -1.0, 1.0)
    return jnp.where(spread(leaf.pattern, tied.astype(jnp.float32), sizes) > 0, signs, 0.0)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _tie(
    leaf: PlanLeaf, weights: Float[Array, "..."], ties: Float[Array, "..."]
) -> Float[Array, "..."]:
    """s mean(s w) over each tied block; the gradient of the mean's value reaches each w, by s."""
    means = spread(leaf.pattern, group_means(leaf.pattern, ties * weights), weights)
    return jnp.where(ties != 0, ties * means, weights)


def _tie_backward(leaf: PlanLeaf, ties: Any, grads: Any) -> tuple[Any, Any]:
    means = spread(leaf.pattern, group_means(leaf.pattern, ties * grads), grads)
    return jnp.where(ties != 0, ties * means * leaf.group_size, grads), jnp.zeros_like(ties)


_tie.defvjp(lambda leaf, weights, ties: (_tie(leaf, weights, ties), ties), _tie_backward)
