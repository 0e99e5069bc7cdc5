"""Sums, gates, activations and padding drawn into the layer that they follow or lead to."""

from dataclasses import replace
from typing import Any

from sparsejax.compiler.activation import IDENTITY
from sparsejax.compiler.channel_axes import FIRST, LAST, in_layout, one_a_channel
from sparsejax.compiler.edit import Edit, is_float, made
from sparsejax.compiler.fuse_activation import activation_of
from sparsejax.compiler.graph import (
    FLOAT32,
    Affine,
    Conv,
    Elementwise,
    Linear,
    Node,
    Pad,
    Primitive,
    Reshape,
    Value,
)

KINDS = ("add", "sub", "mul", "max")


def to_elementwise(edit: Edit, node: Node) -> bool:
    """add, sub, mul or max of two computed arrays of one shape, or with a gate."""
    if not isinstance(node.op, Primitive) or node.op.name not in KINDS:
        return False
    if not is_float(*node.inputs, *node.outputs):
        return False
    if any(value.constant is not None for value in node.inputs):
        return False
    a, b = node.inputs
    if a.shape != b.shape and node.op.name != "sub" and is_gate(b, a):
        a, b = b, a
    if a.shape != b.shape and not is_gate(a, b):
        return False
    op = Elementwise(node.op.name)
    return edit.replace(node, made(op, [a, b], node.outputs[0].shape))


def is_gate(x: Value, gate: Value) -> bool:
    """Is `gate` one number for each image and channel of `x`?"""
    if len(x.shape) != 4 or len(gate.shape) != 4:
        return False
    return gate.shape in (one_a_channel(x.shape, FIRST), one_a_channel(x.shape, LAST))


def broadcast_gate(edit: Edit, node: Node) -> bool:
    """A gate that was broadcast to the image needs not be."""
    if not isinstance(node.op, Elementwise) or len(node.inputs) != 2:
        return False
    for position in (1,) if node.op.kind == "sub" else (1, 0):
        x, other = node.inputs[1 - position], node.inputs[position]
        writer = edit.writer.get(other)
        if writer is None or not isinstance(writer.op, Primitive) or not is_float(*writer.inputs):
            continue
        if writer.op.name != "broadcast_in_dim" or len(writer.inputs) != 1 or len(x.shape) != 4:
            continue
        source = writer.inputs[0]
        dims = tuple(int(d) for d in writer.op.equation.params["broadcast_dimensions"])
        shape = tuple(source.shape[dims.index(i)] if i in dims else 1 for i in range(4))
        whole = x.shape == node.outputs[0].shape
        if source.constant is not None or not (whole and is_gate(x, Value(shape, FLOAT32))):
            continue
        gate = made(Reshape(shape), [source], shape)
        joined = made(node.op, [x, gate.outputs[0]], node.outputs[0].shape)
        return edit.replace(node, gate, joined)
    return False


def into_layer(edit: Edit, node: Node) -> bool:
    """An addition becomes the residual of the later of the layers that it follows."""
    op = node.op
    if not isinstance(op, Elementwise) or op.kind != "add":
        return False
    a, b = node.inputs
    if a is b or a.shape != b.shape:
        return False
    layers = [edit.sole_writer(value, Conv, Linear) for value in (a, b)]
    open_to = [n for n in layers if n and len(n.inputs) == 1 and not n.op.activation]  # type: ignore[union-attr]
    if not open_to:
        return False
    layer = max(open_to, key=lambda n: edit.slot[n])
    other = b if layer.outputs[0] is a else a
    changed = replace(layer.op, activation=op.activation)  # type: ignore[arg-type, call-arg]
    return edit.replace(node, made(changed, [layer.inputs[0], other], node.outputs[0].shape))


def activation_into(edit: Edit, node: Node) -> bool:
    """An activation runs with what computed its input."""
    activation = activation_of(node)
    if activation is None:
        return False
    before = edit.sole_writer(node.inputs[0], Conv, Linear, Affine, Elementwise)
    if before is None:
        return False
    op: Any = before.op
    if op.activation != IDENTITY:
        return False
    changed = replace(op, activation=activation)
    return edit.replace(node, made(changed, before.inputs, node.outputs[0].shape))


def pad_into_conv(edit: Edit, node: Node) -> bool:
    """Zeros around an image are padding of the convolution that reads it."""
    op = node.op
    if not isinstance(op, Conv):
        return False
    before = edit.writer.get(node.inputs[0])
    if before is None or not isinstance(before.op, Pad):
        return False
    around = in_layout(before.op, op.channels_last)
    if around is None:
        return False
    pairs = zip(op.padding, around.padding, strict=True)
    padding: Any = tuple((a[0] + b[0], a[1] + b[1]) for a, b in pairs)
    changed = replace(op, padding=padding)
    inputs = [before.inputs[0], *node.inputs[1:]]
    return edit.replace(node, made(changed, inputs, node.outputs[0].shape))
