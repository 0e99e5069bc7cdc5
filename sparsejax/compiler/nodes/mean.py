"""The mean over height and width."""

import math
from dataclasses import dataclass

import jax
import numpy as np

from sparsejax.compiler.engine.program import Builder
from sparsejax.compiler.graph.edit import Edit, made
from sparsejax.compiler.graph.graph import Node
from sparsejax.compiler.graph.images import sides
from sparsejax.compiler.graph.op import MappingType
from sparsejax.compiler.nodes.affine import Affine
from sparsejax.compiler.nodes.op import ImageOp, Rules
from sparsejax.compiler.nodes.primitive import reduced_sides

MEAN = "mean"  # in xla_ops/engine/codes.def


@dataclass(frozen=True)
class Mean(ImageOp):
    """The mean over height and width, (N, C), or with 1x1 pixels left if `keepdims`."""

    channels_last: bool = True
    keepdims: bool = False

    def __str__(self) -> str:
        """Mean."""
        return "Mean" + (" keepdims" if self.keepdims else "")

    def in_order(self, channels_last: bool) -> "Mean | None":
        return self if channels_last == self.channels_last else None

    def evaluate(self, x: jax.Array) -> list[jax.Array]:
        return [x.mean(sides(self.channels_last), keepdims=self.keepdims)]

    def mapping(self, node: Node) -> MappingType:
        return MappingType.MANY_TO_MANY

    def lower(self, node: Node, to: Builder) -> None:
        """One step."""
        to.add(node, MEAN)


def to_mean(edit: Edit, node: Node) -> bool:
    """A sum over height and width is a mean and a factor."""
    channels_last = reduced_sides(node, "reduce_sum")
    if channels_last is None:
        return False
    x = node.inputs[0]
    mean = made(Mean(channels_last=channels_last), [x], node.outputs[0].shape)
    pixels = np.full(1, float(math.prod(x.shape[axis] for axis in sides(channels_last))))
    factor = Affine(pixels, np.zeros(1))
    return edit.replace(node, mean, made(factor, mean.outputs, node.outputs[0].shape))


RULES = Rules(named=(to_mean,))
