"""Moves of channels drawn into the weights that write or read them."""

from dataclasses import replace
from typing import Any

import numpy as np

from sparsejax.compiler.edit import Edit, made
from sparsejax.compiler.fuse_scale import channel_axis
from sparsejax.compiler.graph import Channels, Conv, Linear, Node


def into_layer_before(edit: Edit, node: Node) -> bool:
    """Of a layer whose outputs are only read in parts, each part becomes a layer of its own."""
    if not isinstance(node.op, Channels):
        return False
    x = node.inputs[0]
    layer = edit.writer.get(x)
    if layer is None or x in edit.outputs or len(layer.inputs) > 1:
        return False
    op: Any = layer.op
    if not isinstance(op, Conv | Linear) or getattr(op, "groups", 1) > 1:
        return False
    parts = [reader.op for reader in edit.readers[x] if isinstance(reader.op, Channels)]
    if len(parts) != len(edit.readers[x]) or node.op.axis != channel_axis(layer):
        return False
    taken = np.concatenate([part.index for part in parts])
    if np.unique(taken).size != taken.size or any(part.axis != node.op.axis for part in parts):
        return False
    index = node.op.index
    changed = replace(op, weights=op.weights[..., index], bias=op.bias[index])
    return edit.replace(node, made(changed, layer.inputs, node.outputs[0].shape))


def into_layer_behind(edit: Edit, node: Node) -> bool:
    """A layer that reads all channels in another order has its weights in that order."""
    op: Any = node.op
    if not isinstance(op, Conv | Linear) or getattr(op, "groups", 1) > 1:
        return False
    before = edit.writer.get(node.inputs[0])
    if before is None or not isinstance(before.op, Channels):
        return False
    x, index = before.inputs[0], before.op.index
    first = isinstance(op, Conv) and not op.channels_last
    if before.op.axis != (1 if first else len(x.shape) - 1):
        return False
    if not np.array_equal(np.sort(index), np.arange(x.shape[before.op.axis])):
        return False
    changed = replace(op, weights=op.weights.take(np.argsort(index), axis=-2))
    return edit.replace(node, made(changed, [x, *node.inputs[1:]], node.outputs[0].shape))
