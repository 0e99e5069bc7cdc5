"""Inputs one after the other along their channels."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from sparsejax.compiler.engine.program import Builder
from sparsejax.compiler.graph.edit import Edit, is_float
from sparsejax.compiler.graph.graph import Node
from sparsejax.compiler.graph.images import EITHER, FIRST, LAST, is_channel
from sparsejax.compiler.nodes.join import Join
from sparsejax.compiler.nodes.op import ChannelsOp, Rules
from sparsejax.compiler.nodes.primitive import Primitive, equations

CONCAT = "concat"  # in xla_ops/engine/codes.def


@dataclass(frozen=True)
class Concat(ChannelsOp):
    """The inputs one after the other along their channels."""

    axis: int

    def __str__(self) -> str:
        """Axis."""
        return f"Concat axis {self.axis}"

    def channel_axes(self, node: Node) -> frozenset[int]:
        """Of images, what may be channels in one order are rows in the other."""
        return (
            EITHER
            if (self.axis, len(node.outputs[0].shape)) == (FIRST, 4)
            else frozenset((self.axis,))
        )

    def settled(self, axis: int, shape: tuple[int, ...]) -> Any:
        """Images below each other where what looked like channels are rows."""
        return Join() if (self.axis, len(shape), axis) == (FIRST, 4, LAST) else self

    def evaluate(self, *inputs: jax.Array) -> list[jax.Array]:
        return [jnp.concatenate(inputs, self.axis)]

    def lower(self, node: Node, to: Builder) -> None:
        """One step."""
        to.add(node, CONCAT)


def drop_empty(edit: Edit, node: Node) -> bool:
    """concatenate without what has no elements."""
    if not isinstance(node.op, Primitive) or node.op.name != "concatenate":
        return False
    kept = [value for value in node.inputs if value.size > 0]
    if len(kept) in (0, len(node.inputs)):
        return False
    if len(kept) == 1:
        return kept[0].constant is None and edit.bypass(node, kept[0])
    axis = int(node.op.equation.params["dimension"])
    nodes: list[Node] = []
    equations(lambda *arrays: lax.concatenate(arrays, axis), kept, nodes)
    return edit.replace(node, *nodes)


def to_concat(edit: Edit, node: Node) -> bool:
    """concatenate along the channels."""
    if not isinstance(node.op, Primitive) or node.op.name != "concatenate":
        return False
    axis = int(node.op.equation.params["dimension"])
    if not is_channel(axis, len(node.outputs[0].shape)) or not is_float(*node.inputs):
        return False
    if any(value.constant is not None for value in node.inputs):
        return False
    return edit.replace(node, Node(Concat(axis), node.inputs, node.outputs))


RULES = Rules(first=(drop_empty,), named=(to_concat,))
