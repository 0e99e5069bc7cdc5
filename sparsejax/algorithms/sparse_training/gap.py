"""Scheduled grow-and-prune (GaP): part after part, or all in parallel, trains dense for a while."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Int

from sparsejax.doors import PLAN, checked
from sparsejax.masks.initial import InitialMasks, by_leaves, masks_of_leaves
from sparsejax.masks.prune_and_grow import start
from sparsejax.masks.scores import magnitude
from sparsejax.masks.transforms import MaskContext, MaskTransform, chain
from sparsejax.masks.transforms import every as at_every
from sparsejax.patterns.stacked import from_slices, take
from sparsejax.plans.leaf import PlanLeaf
from sparsejax.plans.plan import Plan
from sparsejax.plans.planned_leaves import each_leaf
from sparsejax.tree import map_with_paths


def gap(num_parts: int, *, every: int, rounds: int = 1) -> MaskTransform:
    """Cyclic grow-and-prune (C-GaP): one part of the network at a time is dense, in turn.

    Starts at the target by magnitude. In phase s = 0, 1, ... part s mod num_parts is grown to dense
    (from zeros, with zero moments), and the part of the phase before is pruned back to its target
    by magnitude; after `rounds` times all parts the masks stay. Peak memory is the sparse network
    and one dense part.

    The paper restarts the learning rate with each phase: without that a grown part hardly moves, so
    give the optimizer a schedule of period `every`, or keep the rate high while parts grow.

    Args:
      num_parts: kappa; parts are the plan's leaves in order, cut where their numbers of weights are
        about equal (`gap_parts`).
      every: steps of a phase; 30 epochs in the paper.
      rounds: how often each part grows; 28 phases of 4 parts, 7 rounds, in the paper.

    Raises:
      ValueError: num_parts, every or rounds < 1, or the plan has fewer leaves than parts.

    Reference: Ma, Qin, Sun et al., "Effective Model Sparsification by Scheduled Grow-and-Prune
    Methods", ICLR 2022, arXiv 2106.09857, cyclic GaP; as in the authors' code.
    """
    if min(num_parts, every, rounds) < 1:
        raise ValueError(
            "gap needs num_parts, every and rounds of at least 1, "
            f"got num_parts={num_parts}, every={every}, rounds={rounds}."
        )
    num_phases = num_parts * rounds

    def update(
        masks: Any, state: Any, params: Any, grads: Any, context: MaskContext
    ) -> tuple[Any, Any]:
        parts = gap_parts(context.plan, num_parts)
        phase = context.step // every
        grown = jnp.where(phase < num_phases, phase % num_parts, -1)

        def cut(leaf: PlanLeaf, mask: Any, weights: Any, key: Any) -> Any:
            target = leaf.pattern.mask(jnp.abs(weights), leaf.sparsity, allowed=mask) & mask
            return (grown == parts[leaf.path]) | target

        cuts = each_leaf(cut, context, masks, params)
        return masks_of_leaves(masks, context.plan, cuts), state

    grow_and_prune = MaskTransform(lambda masks, params, context: (masks, ()), update)
    return chain(start(magnitude), at_every(every, grow_and_prune, end=num_phases * every))


def grown_part(part: int | Int[Array, ""], num_parts: int) -> InitialMasks:
    """Initial masks of copy `part` in parallel grow-and-prune (P-GaP): that part dense.

    The others are at their targets by magnitude. Copies differ in `part` alone, which may be
    traced: train them under `jax.vmap` or, one on a device, under `jax.shard_map`, and put them
    together with `combine_parts`; that is one round of the paper.

    Example:
      >>> def trained(part, params):
      ...     masks = sj.sparse_training.grown_part(part, 2)
      ...     own = sj.sparsify(optax.sgd(0.1), sj.chain(), plan, key=key, initial_masks=masks)
      ...     updates, _ = own.update(params, own.init(params), params)  # many steps of training
      ...     return optax.apply_updates(params, updates)
      >>> plan = sj.plan(params, {"kernel": sj.Unstructured()}, sparsity=0.5)
      >>> copies = jax.vmap(trained, in_axes=(0, None))(jnp.arange(2), params)
      >>> params = sj.sparse_training.combine_parts(copies, plan, 2)

    Reference: Ma, Qin, Sun et al., "Effective Model Sparsification by Scheduled Grow-and-Prune
    Methods", ICLR 2022, arXiv 2106.09857, parallel GaP.
    """

    def initial(params: Any, plan: Plan) -> Any:
        parts = gap_parts(plan, num_parts)

        def mask(leaf: PlanLeaf, weights: Any) -> Any:
            target = leaf.pattern.mask(jnp.abs(weights), leaf.sparsity)
            return (part == parts[leaf.path]) | target

        leaves = zip(plan.leaves, by_leaves(params, plan), strict=True)
        return masks_of_leaves(params, plan, [mask(*own) for own in leaves])

    return initial


@checked(plan=PLAN)
def combine_parts(copies: Any, plan: Plan, num_parts: int) -> Any:
    """The params of P-GaP's copies in one: part i of copy i, pruned to its target by magnitude.

    Args:
      copies: the params with a leading axis of length num_parts, one copy an index.
      plan: as that of the training.
      num_parts: kappa.

    Differs: leaves outside the plan, which every copy trained, are averaged.

    Reference: Ma, Qin, Sun et al., "Effective Model Sparsification by Scheduled Grow-and-Prune
    Methods", ICLR 2022, arXiv 2106.09857, parallel GaP.
    """
    parts = gap_parts(plan, num_parts)

    def combined(path: str, stacked: Any) -> Any:
        if stacked.shape[0] != num_parts:
            raise ValueError(
                f"{path}: combine_parts needs a leading axis of {num_parts} copies, got shape "
                f"{stacked.shape}."
            )
        leaves = plan.slices(path)
        if not leaves:
            return stacked.mean(0)
        own = [take(leaf, stacked[parts[leaf.path]]) for leaf in leaves]
        return from_slices(leaves, [pruned(*pair) for pair in zip(leaves, own, strict=True)])

    def pruned(leaf: PlanLeaf, weights: Any) -> Any:
        return jnp.where(leaf.pattern.mask(jnp.abs(weights), leaf.sparsity), weights, 0)

    return map_with_paths(combined, copies)


@checked(plan=PLAN)
def gap_parts(plan: Plan, num_parts: int) -> dict[str, int]:
    """The part of each planned leaf, 0..num_parts - 1: contiguous, of about equal sizes.

    Raises:
      ValueError: the plan has fewer leaves than parts.

    Reference: Ma, Qin, Sun et al., "Effective Model Sparsification by Scheduled Grow-and-Prune
    Methods", ICLR 2022, arXiv 2106.09857; contiguous in depth as in the authors' code.
    """
    num_leaves = len(plan.leaves)
    if num_leaves < num_parts:
        raise ValueError(
            f"gap needs a leaf for each part, got {num_leaves} leaves in the plan for {num_parts} "
            "parts; lower num_parts."
        )
    parts: dict[str, int] = {}
    before, part = 0, -1
    for index, leaf in enumerate(plan.leaves):
        middle = num_parts * (before + leaf.num_weights / 2) / plan.num_weights
        # No part may be left out, here or among the leaves to come.
        part = min(max(int(middle), part, num_parts - num_leaves + index), part + 1)
        parts[leaf.path] = part
        before += leaf.num_weights
    return parts
