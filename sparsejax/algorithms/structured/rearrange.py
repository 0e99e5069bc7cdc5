"""Whole-network rearrangement: channels in an order in which groups of them prune well."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from sparsejax import arrays, tree
from sparsejax.doors import FUNCTION, PLAN, checked
from sparsejax.jaxprs.widths.groups import ChannelGroup, channel_groups
from sparsejax.patterns import Block, KernelGroup, Pattern
from sparsejax.patterns.pattern import Neighbours
from sparsejax.plans.leaf import PlanLeaf
from sparsejax.plans.plan import Plan


@checked(apply_fn=FUNCTION, plan=PLAN)
def rearrange(apply_fn: Callable[..., Any], params: Any, plan: Plan, *example: Any) -> Any:
    """The params with their channels in another order, in which the function does the same.

    Neighbouring output channels that use the same inputs can be pruned as a group at little loss.
    Each group of channels whose order is free (`sj.channel_groups`) is ordered so that the planned
    leaves that produce it keep the most magnitude in their pattern at their target: channel by
    channel joins the one group to whose kept inputs it loses least. An order that does not keep
    more than the old one is not taken. Do it on the dense network, then prune.

    Args:
      apply_fn: a pure function of the params, in inference mode, before `accelerate`.
      params: all variables that go with channels: weights, and the statistics of batch norms, too.
      plan: made for these params; leaves count whose outputs share groups: `Block`,
        `BlockColumnRow` and `KernelGroup`.
      example: inputs, or their shapes.

    Raises:
      ValueError: one of these leaves is a layer of a stack.

    Example:
      >>> blocks = sj.plan(params, {"body": sj.Block(2, 1)}, sparsity=0.5)
      >>> params = sj.structured.rearrange(model.apply, params, blocks, x)

    Differs: the paper's way to find the order is not public; the greedy search is ours.

    Reference: Xu et al., "SparseByteNN: A Novel Mobile Inference Acceleration Framework Based on
    Fine-Grained Group Sparsity", 2023, arXiv 2310.19509, abstract: whole-network rearrangement.
    """
    for leaf in plan.leaves:
        if leaf.at and leaf.pattern.neighbours():
            raise ValueError(
                f"rearrange needs layers in arrays of their own, {leaf.path} is one of a stack: "
                "write the layers out, or pass a plan without them."
            )
    arrays = dict(tree.leaves_with_paths(params))
    moves: dict[str, dict[int, Int[np.ndarray, " channels"]]] = {}
    for group in channel_groups(apply_fn, params, *example):
        order = None if group.reason else _best_order(group, plan, arrays)
        if order is None:
            continue
        for path, axis, positions in group.places:
            axes = moves.setdefault(path, {})
            new = axes.setdefault(axis, np.arange(np.shape(arrays[path])[axis]))
            new[positions] = new[positions[order]]

    def reordered(path: str, leaf: Any) -> Any:
        if path not in moves:
            return leaf
        array = np.asarray(leaf)  # in NumPy: XLA would compile a gather for each shape
        for axis, order in moves[path].items():
            array = array.take(order, axis)
        return jnp.asarray(array)

    return tree.map_with_paths(reordered, params)


def operator_patterns(
    params: Any, *, rows: Sequence[int] = (16, 8, 4), kernels: Sequence[int] = (8, 4)
) -> dict[str, Pattern]:
    """Rules for `plan` that give each kind of operator its pattern, by the shapes of flax kernels.

    Dense layers and 1x1 convolutions get `Block(r, 1)`, larger convolutions `KernelGroup(g)`, each
    with the first size that divides its outputs; depthwise convolutions and what no size fits stay
    dense, and so do leaves that are no matrices.

    Args:
      params: of the network.
      rows: sizes for dense layers and 1x1 convolutions.
      kernels: sizes for larger convolutions.

    Reference: Xu et al., "SparseByteNN", 2023, arXiv 2310.19509, abstract: sparsity patterns for
    different operators. Differs: the sizes are ours.
    """
    rules: dict[str, Pattern] = {}
    for path, leaf in tree.leaves_with_paths(params):
        shape = tuple(getattr(leaf, "shape", ()))
        if len(shape) not in (2, 4) or (len(shape) == 4 and shape[2] == 1 and shape[3] > 1):
            continue
        pointwise = shape[:-2] in ((), (1, 1))
        fitting = [size for size in (rows if pointwise else kernels) if shape[-1] % size == 0]
        if fitting:
            rules[f"^{path}$"] = Block(fitting[0], 1) if pointwise else KernelGroup(fitting[0])
    return rules


def _best_order(
    group: ChannelGroup, plan: Plan, arrays: Mapping[str, Any]
) -> Int[np.ndarray, " channels"] | None:
    """An order that keeps more than the present one, if one is found."""
    whole = [
        (path, axis)
        for path, axis, positions in group.places
        if positions.size == np.shape(arrays[path])[axis] == group.size
    ]
    makers = [leaf for path, axis in whole for leaf in plan.slices(path) if _produces(leaf, axis)]
    if not makers:
        return None
    scores = [_channel_scores(leaf, arrays[leaf.path]) for leaf in makers]
    size = max(_neighbours(leaf).size for leaf in makers)
    order = _clustered(scores, [1 - leaf.sparsity for leaf in makers], size)
    kept = lambda order: sum(_kept(leaf, arrays[leaf.path], order) for leaf in makers)
    return order if kept(order) > kept(np.arange(len(order))) else None


def _produces(leaf: PlanLeaf, axis: int) -> bool:
    shared = leaf.pattern.neighbours()
    return shared is not None and shared.axis % len(leaf.shape) == axis


def _neighbours(leaf: PlanLeaf) -> Neighbours:
    shared = leaf.pattern.neighbours()
    assert shared is not None
    return shared


def _channel_scores(leaf: PlanLeaf, weights: Any) -> Float[np.ndarray, "channels groups"]:
    """The magnitude of each output channel in each of the groups that its inputs make."""
    _, axis, alone = _neighbours(leaf)
    scores = np.asarray(alone.group_scores(np.abs(np.asarray(weights, np.float32))))
    matrix = arrays.as_matrix(scores, axis)
    return matrix / max(matrix.sum(), np.finfo(np.float32).tiny)


def _clustered(
    scores: Sequence[Float[np.ndarray, "channels groups"]], densities: Sequence[float], size: int
) -> Int[np.ndarray, " channels"]:
    """Groups of `size` channels, one after the other: the largest one left, then whom it suits."""
    wanted = [max(round(d * s.shape[1]), 1) for s, d in zip(scores, densities, strict=True)]
    best = sum(_largest(s, k) for s, k in zip(scores, wanted, strict=True))
    left = np.ones(len(scores[0]), bool)
    order: list[int] = []
    while left.any():
        member = int(np.argmax(np.where(left, best, -np.inf)))
        totals = [np.zeros(s.shape[1], np.float32) for s in scores]
        for place in range(min(size, int(left.sum()))):
            if place:  # the one that loses least with the inputs that the group keeps so far
                kept = sum(
                    s[:, _top(t, k)].sum(1) for s, t, k in zip(scores, totals, wanted, strict=True)
                )
                member = int(np.argmin(np.where(left, best - kept, np.inf)))
            order.append(member)
            left[member] = False
            totals = [total + s[member] for total, s in zip(totals, scores, strict=True)]
    return np.array(order)


def _top(totals: Float[np.ndarray, " groups"], count: int) -> Int[np.ndarray, " count"]:
    return np.argpartition(totals, len(totals) - count)[len(totals) - count :]


def _largest(
    scores: Float[np.ndarray, "channels groups"], count: int
) -> Float[np.ndarray, " channels"]:
    """What each channel keeps with its own best groups."""
    return np.partition(scores, scores.shape[1] - count, axis=1)[:, -count:].sum(1)


def _kept(leaf: PlanLeaf, weights: Any, order: Int[np.ndarray, " channels"]) -> float:
    """The fraction of the leaf's magnitude that its pattern keeps in this order."""
    magnitudes = np.abs(np.asarray(weights, np.float32))
    scores = magnitudes.take(order, _neighbours(leaf).axis)
    mask = np.asarray(leaf.pattern.mask(jnp.asarray(scores), leaf.sparsity))
    return scores.sum(where=mask, dtype=np.float64) / max(scores.sum(dtype=np.float64), 1e-30)
