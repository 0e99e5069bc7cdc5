"""Which channels stay: named, by masks, or by a plan."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from sparsejax.doors import PLAN
from sparsejax.jaxprs.widths.filling import folded_or_seen
from sparsejax.jaxprs.widths.fills import Removal
from sparsejax.jaxprs.widths.groups import ChannelGroup, Traced
from sparsejax.plans.plan import Plan
from sparsejax.shrinking.cut import Keep
from sparsejax.shrinking.shared_masks import planned_groups
from sparsejax.top_k import count_pruned
from sparsejax.tree import is_masked_node, leaves_with_paths

Arrays = Mapping[str, Any]
NOTHING: Mapping[str, Any] = MappingProxyType({})


class Chosen(NamedTuple):
    """What stays of each group, why more than was asked, and what params take for what goes."""

    keep: Keep
    refused: Mapping[str, str] = NOTHING
    masks: Mapping[str, np.ndarray] = NOTHING
    amounts: Mapping[str, np.ndarray] = NOTHING

    def corrected(self, path: str, leaf: Any) -> Any:
        """A leaf with its mask, and with the constants that are folded into it."""
        if path not in self.amounts and path not in self.masks:
            return leaf
        new = np.asarray(leaf) * self.masks.get(path, True)
        new = (new + self.amounts.get(path, 0)).astype(leaf.dtype)
        return new if isinstance(leaf, np.ndarray) else jnp.asarray(new)

    def width(self, group: ChannelGroup) -> int:
        """How many units stay."""
        return int(np.sum(self.keep[group.name])) if group.name in self.keep else group.size


def chosen_channels(
    made: Traced, arrays: Arrays, keep: Any, whole: Mapping[str, str] = NOTHING
) -> Chosen:
    """What stays, of any kind of `keep`; groups of `whole` do, for the reason that they have."""
    named = None
    if PLAN.fits(keep):
        named = _of_plan(made, arrays, keep)
    elif isinstance(keep, Mapping) and all(map(_is_vector, keep.values())):
        named = _of_names(made, keep)
    if named is not None:
        stays = {name: own for name, own in named.items() if name not in whole}
        lost = [name for name, own in named.items() if name in whole and not own.all()]
        return Chosen(stays, {name: whole[name] for name in lost})
    masks = {p: np.asarray(m) for p, m in leaves_with_paths(keep) if not is_masked_node(m)}
    return _of_masks(made, arrays, masks, whole)


def _is_vector(units: Any) -> bool:
    listed = isinstance(units, list) or hasattr(units, "dtype")
    return listed and np.ndim(units) == 1


def _of_names(made: Traced, keep: Mapping[str, Any]) -> dict[str, np.ndarray]:
    own = {name: np.asarray(units, bool) for name, units in keep.items()}
    for name, units in own.items():
        if name not in made.groups:
            known = ", ".join(group.name for group in made.groups.prunable) or "none"
            raise ValueError(f"shrink needs names of groups, got {name!r}; there are {known}.")
        group = made.groups[name]
        if units.shape != (group.size,) or not units.any():
            raise ValueError(
                f"{name}: shrink needs {group.size} flags of which one is True, got shape "
                f"{units.shape} with {units.sum()}; keep a channel of each group."
            )
        if not (group.prunable or units.all()):
            raise ValueError(
                f"{name}: shrink cannot remove channels that {group.reason or group.counts} looks "
                "at; leave the group out of keep."
            )
    return own


def _of_plan(made: Traced, arrays: Arrays, plan: Plan) -> dict[str, np.ndarray]:
    """Of each group that planned leaves make, the units of most magnitude in these."""
    keep = {}
    for group, members, sparsity in planned_groups(made.groups, plan):
        scores = np.zeros(group.size)
        for leaf, axis, units in members:
            rows = np.moveaxis(np.abs(np.asarray(arrays[leaf.path], np.float64)), axis, 0)
            scores += rows[units].reshape(group.size, -1).sum(1)
        count = min(int(count_pruned(sparsity, group.size)), group.size - 1)
        if count:
            own = np.ones(group.size, bool)
            own[np.argsort(scores, kind="stable")[:count]] = False
            keep[group.name] = own
    if not keep:
        raise ValueError(
            "shrink needs a plan that prunes whole channels of groups that can lose some, got none "
            "of these; plan sj.Channel() for kernels, and see sj.channel_groups."
        )
    return keep


def _of_masks(
    made: Traced, arrays: Arrays, masks: Mapping[str, np.ndarray], whole: Mapping[str, str]
) -> Chosen:
    """The units whose weights some mask prunes, as far as nothing sees that they are gone."""
    pruned = {
        path: np.asarray(x) * masks[path] if path in masks else np.asarray(x)
        for path, x in arrays.items()
    }
    keep: dict[str, Any] = {}
    refused: dict[str, str] = {}
    for group in made.groups:
        gone = [_gone(masks.get(path), axis, units) for path, axis, units in group.places]
        own = ~np.asarray(np.any(gone, axis=0))
        if own.all():
            continue
        if not own.any():
            own[0] = True
            refused[group.name] = "a group keeps a channel"
        if group.reason or group.name in whole:
            refused[group.name] = group.reason or whole[group.name]
        else:
            keep[group.name] = own
    # A unit that stays may be seen by others in turn, so all are looked at again until none is;
    # each round returns one unit at least.
    while True:
        removal = Removal(made.spans, {made.runs[name]: own for name, own in keep.items()})
        amounts = folded_or_seen(made.program, removal, made.leaves, pruned)
        seen = {name: removal.seen[made.runs[name]] for name in keep}
        if not any(found.units.any() for found in seen.values()):
            return Chosen(keep, refused, masks, amounts)
        for name, found in seen.items():
            if found.units.any():
                keep[name] = keep[name] | found.units
                refused[name] = found.reason


def _gone(mask: np.ndarray | None, axis: int, units: np.ndarray) -> np.ndarray:
    """Which units the mask of a leaf prunes whole."""
    if mask is None:
        return np.zeros(len(units), bool)
    rows = np.moveaxis(mask, axis, 0).reshape(mask.shape[axis], -1)
    return ~rows[units].any((1, 2))
