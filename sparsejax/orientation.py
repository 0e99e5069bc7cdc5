"""Does a pattern go along the axes that a layer contracts? As far as a leaf's name and rank say."""

import warnings
from collections.abc import Sequence
from typing import Any

from sparsejax.patterns import NM, Block, BlockColumnRow, Channel, Unstructured
from sparsejax.text import SparsityWarning

HEADS = "(in, heads, size) contracts 0, (heads, size, out) contracts 0 and 1, (width, in, out) 1"


def check_orientation(pattern: Any, shape: tuple[int, ...], path: str, regex: str) -> None:
    """Raise a ValueError where axes counted from the back are others than they are meant to be.

    Negative axes are those of flax kernels: outputs last, inputs before them. Weights of Equinox
    begin with the outputs; of three axes nobody knows which are contracted, and a table is looked
    up along the first. An axis counted from the front is taken as it is.
    """
    option = "axis" if isinstance(pattern, NM | Channel) else "output_axis"
    own = getattr(pattern, option, 0)
    if isinstance(pattern, Unstructured) or own >= 0 or len(shape) < 2:
        return
    name, why = path.rsplit("/", 1)[-1], ""
    if name == "weight":
        right = 1 if isinstance(pattern, NM) else 0
        if own % len(shape) != right:
            why = f"a `weight` is (outputs, inputs, ...); pass {option}={right}"
            if isinstance(pattern, Channel):
                why += f" for outputs, {option}=1 for inputs"
    elif name == "embedding" and isinstance(pattern, NM) and own == -2:
        why = "a table is looked up along that axis and contracted along the last; pass axis=1"
    elif len(shape) == 3 and _needs_inputs(pattern):
        why = (
            f"it is not known which of three axes are contracted: {HEADS}; pass {option}="
            f"{'0 or 1' if isinstance(pattern, NM) else '2'}, counted from the front"
        )
    if why:
        raise ValueError(
            f"{path}: {pattern} of the rule {regex!r} needs to know the axes, got {option}={own} "
            f"for shape {shape}: {why}."
        )


def _needs_inputs(pattern: Any) -> bool:
    """Does it matter to the pattern which of the other axes are inputs?"""
    return isinstance(pattern, NM | BlockColumnRow) or (
        isinstance(pattern, Block) and pattern.cols > 1
    )


def warn_of_vectors(regex: str, vectors: Sequence[str], matches: int) -> None:
    """Say that a rule for kernels takes scales or biases, too."""
    if vectors and matches > len(vectors):
        warnings.warn(
            f"plan prunes {vectors[0]} and {len(vectors) - 1} more vectors by the rule {regex!r}, "
            "which matches matrices as well: scales and biases are best left dense; put a rule "
            "that names them before it, with None, or with a pattern if they are meant.",
            SparsityWarning,
            stacklevel=3,
        )


def warn_of_cap(path: str, pattern: Any, regex: str, sparsity: float, highest: float) -> None:
    """Say that a pattern does not reach the sparsity that was asked for."""
    if sparsity > highest + 1e-9:
        warnings.warn(
            f"plan has {path} at sparsity {highest:g}, not {sparsity:g}: more is not in {pattern} "
            f"of the rule {regex!r}; pass ({pattern}, {highest:g}) if it is meant.",
            SparsityWarning,
            stacklevel=4,
        )
