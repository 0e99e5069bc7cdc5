"""Regions as programs of the C++ engine: steps over images of channels x height x width."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from sparsejax.compiler.activation import IDENTITY, Activation
from sparsejax.compiler.graph import (
    Affine,
    Channels,
    Concat,
    Conv,
    Elementwise,
    Linear,
    Mean,
    Node,
    Pad,
    Pool,
    Region,
    Reshape,
    Value,
)

# As xla_ops/engine/program.h numbers them.
MAGIC = 0x73706A7801
INPUT, OUTPUT, PRODUCT, DEPTHWISE, POOL, MEAN = 0, 1, 2, 3, 4, 5
AFFINE, BINARY, CONCAT, CHANNELS, PAD, FLATTEN = 6, 7, 8, 9, 10, 11
BINARIES = {"add": 0, "sub": 1, "mul": 2, "max": 3}
NONE = -1

Size = tuple[int, int, int]  # channels, height, width


class Layout(NamedTuple):
    """How a product's weights are stored; what is 0 the engine chooses.

    Attributes:
        storage: ROWS (nonzeros of `block` rows interleaved), BLOCKS (`block` x 1) or MASKS (groups
            of 4 rows, columns sorted by which rows use them).
        block, tile, chunk_cols, num_parts: see xla_ops/engine/pack_product.h.
    """

    storage: int
    block: int
    tile: int = 0
    chunk_cols: int = 0
    num_parts: int = 0


ROWS, BLOCKS, MASKS = 0, 1, 2
DENSE = Layout(BLOCKS, 4)
NO_PRODUCT = Layout(0, 0)


class Lowered(NamedTuple):
    """A program as `Program` in the extension takes it."""

    words: np.ndarray
    floats: np.ndarray
    steps: dict[Node, int]  # of each convolution and linear layer


def matrix_of(op: Conv | Linear) -> np.ndarray:
    """The float32 (outputs, inputs * taps) matrix that a layer multiplies columns by."""
    if isinstance(op, Linear):
        return np.ascontiguousarray(op.weights.T, np.float32)
    height, width, inputs, outputs = op.weights.shape
    blocks = op.weights.transpose(3, 2, 0, 1).astype(np.float32)
    if op.groups == 1:
        return np.ascontiguousarray(blocks.reshape(outputs, -1))
    matrix = np.zeros((outputs, op.groups, inputs, height, width), np.float32)
    group = np.arange(outputs) // (outputs // op.groups)
    matrix[np.arange(outputs), group] = blocks
    return matrix.reshape(outputs, -1)


def is_depthwise(op: object) -> bool:
    """One filter for each channel?"""
    return (
        isinstance(op, Conv) and 1 < op.groups == op.weights.shape[3] and op.weights.shape[2] == 1
    )


def size_of(region: Region, value: Value) -> Size:
    """The image that a value is to the engine."""
    if region.form == "rows":
        return value.shape[-1], math.prod(value.shape[:-1]), 1
    if len(value.shape) == 2:
        return value.shape[1], 1, 1
    _, *sides = value.shape
    height, width, channels = sides if region.channels_last else (*sides[1:], sides[0])
    return channels, height, width


@dataclass
class _Step:
    op: int
    output: int
    inputs: tuple[int, ...] = ()
    index: Iterable[int] = ()
    window: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pads: tuple[int, int] = (0, 0)  # top, left
    activation: Activation = IDENTITY
    residual: int = NONE
    gate: int = NONE
    layout: Layout = NO_PRODUCT
    mode: int = 0
    weights: int = NONE
    bias: int = NONE

    def words(self) -> list[int]:
        """As read_step in xla_ops/engine/program.cc reads them."""
        bounds = np.array([self.activation.low, self.activation.high], np.float32).view(np.uint32)
        index = list(map(int, self.index))
        return [
            *(self.op, self.output, *self.window, *self.strides, *self.dilation, *self.pads),
            *(self.activation.code, *map(int, bounds), self.residual, self.gate, *self.layout),
            *(self.mode, self.weights, self.bias),
            *(len(self.inputs), *self.inputs, len(index), *index),
        ]


@dataclass
class _Lowering:
    region: Region
    layouts: Mapping[Node, Layout]
    sizes: list[Size] = field(default_factory=list)
    steps: list[_Step] = field(default_factory=list)
    floats: list[np.ndarray] = field(default_factory=list)
    num_floats: int = 0
    ids: dict[Value, int] = field(default_factory=dict)
    gates: dict[Value, tuple[int, int]] = field(default_factory=dict)  # product's x and gate
    layers: dict[Node, int] = field(default_factory=dict)

    def new(self, size: Size) -> int:
        self.sizes.append(size)
        return len(self.sizes) - 1

    def keep(self, array: np.ndarray) -> int:
        """Where the array begins among the program's floats."""
        begin = self.num_floats
        self.floats.append(np.ascontiguousarray(array, np.float32).ravel())
        self.num_floats += array.size
        return begin

    def add(self, node: Node, op: int, **fields: object) -> int:
        """A step that makes the node's output."""
        output = self.new(size_of(self.region, node.outputs[0]))
        inputs = fields.pop("inputs", None) or tuple(self.ids[v] for v in node.inputs)
        self.steps.append(_Step(op, output, inputs, **fields))  # type: ignore[arg-type]
        self.ids[node.outputs[0]] = output
        return output

    def border(self) -> list[int]:
        """Rank of one image, channels last?"""
        rows = self.region.form == "rows"
        return [int(not rows), int(rows or self.region.channels_last)]

    def lower_inputs(self) -> None:
        drop, last = self.border()
        for i, value in enumerate(self.region.inputs):
            output = self.ids[value] = self.new(size_of(self.region, value))
            index = (i, len(value.shape) - drop)
            self.steps.append(_Step(INPUT, output, index=index, mode=last))

    def lower_outputs(self) -> None:
        drop, last = self.border()
        for i, value in enumerate(self.region.outputs):
            index = (i, len(value.shape) - drop)
            self.steps.append(_Step(OUTPUT, NONE, (self.ids[value],), index=index, mode=last))

    def lower(self, node: Node) -> None:
        match node.op:
            case Conv() if is_depthwise(node.op):
                self.depthwise(node, node.op)
            case Conv() | Linear():
                self.product(node, node.op)
            case Affine(activation=activation):
                weights, bias = self.keep(node.op.scale), self.keep(node.op.shift)
                self.add(node, AFFINE, activation=activation, weights=weights, bias=bias)
            case Elementwise("identity", activation):
                self.add(node, AFFINE, activation=activation)
            case Elementwise():
                self.elementwise(node, node.op)
            case Pool(kind, window, strides, padding):
                mode = 0 if kind == "max" else 1 if node.op.counts else 2
                pads = (padding[0][0], padding[1][0])
                self.add(node, POOL, window=window, strides=strides, pads=pads, mode=mode)
            case Mean():
                self.add(node, MEAN)
            case Concat():
                self.add(node, CONCAT)
            case Channels(index):
                self.add(node, CHANNELS, index=index)
            case Pad(padding):
                self.add(node, PAD, pads=(padding[0][0], padding[1][0]))
            case Reshape():
                self.reshape(node)
            case _:
                raise AssertionError(f"no step for {node.op}")

    def reshape(self, node: Node) -> None:
        source, size = self.ids[node.inputs[0]], size_of(self.region, node.outputs[0])
        if self.sizes[source] == size:
            self.ids[node.outputs[0]] = source
            return
        assert size == (math.prod(self.sizes[source]), 1, 1), f"no step for {node.op}"
        self.add(node, FLATTEN, mode=int(self.region.channels_last))

    def depthwise(self, node: Node, op: Conv) -> None:
        taps = op.weights.reshape(-1, op.weights.shape[3]).T
        residual = node.inputs[1:]
        self.layers[node] = len(self.steps)
        self.add(
            node,
            DEPTHWISE,
            inputs=(self.ids[node.inputs[0]],),
            **_window(op),
            activation=IDENTITY if residual else op.activation,
            weights=self.keep(taps),
            bias=self.keep(op.bias),
        )
        if residual:
            inputs = (self.ids[node.outputs[0]], self.ids[residual[0]])
            self.add(node, BINARY, inputs=inputs, activation=op.activation)

    def product(self, node: Node, op: Conv | Linear) -> None:
        self.layers[node] = len(self.steps)
        x = node.inputs[0]
        source, gate = self.gates.get(x) or (self.ids[x], NONE)
        self.add(
            node,
            PRODUCT,
            inputs=(source,),
            **(_window(op) if isinstance(op, Conv) else {}),
            activation=op.activation,
            residual=self.ids[node.inputs[1]] if len(node.inputs) > 1 else NONE,
            gate=gate,
            layout=self.layouts.get(node, DENSE),
            weights=self.keep(matrix_of(op)),
            bias=self.keep(op.bias),
        )

    def elementwise(self, node: Node, op: Elementwise) -> None:
        a, b = (self.ids[value] for value in node.inputs)
        if self.is_gate(node, op):
            self.gates[node.outputs[0]] = (a, b)
            return
        self.add(node, BINARY, activation=op.activation, mode=BINARIES[op.kind])

    def is_gate(self, node: Node, op: Elementwise) -> bool:
        """One number a channel, for products alone: they multiply while they gather columns."""
        if op.kind != "mul" or op.activation or node.outputs[0] in self.region.outputs:
            return False
        if self.sizes[self.ids[node.inputs[1]]][1:] != (1, 1):
            return False
        users = [user for user in self.region.nodes if node.outputs[0] in user.inputs]
        return all(
            isinstance(user.op, Conv | Linear)
            and not is_depthwise(user.op)
            and node.outputs[0] not in user.inputs[1:]
            for user in users
        )


def _window(op: Conv) -> dict:
    return {
        "window": op.weights.shape[:2],
        "strides": op.strides,
        "dilation": op.dilation,
        "pads": (op.padding[0][0], op.padding[1][0]),
    }


def lower(region: Region, layouts: Mapping[Node, Layout]) -> Lowered:
    """The program of a region; a product without a layout is stored dense."""
    lowering = _Lowering(region, layouts)
    lowering.lower_inputs()
    for node in region.nodes:
        lowering.lower(node)
    lowering.lower_outputs()
    words = [MAGIC, len(lowering.sizes), *np.ravel(lowering.sizes).tolist(), len(lowering.steps)]
    for step in lowering.steps:
        words += step.words()
    floats = np.concatenate([*lowering.floats, np.zeros(0, np.float32)])
    return Lowered(np.array(words, np.int64), floats, lowering.layers)


def with_rows(lowered: Lowered, num_rows: int) -> Lowered:
    """The program of a region of rows for another number of them: the height of all its values."""
    words = lowered.words.copy()
    words[2 : 2 + 3 * words[1]].reshape(-1, 3)[:, 1] = num_rows
    return lowered._replace(words=words)
