"""Does a pattern go along the axes that a layer contracts? As far as a leaf and its bias say."""

from collections.abc import Mapping, Sequence
from typing import Any

from sparsejax.patterns import Pattern
from sparsejax.patterns.pattern import Unsaid
from sparsejax.text import warn

BIASES, KERNELS = ("bias", "b"), ("kernel", "w")
HEADS = "(in, heads, size) contracts 0, (heads, size, out) contracts 0 and 1, (width, in, out) 1"


def check_orientation(
    pattern: Pattern, shape: tuple[int, ...], path: str, regex: str, shapes: Mapping[str, Any]
) -> None:
    """Raise a ValueError where a pattern's default axis is another than it is meant to be.

    The defaults are those of flax kernels: outputs last, inputs before them. Weights of Equinox
    begin with the outputs; a table is looked up along the first axis. Of three or four axes a bias
    tells which are the outputs, or the name that it is a convolution's kernel, whatever its window;
    without either nobody knows of three, nor of four that do not look like a convolution's. An axis
    that the user gives is taken as it is.

    Args:
      pattern: of the rule.
      shape: of the leaf, one layer's if they are stacked.
      path: of the leaf.
      regex: the rule's.
      shapes: of all leaves by path, one layer's where this leaf is one's.
    """
    orientation = pattern.orientation()
    if orientation is None or not isinstance(orientation.axis, Unsaid) or len(shape) < 2:
        return
    option, own, of_inputs, of_either, contracted = orientation
    name, why = path.rsplit("/", 1)[-1], ""
    if name == "weight":
        right = 1 if of_inputs else 0
        if own % len(shape) != right:
            why = f"a `weight` is (outputs, inputs, ...); pass {option}={right}"
            if of_either:
                why += f" for outputs, {option}=1 for inputs"
    elif name in ("embedding", "embeddings") and of_inputs and own == -2:
        why = "a table is looked up along that axis and contracted along the last; pass axis=1"
    elif len(shape) > 2 and _outputs_by_bias(shape, path, shapes) == -2:
        outputs, inputs = len(shape) - 2, len(shape) - 1
        why = (
            f"the bias says that its outputs are axis {outputs}; pass "
            f"{option}={inputs if of_inputs else outputs}"
        )
    elif contracted and not _is_known(shape, path, shapes):
        axes = "0 or 1" if of_inputs else str(len(shape) - 1)
        why = (
            f"it is not known which of its axes are contracted: {HEADS}; pass {option}={axes}, "
            f"counted from the front, or {option}={own} if it is meant"
        )
    if why:
        raise ValueError(
            f"{path}: {pattern} of the rule {regex!r} needs to know the axes, got {option}={own} "
            f"for shape {shape}: {why}."
        )


def _bias(shape: tuple[int, ...], path: str, shapes: Mapping[str, Any]) -> tuple[int, ...]:
    """The shape of the bias beside a kernel; () if there is none."""
    parent = path.rpartition("/")[0]
    beside = [shapes.get(f"{parent}/{name}".lstrip("/"), ()) for name in BIASES]
    fits = lambda bias: len(bias) == 1 or bias == shape[len(shape) - len(bias) :] != shape
    return next((bias for bias in map(tuple, beside) if bias and fits(bias)), ())


def _outputs_by_bias(shape: tuple[int, ...], path: str, shapes: Mapping[str, Any]) -> int | None:
    """Which axis is the outputs', -1 or, of kernels that are turned round, -2; None if unknown."""
    bias = _bias(shape, path, shapes)
    return next((axis for axis in (-1, -2) if bias == (shape[axis],)), None)


def _is_known(shape: tuple[int, ...], path: str, shapes: Mapping[str, Any]) -> bool:
    """Are all axes but the last contracted?"""
    if len(shape) not in (3, 4):
        return True
    named = [part for part in path.split("/") if not part.isdigit() and part not in KERNELS]
    name = named[-1].lower() if named else ""
    if "conv" in name and "att" not in name:
        return True
    if len(_bias(shape, path, shapes)) > 1:  # of (heads, size)
        return False
    one_axis = _outputs_by_bias(shape, path, shapes) == -1
    if len(shape) == 3:  # an output of heads, (heads, size, out), is beside an input's of them
        heads = (tuple(other) for other in shapes.values() if len(other) == 3)
        return one_axis and all(other[1:] != shape[:2] for other in heads)
    return one_axis or not _of_heads(shape)


def _of_heads(shape: tuple[int, ...]) -> bool:
    """Is it more like queries, keys and values in one (in, 3, heads, size) than a convolution?

    Windows of convolutions are squares, lines, or small or odd along both sides; widths of models
    are not.
    """
    alike = shape[0] == shape[1] or 1 in shape[:2]
    return not alike and any(size > 4 and size % 2 == 0 for size in shape[:2])


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
