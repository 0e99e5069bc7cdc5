"""Layers found in a graph, with batch norm, bias and activation drawn into them."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from sparsejax.compile import fold
from sparsejax.compile.graph_old import Graph, Layer, Node, Value

# Where activations are compared: both bounds, their neighbours, and what float32 makes of extremes.
SAMPLES = np.concatenate(
    [
        np.linspace(-12, 12, 1537),
        [-1e30, -1e4, -100, -1e-3, 1e-3, 5.999, 6.001, 100, 1e4, 1e30, np.nan],
    ]
).astype(np.float32)
ACTIVATIONS: dict[Callable, np.ndarray] = {
    jax.nn.relu: np.maximum(SAMPLES, 0),
    jax.nn.relu6: np.clip(SAMPLES, 0, 6),
}
FLOAT32 = np.dtype(np.float32)


def fuse(graph: Graph) -> None:
    """Exchange equations for layers; a value that is read elsewhere, too, ends a layer."""
    for node in list(graph.nodes):
        layer = _as_layer(node)
        if layer is not None:
            node.name, node.inputs, node.equation, node.layer = (
                layer.kind,
                [value for value in node.inputs if value.constant is None],
                None,
                layer,
            )
    for node in [node for node in graph.nodes if node.layer]:
        while _absorb_transpose(graph, node) or _absorb_constant(graph, node):
            pass
        _absorb_activation(graph, node)
    graph.prune()


def _as_layer(node: Node) -> Layer | None:
    """The layer that a convolution or a product with constant float32 weights is."""
    if node.name not in ("conv_general_dilated", "dot_general"):
        return None
    if any(value.dtype != FLOAT32 for value in [*node.inputs, *node.outputs]):
        return None
    weights = [value for value in node.inputs if isinstance(value.constant, np.ndarray)]
    if len(weights) != 1 or not np.isfinite(weights[0].constant).all():
        return None
    return _as_linear(node) if node.name == "dot_general" else _as_convolution(node)


def _as_linear(node: Node) -> Layer | None:
    """x @ weights with x (..., inputs), or weights @ x.T as an Equinox model under vmap has it."""
    (contract, batch) = node.equation.params["dimension_numbers"]
    left, right = node.inputs
    if len(contract[0]) != 1 or batch[0]:
        return None
    on_left = left.constant is not None
    x, weights = (right, left) if on_left else (left, right)
    axis, along = (contract[1][0], contract[0][0]) if on_left else (contract[0][0], contract[1][0])
    if len(weights.shape) != 2 or len(x.shape) < 1 or axis != len(x.shape) - 1:
        return None
    if on_left and len(x.shape) > 2:
        return None
    matrix = weights.constant if along == 0 else weights.constant.T
    layer = Layer("linear", matrix.astype(np.float64), np.zeros(matrix.shape[1]), weights.path)
    layer.channels_last = not (on_left and len(x.shape) == 2)
    return layer


def _as_convolution(node: Node) -> Layer | None:
    """A two-dimensional convolution in NHWC or NCHW with constant weights."""
    x, weights = node.inputs
    params = node.equation.params
    layout = params["dimension_numbers"]
    channels_last = layout.lhs_spec == (0, 3, 1, 2)
    plain = tuple(params["lhs_dilation"]) == tuple(params["rhs_dilation"]) == (1, 1)
    if (
        weights.constant is None
        or len(x.shape) != 4
        or layout.lhs_spec != layout.out_spec
        or not (channels_last or layout.lhs_spec == (0, 1, 2, 3))
        or not plain
        or params["batch_group_count"] != 1
        or any(low < 0 or high < 0 for low, high in params["padding"])
    ):
        return None
    outputs, inputs, *spatial = layout.rhs_spec
    kernel = weights.constant.transpose(*spatial, inputs, outputs).astype(np.float64)
    groups = params["feature_group_count"]
    padding = tuple((int(low), int(high)) for low, high in params["padding"])
    kind = "convolution"
    if kernel.shape[:2] == (1, 1) and groups == 1 and padding == ((0, 0), (0, 0)):
        kind = "pointwise"
    elif groups > 1 and kernel.shape[2:] == (1, groups):
        kind = "depthwise"
    return Layer(
        kind=kind,
        weights=kernel,
        bias=np.zeros(kernel.shape[-1]),
        path=weights.path,
        strides=tuple(params["window_strides"]),
        padding=padding,
        groups=groups,
        channels_last=channels_last,
    )


def _only_user(graph: Graph, value: Value) -> Node | None:
    """The one node that reads a value which is no output of the graph."""
    users = graph.users().get(value, [])
    return users[0] if len(users) == 1 and value not in graph.outputs else None


def _absorb_transpose(graph: Graph, node: Node) -> bool:
    """weights @ x.T, transposed right after, is x @ weights.T."""
    layer, user = node.layer, _only_user(graph, node.outputs[0])
    if layer is None or user is None or layer.kind != "linear" or layer.channels_last:
        return False
    if user.name != "transpose" or tuple(user.equation.params["permutation"]) != (1, 0):
        return False
    layer.channels_last = True
    graph.absorb(node, [user])
    return True


def _absorb_constant(graph: Graph, node: Node) -> bool:
    """Draw an addition or a multiplication by one number a channel into the weights."""
    layer, value = node.layer, node.outputs[0]
    user = _only_user(graph, value)
    if layer is None or user is None or user.name not in ("add", "sub", "mul", "div"):
        return False
    if user.outputs[0].shape != value.shape or user.outputs[0].dtype != FLOAT32:
        return False
    other = user.inputs[1] if user.inputs[0] is value else user.inputs[0]
    if other is value or (user.name == "div" and user.inputs[1] is value):
        return False
    axis = len(value.shape) - 1 if layer.channels_last else len(value.shape) - 3
    if layer.kind == "linear" and not layer.channels_last:
        axis = 0
    numbers = _along(other, value.shape, axis)
    if numbers is None:
        return False
    with np.errstate(all="ignore"):  # what is not finite is left to XLA below
        scale, shift = _affine(user, value, numbers)
        weights, bias = layer.weights * scale + 0.0, layer.bias * scale + shift  # no -0.0
    if not (_fits(weights) and _fits(bias)):
        return False
    layer.weights, layer.bias = weights, bias
    graph.absorb(node, [user])
    return True


def _affine(user: Node, value: Value, numbers: np.ndarray) -> tuple[Any, Any]:
    """Scale and shift of the arithmetic in `user`."""
    if user.name == "add":
        return 1.0, numbers
    if user.name == "sub":
        return (1.0, -numbers) if user.inputs[0] is value else (-1.0, numbers)
    return (1.0 / numbers if user.name == "div" else numbers), 0.0


def _fits(array: np.ndarray) -> bool:
    """Finite in float32?"""
    return bool((np.abs(array) <= np.finfo(np.float32).max).all())


def _along(other: Value, shape: tuple[int, ...], axis: int) -> np.ndarray | None:
    """A constant as one float64 number a channel, None where it varies over other axes."""
    array = other.constant
    if not isinstance(array, np.ndarray) or other.dtype != FLOAT32:
        return None
    if array.size == 1:
        return np.full(shape[axis], array.reshape(()), np.float64)
    if array.ndim != len(shape):
        return None
    index: list[Any] = [0] * array.ndim
    index[axis] = slice(None)
    for i, (size, stride) in enumerate(zip(array.shape, array.strides, strict=True)):
        if i != axis and size != 1 and stride != 0:
            return None
    return np.broadcast_to(array[tuple(index)], (shape[axis],)).astype(np.float64)


def _absorb_activation(graph: Graph, node: Node) -> None:
    """Name the scalar function behind a layer by sampling it, however it is spelled."""
    layer, value = node.layer, node.outputs[0]
    assert layer is not None
    users = graph.users()
    samples: dict[Value, np.ndarray] = {value: SAMPLES}
    region: list[Node] = []
    found: tuple[Callable, list[Node]] | None = None
    for candidate in graph.nodes[graph.nodes.index(node) + 1 :][:24]:
        outputs = _sampled(candidate, samples, value.shape)
        if outputs is None:
            continue
        samples[candidate.outputs[0]] = outputs
        region = [*region, candidate]
        interior = [value, *(n.outputs[0] for n in region[:-1])]
        closed = all(
            v not in graph.outputs and all(user in region for user in users.get(v, []))
            for v in interior
        )
        activation = _named(outputs)
        if closed and activation is not None:
            found = (activation, region)
    if found is None:
        return
    layer.activation, region = found
    graph.absorb(node, region)


def _sampled(
    node: Node, samples: dict[Value, np.ndarray], shape: tuple[int, ...]
) -> np.ndarray | None:
    """The node on samples of its input, where it is elementwise and all else is one number."""
    if node.equation is None or not any(value in samples for value in node.inputs):
        return None
    if len(node.outputs) != 1 or node.outputs[0].shape != shape:
        return None
    inputs = []
    for value in node.inputs:
        array = value.constant
        if value in samples:
            inputs.append(samples[value])
        elif isinstance(array, np.ndarray) and (array.size == 1 or not any(array.strides)):
            inputs.append(np.broadcast_to(array.ravel()[:1], SAMPLES.shape))
        else:
            return None
    elementwise = node.name in fold.ELEMENTWISE or node.name in fold.CUSTOM
    if not elementwise and node.name not in ("integer_pow", "convert_element_type"):
        return None
    try:
        outputs = fold.in_numpy(node.equation, inputs)
    except (ValueError, TypeError):  # the body depends on the shape
        return None
    return outputs[0] if outputs is not None and outputs[0].shape == SAMPLES.shape else None


def _named(outputs: np.ndarray) -> Callable | None:
    """The activation that has these values."""
    for activation, expected in ACTIVATIONS.items():
        if outputs.dtype == FLOAT32 and np.array_equal(outputs, expected, equal_nan=True):
            return activation
    return None
