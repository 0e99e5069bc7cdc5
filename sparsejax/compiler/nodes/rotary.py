"""Rotary positions: channels that turn in pairs, by angles that are known or come from XLA."""

from collections.abc import Callable, Iterator, Sequence
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
from sparsejax.compiler.nodes.concat import Concat
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
JOINED = ("concatenate", "stack")
LAST = ("concatenate", "add", "sub")  # what it may end with, or a reshape of pairs
LINEAR = ("mul", "neg", "slice", "split", "stack", "complex", "real", "imag", *LAST)


def to_rotary(edit: Edit, node: Node) -> bool:
    """Sums of a channel and another of the same head, times numbers for each row."""
    shape = node.outputs[0].shape if node.outputs else ()
    if len(shape) not in (3, 4) or not _may_end(edit, node):
        return False
    if not 0 < node.outputs[0].size <= MAX_PROBED:
        return False
    joins = lambda other: other.op.name in LINEAR or isinstance(other.op, Reshape)
    for sources, nodes in grown(edit, node, joins, most=MAX_NODES):
        if not any(other.op.name in JOINED for other in nodes):
            continue
        for source in sources:
            angles = [value for value in sources if value is not source]
            known_kinds = all(is_float(value) or value.dtype == np.complex64 for value in angles)
            if source.shape != shape or not is_float(source) or not known_kinds:
                continue
            found = _turn_of(source, angles, nodes)
            if found is not None:
                return edit.replace(node, *_nodes(edit, source, found))
    return False


def _may_end(edit: Edit, node: Node) -> bool:
    if not isinstance(node.op, Reshape):
        return node.op.name in LAST
    before, shape = edit.writer.get(node.inputs[0]), node.op.shape
    in_pairs = node.inputs[0].shape == (*shape[:-1], shape[-1] // 2, 2)
    return in_pairs and before is not None and before.op.name in JOINED


class Turn(NamedTuple):
    """own x + across x[partner], along the last axis; values, or arrays for the last three axes.

    `heads_first`: are these heads, rows and channels? Channels behind these partners stay.
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
    generator = np.random.default_rng(0)
    drawn: dict[Value, np.ndarray] = {
        value: generator.normal(size=value.shape) for value in (source, *angles)
    }
    for value in angles:
        if not is_float(value):
            drawn[value] = drawn[value] + 1j * generator.normal(size=value.shape)
    made_of = lambda x: computed(nodes, drawn | {source: x})
    other = made_of(drawn[source])
    if other is None:
        return None
    for partner in _partners(made_of, source):
        turned = len(partner)
        first = np.broadcast_to(_first_of(partner, source), source.shape)
        one, two = made_of(first * 1.0), made_of(1.0 - first)
        assert one is not None and two is not None
        own, across = np.where(first, one, two), np.where(first, two, one)
        own, across = own[..., :turned], across[..., :turned]
        expected = drawn[source].copy()
        expected[..., :turned] *= own
        expected[..., :turned] += across * drawn[source][..., partner]
        if np.abs(expected - other).max() > 1e-6 * np.abs(expected).max():
            continue
        if not own.any() or not across.any():
            return None  # channels change places, or none does: 0 times infinity would be NaN
        own, across = (x.reshape(-1, *x.shape[-3:]) for x in (own, across))
        turn = Turn(own[0], partner, across[0], _heads_first(own, across))
        if angles:
            return _computed_turn(source, angles, nodes, turn)
        if (own == own[:1]).all() and (across == across[:1]).all():
            return turn
    return None


def _partners(made_of: Callable, source: Value) -> Iterator[np.ndarray]:
    """What may turn with what: halves or neighbours, of all channels or of those in front."""
    size = source.shape[-1]
    with np.errstate(invalid="ignore"):  # inf stays itself where it is multiplied by nothing
        stays = np.isposinf(made_of(np.full(source.shape, np.inf)))
    changed = np.flatnonzero(~stays.all(tuple(range(stays.ndim - 1))))
    front = changed[-1] + 1 if changed.size else size
    for turned in dict.fromkeys((front, size)):
        if turned % 2 == 0:
            channel = np.arange(turned)
            yield (channel + turned // 2) % turned
            yield channel ^ 1


def _first_of(partner: np.ndarray, source: Value) -> np.ndarray:
    """Which channels are the first of a pair."""
    rest = np.zeros(source.shape[-1] - len(partner), bool)
    return np.concatenate([np.arange(len(partner)) < partner, rest])


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
    first = np.broadcast_to(_first_of(turn.partner, source), source.shape)
    turned = len(turn.partner)

    def function(*arrays: jax.Array) -> tuple[jax.Array, jax.Array]:
        seen = (first.astype(np.float32), (~first).astype(np.float32))
        (one,), (two,) = (inner(jnp.asarray(x), *arrays) for x in seen)
        own, across = lax.select(first, one, two), lax.select(first, two, one)
        return own[..., :turned], across[..., :turned]

    made_by: list[Node] = []
    own, across = equations(function, angles, made_by)
    return turn._replace(own=own, across=across, nodes=made_by)


def _nodes(edit: Edit, source: Value, turn: Turn) -> list[Node]:
    """What a turn says, on the rows of all heads that the source was moved from."""
    after = _rows_of(edit, source, heads_first=True) if turn.heads_first else None
    rows, found = after or _rows_of(edit, source, heads_first=False)
    last = len(source.shape) - 1
    order = (*range(last - 2), last - 1, last - 2, last) if after else (*range(last + 1),)
    whole = tuple(source.shape[axis] for axis in order)
    heads, turned = whole[-2], len(turn.partner)
    split, shape = (*whole[:-1], turned), (*rows.lead, heads * turned)
    nodes, terms = [*turn.nodes, *rows.nodes], []
    for numbers, channels in ((turn.own, np.arange(turned)), (turn.across, turn.partner)):
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
    shape = (*rows.lead, heads * whole[-1])
    if turned < whole[-1]:
        both = (*nodes[-1].outputs, found.rows)
        width = heads * turned + found.rows.shape[-1]
        nodes.append(made(Concat(len(shape) - 1), both, (*rows.lead, width)))
        own = np.arange(heads * turned).reshape(heads, turned)
        rest = heads * turned + found.first[:, None] + np.arange(turned, whole[-1])
        _channels(nodes[-1].outputs[0], np.concatenate([own, rest], 1).ravel(), nodes)
    nodes.append(made(Affine(np.full(1, found.factor), np.zeros(1)), nodes[-1].outputs, shape))
    nodes.append(made(Reshape(whole), nodes[-1].outputs, whole))
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
