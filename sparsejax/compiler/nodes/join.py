"""Images below each other, and sequences behind each other."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from sparsejax.compiler.engine.program import Builder
from sparsejax.compiler.graph.graph import Node
from sparsejax.compiler.graph.images import sides
from sparsejax.compiler.nodes.op import ImageOp

JOIN = "join"  # in xla_ops/engine/codes.def


@dataclass(frozen=True)
class Join(ImageOp):
    """The inputs below each other."""

    channels_last: bool = True

    def __str__(self) -> str:
        """The kind."""
        return "Join"

    def in_order(self, channels_last: bool) -> "Join | None":
        return self if channels_last == self.channels_last else None

    def evaluate(self, *inputs: jax.Array) -> list[jax.Array]:
        return [jnp.concatenate(inputs, sides(self.channels_last)[0])]

    def lower(self, node: Node, to: Builder) -> None:
        """One step."""
        to.add(node, JOIN)
