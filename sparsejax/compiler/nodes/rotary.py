"""Rotary positions: channels that turn in pairs, by angles that are known or come from XLA."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sparsejax.compiler.graph.edit import Edit, grown, is_float, made
from sparsejax.compiler.graph.graph import Node, Value
from sparsejax.compiler.graph.interpret import interpreter
from sparsejax.compiler.nodes.affine import Affine
from sparsejax.compiler.nodes.channels import Channels
from sparsejax.compiler.nodes.elementwise import Elementwise
from sparsejax.compiler.nodes.known import known_beside
from sparsejax.compiler.nodes.op import Rules
from sparsejax.compiler.nodes.pairs import Operand
from sparsejax.compiler.nodes.primitive import equations
from sparsejax.compiler.nodes.reshape import Reshape
from sparsejax.compiler.nodes.rows import Rows
from sparsejax.compiler.nodes.sampled import computed
from sparsejax.compiler.nodes.transpose import Transpose

MAX_NODES = 48  # three turns of parts of a head have 39
MAX_PROBED = 1 << 22  # elements
LAST = ("concatenate", "add", "sub")  # what it may end with
LINEAR = ("mul", "neg", "slice", "split", "stack", *LAST)


def to_rotary(edit: Edit, node: Node) -> bool:
    """Sums of a channel and another of the same head, times numbers for each row."""
    shape = node.outputs[0].shape if node.outputs else ()
    if node.op.name not in LAST or len(shape) not in (3, 4):
        return False
    if not 0 < node.outputs[0].size <= MAX_PROBED:
        return False
    joins = lambda other: other.op.name in LINEAR or isinstance(other.op, Reshape)
    for sources, nodes in grown(edit, node, joins, most=MAX_NODES):
        if not any(other.op.name in ("concatenate", "stack") for other in nodes):
            continue
        for source in sources:
            if source.shape != shape or not is_float(*sources):
                continue
            angles = [value for value in sources if value is not source]
            found = _turn_of(source, angles, nodes)
            if found is not None:
                return edit.replace(node, *_nodes(edit, source, found))
    return False


class Turn(NamedTuple):
    """own x + across x[partner], along the last axis; values, or arrays for the last three axes.

    `heads_first`: are these heads, rows and channels?
    """

    own: Any
    partner: np.ndarray
    across: Any
    heads_first: bool
    nodes: Sequence[Node] = ()


def _turn_of(source: Value, angles: Sequence[Value], nodes: Sequence[Node]) -> Turn | None:
    """What channels are multiplied by, their partners, and what these are multiplied by.

    Args:
        source: what is turned.
        angles: what else is computed: of the numbers that channels are multiplied by.
        nodes: that lead from these to what comes out.
    """
    size = source.shape[-1]
    if size % 2:
        return None
    channel = np.arange(size)
    generator = np.random.default_rng(0)
    drawn = {value: generator.normal(size=value.shape) for value in (source, *angles)}
    made_of = lambda x: computed(nodes, drawn | {source: x})
    for partner in ((channel + size // 2) % size, channel ^ 1):
        first = np.broadcast_to(channel < partner, source.shape)
        one, two = made_of(first * 1.0), made_of(1.0 - first)
        other = made_of(drawn[source])
        if one is None or two is None or other is None:
            return None
        own, across = np.where(first, one, two), np.where(first, two, one)
        expected = own * drawn[source] + across * drawn[source][..., partner]
        if np.abs(expected - other).max() > 1e-6 * np.abs(expected).max():
            continue
        own, across = (x.reshape(-1, *source.shape[-3:]) for x in (own, across))
        turn = Turn(own[0], partner, across[0], _heads_first(own, across))
        if angles:
            return _computed_turn(source, angles, nodes, turn)
        if (own == own[:1]).all() and (across == across[:1]).all():
            return turn
    return None


def _heads_first(*numbers: np.ndarray) -> bool:
    """Are the last axes heads, rows and channels? All heads turn alike, rows do not."""
    differ = [any((x != x.take([0], axis)).any() for x in numbers) for axis in (1, 2)]
    first, second = numbers[0].shape[1:3]
    return differ == [False, True] or (not any(differ) and second == 1 < first)


def _computed_turn(
    source: Value, angles: Sequence[Value], nodes: Sequence[Node], turn: Turn
) -> Turn:
    """The same where XLA computes the numbers: the nodes, told which channels they are to see."""
    inner = interpreter(nodes[::-1], [source, *angles], nodes[0].outputs)
    first = np.broadcast_to(np.arange(source.shape[-1]) < turn.partner, source.shape)

    def function(*arrays: jax.Array) -> tuple[jax.Array, jax.Array]:
        seen = (first.astype(np.float32), (~first).astype(np.float32))
        (one,), (two,) = (inner(jnp.asarray(x), *arrays) for x in seen)
        return lax.select(first, one, two), lax.select(first, two, one)

    made_by: list[Node] = []
    own, across = equations(function, angles, made_by)
    return turn._replace(own=own, across=across, nodes=made_by)


def _nodes(edit: Edit, source: Value, turn: Turn) -> list[Node]:
    """What a turn says, on the rows of all heads that the source was moved from."""
    after = _rows_of(edit, source, heads_first=True) if turn.heads_first else None
    rows, found = after or _rows_of(edit, source, heads_first=False)
    last = len(source.shape) - 1
    order = (*range(last - 2), last - 1, last - 2, last) if after else (*range(last + 1),)
    split = tuple(source.shape[axis] for axis in order)
    shape = (*rows.lead, split[-2] * split[-1])
    nodes, terms = [*turn.nodes, *rows.nodes], []
    for numbers, channels in ((turn.own, np.arange(split[-1])), (turn.across, turn.partner)):
        x = _channels(found.rows, (found.first[:, None] + channels).ravel(), nodes)
        if isinstance(numbers, Value):
            nodes.append(made(Transpose(order), [numbers], split))
            nodes.append(made(Reshape(shape), nodes[-1].outputs, shape))
        else:
            numbers = numbers.swapaxes(0, 1) if after else numbers
            nodes.append(known_beside(numbers.reshape(shape[-2:]), x))
        nodes.append(made(Elementwise("mul"), [x, *nodes[-1].outputs], shape))
        terms += nodes[-1].outputs
    nodes.append(made(Elementwise("add"), terms, shape))
    nodes.append(made(Affine(np.full(1, found.factor), np.zeros(1)), nodes[-1].outputs, shape))
    nodes.append(made(Reshape(split), nodes[-1].outputs, split))
    return [*nodes, made(Transpose(order), nodes[-1].outputs, source.shape)]


def _rows_of(edit: Edit, source: Value, *, heads_first: bool) -> Any:
    """The rows that (..., length, heads, size), or with heads first, is moved from, None if none.

    It is itself such rows, unless heads come first.
    """
    last = len(source.shape) - 1
    length, heads = (last - 1, last - 2) if heads_first else (last - 2, last - 1)
    rows = Rows(edit, (*source.shape[: last - 2], source.shape[length]))
    order = (*range(last - 2), heads, length, last)
    found = rows.of(Operand(source, [*range(last + 1)]), order, (source.shape[heads],))
    return found and (rows, found)


def _channels(rows: Value, index: np.ndarray, nodes: list[Node]) -> Value:
    """These channels, which may be all."""
    if np.array_equal(index, np.arange(rows.shape[-1])):
        return rows
    shape = (*rows.shape[:-1], index.size)
    nodes.append(made(Channels(index, len(shape) - 1), [rows], shape))
    return nodes[-1].outputs[0]


RULES = Rules(first=(to_rotary,))
