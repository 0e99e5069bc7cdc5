"""Zeros around images, drawn into the convolution or average that reads them."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.compiler.engine.program import Builder
from sparsejax.compiler.graph.edit import Edit, constant_of, is_float, made
from sparsejax.compiler.graph.graph import Node
from sparsejax.compiler.graph.images import Pairs, spatial
from sparsejax.compiler.nodes.conv import Conv
from sparsejax.compiler.nodes.op import ImageOp, Rules, with_padding
from sparsejax.compiler.nodes.pool import Pool
from sparsejax.compiler.nodes.primitive import Primitive

PAD = "pad"  # in xla_ops/engine/codes.def


@dataclass(frozen=True)
class Pad(ImageOp):
    """Zeros around height and width."""

    padding: Pairs
    channels_last: bool = True

    def __str__(self) -> str:
        """Padding."""
        return f"Pad{with_padding(self.padding)}"

    def in_order(self, channels_last: bool) -> "Pad | None":
        """The axis 2 is the width of NHWC and the height of NCHW."""
        if self.channels_last == channels_last:
            return self
        if any(self.padding[0 if self.channels_last else 1]):
            return None
        return Pad(self.padding[::-1], channels_last)

    def evaluate(self, x: jax.Array) -> list[jax.Array]:
        return [jnp.pad(x, spatial(self.padding, (0, 0), self.channels_last))]

    def lower(self, node: Node, to: Builder) -> None:
        """One step."""
        to.add(node, PAD, pads=(self.padding[0][0], self.padding[1][0]))


def to_pad(edit: Edit, node: Node) -> bool:
    """pad with zeros over height and width."""
    sides = pairs_of(node)
    if sides is None or len(sides) != 4 or any(sides[0]):
        return False
    last = not any(sides[3])
    if not last and any(sides[1]):
        return False
    op = Pad((sides[1], sides[2]) if last else (sides[2], sides[3]), channels_last=last)
    return edit.replace(node, Node(op, node.inputs[:1], node.outputs))


def pairs_of(node: Node) -> list[tuple[int, int]] | None:
    """How many zeros an equation puts ahead of and behind each axis, None if it is none that does.

    Zeros of either sign between elements, and fewer than none, are none.
    """
    if not isinstance(node.op, Primitive) or node.op.name != "pad" or not is_float(*node.outputs):
        return None
    value = constant_of(node.inputs[1])
    if value is None or np.any(value) or np.signbit(value).any():
        return None
    sides = [tuple(map(int, side)) for side in node.op.equation.params["padding_config"]]
    plain = all(low >= 0 and high >= 0 and inside == 0 for low, high, inside in sides)
    return [(low, high) for low, high, _ in sides] if plain else None


def into_conv(edit: Edit, node: Node) -> bool:
    """Zeros around an image are padding of the convolution that reads it."""
    op = node.op
    if not isinstance(op, Conv):
        return False
    before = edit.writer.get(node.inputs[0])
    if before is None or not isinstance(before.op, Pad):
        return False
    around = before.op.in_order(op.channels_last)
    if around is None:
        return False
    pairs = zip(op.padding, around.padding, strict=True)
    padding: Any = tuple((a[0] + b[0], a[1] + b[1]) for a, b in pairs)
    changed = replace(op, padding=padding)
    inputs = [before.inputs[0], *node.inputs[1:]]
    return edit.replace(node, made(changed, inputs, node.outputs[0].shape))


def into_average(edit: Edit, node: Node) -> bool:
    """Zeros around an average that counts padded taps."""
    op = node.op
    if not isinstance(op, Pool) or op.kind != "average" or not op.counts:
        return False
    before = edit.writer.get(node.inputs[0])
    if before is None or not isinstance(before.op, Pad):
        return False
    around = before.op.in_order(op.channels_last)
    if around is None or any(map(any, op.padding)) or op.dilation != (1, 1):
        return False
    if any(max(side) >= size for side, size in zip(around.padding, op.window, strict=True)):
        return False
    padded = Pool(op.kind, op.window, op.strides, around.padding, op.channels_last)
    return edit.replace(node, made(padded, before.inputs, node.outputs[0].shape))


RULES = Rules(named=(to_pad,), fused=(into_conv, into_average))
