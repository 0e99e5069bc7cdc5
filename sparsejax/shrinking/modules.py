"""Modules with fewer channels: the numbers that they keep beside their weights."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from sparsejax import flax_bridge
from sparsejax.jaxprs.widths.groups import ChannelGroups
from sparsejax.shrinking.cut import Keep

# Numbers of other names may be equal to a width, and are not changed.
WIDTHS = re.compile("feature|channel|hidden|width|dim|head|group|model|emb|shape|size|^in_|^out_")
OTHERS = re.compile("kernel_size|^_")
ENDS = {"kernel": (-2, -1), "weight": (1, 0)}  # the axes of inputs and of outputs
Pairs = Sequence[tuple[int, int]]  # old and new numbers


def is_module(tree: Any) -> bool:
    """Does it keep numbers beside its weights: a module of NNX or Equinox?"""
    equinox = any(base.__module__.startswith("equinox.") for base in type(tree).__mro__)
    return equinox or flax_bridge.is_module(tree)


def renumbered(module: Any, large: Any, groups: ChannelGroups, keep: Keep) -> Any:
    """The module, whose weights were cut, with its widths, heads and groups as the weights are."""
    for path, own in _modules(module, groups):
        old = _found(large, path)
        for name, value in list(vars(own).items()):
            if OTHERS.search(name) or not WIDTHS.search(name):
                continue
            new = _number(name, value, (old, own), _pairs(path, groups, keep))
            if new is not value:
                object.__setattr__(own, name, new)
    return module


def _modules(root: Any, groups: ChannelGroups) -> Iterator[tuple[str, Any]]:
    """Every module that holds a channel, by path; the inner ones first."""
    paths = {place.path for group in groups for place in group.places}
    prefixes = {path.rsplit("/", count)[0] for path in paths for count in range(1, 9)}
    for path in sorted({*prefixes, ""} - paths, key=len, reverse=True):
        own = _found(root, path)
        if is_module(own):
            yield path, own


def _found(root: Any, path: str) -> Any:
    for name in path.split("/") if path else ():
        if hasattr(root, name):
            root = getattr(root, name)
        else:
            root = root[name if isinstance(root, Mapping) else int(name)]
    return root


def _pairs(path: str, groups: ChannelGroups, keep: Keep) -> list[tuple[int, int]]:
    """The sizes of the groups in a module, old and new, in their order."""
    prefix = f"{path}/" if path else ""
    return [
        (group.size, int(np.sum(keep.get(group.name, np.ones(group.size)))))
        for group in groups
        if any(place.path.startswith(prefix) for place in group.places)
    ]


def _number(name: str, value: Any, modules: tuple[Any, Any], sizes: Pairs) -> Any:
    """What a number, or several, are in the smaller module."""
    shapes = [
        (key, np.shape(_array(leaf)), np.shape(_array(getattr(modules[1], key))))
        for key, leaf in vars(modules[0]).items()
        if np.ndim(_array(leaf))
    ]
    if isinstance(value, tuple) and value and all(type(n) is int for n in value):
        return _tuple(name, value, shapes)
    if type(value) is not int:
        return value
    side = 0 if re.match("in(_|put)", name) else 1
    ends = [(old[ENDS[k][side]], new[ENDS[k][side]]) for k, old, new in shapes if k in ENDS]
    axes = [pair for _, old, new in shapes for pair in zip(old, new, strict=True)]
    inside = zip(jax.tree.leaves(modules[0]), jax.tree.leaves(modules[1]), strict=True)
    axes += [pair for a, b in inside for pair in zip(np.shape(a), np.shape(b), strict=True)]
    ordered = sizes[::-1] if re.search("dim|size", name) else sizes
    counted = re.search("head|group", name)
    found = [*ordered, *ends, *axes] if counted else [*ends, *axes, *ordered]
    return next((new for old, new in found if old == value), value)


def _tuple(name: str, value: tuple[int, ...], shapes: Sequence[Any]) -> tuple[int, ...]:
    """A shape, or the first or last of its axes."""
    count = len(value)
    ends = [slice(0, count), slice(-count, None)]
    for part in ends if name.startswith("in") else ends[::-1]:
        for _, old, new in shapes:
            if old[part] == value:
                return new[part]
    return value


def _array(leaf: Any) -> Any:
    """What a variable of NNX holds; anything else is itself."""
    leaf = flax_bridge.unboxed(leaf)
    return leaf if hasattr(leaf, "shape") else None


def as_module(tree: Any, module: Any) -> Any:
    """The tree with each module in it, such as the moments of one, with the numbers of this one."""
    is_none = lambda node: node is None
    own = lambda node: type(node) is type(module) and is_module(node)
    treedef: Any = jax.tree.structure(module, is_leaf=is_none)

    def like(node: Any) -> Any:
        if not own(node):
            return node
        return jax.tree.unflatten(treedef, jax.tree.leaves(node, is_leaf=is_none))

    return jax.tree.map(like, tree, is_leaf=own)
