"""The same elements in the same order, in another shape."""

import math
from dataclasses import dataclass

import jax

from sparsejax.compiler.engine.program import Builder
from sparsejax.compiler.graph.graph import Node
from sparsejax.compiler.graph.images import EITHER, one_a_channel
from sparsejax.compiler.graph.op import MappingType
from sparsejax.compiler.nodes.op import NEITHER, RegionOp

FLATTEN, REWRAP = "flatten", "rewrap"  # in xla_ops/engine/codes.def


@dataclass(frozen=True)
class Reshape(RegionOp):
    """The same elements in the same order."""

    shape: tuple[int, ...]

    def __str__(self) -> str:
        """Shape."""
        return f"Reshape {self.shape}"

    def channel_axes(self, node: Node) -> frozenset[int]:
        """Flattened images have been in either order; vectors become 1x1 images in one.

        Images of another height and width keep their batch and channels.
        """
        before, after = node.inputs[0].shape, node.outputs[0].shape
        if len(before) == len(after) == 4 and before[0] == after[0]:
            return frozenset(axis for axis in EITHER if before[axis] == after[axis])
        if len(before) == 4 and len(after) == 2:
            return EITHER
        if (len(before), len(after)) != (2, 4):
            return NEITHER
        return frozenset(axis for axis in EITHER if after == one_a_channel(after, axis))

    def before_change(self, to_last: bool) -> None:
        """None: the elements would come in another order."""

    def evaluate(self, x: jax.Array) -> list[jax.Array]:
        """A region keeps axis 0, which may be another batch."""
        same_size = math.prod(self.shape) == x.size
        return [x.reshape(self.shape if same_size else (x.shape[0], *self.shape[1:]))]

    def mapping(self, node: Node) -> MappingType:
        return MappingType.REORGANIZE

    def lower(self, node: Node, to: Builder) -> None:
        """Nothing where the engine's image stays what it is, else into one pixel."""
        source, size = to.ids[node.inputs[0]], to.region.size(node.outputs[0])
        if to.sizes[source] == size:
            to.ids[node.outputs[0]] = source
            return
        if to.sizes[source][0] == size[0]:
            return to.add(node, REWRAP)
        assert size == (math.prod(to.sizes[source]), 1, 1), f"no step for {self}"
        to.add(node, FLATTEN, channels_last=to.region.channels_last)
