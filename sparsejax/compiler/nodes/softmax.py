"""Softmax over the channels or the pixels, told by its values."""

from dataclasses import dataclass

import jax
import numpy as np
import scipy

from sparsejax.compiler.engine.program import Builder
from sparsejax.compiler.graph.edit import Edit, made
from sparsejax.compiler.graph.graph import Node, Value
from sparsejax.compiler.graph.images import channel_axis, is_channel, sides
from sparsejax.compiler.graph.op import MappingType
from sparsejax.compiler.nodes.op import ChannelsOp, Rules
from sparsejax.compiler.nodes.pick import pick_of
from sparsejax.compiler.nodes.sampled import Along, functions_to, near

SOFTMAX = "softmax"  # in xla_ops/engine/codes.def


@dataclass(frozen=True)
class Softmax(ChannelsOp):
    """exp(x) / sum, over the channels; NaN where all are -inf."""

    axis: int

    def __str__(self) -> str:
        """Axis."""
        return f"Softmax axis {self.axis}"

    def evaluate(self, x: jax.Array) -> list[jax.Array]:
        return [jax.nn.softmax(x, self.axis)]

    def mapping(self, node: Node) -> MappingType:
        return MappingType.MANY_TO_MANY

    def lower(self, node: Node, to: Builder) -> None:
        """One step."""
        to.add(node, SOFTMAX)


def to_softmax(edit: Edit, node: Node) -> bool:
    """The equations of a softmax, however they are spelled."""
    for function in reversed(list(functions_to(edit, node))):
        shape = function.source.shape
        if is_channel(function.axis, len(shape)) and is_softmax(function):
            return edit.replace(node, *function.through(Softmax(function.axis)))
        image = len(shape) == 4 and shape == node.outputs[0].shape
        for last in (True, False):
            if image and function.axes == sides(last) and is_softmax(function):
                return edit.replace(node, *_over_pixels(function.source, last))
    return False


def _over_pixels(x: Value, last: bool) -> list[Node]:
    """A softmax over height and width: each map is a pixel, whose channels are the map's pixels."""
    height, width, maps = (x.shape[axis] for axis in (*sides(last), channel_axis(last)))
    pixels = height * width
    in_order = np.arange(pixels * maps)
    apart = in_order.reshape(pixels, maps).T[:, None]
    together = in_order.reshape(maps, height, width).transpose(1, 2, 0)
    turned = (x.shape[0], *((maps, 1, pixels) if last else (pixels, maps, 1)))
    there = pick_of(apart, (height, width, maps), last)
    back = pick_of(together, (maps, 1, pixels), last)
    moved = made(there, [x], turned)
    weights = made(Softmax(channel_axis(last)), moved.outputs, turned)
    return [moved, weights, made(back, weights.outputs, x.shape)]


def is_softmax(function: Along) -> bool:
    """Is a function of rows a softmax, where some are large, or infinite?"""
    if not any(node.op.name == "exp" for node in function.nodes):
        return False
    rows = np.random.default_rng(0).normal(size=(6, function.length))
    rows[1] *= 30
    rows[2] += 800
    rows[3, 0] = -np.inf
    rows[4] = -np.inf
    rows[5, -1] = np.nan
    with np.errstate(all="ignore"):
        actual = function(rows)
        return actual is not None and near(actual, scipy.special.softmax(rows, axis=1))


RULES = Rules(sampled=(to_softmax,))
