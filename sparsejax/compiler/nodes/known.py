"""Numbers that are known beforehand, as a value of a region: positions, tokens, biases, angles."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.compiler.engine.program import Builder
from sparsejax.compiler.graph.edit import Edit, constant_of, is_float, made
from sparsejax.compiler.graph.graph import Node, Value
from sparsejax.compiler.graph.images import EITHER, LAST, channel_axis
from sparsejax.compiler.nodes.affine import along_one_axis
from sparsejax.compiler.nodes.elementwise import IN_JAX, Elementwise
from sparsejax.compiler.nodes.op import NEITHER, RegionOp, Rules, last_axis
from sparsejax.compiler.nodes.primitive import Primitive
from sparsejax.compiler.nodes.reshape import Reshape
from sparsejax.compiler.nodes.transpose import Transpose

KNOWN = "known"  # in xla_ops/engine/codes.def
MAX_KNOWN = 1 << 20  # numbers that are not computed with in XLA


@dataclass(frozen=True, eq=False)
class Known(RegionOp):
    """The same numbers for each item; its input says how many items there are.

    Attributes:
        numbers: (rows, channels) of sequences, or (height, width, channels) of images.
        channels_last: are images NHWC rather than NCHW? None until that is known: numbers are in
            the order of the image's own axes then.
    """

    numbers: np.ndarray
    channels_last: bool | None = True

    def __str__(self) -> str:
        """Shape."""
        return f"Known {self.numbers.shape}"

    @property
    def rows_meet(self) -> bool:
        return True

    def channel_axes(self, node: Node) -> frozenset[int]:
        if self.numbers.ndim == 2:
            return last_axis(node)
        if len(node.inputs[0].shape) != 4:
            return NEITHER
        return (
            EITHER if self.channels_last is None else frozenset((channel_axis(self.channels_last),))
        )

    def settled(self, axis: int, shape: tuple[int, ...]) -> "Known":
        if self.channels_last is not None or self.numbers.ndim == 2:
            return self
        return Known(
            self.numbers if axis == LAST else np.moveaxis(self.numbers, 0, -1), axis == LAST
        )

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


def laid_out(numbers: np.ndarray, channels_last: bool | None) -> np.ndarray:
    """Of an image as the order of axes has them."""
    return np.moveaxis(numbers, -1, 0) if channels_last is False else numbers


def known_beside(numbers: np.ndarray, like: Value, channels_last: bool | None = True) -> Node:
    """A node of such numbers for each item of a value, all axes but these of which are items'."""
    items = like.shape[: len(like.shape) - (2 if numbers.ndim == 2 else 3)]
    op = Known(np.asarray(numbers, np.float32), channels_last)
    return made(op, [like], (*items, *laid_out(numbers, channels_last).shape))


def of_each_item(value: Value, shape: Sequence[int]) -> np.ndarray | None:
    """A constant as the numbers of one item, of rows or of an image; None if items differ."""
    array, rank = constant_of(value), 3 if len(shape) == 4 else 2
    if array is None or (array.ndim and array.ndim != len(shape)):
        return None
    items = array.reshape(-1, *(array.shape[-rank:] or (1,) * rank))
    return np.broadcast_to(items[0], shape[-rank:]) if (items == items[:1]).all() else None


def with_known(edit: Edit, node: Node) -> bool:
    """add, sub, mul or max of a value and numbers for each pixel or row, the same for all items.

    Ahead of all layers XLA does it, together with what it looks up there.
    """
    if not isinstance(node.op, Primitive) or node.op.name not in IN_JAX:
        return False
    shape, known = node.outputs[0].shape, [v for v in node.inputs if v.constant is not None]
    if len(known) != 1 or not is_float(*node.inputs) or not 2 <= len(shape) <= 4:
        return False
    (x,), array = [v for v in node.inputs if v.constant is None], constant_of(known[0])
    rank = 3 if len(shape) == 4 else 2
    if array is None or x.shape != shape or not 0 < math.prod(shape[-rank:]) <= MAX_KNOWN:
        return False
    if array.ndim != len(shape) or along_one_axis(array, shape) is not None:
        return False  # a scale or a shift of channels
    if not _follows_layers(edit, x):
        return False
    numbers = of_each_item(known[0], shape)
    if numbers is None:
        return False
    table = known_beside(numbers, x, None)
    inputs = [table.outputs[0] if v is known[0] else v for v in node.inputs]
    return edit.replace(node, table, made(Elementwise(node.op.name), inputs, shape))


def _follows_layers(edit: Edit, value: Value) -> bool:
    node = edit.writer.get(value)
    while node is not None and isinstance(node.op, Reshape | Transpose):
        node = edit.writer.get(node.inputs[0])
    return node is not None and isinstance(node.op, RegionOp)


RULES = Rules(named=(with_known,))
