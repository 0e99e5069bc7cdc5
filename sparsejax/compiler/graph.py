"""What compile works on: values, nodes, regions of nodes, and the graph that holds them."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sparsejax.compiler.nodes import LAYERS as LAYERS
from sparsejax.compiler.nodes import Affine as Affine
from sparsejax.compiler.nodes import Channels as Channels
from sparsejax.compiler.nodes import Concat as Concat
from sparsejax.compiler.nodes import Conv as Conv
from sparsejax.compiler.nodes import Elementwise as Elementwise
from sparsejax.compiler.nodes import Linear as Linear
from sparsejax.compiler.nodes import Mean as Mean
from sparsejax.compiler.nodes import Op as Op
from sparsejax.compiler.nodes import Pad as Pad
from sparsejax.compiler.nodes import Pool as Pool
from sparsejax.compiler.nodes import Primitive as Primitive
from sparsejax.compiler.nodes import Reshape as Reshape
from sparsejax.compiler.nodes import Transpose as Transpose

FLOAT32 = np.dtype(np.float32)


@dataclass(eq=False)
class Value:
    """What a node reads or writes; compared by identity.

    Attributes:
        shape, dtype: of the array.
        constant: the array itself where it is known before the program runs.
        path: of the parameter that the constant was made from, "" for others.
    """

    shape: tuple[int, ...]
    dtype: Any
    constant: Any = None
    path: str = ""


@dataclass(eq=False)
class Node:
    """One step; `op` says which."""

    op: Op
    inputs: list[Value]
    outputs: list[Value]

    @property
    def effects(self) -> bool:
        """Must it run even if nobody reads its outputs?"""
        return isinstance(self.op, Primitive) and bool(self.op.equation.effects)


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
        form: "images" (values of rank 4 and 2) or "rows" (channels last, other axes all equal).
        channels_last: NHWC rather than NCHW images.
    """

    nodes: list[Node]
    inputs: list[Value]
    outputs: list[Value]
    form: str = "images"
    channels_last: bool = True

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
    """

    inputs: list[Value]
    outputs: list[Value]
    nodes: list[Node] = field(default_factory=list)
    reasons: dict[Node, str] = field(default_factory=dict)
    left: dict[str, Left] = field(default_factory=dict)

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
            if node.effects or any(value in needed for value in node.outputs):
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
