"""Trees cut to the channels that stay: params, and the state of any optimizer."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from sparsejax.jaxprs.widths.groups import ChannelGroups
from sparsejax.tree import is_masked_node, leaves_with_paths, map_with_paths

Keep = Mapping[str, np.ndarray]  # which units of a group stay, by its name
Stays = dict[str, dict[int, np.ndarray]]  # which positions of an axis, by path and axis


def positions(groups: ChannelGroups, keep: Keep, shapes: Mapping[str, Sequence[int]]) -> Stays:
    """Which positions of each axis stay; axes that stay whole are left out."""
    stays: Stays = {}
    for name, own in keep.items():
        if np.all(own):
            continue
        for path, axis, units in groups[name].places:
            whole = np.ones(shapes[path][axis], bool)
            stays.setdefault(path, {}).setdefault(axis, whole)[units[~np.asarray(own)]] = False
    return stays


def cut(tree: Any, stays: Stays) -> Any:
    """The tree with smaller leaves; NumPy stays NumPy."""
    return map_with_paths(lambda path, leaf: _smaller(leaf, stays.get(path, {})), tree)


def zeroed(tree: Any, stays: Stays) -> Any:
    """The tree with zeros where channels go, in every leaf that has them."""

    def zero(path: str, leaf: Any) -> Any:
        if path not in stays:
            return leaf
        array = np.array(leaf)
        for axis, own in stays[path].items():
            np.moveaxis(array, axis, 0)[~own] = 0
        return array if isinstance(leaf, np.ndarray) else jnp.asarray(array)

    return map_with_paths(zero, tree)


def cut_state(opt_state: Any, params: Any, stays: Stays) -> Any:
    """The optimizer's state with whatever has a param's path and shape cut like the param.

    Raises:
      ValueError: an array that belongs to a cut param has another shape, as in factored moments.
    """
    shapes = {path: np.shape(leaf) for path, leaf in leaves_with_paths(params)}

    def own(path: str, leaf: Any) -> Any:
        names = path.split("/")
        ends = ("/".join(names[start:]) for start in range(len(names)))
        param = next((end for end in ends if end in shapes), None)
        if param not in stays or is_masked_node(leaf) or np.size(leaf) < 2:
            return leaf
        if np.shape(leaf) != shapes[param]:
            raise ValueError(
                f"{param}: shrink needs the optimizer's state in the shape of the param, got "
                f"{np.shape(leaf)} at {path} for {shapes[param]}; begin with a new state."
            )
        return _smaller(leaf, stays[param])

    return map_with_paths(own, opt_state)


def _smaller(leaf: Any, axes: Mapping[int, np.ndarray]) -> Any:
    if not axes:
        return leaf
    array = np.asarray(leaf)  # in NumPy: XLA would compile a gather for each shape
    for axis, own in axes.items():
        array = np.compress(own, array, axis)
    return array if isinstance(leaf, np.ndarray) else jnp.asarray(array)
