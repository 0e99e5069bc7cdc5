"""Constants of removed channels, folded into the bias or mean behind the product they go into."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sparsejax.jaxprs.moves import SAME, moved
from sparsejax.jaxprs.widths.program import Step

SUMS = ("add", "add_any", "sub")
PASSED = ("expand_dims", "reshape", "squeeze", "transpose", "broadcast_in_dim", *SAME)


class Owed(NamedTuple):
    """What a product lacks without removed channels that hold constants.

    Attributes:
      axis: of the product's output; it is the same along all others.
      amounts: to be added at each position of the axis.
      span, bad: the removed positions of which axis it comes from.
      said: the product.
    """

    axis: int
    amounts: np.ndarray
    span: int
    bad: np.ndarray
    said: str


def array_of(equation: Any, arrays: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """What an equation makes of weights that it only moves."""
    if equation.primitive.name not in PASSED or len(arrays) != 1 or arrays[0] is None:
        return None
    found = moved(equation, [arrays[0]])
    return None if found is None else found[0]


def of_product(
    step: Step, side: int, weights: np.ndarray | None, constants: np.ndarray, bad: np.ndarray
) -> Owed | None:
    """What is owed at the bad positions, as far as their constants are known.

    Args:
      step: a product of two axes, or a convolution without padding.
      side: of the weights.
      weights: theirs, None if not known.
      constants: what the other side holds at each position that is contracted.
      bad: where it matters.
    """
    params = step.equation.params
    usable = bad & np.isfinite(constants)
    if weights is None or not usable.any():
        return None
    if step.equation.primitive.name == "dot_general":
        contracted, batch = params["dimension_numbers"]
        if len(contracted[0]) != 1 or batch[0] or weights.ndim != 2:
            return None
        matrix = np.moveaxis(weights, contracted[side][0], 0)
        axis = 0 if side == 0 else len(step.operands[0].axes) - 1
    elif step.equation.primitive.name != "conv_general_dilated":
        return None
    else:
        layout = params["dimension_numbers"]
        padded = any(end for pair in params["padding"] for end in pair)
        dilated = any(size != 1 for size in params["lhs_dilation"])
        if side == 0 or padded or dilated or params["feature_group_count"] != 1:
            return None
        order = (layout.rhs_spec[1], layout.rhs_spec[0], *layout.rhs_spec[2:])
        matrix = weights.transpose(order).sum(tuple(range(2, weights.ndim)))
        axis = layout.out_spec[1]
    amounts = constants[usable] @ np.asarray(matrix, np.float64)[usable]
    return Owed(axis, amounts, step.operands[1 - side].axes[0], usable, step.said)


def absorbed(step: Step, side: int, array: np.ndarray | None, owed: Owed) -> tuple[str, Any] | None:
    """The param that can take what is owed, and by how much it changes; `side` is where it is owed.

    It is a vector along the axis, that is added to the product or subtracted from it.
    """
    name, other = step.equation.primitive.name, step.operands[1 - side]
    if name not in SUMS or array is None or len(other.leaves or ()) != 1:
        return None
    if name == "sub" and side == 1:
        return None
    sizes = [n for n, stride in zip(array.shape, array.strides, strict=True) if n > 1 and stride]
    if array.ndim <= owed.axis or sizes != [array.shape[owed.axis]] or len(owed.amounts) < 2:
        return None
    path = next(iter(other.leaves or ()))
    return path, -owed.amounts if name == "sub" else owed.amounts
