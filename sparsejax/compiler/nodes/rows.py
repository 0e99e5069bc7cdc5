"""Values traced to channels of rows, however they were moved."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from sparsejax.compiler.graph.edit import Edit, is_float, made
from sparsejax.compiler.graph.graph import Node, Value
from sparsejax.compiler.nodes.known import known_beside
from sparsejax.compiler.nodes.pairs import Operand, number
from sparsejax.compiler.nodes.primitive import Primitive
from sparsejax.compiler.nodes.reshape import Reshape
from sparsejax.compiler.nodes.transpose import Transpose
from sparsejax.jaxprs import moves

MAX_TRACED = 1 << 24  # elements of an operand whose moves are followed one by one
MOST_MOVES = 8


class Found(NamedTuple):
    """Rows, the channels where heads begin, and what these are multiplied by."""

    rows: Value
    first: np.ndarray
    factor: float


@dataclass
class Rows:
    """Values as channels of rows, (*ones, *batch, length, channels).

    Attributes:
        edit: the graph.
        lead: all sizes but that of the channels.
        ones: how many axes of length 1 are in front of the batch.
        nodes: that make the rows.
        alone: is each item a row, without an axis of these?
    """

    edit: Edit
    lead: tuple[int, ...]
    ones: int = 0
    nodes: list[Node] = field(default_factory=list)
    alone: bool = False

    @property
    def batch(self) -> tuple[int, ...]:
        return self.lead[self.ones :] if self.alone else self.lead[self.ones : -1]

    def of(self, operand: Operand, order: Sequence[Any], heads: Sequence[int]) -> Found | None:
        """The rows that an operand is made of, and where its heads begin.

        Args:
            operand: moved from rows.
            order: of its axes: batch, heads, rows, channels; None where it has no such axis.
            heads: number of heads along each axis of these.
        """
        for source, laid, factor in self.laid(operand, order, heads):
            first = _first_channels(laid, source.size // math.prod(self.lead))
            if first is not None and source.size % math.prod(self.lead) == 0:
                return Found(self.shaped(source, (*self.lead, -1)), first, factor)
        return None

    def laid(
        self, operand: Operand, order: Sequence[Any], heads: Sequence[int]
    ) -> Iterator[tuple[Value, np.ndarray, float]]:
        """What an operand may have been moved from, where its elements lay, and its factor.

        The places are (items, heads, rows, channels); the arguments are those of `of`.
        """
        for source, places, factor in sources_of(self.edit, operand.value):
            laid = self._in_order(operand, places, order, heads)
            if laid is None:
                return
            yield source, laid.reshape(math.prod(self.batch), *laid.shape[-3:]), factor

    def known(
        self, operand: Operand, order: Sequence[Any], heads: Sequence[int], beside: Value
    ) -> Found | None:
        """The rows of an operand that is known, the same for each item, beside rows of others."""
        assert operand.value.constant is not None
        laid = self._in_order(operand, np.asarray(operand.value.constant), order, heads)
        if laid is None or not np.array_equal(laid, np.broadcast_to(laid[:1], laid.shape)):
            return None
        count, length, size = laid.shape[1:]
        numbers = laid[0].swapaxes(0, 1).reshape(length, count * size)
        self.nodes.append(known_beside(numbers, beside))
        return Found(self.nodes[-1].outputs[0], size * np.arange(count), 1.0)

    def _in_order(
        self, operand: Operand, numbers: np.ndarray, order: Sequence[Any], heads: Sequence[int]
    ) -> np.ndarray | None:
        """Elements as (items, heads, rows, channels), of one item if there is no such axis."""
        kept = [operand.axes.index(axis) for axis in order if axis in operand.axes]
        rest = [axis for axis in range(numbers.ndim) if axis not in kept]
        if any(numbers.shape[axis] != 1 for axis in rest):
            return None
        laid = numbers.transpose(*rest, *kept)[(0,) * len(rest)]
        missing = tuple(i for i, axis in enumerate(order) if axis not in operand.axes)
        laid = np.expand_dims(laid, missing)
        items = laid.shape[: len(self.batch)]
        laid = np.broadcast_to(laid, (*items, *heads, *laid.shape[-2:]))
        return laid.reshape(math.prod(items), -1, *laid.shape[-2:])

    def shaped(self, value: Value, shape: Sequence[int]) -> Value:
        whole = tuple(value.size // math.prod(self.lead) if n < 0 else n for n in shape)
        if value.shape == whole:
            return value
        self.nodes.append(made(Reshape(whole), [value], whole))
        return self.nodes[-1].outputs[0]


def leading_ones(edit: Edit, value: Value, length: int) -> int:
    """How many axes of length 1, and no others, stand before the rows that a value is made of."""
    shape = farthest(edit, value).shape
    alone = len(shape) > 1 and shape[-2] == length and all(size == 1 for size in shape[:-2])
    return len(shape) - 2 if alone else 0


def farthest(edit: Edit, value: Value) -> Value:
    """What a value was moved from, as far as it can be followed; itself if it is too large."""
    found = sources_of(edit, value)
    return found[0][0] if found else value


def _first_channels(places: np.ndarray, channels: int) -> np.ndarray | None:
    """Where each head begins among channels, of places (batch, heads, rows, size) in the rows."""
    batch, _, rows, size = places.shape
    first = places[0, :, 0, 0]
    row = np.arange(batch)[:, None, None, None] * rows + np.arange(rows)[:, None]
    expected = row * channels + first[:, None, None] + np.arange(size)
    if (first + size > channels).any() or not np.array_equal(places, expected):
        return None
    return first


def sources_of(edit: Edit, value: Value) -> list[tuple[Value, np.ndarray, float]]:
    """What a value may have been moved from, the farthest first, and where its elements lay."""
    chain, values = [], [value]  # type: list[Node], list[Value]
    while len(chain) < MOST_MOVES:
        node = edit.writer.get(values[-1])
        if node is None or not _moves(node):
            break
        chain.append(node)
        values.append(_moved_value(node))
    found = []
    for count in range(len(chain), -1, -1):
        source = values[count]
        if source.size > MAX_TRACED or not is_float(source):
            continue
        places: np.ndarray | None = np.arange(source.size).reshape(source.shape)
        for node, moved in reversed([*zip(chain[:count], values[:count], strict=True)]):
            places = None if places is None else _moved(node, node.outputs.index(moved), places)
        if places is not None:
            found.append((source, places, math.prod(map(_factor, chain[:count]))))
    return found


def _moves(node: Node) -> bool:
    if all(value.constant is not None for value in node.inputs):
        return False
    if isinstance(node.op, Reshape | Transpose):
        return True
    if not isinstance(node.op, Primitive):
        return False
    if node.op.name in ("slice", "split", "broadcast_in_dim"):
        return len(node.inputs) == 1
    places = {"mul": (0, 1), "div": (1,)}.get(node.op.name, ())
    return any(number(node.inputs[place]) for place in places)


def _moved_value(node: Node) -> Value:
    """What a node moves, or multiplies."""
    return next(value for value in node.inputs if value.constant is None)


def _factor(node: Node) -> float:
    """What a node that moves elements multiplies them by."""
    found = next((number(v) for v in node.inputs if v.constant is not None), None)
    return 1.0 if found is None else found if node.op.name == "mul" else 1 / found


def _moved(node: Node, output: int, places: np.ndarray) -> np.ndarray | None:
    """Where the elements of an output lay that others had at these places."""
    if isinstance(node.op, Reshape):
        return places.reshape(node.op.shape)
    if isinstance(node.op, Transpose):
        return places.transpose(node.op.permutation)
    assert isinstance(node.op, Primitive)
    if len(node.inputs) == 2:
        return places
    found = moves.moved(node.op.equation, [places])
    return None if found is None else found[output]
