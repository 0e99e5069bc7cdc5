"""Numbers that are known beforehand, as a value of a region: positions, tokens, biases, angles."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.compiler.engine.program import Builder
from sparsejax.compiler.graph.edit import made
from sparsejax.compiler.graph.graph import Node, Value
from sparsejax.compiler.graph.images import channel_axis
from sparsejax.compiler.nodes.op import NEITHER, RegionOp, last_axis

KNOWN = "known"  # in xla_ops/engine/codes.def


@dataclass(frozen=True, eq=False)
class Known(RegionOp):
    """The same numbers for each item; its input says how many items there are.

    Attributes:
        numbers: (rows, channels) of sequences, or (height, width, channels) of images.
        channels_last: are images NHWC rather than NCHW?
    """

    numbers: np.ndarray
    channels_last: bool = True

    def __str__(self) -> str:
        """Shape."""
        return f"Known {self.numbers.shape}"

    @property
    def rows_meet(self) -> bool:
        return True

    def channel_axes(self, node: Node) -> frozenset[int]:
        if self.numbers.ndim == 3:
            axis = channel_axis(self.channels_last)
            return frozenset((axis,)) if len(node.inputs[0].shape) == 4 else NEITHER
        return last_axis(node)

    def before_change(self, to_last: bool) -> None:
        """None: nothing is read."""

    def evaluate(self, like: jax.Array) -> list[jax.Array]:
        items = like.shape[: like.ndim - (2 if self.numbers.ndim == 2 else 3)]
        numbers = laid_out(self.numbers, self.channels_last)
        return [jnp.broadcast_to(jnp.asarray(numbers, like.dtype), items + numbers.shape)]

    def lower(self, node: Node, to: Builder) -> None:
        """One step; equal numbers stand once in the program."""
        channels = self.numbers.shape[-1]
        weights = to.keep_once(np.moveaxis(self.numbers, -1, 0))
        bias = to.keep_once(np.zeros(channels))
        rows = (len(self.numbers),)
        to.add(node, KNOWN, inputs=(), weights=weights, bias=bias, channels=rows)


def laid_out(numbers: np.ndarray, channels_last: bool) -> np.ndarray:
    """Of an image as the order of axes has them."""
    return numbers if channels_last else np.moveaxis(numbers, -1, 0)


def known_beside(numbers: np.ndarray, like: Value, channels_last: bool = True) -> Node:
    """A node of such numbers for each item of a value, all axes but these of which are items'."""
    items = like.shape[: len(like.shape) - (2 if numbers.ndim == 2 else 3)]
    op = Known(np.asarray(numbers, np.float32), channels_last)
    return made(op, [like], (*items, *laid_out(numbers, channels_last).shape))
