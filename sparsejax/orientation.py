"""Does a pattern go along the axes that a layer contracts? As far as a leaf's name and rank say."""

from collections.abc import Sequence
from typing import Any

from sparsejax.patterns import NM, Block, BlockColumnRow, Channel, Unstructured
from sparsejax.patterns.pattern import Unsaid
from sparsejax.text import warn

HEADS = "(in, heads, size) contracts 0, (heads, size, out) contracts 0 and 1, (width, in, out) 1"


def check_orientation(pattern: Any, shape: tuple[int, ...], path: str, regex: str) -> None:
    """Raise a ValueError where a pattern's default axis is another than it is meant to be.

    The defaults are those of flax kernels: outputs last, inputs before them. Weights of Equinox
    begin with the outputs; of three axes nobody knows which are contracted, nor of four that do not
    look like a convolution's; a table is looked up along the first. An axis that the user gives is
    taken as it is.
    """
    option = "axis" if isinstance(pattern, NM | Channel) else "output_axis"
    own = getattr(pattern, option, 0)
    if isinstance(pattern, Unstructured) or not isinstance(own, Unsaid):
        return
    if len(shape) < 2:
        return
    name, why = path.rsplit("/", 1)[-1], ""
    if name == "weight":
        right = 1 if isinstance(pattern, NM) else 0
        if own % len(shape) != right:
            why = f"a `weight` is (outputs, inputs, ...); pass {option}={right}"
            if isinstance(pattern, Channel):
                why += f" for outputs, {option}=1 for inputs"
    elif name in ("embedding", "embeddings") and isinstance(pattern, NM) and own == -2:
        why = "a table is looked up along that axis and contracted along the last; pass axis=1"
    elif _needs_inputs(pattern) and (len(shape) == 3 or _of_heads(shape)):
        axes = "0 or 1" if isinstance(pattern, NM) else str(len(shape) - 1)
        why = (
            f"it is not known which of its axes are contracted: {HEADS}; pass {option}={axes}, "
            f"counted from the front, or {option}={own} if it is meant"
        )
    if why:
        raise ValueError(
            f"{path}: {pattern} of the rule {regex!r} needs to know the axes, got {option}={own} "
            f"for shape {shape}: {why}."
        )


def _of_heads(shape: tuple[int, ...]) -> bool:
    """Is it more like queries, keys and values in one (in, 3, heads, size) than a convolution?

    Windows of convolutions are squares, or lines.
    """
    return len(shape) == 4 and shape[0] != shape[1] and 1 not in shape[:2]


def _needs_inputs(pattern: Any) -> bool:
    """Does it matter to the pattern which of the other axes are inputs?"""
    return isinstance(pattern, NM | BlockColumnRow) or (
        isinstance(pattern, Block) and pattern.cols > 1
    )


def warn_of_vectors(regex: str, vectors: Sequence[str], matches: int) -> None:
    """Say that a rule for kernels takes scales or biases, too."""
    if vectors and matches > len(vectors):
        warn(
            f"plan prunes {vectors[0]} and {len(vectors) - 1} more vectors by the rule {regex!r}, "
            "which matches matrices as well: scales and biases are best left dense; put a rule "
            "that names them before it, with None, or with a pattern if they are meant."
        )


def warn_of_rounding(leaf: Any, regex: str) -> None:
    """Say that a target between 0 and 1 comes to no group of the leaf, or to all of them."""
    if 0.0 < leaf.sparsity < 1.0 and leaf.num_pruned in (0, leaf.num_weights) and leaf.num_weights:
        count = leaf.pattern.num_groups(leaf.shape)
        all_or_none = "all" if leaf.num_pruned else "none"
        warn(
            f"plan prunes {all_or_none} of {leaf.path} at sparsity {leaf.sparsity:g}: there are "
            f"{count} groups of {leaf.pattern} of the rule {regex!r}, each goes as a whole; choose "
            "smaller groups or another sparsity, or leave it dense with None."
        )


def warn_of_cap(path: str, pattern: Any, regex: str, sparsity: float, highest: float) -> None:
    """Say that a pattern does not reach the sparsity that was asked for."""
    if sparsity > highest + 1e-9:
        warn(
            f"plan has {path} at sparsity {highest:g}, not {sparsity:g}: more is not in {pattern} "
            f"of the rule {regex!r}; pass ({pattern}, {highest:g}) if it is meant."
        )
