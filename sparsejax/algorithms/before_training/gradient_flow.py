"""The gradient-flow framework: filters ranked by time derivatives of the params' norm."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sparsejax.masks.global_threshold import cut_globally
from sparsejax.masks.importance import (
    Loss,
    Measure,
    gradient_norm,
    loss_based,
    mean_gradient,
)
from sparsejax.masks.initial import by_leaves, masks_of_leaves
from sparsejax.masks.transforms import MaskContext, MaskTransform
from sparsejax.masks.transforms import every as at_every
from sparsejax.patterns import Unstructured
from sparsejax.plans.leaf import PlanLeaf
from sparsejax.plans.planned_leaves import each_leaf
from sparsejax.reparams.soft_masks import spread
from sparsejax.top_k import top_k_mask


class FlowMeasure(NamedTuple):
    """The importance of a filter: a value of each weight, and a function of a filter's sum."""

    weights: Measure
    of_sum: Callable[[Any], Any]


def flow_magnitude() -> FlowMeasure:
    """Order 0: the norm of the filter, sqrt(sum w^2).

    Reference: Lubana and Dick, "A Gradient Flow Framework for Analyzing Network Pruning",
    ICLR 2021, arXiv 2009.11839; formula as in the authors' code.
    """
    return FlowMeasure(lambda params: jax.tree.map(jnp.square, params), jnp.sqrt)


def flow_loss(loss: Loss, batches: Sequence[Any]) -> FlowMeasure:
    """Order 1, loss preservation: sum |w * g|; logits / 5 in the paper's code.

    Reference: Lubana and Dick, "A Gradient Flow Framework for Analyzing Network Pruning",
    ICLR 2021, arXiv 2009.11839; formula as in the authors' code.
    """
    return FlowMeasure(loss_based(loss, batches), lambda value: value)


def flow_biased_loss(loss: Loss, batches: Sequence[Any]) -> FlowMeasure:
    """The paper's first extension, loss preservation biased by magnitude: sum |w| * |w * g|.

    Reference: Lubana and Dick, "A Gradient Flow Framework for Analyzing Network Pruning",
    ICLR 2021, arXiv 2009.11839; formula as in the authors' code.
    """
    gradient = mean_gradient(loss, batches)
    biased = lambda params: jax.tree.map(lambda w, g: w * w * jnp.abs(g), params, gradient(params))
    return FlowMeasure(biased, lambda value: value)


def flow_gradient_norm(loss: Loss, batches: Sequence[Any]) -> FlowMeasure:
    """Order 2, GraSP for filters: sum w * (H g), signed; logits / 200 in the paper's code.

    Reference: Lubana and Dick, "A Gradient Flow Framework for Analyzing Network Pruning",
    ICLR 2021, arXiv 2009.11839; formula as in the authors' code.
    """
    return FlowMeasure(gradient_norm(loss, batches), lambda value: value)


def flow_gradient_preserving(loss: Loss, batches: Sequence[Any]) -> FlowMeasure:
    """The paper's second extension, preserving the norm of the gradient: |sum w * (H g)|.

    Reference: Lubana and Dick, "A Gradient Flow Framework for Analyzing Network Pruning",
    ICLR 2021, arXiv 2009.11839; formula as in the authors' code.
    """
    return FlowMeasure(gradient_norm(loss, batches), jnp.abs)


def gradient_flow(
    measure: FlowMeasure, *, every: int, rounds: int = 1, protected: float = 0.05
) -> MaskTransform:
    """Prunes filters early in training, in rounds, lowest importance in the network first.

    Round i = 1..n, at step i * every, leaves n (1 - p) / (i p + n (1 - p)) of the filters, p the
    plan's sparsity: it takes r_i = p / (i p + n (1 - p)) of those that were left. Every leaf of the
    plan counts by its groups, whatever their size: give it `sj.Channel()`. What the measure needs
    of the loss and its batches is part of the compiled update and is computed in rounds only.

    Args:
      measure: such as `flow_magnitude()` or `flow_biased_loss(loss, batches)`, with 20 batches of
        128 in the paper's code.
      every: steps of a round, one epoch in the paper's code.
      rounds: n; 1, 5 and 25 in the paper.
      protected: a leaf keeps its int(protected * filters) + 1 best, whatever the threshold.

    Raises:
      ValueError: every or rounds < 1, or protected is not in [0, 1).

    Differs: the best filters of a layer are protected, where the paper's code protects those with
    the highest index; normalisation after a pruned filter stays, so that its shift still passes.

    Reference: Lubana and Dick, "A Gradient Flow Framework for Analyzing Network Pruning",
    ICLR 2021, arXiv 2009.11839; protocol as in the authors' code.
    """
    if min(every, rounds) < 1 or not 0.0 <= protected < 1.0:
        raise ValueError(
            "gradient_flow needs every >= 1, rounds >= 1 and protected in [0, 1), "
            f"got every={every}, rounds={rounds}, protected={protected}."
        )

    def update(
        masks: Any, state: Any, params: Any, grads: Any, context: MaskContext
    ) -> tuple[Any, Any]:
        def ranked(leaf: PlanLeaf, mask: Any, values: Any, key: Any) -> Any:
            filters = jnp.asarray(leaf.pattern.group_scores(values.astype(jnp.float32)))
            kept = jnp.asarray(leaf.pattern.group_scores(mask.astype(jnp.float32))) > 0
            importance = measure.of_sum(filters)
            best = top_k_mask(importance, int(protected * filters.size) + 1, allowed=kept)
            return jnp.where(best & kept, jnp.inf, importance), kept

        leaves = context.plan.leaves
        pairs = each_leaf(ranked, context, masks, measure.weights(params))
        scores, kept = zip(*pairs, strict=True)
        fraction = _fraction(context.step // every, rounds, context.plan.sparsity)
        cut = cut_globally([_of_filters(leaf) for leaf in leaves], scores, kept, fraction)

        def left(leaf: PlanLeaf, mask: Any, groups: Any) -> Any:
            return mask & (spread(leaf.pattern, groups.astype(jnp.float32), mask) > 0)

        parts = zip(leaves, by_leaves(masks, context.plan), cut, strict=True)
        return masks_of_leaves(masks, context.plan, [left(*own) for own in parts]), state

    rank_and_prune = MaskTransform(lambda masks, params, context: (masks, ()), update)
    return at_every(every, rank_and_prune, begin=every, end=rounds * every)


def _fraction(index: Any, rounds: int, sparsity: float) -> Float[Array, ""]:
    """What is pruned after round `index`, as a fraction of the target."""
    index = jnp.asarray(index, jnp.float32)
    left = rounds * (1.0 - sparsity) / (index * sparsity + rounds * (1.0 - sparsity))
    return (1.0 - left) / max(sparsity, 1e-12)


def _of_filters(leaf: PlanLeaf) -> PlanLeaf:
    """The leaf as if each of its groups were one weight."""
    shape = (leaf.pattern.num_groups(leaf.shape),)
    return replace(leaf, shape=shape, pattern=Unstructured())
