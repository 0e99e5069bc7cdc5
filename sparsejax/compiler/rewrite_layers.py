"""Convolutions and products with constant weights as layers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sparsejax.compiler.edit import Edit, constant_of, is_float, made
from sparsejax.compiler.graph import Conv, Linear, Node, Primitive, Reshape, Transpose, Value

NHWC, NCHW = (0, 3, 1, 2), (0, 1, 2, 3)


def to_conv(edit: Edit, node: Node) -> bool:
    """A two-dimensional convolution in NHWC or NCHW with constant weights."""
    if not (isinstance(node.op, Primitive) and node.op.name == "conv_general_dilated"):
        return False
    (x, kernel), params = node.inputs, node.op.equation.params
    weights = constant_of(kernel)
    if weights is None:
        return edit.refuse(node, "its weights are computed")
    if not is_float(*node.inputs, *node.outputs):
        return edit.refuse(node, _not_float32(node))
    if len(x.shape) != 4:
        return edit.refuse(node, f"in {len(x.shape) - 2} dimensions, not in two")
    layout = params["dimension_numbers"]
    if layout.lhs_spec != layout.out_spec or layout.lhs_spec not in (NHWC, NCHW):
        return edit.refuse(node, "neither NHWC nor NCHW")
    if tuple(params["lhs_dilation"]) != (1, 1) or params["batch_group_count"] != 1:
        return edit.refuse(node, "a transposed or batch-grouped convolution")
    padding: Any = tuple((int(low), int(high)) for low, high in params["padding"])
    if any(low < 0 or high < 0 for low, high in padding):
        return edit.refuse(node, "negative padding")
    if not np.isfinite(weights).all():
        return edit.refuse(node, "weights are not finite")
    outputs, inputs, *spatial = layout.rhs_spec
    op = Conv(
        weights=weights.transpose(*spatial, inputs, outputs),
        bias=np.zeros(weights.shape[outputs]),
        path=kernel.path,
        strides=_pair(params["window_strides"]),
        padding=padding,
        dilation=_pair(params["rhs_dilation"]),
        groups=int(params["feature_group_count"]),
        channels_last=layout.lhs_spec == NHWC,
    )
    return edit.replace(node, made(op, [x], node.outputs[0].shape))


def _not_float32(node: Node) -> str:
    """Which of the values are of another type."""
    names = ("its weights", "its input", "its result")
    values = (*sorted(node.inputs, key=lambda v: v.constant is None), *node.outputs)
    typed = [(np.dtype(v.dtype).name, name) for v, name in zip(values, names, strict=True)]
    dtype, name = next(pair for pair in typed if pair[0] != "float32")
    return f"{dtype} ({name}), not float32"


def _pair(numbers: Any) -> tuple[int, int]:
    return int(numbers[0]), int(numbers[1])


def to_linear(edit: Edit, node: Node) -> bool:
    """x @ weights with any number of contracted and leading axes; weights may be on the left."""
    if not (isinstance(node.op, Primitive) and node.op.name == "dot_general"):
        return False
    (contracted, batch) = node.op.equation.params["dimension_numbers"]
    on_left = constant_of(node.inputs[0]) is not None
    (weights, x) = node.inputs if on_left else node.inputs[::-1]
    array = constant_of(weights)
    if array is None or x.constant is not None:
        return edit.refuse(node, "both sides are computed")
    if not is_float(x, weights, *node.outputs):
        return edit.refuse(node, _not_float32(node))
    if batch[0]:
        return edit.refuse(node, "weights differ along the batch")
    if not np.isfinite(array).all():
        return edit.refuse(node, "weights are not finite")
    pairs = sorted(zip(*(contracted[::-1] if on_left else contracted), strict=True))
    return edit.replace(node, *_linear(node, x, weights, pairs, on_left))


def _linear(
    node: Node, x: Value, weights: Value, pairs: Sequence[tuple[int, int]], on_left: bool
) -> list[Node]:
    """Axes to the end, one axis of them, the layer, and back: what changes nothing falls later."""
    axes, along = [int(i) for i, _ in pairs], [int(i) for _, i in pairs]
    free_x = [i for i in range(len(x.shape)) if i not in axes]
    free_weights = [i for i in range(len(weights.shape)) if i not in along]
    matrix = weights.constant.transpose(along + free_weights)
    inputs = int(np.prod([weights.shape[i] for i in along], dtype=int))
    matrix = matrix.reshape(inputs, -1)
    outputs = [weights.shape[i] for i in free_weights]
    if 0 in matrix.shape:
        matrix = np.zeros((inputs, int(np.prod(outputs, dtype=int))), np.float32)
    leading = [x.shape[i] for i in free_x]
    moved = made(Transpose(tuple(free_x + axes)), [x], [x.shape[i] for i in free_x + axes])
    flat = made(Reshape((*leading, inputs)), moved.outputs, [*leading, inputs])
    op = Linear(matrix, np.zeros(matrix.shape[1]), weights.path)
    layer = made(op, flat.outputs, [*leading, matrix.shape[1]])
    split = made(Reshape((*leading, *outputs)), layer.outputs, [*leading, *outputs])
    nodes = [moved, flat, layer, split]
    if on_left:
        k, n = len(free_x), len(free_x) + len(free_weights)
        order = (*range(k, n), *range(k))
        nodes.append(made(Transpose(order), split.outputs, node.outputs[0].shape))
    return nodes


def to_pixels(edit: Edit, node: Node) -> bool:
    """A linear layer over the channels of NHWC images is a 1x1 convolution."""
    op: Any = node.op
    if not isinstance(op, Linear) or len(node.inputs[0].shape) != 4:
        return False
    conv = Conv(op.weights[None, None], op.bias, op.path, activation=op.activation)
    return edit.replace(node, made(conv, node.inputs, node.outputs[0].shape))
