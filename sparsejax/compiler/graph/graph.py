"""What compile works on: values, nodes, regions of nodes, and the graph that holds them."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sparsejax.compiler.graph.images import channel_axis, sides
from sparsejax.compiler.graph.op import Op

FLOAT32 = np.dtype(np.float32)
Size = tuple[int, int, int]  # channels, height, width


@dataclass(eq=False)
class Value:
    """What a node reads or writes; compared by identity.

    Attributes:
        shape, dtype: of the array.
        constant: the array itself where it is known beforehand.
        path: of the parameter that the constant was made from, "" for others.
    """

    shape: tuple[int, ...]
    dtype: Any
    constant: Any = None
    path: str = ""

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(eq=False)
class Node:
    """One step; `op` says which."""

    op: Op
    inputs: list[Value]
    outputs: list[Value]


def broadcasts(node: Node, *, grows: bool = False) -> bool:
    """Does any computed input have fewer elements than the largest?

    Args:
        node: of a graph.
        grows: than the only output, rather.
    """
    sizes = [value.size for value in node.inputs if value.constant is None and value.shape]
    if not sizes:
        return False
    return min(sizes) < (node.outputs[0].size if grows else max(sizes))


@dataclass(frozen=True)
class Left:
    """How many nodes of one name stayed in XLA, and why the first of them did."""

    count: int
    reason: str


@dataclass(eq=False)
class Region:
    """Nodes that run as one call.

    Attributes:
        nodes: in an order that they can run in.
        inputs, outputs: the values that cross the border.
        rows: does it work on rows (channels last, other axes all equal), not on images (values of
            rank 4 and 2)?
        channels_last: NHWC rather than NCHW images.
    """

    nodes: list[Node]
    inputs: list[Value]
    outputs: list[Value]
    rows: bool = False
    channels_last: bool = True

    def size(self, value: Value) -> Size:
        """The image that a value is to the engine."""
        if self.rows:
            return value.shape[-1], math.prod(value.shape[:-1]), 1
        if len(value.shape) == 2:
            return value.shape[1], 1, 1
        height, width = (value.shape[axis] for axis in sides(self.channels_last))
        return value.shape[channel_axis(self.channels_last)], height, width

    def __str__(self) -> str:
        """One line a node."""
        return _text(self.inputs, self.outputs, self.nodes)


@dataclass(eq=False)
class Graph:
    """Nodes in an order that they can run in.

    Attributes:
        inputs, outputs: of the function.
        nodes: its steps.
        reasons: why a node that looks like a layer stayed an equation.
        left: name of primitive or kind -> how many stayed in XLA and why; set by `regions.split`.
        schedule: regions and the nodes that stay in XLA, in an order that they can run in; set by
            `regions.split`, for the bodies of loops and branches, too.
    """

    inputs: list[Value]
    outputs: list[Value]
    nodes: list[Node] = field(default_factory=list)
    reasons: dict[Node, str] = field(default_factory=dict)
    left: dict[str, Left] = field(default_factory=dict)
    schedule: list["Region | Node"] = field(default_factory=list)

    def users(self) -> dict[Value, list[Node]]:
        """The nodes that read each value."""
        users: dict[Value, list[Node]] = {}
        for node in self.nodes:
            for value in dict.fromkeys(node.inputs):
                users.setdefault(value, []).append(node)
        return users

    def prune(self) -> None:
        """Drop nodes that no output needs and that have no effects."""
        needed, kept = set(self.outputs), []
        for node in reversed(self.nodes):
            if node.op.effects or any(value in needed for value in node.outputs):
                kept.append(node)
                needed.update(node.inputs)
        self.nodes = kept[::-1]

    def __str__(self) -> str:
        """One line a node."""
        return _text(self.inputs, self.outputs, self.nodes)


def _text(inputs: list[Value], outputs: list[Value], nodes: list[Node]) -> str:
    """The nodes with numbered values."""
    names: dict[Value, str] = {}

    def name(value: Value) -> str:
        shape = ",".join(map(str, value.shape))
        if value.constant is not None:
            return value.path or f"constant[{shape}]"
        return names.setdefault(value, f"%{len(names)}")

    def typed(value: Value) -> str:
        return f"{name(value)} {np.dtype(value.dtype).name}[{','.join(map(str, value.shape))}]"

    lines = ["inputs  " + ", ".join(map(typed, inputs))]
    for node in nodes:
        arguments = ", ".join(map(name, node.inputs))
        lines.append(f"{', '.join(map(typed, node.outputs))} = {node.op} ({arguments})")
    return "\n".join([*lines, "outputs " + ", ".join(map(name, outputs))])
