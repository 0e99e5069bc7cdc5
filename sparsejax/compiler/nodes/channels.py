"""Moves of whole channels: slices, splits, reversals and shuffles, drawn into layers."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.compiler.engine.program import Builder
from sparsejax.compiler.graph.edit import Edit, is_float, made
from sparsejax.compiler.graph.graph import Node, Value
from sparsejax.compiler.graph.images import EITHER, LAST, is_channel, sides
from sparsejax.compiler.graph.op import MappingType
from sparsejax.compiler.nodes.layer import Layer
from sparsejax.compiler.nodes.op import ChannelsOp, Rules
from sparsejax.compiler.nodes.pick import CHANNELS, Pick
from sparsejax.compiler.nodes.primitive import Primitive
from sparsejax.compiler.nodes.reshape import Reshape
from sparsejax.compiler.nodes.transpose import Transpose


@dataclass(frozen=True, eq=False)
class Channels(ChannelsOp):
    """Output channel i is input channel index[i]: a slice, a shuffle, a reversal."""

    index: np.ndarray
    axis: int

    def __str__(self) -> str:
        """Range, or size."""
        if not self._is_slice():
            return f"Channels shuffled, {self.index.size}"
        first = int(self.index[0]) if self.index.size else 0
        return f"Channels {first}:{first + self.index.size}"

    def _is_slice(self) -> bool:
        return np.array_equal(self.index, self.index[:1] + np.arange(self.index.size))

    def channel_axes(self, node: Node) -> frozenset[int]:
        """Of images, what may be channels in one order are rows or columns in the other."""
        return EITHER if len(node.outputs[0].shape) == 4 else frozenset((self.axis,))

    def settled(self, axis: int, shape: tuple[int, ...]) -> Any:
        """A pick where what looked like channels are rows or columns."""
        if axis == self.axis:
            return self
        last = axis == LAST
        numbers = [np.arange(shape[a]) for a in (*sides(last), axis)]
        numbers[sides(last).index(self.axis)] = self.index
        rows, columns = (np.stack([n, 0 * n], 1) for n in numbers[:2])
        return Pick(
            rows, columns, np.stack([numbers[2], *np.zeros((2, shape[axis]), int)], 1), last
        )

    def evaluate(self, x: jax.Array) -> list[jax.Array]:
        return [jnp.take(x, np.asarray(self.index, np.int32), axis=self.axis, mode="clip")]

    def mapping(self, node: Node) -> MappingType:
        return MappingType.ONE_TO_ONE if self._is_slice() else MappingType.SHUFFLE

    def lower(self, node: Node, to: Builder) -> None:
        """One step."""
        to.add(node, CHANNELS, channels=self.index)


def to_channels(edit: Edit, node: Node) -> bool:
    """slice, rev and split along the one axis that they change."""
    if not isinstance(node.op, Primitive) or not is_float(*node.inputs[:1], *node.outputs):
        return False
    if node.op.name not in ("slice", "rev", "split") or node.inputs[0].constant is not None:
        return False
    changed = _changes(node.op.name, node.op.equation.params, node.inputs[0].shape)
    if len(changed) != 1:
        return False
    ((axis, parts),) = changed
    x, order = _before_transpose(edit, node.inputs[0])
    if not is_channel(order[axis], len(order)):
        x, order = node.inputs[0], tuple(range(len(order)))
    if not is_channel(order[axis], len(order)):
        return False
    nodes = []
    for index, output in zip(parts, node.outputs, strict=True):
        shape = [len(index) if i == order[axis] else size for i, size in enumerate(x.shape)]
        nodes.append(made(Channels(index, order[axis]), [x], shape))
        nodes.append(Node(Transpose(order), nodes[-1].outputs, [output]))
    return edit.replace(node, *nodes)


def _before_transpose(edit: Edit, x: Value) -> tuple[Value, tuple[int, ...]]:
    """What x was before its axes were moved, and how they were."""
    writer = edit.writer.get(x)
    if writer is None or not isinstance(writer.op, Transpose):
        return x, tuple(range(len(x.shape)))
    return writer.inputs[0], writer.op.permutation


Changes = list[tuple[int, list[np.ndarray]]]


def _changes(name: str, params: dict, shape: tuple[int, ...]) -> Changes:
    """The axes that an equation changes, and which of their elements each output has."""
    if name == "split":
        axis = int(params["axis"])
        return [(axis, np.split(np.arange(shape[axis]), np.cumsum(params["sizes"])[:-1]))]
    if name == "rev":
        return [(int(d), [np.arange(shape[d])[::-1]]) for d in params["dimensions"]]
    steps = params["strides"] or (1,) * len(shape)
    bounds = zip(params["start_indices"], params["limit_indices"], steps, strict=True)
    taken = [np.arange(first, last, step) for first, last, step in bounds]
    return [(axis, [index]) for axis, index in enumerate(taken) if index.size != shape[axis]]


def to_shuffle(edit: Edit, node: Node) -> bool:
    """Channels split in two axes, transposed and merged: a shuffle."""
    if not isinstance(node.op, Reshape):
        return False
    middle = edit.sole_writer(node.inputs[0], Transpose)
    first = middle and edit.sole_writer(middle.inputs[0], Reshape)
    if not middle or not first or not isinstance(middle.op, Transpose):
        return False
    before, after, split = first.inputs[0].shape, node.outputs[0].shape, middle.inputs[0].shape
    if before != after or len(before) not in (2, 4) or not is_float(*node.outputs):
        return False
    # The channels are last or second: all their parts stand there, and no other axis may move.
    rank, parts = len(before), len(split) - len(before) + 1
    for axis in (rank - 1, 1):
        order = middle.op.permutation
        inside = order[axis : axis + parts]
        fixed = [i for i in range(len(split)) if not axis <= i < axis + parts]
        kept = [*order[:axis], *order[axis + parts :]] == fixed
        sizes = split[axis : axis + parts]
        same = (*split[:axis], math.prod(sizes), *split[axis + parts :]) == before
        if kept and same and sorted(inside) == list(range(axis, axis + parts)):
            index = np.arange(before[axis]).reshape(sizes)
            index = index.transpose([i - axis for i in inside]).ravel()
            return edit.replace(node, Node(Channels(index, axis), first.inputs, node.outputs))
    return False


def into_layer_before(edit: Edit, node: Node) -> bool:
    """Of a layer whose outputs are only read in parts, each part becomes a layer of its own."""
    if not isinstance(node.op, Channels):
        return False
    x = node.inputs[0]
    layer = edit.writer.get(x)
    if layer is None or x in edit.outputs or len(layer.inputs) > 1:
        return False
    op: Any = layer.op
    if not isinstance(op, Layer) or op.num_groups > 1:
        return False
    parts = [reader.op for reader in edit.readers[x] if isinstance(reader.op, Channels)]
    if len(parts) != len(edit.readers[x]) or node.op.axis != op.channel_axis(len(x.shape)):
        return False
    # Parts that overlap would compute the shared channels twice.
    taken = np.concatenate([part.index for part in parts])
    if np.unique(taken).size != taken.size or any(part.axis != node.op.axis for part in parts):
        return False
    index = node.op.index
    changed = op.changed(weights=op.weights[..., index], bias=op.bias[index])
    return edit.replace(node, made(changed, layer.inputs, node.outputs[0].shape))


def into_layer_behind(edit: Edit, node: Node) -> bool:
    """A layer that reads all channels in another order has its weights in that order."""
    op: Any = node.op
    if not isinstance(op, Layer) or op.num_groups > 1:
        return False
    before = edit.writer.get(node.inputs[0])
    if before is None or not isinstance(before.op, Channels):
        return False
    x, index = before.inputs[0], before.op.index
    if before.op.axis != op.channel_axis(len(x.shape)):
        return False
    if not np.array_equal(np.sort(index), np.arange(x.shape[before.op.axis])):
        return False
    changed = op.changed(weights=op.weights.take(np.argsort(index), axis=-2))
    return edit.replace(node, made(changed, [x, *node.inputs[1:]], node.outputs[0].shape))


RULES = Rules((to_channels,), (to_shuffle,), (into_layer_before, into_layer_behind))
