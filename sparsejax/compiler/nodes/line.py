"""What follows a convolution of lines, (N, W, C) or (N, C, W), works on images of height 1, too."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from sparsejax.compiler.graph import fold
from sparsejax.compiler.graph.edit import Edit, made
from sparsejax.compiler.graph.graph import Node, Value
from sparsejax.compiler.nodes.elementwise import IN_JAX
from sparsejax.compiler.nodes.linear import Linear
from sparsejax.compiler.nodes.op import Rules
from sparsejax.compiler.nodes.powers import POWERS
from sparsejax.compiler.nodes.primitive import Primitive
from sparsejax.compiler.nodes.reshape import Reshape


class Image(NamedTuple):
    """An image of height 1, and the axis of its height: 1 of NHWC, 2 of NCHW."""

    value: Value
    axis: int


def image_of(edit: Edit, line: Value) -> Image | None:
    """The image that a line was made of."""
    writer = edit.writer.get(line)
    if writer is None or not isinstance(writer.op, Reshape) or len(line.shape) != 3:
        return None
    image = writer.inputs[0]
    for axis in (1, 2):
        if len(image.shape) == 4 and _with(image.shape[axis], line.shape, axis) == image.shape:
            return Image(image, axis) if image.shape[axis] == 1 else None
    return None


def _with(item: Any, items: Any, axis: int) -> tuple:
    """The items of three axes and one more before axis `axis`."""
    return (*items[:axis], item, *items[axis:])


def _windows(params: dict, axis: int) -> dict:
    names = ("window_dimensions", "window_strides", "base_dilation", "window_dilation")
    changed = {name: _with(1, params[name], axis) for name in names}
    return params | changed | {"padding": _with((0, 0), params["padding"], axis)}


def _reduced(params: dict, axis: int) -> dict | None:
    """Over height and width where it was over the width."""
    return params | {"axes": (axis, axis + 1)} if tuple(params["axes"]) == (axis,) else None


def _padded(params: dict, axis: int) -> dict:
    return params | {"padding_config": _with((0, 0, 0), params["padding_config"], axis)}


def _sliced(params: dict, axis: int) -> dict:
    bounds = {"start_indices": 0, "limit_indices": 1}
    changed = {name: _with(item, params[name], axis) for name, item in bounds.items()}
    steps = params["strides"]
    return params | changed | {"strides": None if steps is None else _with(1, steps, axis)}


def _along(name: str) -> Callable[[dict, int], dict]:
    later = lambda along, axis: int(along) + (along >= axis)
    return lambda params, axis: params | {name: later(params[name], axis)}


# primitive -> its parameters on images, of those on lines and of the axis of the height
ON_IMAGES: dict[str, Callable[[dict, int], dict | None]] = {
    "concatenate": _along("dimension"),
    "pad": _padded,
    "reduce_max": _reduced,
    "reduce_sum": _reduced,
    "reduce_window_max": _windows,
    "reduce_window_sum": _windows,
    "slice": _sliced,
    "split": _along("axis"),
    **dict.fromkeys((*IN_JAX, *POWERS), lambda params, axis: params),
}


def on_image(edit: Edit, node: Node) -> bool:
    """An equation on lines that were images is one on these."""
    if not isinstance(node.op, Primitive) or node.op.name not in ON_IMAGES:
        return False
    lines = [value for value in node.inputs if len(value.shape) == 3]
    if not lines or any(value.constant is not None for value in lines):
        return False
    images = [image_of(edit, value) for value in lines]
    axes = {image.axis for image in images if image is not None}
    if len(axes) != 1:
        return False
    (axis,) = axes
    equation = node.op.equation
    params = ON_IMAGES[node.op.name](equation.params, axis)
    if params is None:
        return False
    nodes: list[Node] = []
    inputs = [_image(edit, value, axis, nodes) for value in node.inputs]
    bound = lambda *arrays: fold.bind(equation.primitive, params, *arrays)
    shapes = [jax.ShapeDtypeStruct(value.shape, value.dtype) for value in inputs]
    (inner,) = jax.make_jaxpr(bound)(*shapes).jaxpr.eqns
    results = [Value(v.aval.shape, v.aval.dtype) for v in inner.outvars]
    nodes.append(Node(Primitive(inner), inputs, results))
    for result, line in zip(results, node.outputs, strict=True):
        nodes.append(Node(Reshape(line.shape), [result], [line]))
    return edit.replace(node, *nodes)


def _image(edit: Edit, value: Value, axis: int, nodes: list[Node]) -> Value:
    """A line as an image; what is none stays as it is."""
    if len(value.shape) != 3:
        return value
    image = image_of(edit, value)
    if image is not None and image.axis == axis:
        return image.value
    shape = _with(1, value.shape, axis)
    nodes.append(Node(Reshape(shape), [value], [Value(shape, value.dtype)]))
    return nodes[-1].outputs[0]


def linear_on_image(edit: Edit, node: Node) -> bool:
    """A linear layer over the channels of lines that were images, or vectors, is one on these."""
    if not isinstance(node.op, Linear) or len(node.inputs) != 1 or len(node.inputs[0].shape) != 3:
        return False
    line = node.inputs[0]
    writer = edit.writer.get(line)
    if writer is None or not isinstance(writer.op, Reshape):
        return False
    source = writer.inputs[0]
    longer = [[size for size in value.shape[:-1] if size != 1] for value in (source, line)]
    if len(source.shape) not in (2, 4) or source.shape[-1] != line.shape[-1]:
        return False
    if longer[0] != longer[1]:
        return False
    shape = node.outputs[0].shape
    layer = made(node.op, [source], (*source.shape[:-1], shape[-1]))
    return edit.replace(node, layer, made(Reshape(shape), layer.outputs, shape))


RULES = Rules(named=(on_image,), joined=(linear_on_image,))
