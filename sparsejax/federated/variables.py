"""What a client trains, in two parts: the base that is shared, and the layers that stay at home."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sparsejax.doors import named
from sparsejax.plans.rules import check_regex, hint
from sparsejax.tree import is_masked_node, leaves_with_paths, map_with_paths

MAX_BYTES = 2**30  # messages are counted in 32 bits


class Variables(NamedTuple):
    """A network's trained params and its statistics, such as those of batch norm; any pytrees."""

    params: Any
    statistics: Any = ()


def split(variables: Variables, personal: Sequence[str]) -> tuple[Variables, Variables]:
    """The base and the personal layers, each with a MaskedNode where the other has a leaf.

    Params and statistics with equal paths go together: a block's batch norm is one rule.
    """
    at_home = lambda path: any(re.search(regex, path) for regex in personal)
    nothing = optax.MaskedNode()
    part = lambda ours: Variables(
        *(
            map_with_paths(lambda path, leaf: leaf if at_home(path) == ours else nothing, tree)
            for tree in variables
        )
    )
    return part(False), part(True)


def merge(base: Variables, own: Variables) -> Variables:
    """The whole network: the inverse of `split`."""
    pick = lambda shared, at_home: at_home if is_masked_node(shared) else shared
    return jax.tree.map(pick, base, own, is_leaf=is_masked_node)


def check_rules(personal: Any) -> tuple[str, ...]:
    """The regular expressions of the personal layers, or an error that says what they must be."""
    example = 'pass (r"head/",), or () for none'
    if isinstance(personal, str) or not isinstance(personal, Sequence):
        raise TypeError(
            f"fedper needs a sequence of regular expressions, got {named(personal)}; {example}."
        )
    for regex in personal:
        check_regex("fedper", regex, example)
    return tuple(personal)


def check_variables(variables: Variables, personal: Sequence[str]) -> None:
    """Raise unless all leaves are arrays, each rule claims one, and the base can be averaged."""
    paths = [path for tree in variables for path, _ in leaves_with_paths(tree)]
    for tree in variables:
        for path, leaf in leaves_with_paths(tree):
            if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
                raise TypeError(
                    f"fedper needs arrays, got {named(leaf)} at {path!r}; pass the arrays alone: "
                    "equinox.filter(model, equinox.is_inexact_array), say."
                )
    for regex in personal:
        if not any(re.search(regex, path) for path in paths):
            raise ValueError(
                f"fedper needs each rule to claim a leaf, {regex!r} claims none; "
                f"{hint(regex, paths)}."
            )
    base, _ = split(variables, personal)
    for tree in base:
        check_floats(
            tree, "fedper", "name it among the personal layers, which each client has alone"
        )
    num_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(base))
    if num_bytes >= MAX_BYTES:
        raise ValueError(
            f"fedper counts messages in 32 bits and needs a base below {MAX_BYTES:,} bytes, "
            f"got {num_bytes:,}; make more layers personal."
        )


def check_floats(tree: Any, who: str, todo: str) -> None:
    """Raise a TypeError for a leaf that has no average: integers, booleans, keys."""
    for path, leaf in leaves_with_paths(tree):
        if not is_masked_node(leaf) and not jnp.issubdtype(leaf.dtype, jnp.inexact):
            raise TypeError(
                f"{who} averages floating point leaves only, got {leaf.dtype} at {path!r}; {todo}."
            )
