"""A compile graph as an ONNX file, so that other engines run the weights that ours runs.

Images are channel-first in the file, as those engines want them: an NHWC input is an NCHW input
there. Weights are written once, in float32, with batch norm folded as compile folds it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import onnx_rows
from benchmarks.peers.onnx_writer import (
    TO_CHANNELS_FIRST,
    Writer,
    activate,
    helper,
    info,
    onnx,
)
from sparsejax.compiler.graph.graph import Graph, Node, Value
from sparsejax.compiler.nodes.affine import Affine
from sparsejax.compiler.nodes.attention import Attention
from sparsejax.compiler.nodes.channels import Channels
from sparsejax.compiler.nodes.concat import Concat
from sparsejax.compiler.nodes.conv import Conv
from sparsejax.compiler.nodes.elementwise import Elementwise
from sparsejax.compiler.nodes.linear import Linear
from sparsejax.compiler.nodes.mean import Mean
from sparsejax.compiler.nodes.norm import Norm
from sparsejax.compiler.nodes.pad import Pad
from sparsejax.compiler.nodes.pool import Pool
from sparsejax.compiler.nodes.reshape import Reshape
from sparsejax.compiler.nodes.softmax import Softmax
from sparsejax.compiler.nodes.transpose import Transpose


def export(graph: Graph, path: Path) -> None:
    """Write the graph to an ONNX file with inputs `input_0`, ... and outputs `output_0`, ...

    Raises:
        ValueError: when the graph has a step that is not one of the layers compile knows.
    """
    writer = Writer()
    inputs = [_input(writer, graph, value, i) for i, value in enumerate(graph.inputs)]
    for node in graph.nodes:
        if type(node.op) not in EXPORTERS:
            raise ValueError(f"export needs layers that compile knows, got {node.op}.")
        EXPORTERS[type(node.op)](writer, node)
    outputs = []
    for i, value in enumerate(graph.outputs):
        name = writer.read(value, image=False)
        writer.nodes.append(helper.make_node("Identity", [name], [f"output_{i}"]))
        outputs.append(info(f"output_{i}", value.shape))
    writer.save(inputs, outputs, path)


def _input(writer: Writer, graph: Graph, value: Value, index: int) -> onnx.ValueInfoProto:
    image = len(value.shape) == 4 and any(
        getattr(node.op, "channels_last", False) for node in graph.nodes
    )
    writer.write(value, f"input_{index}", image=image)
    shape = tuple(value.shape[i] for i in TO_CHANNELS_FIRST) if image else value.shape
    return info(f"input_{index}", shape)


def _conv(writer: Writer, node: Node) -> None:
    op, image = node.op, node.op.channels_last
    (top, bottom), (left, right) = op.padding
    y = writer.add(
        "Conv",
        writer.read(node.inputs[0], image=image),
        writer.constant(op.weights.transpose(3, 2, 0, 1)),
        writer.constant(op.bias),
        strides=op.strides,
        pads=(top, left, bottom, right),
        dilations=op.dilation,
        group=op.groups,
    )
    _finish(writer, node, y, image=image)


def _linear(writer: Writer, node: Node) -> None:
    op, x = node.op, node.inputs[0]
    if len(x.shape) == 4:  # on every pixel
        weights = writer.constant(op.weights.T[:, :, None, None])
        y = writer.add("Conv", writer.read(x, image=True), weights, writer.constant(op.bias))
        return _finish(writer, node, y, image=True)
    operands = writer.read(x, image=False), writer.constant(op.weights)
    if len(x.shape) == 2:
        y = writer.add("Gemm", *operands, writer.constant(op.bias))
    else:
        y = writer.add("Add", writer.add("MatMul", *operands), writer.constant(op.bias))
    return _finish(writer, node, y, image=False)


def _finish(writer: Writer, node: Node, y: str, *, image: bool) -> None:
    """Add the residual and the activation of a layer."""
    for residual in node.inputs[1:]:
        y = writer.add("Add", y, writer.read(residual, image=image))
    writer.write(node.outputs[0], activate(writer, node.op.activation, y), image=image)


def _affine(writer: Writer, node: Node) -> None:
    op, (x,) = node.op, node.inputs
    image = x in writer.image
    axis = op.axis % len(x.shape)
    axis = TO_CHANNELS_FIRST.index(axis) if image else axis
    shape = [-1 if i == axis else 1 for i in range(len(x.shape))]
    scaled = writer.add(
        "Mul", writer.read(x, image=image), writer.constant(op.scale.reshape(shape))
    )
    y = writer.add("Add", scaled, writer.constant(op.shift.reshape(shape)))
    writer.write(node.outputs[0], activate(writer, op.activation, y), image=image)


def _elementwise(writer: Writer, node: Node) -> None:
    kinds = {"add": "Add", "sub": "Sub", "mul": "Mul", "max": "Max"}
    image = any(value in writer.image for value in node.inputs)
    names = []
    for value in node.inputs:
        if image and len(value.shape) == 2:  # the gate of an image: one number for each channel
            shape = writer.constant([*value.shape, 1, 1], np.int64)
            names.append(writer.add("Reshape", writer.read(value, image=False), shape))
        else:
            names.append(writer.read(value, image=image))
    y = names[0] if node.op.kind == "identity" else writer.add(kinds[node.op.kind], *names)
    writer.write(node.outputs[0], activate(writer, node.op.activation, y), image=image)


def _pool(writer: Writer, node: Node) -> None:
    op, image = node.op, node.op.channels_last
    (top, bottom), (left, right) = op.padding
    options: dict[str, Any] = {} if op.kind == "max" else {"count_include_pad": int(op.counts)}
    y = writer.add(
        "MaxPool" if op.kind == "max" else "AveragePool",
        writer.read(node.inputs[0], image=image),
        kernel_shape=op.window,
        strides=op.strides,
        pads=(top, left, bottom, right),
        **options,
    )
    writer.write(node.outputs[0], y, image=image)


def _mean(writer: Writer, node: Node) -> None:
    op, image = node.op, node.op.channels_last
    y = writer.add("GlobalAveragePool", writer.read(node.inputs[0], image=image))
    if not op.keepdims:
        y, image = writer.add("Flatten", y), False
    writer.write(node.outputs[0], y, image=image)


def _concat(writer: Writer, node: Node) -> None:
    image = any(value in writer.image for value in node.inputs)
    axis = node.op.axis % len(node.outputs[0].shape)
    names = [writer.read(value, image=image) for value in node.inputs]
    y = writer.add("Concat", *names, axis=TO_CHANNELS_FIRST.index(axis) if image else axis)
    writer.write(node.outputs[0], y, image=image)


def _channels(writer: Writer, node: Node) -> None:
    op, (x,) = node.op, node.inputs
    image = x in writer.image
    axis = op.axis % len(x.shape)
    y = writer.add(
        "Gather",
        writer.read(x, image=image),
        writer.constant(op.index, np.int64),
        axis=TO_CHANNELS_FIRST.index(axis) if image else axis,
    )
    writer.write(node.outputs[0], y, image=image)


def _pad(writer: Writer, node: Node) -> None:
    op, image = node.op, node.op.channels_last
    (top, bottom), (left, right) = op.padding
    amounts = writer.constant([0, 0, top, left, 0, 0, bottom, right], np.int64)
    y = writer.add("Pad", writer.read(node.inputs[0], image=image), amounts)
    writer.write(node.outputs[0], y, image=image)


def _reshape(writer: Writer, node: Node) -> None:
    (x,), (y,) = node.inputs, node.outputs
    # The order of elements differs between the layouts, unless the image is one pixel.
    one_pixel = len(x.shape) == 4 and x.shape[1:3] == (1, 1)
    name = writer.image[x] if one_pixel and x in writer.image else writer.read(x, image=False)
    shape = writer.constant(y.shape, np.int64)
    writer.write(y, writer.add("Reshape", name, shape), image=False)


def _transpose(writer: Writer, node: Node) -> None:
    (x,), (y,) = node.inputs, node.outputs
    name = writer.read(x, image=False)
    writer.write(y, writer.add("Transpose", name, perm=node.op.permutation), image=False)


EXPORTERS: dict[type, Callable[[Writer, Node], None]] = {
    Affine: _affine,
    Attention: onnx_rows.attention,
    Norm: onnx_rows.norm,
    Softmax: onnx_rows.softmax,
    Channels: _channels,
    Concat: _concat,
    Conv: _conv,
    Elementwise: _elementwise,
    Linear: _linear,
    Mean: _mean,
    Pad: _pad,
    Pool: _pool,
    Reshape: _reshape,
    Transpose: _transpose,
}
