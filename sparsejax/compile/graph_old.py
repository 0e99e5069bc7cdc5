"""What compile works on: values, nodes and layers; a flat jaxpr whose constants are known."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


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
class Layer:
    """A linear map with constant weights, then bias and activation.

    Attributes:
        kind: "pointwise" (1x1 convolution), "depthwise", "convolution" (any other) or "linear".
        weights: HWIO (convolutions) or (inputs, outputs) (linear), float64 while it is folded.
        bias: (outputs,), float64.
        activation: a function that the kernels fuse, or None.
        strides, padding, groups: of a convolution; `padding` in pairs.
        channels_last: NHWC rather than NCHW.
        path: of the weights in the user's params.
    """

    kind: str
    weights: np.ndarray
    bias: np.ndarray
    path: str
    activation: Callable | None = None
    strides: tuple[int, int] = (1, 1)
    padding: tuple[tuple[int, int], ...] = ((0, 0), (0, 0))
    groups: int = 1
    channels_last: bool = True

    @property
    def outputs(self) -> int:
        """The number of output channels."""
        return self.weights.shape[-1]

    @property
    def matrix(self) -> np.ndarray:
        """The weights of a pointwise or linear layer as float32 (outputs, inputs)."""
        return self.weights.reshape(self.weights.shape[-2:]).T.astype(np.float32)


@dataclass(eq=False)
class Node:
    """One step: an equation of the jaxpr, or a layer that took the place of several."""

    name: str
    inputs: list[Value]
    outputs: list[Value]
    equation: Any = None
    layer: Layer | None = None


def positions(node: Node) -> int:
    """How often a layer's weights are applied: pixels or rows of the output, batch included."""
    assert node.layer is not None
    return math.prod(node.outputs[0].shape) // max(node.layer.outputs, 1)


@dataclass(eq=False)
class Graph:
    """Nodes in an order that they can run in."""

    inputs: list[Value]
    outputs: list[Value]
    nodes: list[Node] = field(default_factory=list)

    def users(self) -> dict[Value, list[Node]]:
        """The nodes that read each value."""
        users: dict[Value, list[Node]] = {}
        for node in self.nodes:
            for value in dict.fromkeys(node.inputs):
                users.setdefault(value, []).append(node)
        return users

    def absorb(self, node: Node, followers: Sequence[Node]) -> None:
        """Let `node` stand for its followers, too, the last of which has the output."""
        node.outputs = followers[-1].outputs
        self.nodes = [other for other in self.nodes if other not in followers]

    def prune(self) -> None:
        """Drop nodes that no output needs and that have no effects."""
        needed, kept = set(self.outputs), []
        for node in reversed(self.nodes):
            effects = node.equation is not None and node.equation.effects
            if effects or any(value in needed for value in node.outputs):
                kept.append(node)
                needed.update(node.inputs)
        self.nodes = kept[::-1]
