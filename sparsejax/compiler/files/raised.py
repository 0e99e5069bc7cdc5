"""A program as nodes again: what its steps mean in JAX, and how `region_call` runs them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sparsejax.compiler.engine.program import (
    INPUT,
    NAMES,
    NO_PRODUCT,
    NONE,
    OUTPUT,
    Program,
    Step,
    read_steps,
)
from sparsejax.compiler.files.graph import weights_of
from sparsejax.compiler.graph.graph import FLOAT32, Node, Region, Size, Value
from sparsejax.compiler.graph.images import Pairs, channel_axis
from sparsejax.compiler.nodes.affine import Affine
from sparsejax.compiler.nodes.attention import Attention
from sparsejax.compiler.nodes.cached_attention import CachedAttention
from sparsejax.compiler.nodes.channels import Channels
from sparsejax.compiler.nodes.concat import Concat
from sparsejax.compiler.nodes.conv import Conv
from sparsejax.compiler.nodes.elementwise import Elementwise
from sparsejax.compiler.nodes.join import Join
from sparsejax.compiler.nodes.known import KNOWN, Known
from sparsejax.compiler.nodes.linear import Linear
from sparsejax.compiler.nodes.mean import Mean
from sparsejax.compiler.nodes.moments import Moments
from sparsejax.compiler.nodes.norm import Norm
from sparsejax.compiler.nodes.pad import Pad
from sparsejax.compiler.nodes.pick import Pick
from sparsejax.compiler.nodes.pool import Pool
from sparsejax.compiler.nodes.reshape import Reshape
from sparsejax.compiler.nodes.softmax import Softmax
from sparsejax.patterns.layout import Layout

Shape = tuple[int, ...]


def raised(
    program: Program, items: str, inputs: Sequence[Shape], outputs: Sequence[Shape]
) -> tuple[Region, dict[Node, Layout]]:
    """A region that `lower` writes as this program, with its layouts.

    Args:
        program: of one item.
        items: "channels_last", "channels_first" or "rows".
        inputs, outputs: shapes of one item, with a batch of 1.
    """
    raising = _Raising(program, items, inputs[0][:-1])
    ports: dict[tuple[str, int], Value] = {}
    for step in raising.steps:
        if step.op == INPUT:
            port = Value(inputs[step.argument], FLOAT32)
            ports[INPUT, step.argument] = raising.enter(port, step.output)
        elif step.op == OUTPUT:
            shape = outputs[step.argument]
            ports[OUTPUT, step.argument] = raising.leave(step.inputs[0], shape)
        else:
            raising.add(step)
    at = lambda side, shapes: [ports[side, i] for i in range(len(shapes))]
    rows, last = items == "rows", items != "channels_first"
    region = Region(raising.nodes, at(INPUT, inputs), at(OUTPUT, outputs), rows, last)
    return region, raising.layouts


class _Raising:
    """The nodes so far. All images have four axes; vectors are images of one pixel."""

    def __init__(self, program: Program, items: str, leading: Shape):
        self.program = program
        self.sizes, self.steps = read_steps(program.words)
        self.rows, self.last = items == "rows", items != "channels_first"
        self.axis = -1 if self.rows else channel_axis(self.last)
        self.leading = leading
        self.values = [Value(self.shape(size), FLOAT32) for size in self.sizes]
        self.nodes: list[Node] = []
        self.layouts: dict[Node, Layout] = {}

    def shape(self, size: Size) -> Shape:
        channels, height, width = size
        if self.rows:
            return (*self.leading, channels)
        return (1, height, width, channels) if self.last else (1, channels, height, width)

    def enter(self, port: Value, number: int) -> Value:
        """An input becomes a value."""
        if port.shape == self.values[number].shape:
            self.values[number] = port
        else:
            self.emit(Reshape(self.values[number].shape), [port], self.values[number])
        return port

    def leave(self, number: int, shape: Shape) -> Value:
        """A value becomes an output."""
        value = self.values[number]
        return value if value.shape == shape else self.emit(Reshape(shape), [value], shape)

    def emit(self, op: Any, inputs: list[Value], output: Value | Shape) -> Value:
        value = output if isinstance(output, Value) else Value(output, FLOAT32)
        self.nodes.append(Node(op, inputs, [value]))
        return value

    def add(self, step: Step) -> None:
        """The node of a step."""
        inputs = [self.values[number] for number in step.inputs]
        if step.gate != NONE:
            gated = [inputs[0], self.values[step.gate]]
            inputs = [self.emit(Elementwise("mul"), gated, inputs[0].shape)]
        if step.residual != NONE:
            inputs.append(self.values[step.residual])
        if step.op == KNOWN:
            inputs = [self.values[self.steps[0].output]]
        self.emit(OPS[step.op](self, step), inputs, self.values[step.output])
        if step.layout != NO_PRODUCT:
            self.layouts[self.nodes[-1]] = step.layout

    def padding(self, step: Step) -> Pairs:
        """In front of and behind both sides, as far as the windows reach."""
        pairs = []
        for i in range(2):
            size, out = self.sizes[step.inputs[0]][1 + i], self.sizes[step.output][1 + i]
            reach = (out - 1) * step.strides[i] + (step.window[i] - 1) * step.dilation[i] + 1
            behind = reach - size - step.pads[i]
            if behind <= -step.strides[i]:
                raise ValueError("windows that end before the image does")
            pairs.append((step.pads[i], max(behind, 0)))
        return pairs[0], pairs[1]

    def weights(self, step: Step) -> tuple[np.ndarray, np.ndarray]:
        found = weights_of(self.program, self.sizes, step)
        assert found is not None
        return found


def _product(to: _Raising, step: Step) -> Any:
    matrix, bias = to.weights(step)
    if to.rows:
        return Linear(matrix.T, bias, activation=step.activation)
    weights = matrix.reshape(len(matrix), -1, *step.window).transpose(2, 3, 1, 0)
    return _conv(to, step, weights, bias, groups=step.groups)


def _depthwise(to: _Raising, step: Step) -> Any:
    matrix, bias = to.weights(step)
    weights = matrix.T.reshape(*step.window, 1, -1)
    return _conv(to, step, weights, bias, groups=len(matrix))


def _conv(to: _Raising, step: Step, weights: np.ndarray, bias: np.ndarray, groups: int) -> Any:
    return Conv(
        weights,
        bias,
        strides=step.strides,
        padding=to.padding(step),
        dilation=step.dilation,
        groups=groups,
        channels_last=to.last,
        activation=step.activation,
    )


def _pool(to: _Raising, step: Step) -> Any:
    kind, counts = step.pooling.removesuffix("_inside"), step.pooling == "average"
    return Pool(
        kind, step.window, step.strides, to.padding(step), to.last, counts, dilation=step.dilation
    )


def _affine(to: _Raising, step: Step) -> Any:
    if step.weights == NONE:
        return Elementwise("identity", step.activation)
    matrix, bias = to.weights(step)
    return Affine(matrix[:, 0], bias, to.axis, step.activation)


def _pick(to: _Raising, step: Step) -> Pick:
    channels, height, width = to.sizes[step.output]
    counts = (height, height, width, width, channels, channels, channels)
    numbers = np.split(np.array(step.channels), np.cumsum(counts)[:-1])
    lists = (np.stack(numbers[:2], 1), np.stack(numbers[2:4], 1), np.stack(numbers[4:], 1))
    return Pick(*lists, channels_last=to.last)


def _norm(to: _Raising, step: Step) -> Norm:
    matrix, bias = to.weights(step)
    return Norm(matrix[:, 0], bias, step.activation.low, to.axis, step.op == "layer_norm")


def _attention(to: _Raising, step: Step) -> Attention:
    heads, size, value_size, length, mask, *first = step.channels
    channels = np.array(first).reshape(3, heads)
    numbers = (step.activation.low, step.activation.high)
    return Attention(channels, size, value_size, length, NAMES["mask"][mask], *numbers)


def _cached_attention(to: _Raising, step: Step) -> CachedAttention:
    heads, size, value_size, length, mask, *lists = step.channels
    first, (key_step, value_step), newest = np.split(np.array(lists), [3 * heads, 3 * heads + 2])
    return CachedAttention(
        first.reshape(3, heads),
        (int(key_step), int(value_step)),
        newest.reshape(2, heads) if newest.size else None,
        size,
        value_size,
        length,
        NAMES["mask"][mask],
        step.activation.low,
        step.activation.high,
    )


def _known(to: _Raising, step: Step) -> Known:
    matrix, bias = to.weights(step)
    channels, _, width = to.sizes[step.output]
    shape = (channels, -1) if to.rows else (channels, -1, width)
    return Known(np.moveaxis((matrix + bias[:, None]).reshape(shape), 0, -1), to.last)


def _moments(to: _Raising, step: Step) -> Moments:
    matrix, bias = to.weights(step)
    return Moments(matrix[:, 0], bias, step.activation.low, next(iter(step.channels)), to.last)


OPS: dict[str, Callable[[_Raising, Step], Any]] = {
    "product": _product,
    "depthwise": _depthwise,
    "pool": _pool,
    "affine": _affine,
    "mean": lambda to, step: Mean(to.last, keepdims=True),
    "binary": lambda to, step: Elementwise(step.binary, step.activation),
    "concat": lambda to, step: Concat(to.axis),
    "channels": lambda to, step: Channels(np.array(step.channels), to.axis),
    "pad": lambda to, step: Pad(to.padding(step), to.last),
    "pick": _pick,
    "layer_norm": _norm,
    "rms_norm": _norm,
    "attention": _attention,
    "cached_attention": _cached_attention,
    "softmax": lambda to, step: Softmax(to.axis),
    "known": _known,
    "join": lambda to, step: Join(to.last),
    "moments": _moments,
    "rewrap": lambda to, step: Reshape(to.values[step.output].shape),
    "flatten": lambda to, step: Reshape(to.values[step.output].shape),
}
