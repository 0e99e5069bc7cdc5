"""Equations that contract weights with inputs: their size, and their operands as matrices."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

PRODUCTS = ("conv_general_dilated", "dot_general", "ragged_dot", "ragged_dot_general")


def multiply_adds_of(equation: Any) -> int:
    """The multiply-adds of a product; padding counts, the zeros of a dilated input do not."""
    left, right = (v.aval.shape for v in equation.invars[:2])
    output = tuple(equation.outvars[0].aval.shape)
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        return math.prod(output) * math.prod(left[axis] for axis in contracted)
    if name == "mul":  # one by one, and added up elsewhere
        return math.prod(output)
    if name != "conv_general_dilated":  # each row meets the matrix of its group
        return math.prod(output) * left[-1]
    layout = params["dimension_numbers"]
    taps = math.prod(
        _taps(*axis)
        for axis in zip(
            [output[axis] for axis in layout.out_spec[2:]],
            [right[axis] for axis in layout.rhs_spec[2:]],
            *(params[key] for key in ("window_strides", "padding")),
            *(params[key] for key in ("lhs_dilation", "rhs_dilation")),
            strict=True,
        )
    )
    batch, features = (output[axis] for axis in layout.out_spec[:2])
    return batch * features * right[layout.rhs_spec[1]] * taps


def _taps(
    outputs: int, taps: int, stride: int, padding: Any, dilation: int, tap_dilation: int
) -> int:
    """How many pairs of an output and a tap along one axis meet no zero of dilation."""
    if dilation == 1:
        return outputs * taps
    places = np.arange(outputs)[:, None] * stride + np.arange(taps) * tap_dilation - padding[0]
    return int(np.sum(places % dilation == 0))


def as_matrices(equation: Any, side: int, operand: Any) -> Any:
    """A weight as (groups, outputs, inputs), of a product that `calibrate` knows."""
    if equation.primitive.name == "dot_general":
        contracted, batch = equation.params["dimension_numbers"]
        return three_axes(operand, batch[side], contracted[side])
    weights = operand.transpose(equation.params["dimension_numbers"].rhs_spec)
    groups = equation.params["feature_group_count"]
    return weights.reshape(groups, -1, math.prod(weights.shape[1:]))


def three_axes(array: Any, batch: Sequence[int], contracted: Sequence[int]) -> Any:
    """The array as (batch, the other axes, contracted)."""
    free = [axis for axis in range(array.ndim) if axis not in (*batch, *contracted)]
    sizes = [math.prod(array.shape[axis] for axis in axes) for axes in (batch, free, contracted)]
    return array.transpose([*batch, *free, *contracted]).reshape(sizes)
