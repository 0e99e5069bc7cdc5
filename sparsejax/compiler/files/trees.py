"""Trees of inputs and outputs as JSON: dicts, lists and tuples alone, for a file holds no code."""

from collections.abc import Callable
from typing import Any

import jax

from sparsejax import tree
from sparsejax.doors import named

KINDS: dict[str, Callable] = {"tuple": tuple, "list": list}


def to_json(structure: Any, what: str) -> Any:
    """The structure, its leaves numbered in JAX's order.

    Args:
        structure: of `jax.tree.structure`.
        what: the tree is, for the error.

    Raises:
        TypeError: for other containers.
    """
    return _written(jax.tree.unflatten(structure, range(structure.num_leaves)), what)


def _written(node: Any, what: str) -> Any:
    if node is None or isinstance(node, int):
        return node
    for name, kind in KINDS.items():
        if type(node) is kind:
            return {name: [_written(item, what) for item in node]}
    if type(node) is dict and all(isinstance(key, str) for key in node):
        return {"dict": {key: _written(item, what) for key, item in node.items()}}
    raise TypeError(
        f"save needs {what} in tuples, lists and dicts with strings as keys, as a file holds no "
        f"code, got {named(node)}; wrap the function in one that takes and returns these."
    )


def from_json(written: Any, num_leaves: int) -> Any:
    """The structure that `to_json` wrote.

    Raises:
        ValueError: where it is none, or has other leaves.
    """
    structure = jax.tree.structure(nested := _read(written))
    if jax.tree.leaves(nested) != list(range(num_leaves)):
        raise ValueError(f"a tree needs the leaves 0 to {num_leaves - 1} in order")
    return structure


def _read(written: Any) -> Any:
    if written is None or type(written) is int:
        return written
    if isinstance(written, dict) and len(written) == 1:
        ((kind, inside),) = written.items()
        if kind in KINDS and isinstance(inside, list):
            return KINDS[kind](map(_read, inside))
        if kind == "dict" and isinstance(inside, dict):
            return {key: _read(item) for key, item in inside.items()}
    raise ValueError(f"a tree holds {written!r}")


def names(structure: Any, alone: str) -> list[str]:
    """The paths of the leaves, such as "image" or "boxes/0".

    Args:
        structure: of `jax.tree.structure`.
        alone: the name of a leaf that is the whole tree.
    """
    nested = jax.tree.unflatten(structure, range(structure.num_leaves))
    return [path or alone for path, _ in tree.leaves_with_paths(nested)]


def input_names(structure: Any) -> list[str]:
    """The paths of all arguments; those within it of a sole argument."""
    arguments = structure.children()
    return names(arguments[0] if len(arguments) == 1 else structure, "input")
