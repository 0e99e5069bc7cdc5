"""What convolutions and linear layers have in common: weights, bias, residual and activation."""

import abc
from dataclasses import replace
from typing import Any, Self

import numpy as np

from sparsejax.compiler.engine.program import NONE, Builder
from sparsejax.compiler.graph.activation import Activation
from sparsejax.compiler.graph.graph import Node
from sparsejax.compiler.graph.op import MappingType
from sparsejax.compiler.nodes.op import RegionOp
from sparsejax.patterns.layout import BLOCKS, ROWS, Layout

PRODUCT = "product"  # in xla_ops/engine/codes.def


class Layer(RegionOp):
    """activation(weights x + bias + residual); inputs [x] or [x, residual].

    Attributes:
        weights: input and output channels are its last axes.
        bias: (outputs,).
        path: of the weights in the user's params.
        activation: of the sum.
        groups: of channels that do not meet.
    """

    weights: np.ndarray
    bias: np.ndarray
    path: str
    activation: Activation

    @property
    @abc.abstractmethod
    def num_groups(self) -> int:
        """How many parts the channels are in that do not meet each other."""

    @property
    @abc.abstractmethod
    def is_product(self) -> bool:
        """Does it multiply by a packed matrix?"""

    @property
    @abc.abstractmethod
    def gathers(self) -> bool:
        """Are the matrix's columns copied together first?"""

    @abc.abstractmethod
    def matrix(self) -> np.ndarray:
        """The float32 (outputs, inputs / groups * taps) matrix that columns are multiplied by."""

    @abc.abstractmethod
    def channel_axis(self, rank: int) -> int:
        """The axis of the channels in arrays of this rank."""

    @property
    @abc.abstractmethod
    def layer_kind(self) -> str:
        """What the report calls it."""

    def changed(self, **fields: Any) -> Self:
        """The layer with other weights, bias or activation."""
        own: Any = self
        return replace(own, **fields)

    def mapping(self, node: Node) -> MappingType:
        return MappingType.MANY_TO_MANY


def dense_layout(op: Layer) -> Layout:
    """How all weights are stored: in blocks that lie within groups of channels."""
    rows = len(op.bias) // op.num_groups
    fitting = [block for block in (4, 2) if op.num_groups == 1 or rows % block == 0]
    return Layout(BLOCKS, fitting[0]) if fitting else Layout(ROWS, 4)


def lower_product(op: Layer, node: Node, to: Builder, **fields: object) -> None:
    """The step of a product, which takes in a gate, a residual and the activation."""
    to.layers[node] = len(to.steps)
    x, *residual = node.inputs
    source, gate = to.gates.get(x) or (to.ids[x], NONE)
    to.add(
        node,
        PRODUCT,
        inputs=(source,),
        **fields,
        activation=op.activation,
        residual=to.ids[residual[0]] if residual else NONE,
        gate=gate,
        layout=to.layouts.get(node) or dense_layout(op),
        weights=to.keep(op.matrix()),
        bias=to.keep(op.bias),
    )
