"""Numbers that are known beforehand, as a value of a region: positions, tokens, biases, angles."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.compiler.engine.program import Builder
from sparsejax.compiler.graph.edit import made
from sparsejax.compiler.graph.graph import Node, Value
from sparsejax.compiler.graph.images import LAST
from sparsejax.compiler.nodes.op import NEITHER, RegionOp, last_axis

KNOWN = "known"  # in xla_ops/engine/codes.def


@dataclass(frozen=True, eq=False)
class Known(RegionOp):
    """The same numbers for each item; its input says how many items there are.

    Attributes:
        numbers: (rows, channels) of sequences, or (height, width, channels) of images.
    """

    numbers: np.ndarray

    def __str__(self) -> str:
        """Shape."""
        return f"Known {self.numbers.shape}"

    @property
    def rows_meet(self) -> bool:
        return True

    def channel_axes(self, node: Node) -> frozenset[int]:
        if self.numbers.ndim == 3:
            return frozenset((LAST,)) if len(node.inputs[0].shape) == 4 else NEITHER
        return last_axis(node)

    def before_change(self, to_last: bool) -> None:
        """None: nothing is read."""

    def evaluate(self, like: jax.Array) -> list[jax.Array]:
        items = like.shape[: like.ndim - (2 if self.numbers.ndim == 2 else 3)]
        return [jnp.broadcast_to(jnp.asarray(self.numbers, like.dtype), items + self.numbers.shape)]

    def lower(self, node: Node, to: Builder) -> None:
        """One step; equal numbers stand once in the program."""
        channels = self.numbers.shape[-1]
        weights = to.keep_once(np.moveaxis(self.numbers, -1, 0))
        bias = to.keep_once(np.zeros(channels))
        rows = (len(self.numbers),)
        to.add(node, KNOWN, inputs=(), weights=weights, bias=bias, channels=rows)


def known_beside(numbers: np.ndarray, like: Value) -> Node:
    """A node of such numbers for each item of a value, all axes but these of which are items'."""
    items = like.shape[: len(like.shape) - (2 if numbers.ndim == 2 else 3)]
    return made(Known(np.asarray(numbers, np.float32)), [like], (*items, *numbers.shape))
