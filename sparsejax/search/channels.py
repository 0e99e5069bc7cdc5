"""AMC's problem: which fraction of each group's channels stays, within a budget."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from sparsejax.doors import FUNCTION, checked
from sparsejax.jaxprs.multiply_adds import multiply_adds
from sparsejax.jaxprs.widths.groups import ChannelGroup, ChannelGroups, channel_groups
from sparsejax.search.layers import WeightLayer, weight_layers
from sparsejax.search.space import Choice, Interval, Space
from sparsejax.shrinking.cut import positions, zeroed
from sparsejax.shrinking.scores import Scores
from sparsejax.tree import leaves_with_paths

Widths = Mapping[str, int]


@dataclass(frozen=True)
class WidthCosts:
    """What a network costs with fewer channels, without making it.

    Attributes:
      groups: of `sj.channel_groups`.
      counts: the multiply-adds of each leaf, all of its channels there.
      shapes: of the leaves.
    """

    groups: ChannelGroups
    counts: Mapping[str, int]
    shapes: Mapping[str, tuple[int, ...]]

    def multiply_adds(self, widths: Widths) -> float:
        """Of the network whose groups have these widths; groups that are not named stay whole."""
        left = self._left(widths)
        return float(sum(count * left.get(path, 1.0) for path, count in self.counts.items()))

    def parameters(self, widths: Widths) -> float:
        """Numbers in its params."""
        left = self._left(widths)
        sizes = {path: math.prod(shape) for path, shape in self.shapes.items()}
        return float(sum(size * left.get(path, 1.0) for path, size in sizes.items()))

    def _left(self, widths: Widths) -> dict[str, float]:
        """The fraction of each leaf that is left, the product over its axes."""
        gone: dict[tuple[str, int], int] = {}
        nested: dict[tuple[str, int], float] = {}
        for name, width in widths.items():
            group = self.groups[name]
            for path, axis, units in group.places:
                key, size = (path, axis), self.shapes[path][axis]
                gone[key] = gone.get(key, 0) + (group.size - width) * units.shape[1]
                if units.size == size:  # of heads and their width, each has the whole axis
                    nested[key] = nested.get(key, 1.0) * width / group.size
        left: dict[str, float] = {}
        for (path, axis), own in gone.items():
            size = self.shapes[path][axis]
            left[path] = left.get(path, 1.0) * nested.get((path, axis), 1.0 - own / size)
        return left


def width_costs(apply_fn: Callable[..., Any], params: Any, *example: Any) -> WidthCosts:
    """The costs of a network as a function of the widths of its groups.

    Args:
      apply_fn, params, example: as for `sj.channel_groups`; shapes do.

    Example:
      >>> costs = sj.search.width_costs(model.apply, params, x)
      >>> costs.multiply_adds({}), costs.multiply_adds({"body/kernel": 2})
      (120.0, 60.0)
    """
    groups = channel_groups(apply_fn, params, *example)
    counts = multiply_adds(apply_fn, params, *example)
    arrays = leaves_with_paths(params)
    shapes = {path: tuple(leaf.shape) for path, leaf in arrays if hasattr(leaf, "shape")}
    return WidthCosts(groups, counts, shapes)


@dataclass(frozen=True)
class ChannelSearch:
    """The choice of a width for each group, one after the other, within a budget.

    Attributes:
      groups: those that are searched, in the order of the function.
      costs: what a network of some widths costs; it must not fall with any of them.
      limit: of the costs.
      options: the widths that each group may have, ascending.
      layers: the one behind each group, of which an agent sees the sizes.
    """

    groups: tuple[ChannelGroup, ...]
    costs: Callable[[Widths], float]
    limit: float
    options: Mapping[str, tuple[int, ...]]
    layers: tuple[WeightLayer, ...]

    @property
    def space(self) -> Space:
        """A fraction of channels that stay, for each group."""
        return {
            group.name: Interval(self.options[group.name][0] / group.size, 1.0)
            for group in self.groups
        }

    def widths(self, choice: Choice) -> dict[str, int]:
        """What is left of each group: the fraction asked for, or less where the budget wants it.

        The action wall: a group gets the widest option, up to the one next above its fraction, that
        leaves the budget to all groups after it at their narrowest.
        """
        return self._walled([choice[group.name] for group in self.groups])[0]

    def observe(self, actions: Sequence[float]) -> Float[np.ndarray, "steps features"]:
        """What an agent sees before each of its actions, and before the next one.

        Of a group: its place, what kind of layer is behind it, the layer's sizes (inputs, outputs,
        window, stride, weights), scaled to [0, 1] over the groups; the fraction of the costs that
        is gone so far, and that of the layers still to come; the fraction of channels that was kept
        of the group before.
        """
        _, gone, kept = self._walled(actions)
        sizes = np.array([_sizes(number, layer) for number, layer in enumerate(self.layers)])
        span = np.ptp(sizes, axis=0)
        scaled = (sizes - sizes.min(0)) / np.where(span > 0, span, 1.0)
        adds = np.array([layer.multiply_adds for layer in self.layers], np.float64)
        ahead = (adds.sum() - np.cumsum(adds)) / max(adds.sum(), 1.0)
        steps = min(len(actions) + 1, len(self.groups))
        rows = zip(scaled[:steps], gone, ahead, [1.0, *kept], strict=False)
        return np.array([[*own, less, rest, last] for own, less, rest, last in rows], np.float32)

    def keep(self, choice: Choice, scores: Scores) -> dict[str, Bool[np.ndarray, " units"]]:
        """Which channels stay, for `sj.shrink`: those of the highest scores in each group."""
        return {name: _highest(scores[name], width) for name, width in self.widths(choice).items()}

    def masked(self, params: Any, keep: Mapping[str, Bool[np.ndarray, " units"]]) -> Any:
        """The params with zeros where channels go: what `sj.shrink` gives, in the old shapes.

        A function that tests them is compiled once, and not for each choice anew.
        """
        arrays = leaves_with_paths(params)
        shapes = {path: leaf.shape for path, leaf in arrays if hasattr(leaf, "shape")}
        return zeroed(params, positions(ChannelGroups(self.groups), keep, shapes))

    def _walled(self, actions: Sequence[float]) -> tuple[dict[str, int], list[float], list[float]]:
        """The widths, and before each step what is gone; the fractions that were kept."""
        widths = {group.name: self.options[group.name][0] for group in self.groups}
        chosen: dict[str, int] = {}
        whole = self.costs({})
        gone, kept = [0.0], []
        for group, action in zip(self.groups, actions, strict=False):
            own = self._widest(group, action, widths)
            widths[group.name] = chosen[group.name] = own
            gone.append(1.0 - self.costs(chosen) / whole)
            kept.append(own / group.size)
        return widths, gone, kept

    def _widest(self, group: ChannelGroup, action: float, widths: Widths) -> int:
        """The largest option that is asked for and fits, by bisection: costs do not fall."""
        options = self.options[group.name]
        asked = np.searchsorted(options, round(action * group.size, 6))
        low, high = 0, min(int(asked), len(options) - 1)
        while low < high:
            middle = (low + high + 1) // 2
            fits = self.costs({**widths, group.name: options[middle]}) <= self.limit
            low, high = (middle, high) if fits else (low, middle - 1)
        return options[low]


@checked(apply_fn=FUNCTION)
def channel_search(
    apply_fn: Callable[..., Any],
    params: Any,
    *example: Any,
    limit: float,
    costs: Callable[[Widths], float] | None = None,
    lower: float = 0.2,
    multiple: int = 8,
) -> ChannelSearch:
    """AMC's search space: the widths of all groups that can lose channels, within a budget.

    Args:
      apply_fn, params, example: as for `sj.shrink`.
      limit: the fraction of the costs that may be left, in (0, 1).
      costs: `costs(widths) -> number`; the multiply-adds by default, or milliseconds of a table.
      lower: the fraction of its channels that each group keeps at least.
      multiple: widths are multiples of it; groups that are no wider stay whole.

    Raises:
      ValueError: no group can lose channels, or all at their narrowest cost more than the limit.

    Example:
      >>> own = sj.search.channel_search(model.apply, params, x, limit=0.5, multiple=1)
      >>> own.widths({"body/kernel": 0.9})
      {'body/kernel': 2}

    Differs: groups are what `sj.channel_groups` finds, where the authors' code prunes the inputs of
    layers, depthwise convolutions tied to what follows; widths are rounded within the budget, where
    theirs may exceed it by the rounding of the last.

    Reference: He et al., "AMC: AutoML for Model Compression and Acceleration on Mobile Devices",
    ECCV 2018, arXiv 1802.03494; state and action wall as in the authors' code.
    """
    found = width_costs(apply_fn, params, *example)
    priced = found.multiply_adds if costs is None else costs
    groups = tuple(group for group in found.groups.prunable if group.size > multiple)
    if not groups or not 0 < limit < 1:
        raise ValueError(
            f"channel_search needs groups of more than {multiple} channels and a limit in (0, 1), "
            f"got {len(groups)} groups and {limit}."
        )
    layers = {layer.path: layer for layer in weight_layers(apply_fn, params, *example)}
    made = ChannelSearch(
        groups,
        priced,
        limit * priced({}),
        {group.name: _options(group.size, lower, multiple) for group in groups},
        tuple(_behind(group, layers) for group in groups),
    )
    least = priced({group.name: made.options[group.name][0] for group in groups})
    if least > made.limit:
        raise ValueError(
            f"channel_search needs a limit that its groups can meet, got {limit}; at their "
            f"narrowest they leave {least / priced({}):.3g}."
        )
    return made


def _options(size: int, lower: float, multiple: int) -> tuple[int, ...]:
    first = max(1, math.ceil(lower * size / multiple)) * multiple
    return tuple(sorted({*range(min(first, size), size, multiple), size}))


def _behind(group: ChannelGroup, layers: Mapping[str, WeightLayer]) -> WeightLayer:
    """The layer that takes most multiply-adds to use the group's channels, or else makes them."""
    maker = group.name.partition("#")[0]
    users = [layers[path] for path, _, _ in group.places if path in layers and path != maker]
    return max(users, key=lambda own: own.multiply_adds, default=layers[maker])


def _sizes(number: int, layer: WeightLayer) -> list[float]:
    own = (layer.inputs, layer.outputs, layer.window, layer.stride, layer.num_weights)
    return [number, not layer.is_conv, *own]


def _highest(scores: Float[np.ndarray, " units"], count: int) -> Bool[np.ndarray, " units"]:
    keep = np.zeros(len(scores), bool)
    keep[np.argsort(-np.asarray(scores), kind="stable")[:count]] = True
    return keep
