"""Channels pruned in training: one mask for all leaves that make the channels of a group."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.doors import SCHEDULE, SCORE, checked
from sparsejax.jaxprs.widths.groups import ChannelGroup, ChannelGroups
from sparsejax.masks.scores import magnitude
from sparsejax.masks.transforms import MaskContext, MaskTransform, Schedule, Score
from sparsejax.plans.leaf import PlanLeaf
from sparsejax.plans.plan import Plan
from sparsejax.top_k import count_pruned, top_k_mask
from sparsejax.tree import leaves_with_paths, map_with_paths


class Member(NamedTuple):
    """A planned leaf that holds channels of a group, along an axis; unit i is at `units[i]`."""

    leaf: PlanLeaf
    axis: int
    units: np.ndarray


def planned_groups(
    groups: ChannelGroups, plan: Plan
) -> Iterator[tuple[ChannelGroup, list[Member], float]]:
    """The groups that can lose channels with their planned leaves, and the highest sparsity."""
    for group in groups.prunable:
        members = []
        for path, axis, units in group.places:
            for leaf in plan.slices(path):
                along = leaf.pattern.orientation()
                if along is None or along.option != "axis" or leaf.at:
                    continue
                if along.axis % len(leaf.shape) == axis:
                    members.append(Member(leaf, axis, units.astype(np.int32)))
        if members:
            yield group, members, max(member.leaf.sparsity for member in members)


@checked(score=SCORE, ramp=SCHEDULE)
def prune_channels(
    groups: ChannelGroups, ramp: Schedule, *, score: Score = magnitude
) -> MaskTransform:
    """Prunes whole units of each group to `ramp(step)` times its target, in all planned leaves.

    The leaves of a group, such as the convolutions that a residual sum joins, share one mask: the
    score of a unit is the sum over them, their target the highest in the plan. What `shrink` then
    cuts is all that is pruned. It goes into `sj.every` and `sj.sparsify` like `sj.prune`.

    Args:
      groups: of `sj.channel_groups`, for the params that are trained.
      ramp: step -> 0..1.
      score: `f(weights, grads, key) -> scores`, the highest are kept.

    Raises:
      ValueError: a planned leaf is along no group that can lose channels.

    Example:
      >>> groups = sj.channel_groups(model.apply, params, x)
      >>> plan = sj.plan(params, {"body": sj.Channel()}, sparsity=0.5)
      >>> method = sj.structured.prune_channels(groups, sj.schedules.cubic(0, 100))
      >>> tx = sj.sparsify(optax.adam(1e-3), sj.every(10, method, end=100), plan, key=key)
    """

    def init(masks: Any, params: Any, context: MaskContext) -> tuple[Any, Any]:
        known = {
            member.leaf.path
            for _, members, _ in planned_groups(groups, context.plan)
            for member in members
        }
        for leaf in context.plan.leaves:
            if leaf.path not in known:
                raise ValueError(
                    f"{leaf.path}: prune_channels needs leaves that are planned along a group that "
                    f"can lose channels, got {leaf.pattern}; print sj.channel_groups(...)."
                )
        return masks, ()

    def update(
        masks: Any, state: Any, params: Any, grads: Any, context: MaskContext
    ) -> tuple[Any, Any]:
        own = [dict(leaves_with_paths(tree)) for tree in (masks, params, grads)]
        new: dict[str, Any] = {}
        for index, (group, members, sparsity) in enumerate(planned_groups(groups, context.plan)):
            key = jax.random.fold_in(context.key, index)
            scores = sum(_by_unit(m, score(own[1][_at(m)], own[2][_at(m)], key)) for m in members)
            # A unit that any member still keeps may stay: masks of a group are made equal here.
            kept = sum(_by_unit(m, own[0][_at(m)].astype(jnp.float32)) for m in members) > 0
            pruned = count_pruned(ramp(context.step) * sparsity, group.size)
            count = jnp.maximum(group.size - pruned, 1)
            units = top_k_mask(scores, count, allowed=kept) & kept
            new |= {_at(m): own[0][_at(m)] & _along(m, units) for m in members}
        return map_with_paths(lambda path, mask: new.get(path, mask), masks), state

    return MaskTransform(init, update)


def _at(member: Member) -> str:
    return member.leaf.path


def _by_unit(member: Member, values: Any) -> Any:
    """The sum over each unit's weights."""
    others = tuple(axis for axis in range(values.ndim) if axis != member.axis)
    return values.astype(jnp.float32).sum(others)[member.units].sum(1)


def _along(member: Member, units: Any) -> Any:
    """A mask that says for each position of the axis whether its unit stays."""
    size = member.leaf.shape[member.axis]
    own = jnp.ones(size, bool).at[member.units].set(units[:, None])
    shape = [1] * len(member.leaf.shape)
    shape[member.axis] = size
    return own.reshape(shape)
