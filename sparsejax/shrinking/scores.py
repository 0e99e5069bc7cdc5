"""How much each unit of each group matters, and which ones to keep."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, PRNGKeyArray

from sparsejax.algorithms.before_training.gradient_flow import FlowMeasure
from sparsejax.doors import LOSS, checked
from sparsejax.jaxprs.calibrate import LayerInputs
from sparsejax.jaxprs.widths.groups import ChannelGroup, ChannelGroups
from sparsejax.masks.importance import Loss, hessian_weights, mean_gradient
from sparsejax.masks.scores import random
from sparsejax.top_k import count_pruned
from sparsejax.tree import leaves_with_paths

Scores = dict[str, Float[np.ndarray, " units"]]


def channel_l1() -> FlowMeasure:
    """sum |w| over the weights of a unit; with `leaves="scale"` the scale of its norms alone.

    Reference: Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, arXiv 1608.08710,
    section 3.1; scales: Liu et al., "Learning Efficient Convolutional Networks through Network
    Slimming", ICCV 2017, arXiv 1708.06519.
    """
    return FlowMeasure(lambda params: jax.tree.map(jnp.abs, params), lambda total: total)


def random_units(key: PRNGKeyArray) -> FlowMeasure:
    """Uniform numbers for each weight, summed over a unit: the control of every other measure."""

    def drawn(params: Any) -> Any:
        leaves, treedef = jax.tree.flatten(params)
        keys = jax.random.split(key, len(leaves))
        own = [random(leaf, None, one) for leaf, one in zip(leaves, keys, strict=True)]
        return jax.tree.unflatten(treedef, own)

    return FlowMeasure(jax.jit(drawn), lambda total: total)


@checked(loss=LOSS)
def taylor(loss: Loss, batches: Sequence[Any], *, order: int = 1) -> FlowMeasure:
    """|sum w g|, or to second order |sum (w g - w (H w) / 2)|: the change of loss without a unit.

    Args:
      loss: `f(params, batch) -> scalar`.
      batches: a list of batches of equal shapes.
      order: 1 or 2; 2 takes a product with the Hessian besides the gradient.

    Raises:
      ValueError: another order.

    Reference: Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019,
    arXiv 1906.10771, equations 7 and 8. Differs: not squared, which ranks alike; the product with
    the Hessian is of all weights, not of one unit's alone, so that one product serves for all.
    """
    if order not in (1, 2):
        raise ValueError(f"taylor needs order 1 or 2, got {order!r}.")
    gradient = mean_gradient(loss, batches)
    curved = hessian_weights(loss, batches) if order == 2 else None

    def change(params: Any) -> Any:
        first = jax.tree.map(jnp.multiply, params, gradient(params))
        if curved is None:
            return first
        return jax.tree.map(lambda own, w, h: own - w * h / 2, first, params, curved(params))

    return FlowMeasure(jax.jit(change), jnp.abs)


def channel_scores(
    groups: ChannelGroups, params: Any, measure: FlowMeasure, *, leaves: str = ""
) -> Scores:
    """The importance of every unit that can be removed, by the name of its group.

    Args:
      groups: of `sj.channel_groups`.
      params: of the network.
      measure: `sj.structured.channel_l1()`, `taylor(...)`, `random_units(key)`, or one of
        `sj.before.flow_magnitude()`, which is the L2 norm, to `flow_gradient_preserving(...)`.
      leaves: a regular expression of the paths that count; "" for all arrays of two axes or more.

    Raises:
      ValueError: no leaf of a group counts.

    Example:
      >>> groups = sj.channel_groups(model.apply, params, x)
      >>> scores = sj.channel_scores(groups, params, sj.structured.channel_l1())
      >>> scores["body/kernel"]
      array([4., 4., 4., 4.])
    """
    values = {
        path: np.asarray(leaf, np.float64)
        for path, leaf in leaves_with_paths(measure.weights(params))
        if (re.search(leaves, path) if leaves else np.ndim(leaf) > 1)
    }
    sums = {group.name: _summed(group, values, leaves) for group in groups.prunable}
    together = np.concatenate([*sums.values(), np.zeros(0)])
    found = np.asarray(measure.of_sum(together), np.float64)  # one program for all groups
    ends = np.cumsum([len(own) for own in sums.values()])
    return dict(zip(sums, np.split(found, ends[:-1]), strict=True)) if sums else {}


def _summed(group: ChannelGroup, values: Mapping[str, np.ndarray], leaves: str) -> np.ndarray:
    own = [
        np.moveaxis(values[path], axis, 0).reshape(values[path].shape[axis], -1).sum(1)[units]
        for path, axis, units in group.places
        if path in values
    ]
    if not own:
        raise ValueError(
            f"{group.name}: channel_scores needs a leaf of each group that matches {leaves!r}, got "
            f"{', '.join(place.path for place in group.places)}; widen leaves."
        )
    return np.sum([part.reshape(group.size, -1).sum(1) for part in own], axis=0)


def activation_scores(
    groups: ChannelGroups, params: Any, calibration: Mapping[str, LayerInputs]
) -> Scores:
    """The sum of squares of what each unit gives to the layers behind it, on calibration data.

    Groups whose channels go into no calibrated layer are left out.

    Args:
      groups: of `sj.channel_groups`.
      params: of the network.
      calibration: of `sj.post.calibrate`, with a plan of the layers that use the channels.

    Reference: Hu et al., "Network Trimming", 2016, arXiv 1607.03250, section 3.1: channels by their
    activations. Differs: squares, where the paper counts zeros.
    """
    shapes = {path: np.shape(leaf) for path, leaf in leaves_with_paths(params)}
    scores: Scores = {}
    for group in groups.prunable:
        for path, axis, units in group.places:
            if path not in calibration:
                continue
            squares = _along_inputs(calibration[path], shapes[path], axis)
            if squares is not None:
                scores[group.name] = scores.get(group.name, 0.0) + squares[units].sum(1)
    return scores


def _along_inputs(
    layer: LayerInputs, shape: tuple[int, ...], axis: int
) -> Float[np.ndarray, " positions"] | None:
    """The mean squares of the inputs at each position of an axis; None if it is one of outputs."""

    def as_leaf(numbers: np.ndarray) -> np.ndarray:
        spread = np.broadcast_to(numbers[:, None], layer.positions.shape)
        return layer.from_matrices(spread, shape)

    which = as_leaf(np.arange(layer.squares.size).reshape(layer.squares.shape))
    if not (np.diff(which, axis=axis) != 0).any():
        return None
    return np.moveaxis(as_leaf(layer.squares), axis, 0).reshape(shape[axis], -1).mean(1)


def best_channels(
    groups: ChannelGroups,
    scores: Mapping[str, Float[np.ndarray, " units"]],
    sparsity: float,
    *,
    globally: bool = False,
    multiple: int = 8,
    minimum: float = 0.1,
) -> dict[str, Bool[np.ndarray, " units"]]:
    """Which units stay, for `shrink`: those of the highest scores.

    Groups that are nested in each other, as heads and their width, each lose the fraction: their
    product loses more. Leave a group out of the scores, and it stays whole.

    Args:
      groups: of `sj.channel_groups`.
      scores: of `channel_scores`, by the group's name.
      sparsity: fraction of the units that go, in [0, 1).
      globally: rank all units together, scores divided by their mean in a group; else each group
        loses the same fraction.
      multiple: widths of axes are rounded to multiples of it, which kernels like; groups that are
        no wider stay whole.
      minimum: fraction of a group that always stays, and one unit.

    Raises:
      ValueError: sparsity or minimum is not in [0, 1), or multiple < 1.

    Example:
      >>> groups = sj.channel_groups(model.apply, params, x)
      >>> scores = {"body/kernel": jnp.array([3.0, 1.0, 2.0, 4.0])}
      >>> sj.structured.best_channels(groups, scores, 0.5, multiple=1)
      {'body/kernel': array([ True, False, False,  True])}
    """
    if not (0 <= sparsity < 1 and 0 <= minimum < 1 and multiple >= 1):
        raise ValueError(
            "best_channels needs sparsity and minimum in [0, 1) and a multiple >= 1, got "
            f"{sparsity}, {minimum} and {multiple}."
        )
    own = {name: np.asarray(values, np.float64) for name, values in scores.items()}
    least = {name: max(1, math.ceil(minimum * len(values))) for name, values in own.items()}
    counts = _kept_globally(own, sparsity, least) if globally else _kept_each(own, sparsity, least)
    return {
        name: _highest(values, _rounded(counts[name], groups[name], multiple))
        for name, values in own.items()
    }


def _kept_each(
    scores: Mapping[str, np.ndarray], sparsity: float, least: Mapping[str, int]
) -> dict[str, int]:
    size = lambda own: len(own) - int(count_pruned(sparsity, len(own)))
    return {name: max(size(own), least[name]) for name, own in scores.items()}


def _kept_globally(
    scores: Mapping[str, np.ndarray], sparsity: float, least: Mapping[str, int]
) -> dict[str, int]:
    counts = {name: len(own) for name, own in scores.items()}
    left = int(count_pruned(sparsity, sum(counts.values())))
    ranked = [
        (value / max(np.abs(own).mean(), 1e-30), name)
        for name, own in scores.items()
        for value in own
    ]
    for _, name in sorted(ranked):
        if left and counts[name] > least[name]:
            counts[name] -= 1
            left -= 1
    return counts


def _rounded(count: int, group: ChannelGroup, multiple: int) -> int:
    """The nearest number of units whose positions are a multiple, or all."""
    each = group.places[0].positions.shape[1]
    step = multiple // math.gcd(multiple, each)
    below = count // step * step
    near = [min(max(own, step), group.size) for own in (below + step, below)]
    return min(near, key=lambda own: abs(own - count))


def _highest(scores: np.ndarray, count: int) -> np.ndarray:
    keep = np.zeros(len(scores), bool)
    keep[np.argsort(-scores, kind="stable")[:count]] = True
    return keep
