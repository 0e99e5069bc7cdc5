"""The leaves of trees of any make by their normalised paths."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax


def is_masked_node(node: Any) -> bool:
    """True for the placeholder that stands where a leaf has no mask; use it as `is_leaf`."""
    return isinstance(node, optax.MaskedNode)


def path_of(key_path: Sequence[Any]) -> str:
    """The normalised path of a leaf, such as "layers/0/kernel".

    Dicts, nnx.State, nnx.Optimizer views, Equinox modules, tuples and lists all read alike; the
    box around an nnx variable or a linen `Partitioned` leaf (a trailing `.value`) is left out.
    """
    names = [jax.tree_util.keystr((key,), simple=True).removeprefix(".") for key in key_path]
    boxed = len(names) > 1 and isinstance(key_path[-1], jax.tree_util.GetAttrKey)
    if boxed and names[-1] in ("value", "raw_value"):
        names = names[:-1]
    return "/".join(names)


def leaves_with_paths(tree: Any) -> list[tuple[str, Any]]:
    """All leaves with their normalised paths, MaskedNode placeholders included."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_masked_node)
    return [(path_of(key_path), leaf) for key_path, leaf in flat]


def map_with_paths(f: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """The tree of `f(path, leaf, *others)`; MaskedNode placeholders count as leaves."""
    return jax.tree_util.tree_map_with_path(
        lambda key_path, *leaves: f(path_of(key_path), *leaves), tree, *rest, is_leaf=is_masked_node
    )


def trained(tree: Any) -> Any:
    """The tree with None for what no gradient reaches: functions, strings, flags.

    In a tree with such leaves, and in Equinox modules, numbers and integer arrays go, too, as they
    do in `equinox.filter_grad`.
    """
    module = any(map(_is_equinox, jax.tree.leaves(tree, is_leaf=_is_equinox)))
    leaves = jax.tree.leaves(tree)
    if not module and all(map(_is_number, leaves)):
        return tree
    return jax.tree.map(lambda leaf: leaf if _is_inexact_array(leaf) else None, tree)


def followed(like: Any, tree: Any) -> Any:
    """The tree with None where `like` has it: a whole module as its gradients see it."""
    none_too = lambda node: node is None or is_masked_node(node)
    return jax.tree.map(
        lambda own, leaf: None if own is None else leaf, like, tree, is_leaf=none_too
    )


def _is_equinox(node: Any) -> bool:
    return any(base.__module__.startswith("equinox.") for base in type(node).__mro__)


def _is_number(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") or (
        isinstance(leaf, int | float | complex) and not isinstance(leaf, bool)
    )


def _is_inexact_array(leaf: Any) -> bool:
    return hasattr(leaf, "shape") and jnp.issubdtype(leaf.dtype, jnp.inexact)
