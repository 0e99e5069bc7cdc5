"""Moves of pixels: crops, strides, flips, nearest neighbours, channels as pixels and back."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.compiler.engine.program import Builder
from sparsejax.compiler.graph import fold
from sparsejax.compiler.graph.edit import Edit, is_float, made
from sparsejax.compiler.graph.graph import Node, Value
from sparsejax.compiler.graph.images import FIRST, LAST, TO_FIRST, TO_LAST, sides
from sparsejax.compiler.graph.op import MappingType
from sparsejax.compiler.nodes.affine import Affine
from sparsejax.compiler.nodes.elementwise import Elementwise
from sparsejax.compiler.nodes.op import ImageOp, Rules
from sparsejax.compiler.nodes.primitive import Primitive
from sparsejax.compiler.nodes.reshape import Reshape
from sparsejax.compiler.nodes.transpose import Transpose

PICK, CHANNELS = "pick", "channels"  # in xla_ops/engine/codes.def
MAX_TRACED = 1 << 22  # floats of an image whose moves are followed one by one
MOST_MOVES = 6


@dataclass(frozen=True, eq=False)
class Pick(ImageOp):
    """y[row y, column x, channel c] is a float of x, at a sum of numbers of y, x and c.

    Attributes:
        rows: (height, 2): row of the input, and what is added to the channel.
        columns: (width, 2): column of the input, and what is added to the channel.
        channels: (channels, 3): channel of the input, and what is added to row and column.
        channels_last: NHWC rather than NCHW.
    """

    rows: np.ndarray
    columns: np.ndarray
    channels: np.ndarray
    channels_last: bool = True

    def __str__(self) -> str:
        """Size."""
        height, width, channels = map(len, (self.rows, self.columns, self.channels))
        return f"Pick {height}x{width}x{channels}"

    def in_order(self, channels_last: bool) -> "Pick | None":
        if channels_last == self.channels_last:
            return self
        if any(map(np.any, (self.rows[:, 1:], self.columns[:, 1:], self.channels[:, 1:]))):
            return None
        # What picks along each axis by itself does so under other names of the axes.
        axes = [self.rows[:, 0], self.columns[:, 0], self.channels[:, 0]]
        by_name = (axes[1], axes[2], axes[0]) if self.channels_last else (axes[2], axes[0], axes[1])
        return separable(*by_name, channels_last)

    def places(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Row, column and channel of the input for each row, column and channel."""
        y, x, c = self.rows[:, None, None], self.columns[None, :, None], self.channels[None, None]
        row = y[..., 0] + c[..., 1] + 0 * x[..., 0]
        column = x[..., 0] + c[..., 2] + 0 * y[..., 0]
        return row, column, c[..., 0] + y[..., 1] + x[..., 1]

    def keeps_pixels(self) -> bool:
        """Does it move nothing but channels, where the image is as large as before?"""
        whole = lambda numbers: np.array_equal(numbers[:, 0], np.arange(len(numbers)))
        moved = (self.rows[:, 1:], self.columns[:, 1:], self.channels[:, 1:])
        return whole(self.rows) and whole(self.columns) and not any(map(np.any, moved))

    def evaluate(self, x: jax.Array) -> list[jax.Array]:
        """Axis by axis where that is possible: whole rows and images are copied then."""
        if not any(map(np.any, (self.rows[:, 1:], self.columns[:, 1:], self.channels[:, 1:]))):
            axes = (*sides(self.channels_last), self.axis)
            for axis, numbers in zip(axes, (self.rows, self.columns, self.channels), strict=True):
                if not np.array_equal(numbers[:, 0], np.arange(x.shape[axis])):
                    x = jnp.take(x, np.asarray(numbers[:, 0], np.int32), axis, mode="clip")
            return [x]
        row, column, channel = (np.asarray(place, np.int32) for place in self.places())
        x = x if self.channels_last else x.transpose(TO_LAST)
        y = x[:, row, column, channel]
        return [y if self.channels_last else y.transpose(TO_FIRST)]

    def mapping(self, node: Node) -> MappingType:
        return MappingType.SHUFFLE

    def lower(self, node: Node, to: Builder) -> None:
        """One step; of whole channels where no pixel moves."""
        sides = [to.region.size(value)[1:] for value in (node.inputs[0], node.outputs[0])]
        if self.keeps_pixels() and sides[0] == sides[1]:
            return to.add(node, CHANNELS, channels=self.channels[:, 0])
        numbers = (*self.rows.T, *self.columns.T, *self.channels.T)
        return to.add(node, PICK, channels=np.concatenate(numbers))


def separable(
    rows: np.ndarray, columns: np.ndarray, channels: np.ndarray, channels_last: bool
) -> Pick:
    """The pick that takes these rows, columns and channels."""
    wide = lambda numbers, more: np.pad(numbers[:, None], ((0, 0), (0, more)))
    return Pick(wide(rows, 1), wide(columns, 1), wide(channels, 2), channels_last)


def pick_of(places: np.ndarray, shape: tuple[int, ...], channels_last: bool = True) -> Pick | None:
    """The pick that gives (height, width, channels) places in an image of such a shape."""
    row, column, channel = np.unravel_index(places, shape)
    # A pick adds what row, column and channel say of each place. Reading the three axes through
    # the origin gives those sums; whether they hold everywhere is asked at the end.
    y = np.stack([row[:, 0, 0], channel[:, 0, 0] - channel[0, 0, 0]], 1)
    x = np.stack([column[0, :, 0], channel[0, :, 0] - channel[0, 0, 0]], 1)
    at = (channel[0, 0], row[0, 0] - row[0, 0, 0], column[0, 0] - column[0, 0, 0])
    low = [min(0, int(numbers.min())) for numbers in (y[:, 1], x[:, 1], at[1], at[2])]
    y += np.array((low[2], -low[0]))
    x += np.array((low[3], -low[1]))
    c = np.stack(at, 1) + np.array((low[0] + low[1], -low[2], -low[3]))
    pick = Pick(y, x, c, channels_last)
    same = zip(pick.places(), (row, column, channel), strict=True)
    fits = all(np.array_equal(np.broadcast_to(a, b.shape), b) for a, b in same)
    return pick if fits and min(y.min(), x.min(), c.min()) >= 0 else None


def to_pick(edit: Edit, node: Node) -> bool:
    """What moves floats from one image to another as a pick does."""
    if not _moves(node) or not is_float(*node.outputs) or len(node.outputs[0].shape) != 4:
        return False
    if 0 in node.outputs[0].shape or node.outputs[0].size > MAX_TRACED:
        return False
    chain: list[Node] = []
    value = node.outputs[0]
    while len(chain) < MOST_MOVES:
        writer = edit.writer.get(value)
        if writer is None or not _moves(writer):
            return False
        chain.insert(0, writer)
        value = writer.inputs[0]
        if len(value.shape) == 4 and _worth(chain):
            break
    else:
        return False
    pick = _followed(chain, value)
    if pick is None or (pick.keeps_pixels() and value.size == node.outputs[0].size):
        return False
    return edit.replace(node, Node(pick, [value], node.outputs))


def _moves(node: Node) -> bool:
    """Does it move the floats of one computed array, by what is known?"""
    if not node.inputs or node.inputs[0].constant is not None or len(node.outputs) != 1:
        return False
    if isinstance(node.op, Reshape | Transpose):
        return True
    if not isinstance(node.op, Primitive):
        return False
    if node.op.name == "gather":
        known = isinstance(node.inputs[1].constant, np.ndarray)
        return known and "FILL" not in str(node.op.equation.params["mode"])
    return node.op.name in ("slice", "rev", "broadcast_in_dim") and len(node.inputs) == 1


def _worth(chain: list[Node]) -> bool:
    """More than a reshape, or axes in another order?"""
    kinds = [type(node.op) for node in chain]
    return Primitive in kinds or kinds == [Reshape, Transpose, Reshape]


def _followed(chain: list[Node], value: Value) -> Pick | None:
    """What a chain of moves does to an image, told by what it does to the places in it."""
    if value.size > MAX_TRACED or 0 in value.shape:
        return None
    places = np.arange(value.size, dtype=np.int32).reshape(value.shape)
    for node in chain:
        places = _moved(node, places)
    return pick_of_all(places, value.shape)


def pick_of_all(places: np.ndarray, whole: tuple[int, ...]) -> Pick | None:
    """The pick that gives places in images (N, ...), if it is the same for all of these."""
    batch, size, shape = whole[0], math.prod(whole[1:]), whole[1:]
    if len(places) != batch:
        return None
    each = places - size * np.arange(batch).reshape(-1, 1, 1, 1)
    if (each != each[:1]).any() or each.min() < 0:
        return None
    first = each[0]
    found = pick_of(first, shape)
    if found is not None:
        return found
    channels, height, width = shape  # of NCHW, told of NHWC
    channel, row, column = np.unravel_index(first.transpose(1, 2, 0), shape)
    turned = (row * width + column) * channels + channel
    return pick_of(turned, (height, width, channels), channels_last=False)


def _moved(node: Node, array: np.ndarray) -> np.ndarray:
    if isinstance(node.op, Reshape):
        return array.reshape(node.op.shape)
    if isinstance(node.op, Transpose):
        return array.transpose(node.op.permutation)
    assert isinstance(node.op, Primitive)
    known = [np.asarray(value.constant) for value in node.inputs[1:]]
    with jax.ensure_compile_time_eval():
        return np.asarray(
            fold.bind(node.op.equation.primitive, node.op.equation.params, array, *known)
        )


def merge(edit: Edit, node: Node) -> bool:
    """Two picks after each other are one, if it is one, and the second repeats no channels."""
    if not isinstance(node.op, Pick):
        return False
    before = edit.sole_writer(node.inputs[0], Pick)
    if before is None or not isinstance(before.op, Pick):
        return False
    if before.op.channels_last != node.op.channels_last:
        return False
    if node.op.keeps_pixels() and node.outputs[0].size > node.inputs[0].size:
        return False  # whole channels are copied faster than floats are picked
    x = before.inputs[0]
    last = node.op.channels_last
    size = [x.shape[axis] for axis in (*sides(last), LAST if last else FIRST)]
    row, column, channel = before.op.places()
    inner = (row * size[1] + column) * size[2] + channel
    picked = pick_of(inner[node.op.places()], tuple(size), last)
    return picked is not None and edit.replace(node, made(picked, [x], node.outputs[0].shape))


def sink(edit: Edit, node: Node) -> bool:
    """Arithmetic on the floats of a pick comes before it, where a layer may draw it in."""
    op: Any = node.op
    if not isinstance(op, Affine) and not (isinstance(op, Elementwise) and len(node.inputs) == 1):
        return False
    before = edit.sole_writer(node.inputs[0], Pick)
    if before is None or not isinstance(before.op, Pick):
        return False
    x, pick = before.inputs[0], before.op
    if math.prod(x.shape) > 2 * node.outputs[0].size:
        return False
    if isinstance(op, Affine) and op.scale.size > 1:
        if op.axis != pick.axis:
            return False
        op = _of_sources(op, pick, x.shape[pick.axis])
        if op is None:
            return False
    inner = made(op, [x], x.shape)
    return edit.replace(node, inner, made(pick, inner.outputs, node.outputs[0].shape))


def _of_sources(op: Affine, pick: Pick, channels: int) -> Affine | None:
    """The same on the channels that are picked from; None where one has to be two."""
    source = pick.places()[2]
    target = np.broadcast_to(np.arange(len(pick.channels)), source.shape)
    scale, shift = np.ones(channels), np.zeros(channels)
    scale[source], shift[source] = op.scale[target], op.shift[target]
    if (scale[source] != op.scale[target]).any() or (shift[source] != op.shift[target]).any():
        return None
    return Affine(scale, shift, op.axis, op.activation)


RULES = Rules(named=(to_pick,), joined=(merge, sink), fused=(sink,))
