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
from sparsejax.compiler.nodes.channels import Channels
from sparsejax.compiler.nodes.elementwise import Elementwise
from sparsejax.compiler.nodes.known import known_beside
from sparsejax.compiler.nodes.op import Rules
from sparsejax.compiler.nodes.primitive import equations
from sparsejax.compiler.nodes.reshape import Reshape
from sparsejax.compiler.nodes.sampled import computed

MAX_NODES = 16
MAX_PROBED = 1 << 22  # elements
LAST = ("concatenate", "add", "sub")  # what it may end with
LINEAR = ("mul", "neg", "slice", "split", "stack", *LAST)


def to_rotary(edit: Edit, node: Node) -> bool:
    """Sums of a channel and another of the same head, times numbers for each row."""
    shape = node.outputs[0].shape if node.outputs else ()
    if node.op.name not in LAST or len(shape) != 4:
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
                return edit.replace(node, *_nodes(source, found))
    return False


class Turn(NamedTuple):
    """own x + across x[partner], along the last axis; arrays of what is turned, or values."""

    own: Any
    partner: np.ndarray
    across: Any
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
        if angles:
            return _computed_turn(source, angles, nodes, partner)
        if (own == own[:1]).all() and (across == across[:1]).all():
            return Turn(own[0], partner, across[0])
    return None


def _computed_turn(
    source: Value, angles: Sequence[Value], nodes: Sequence[Node], partner: np.ndarray
) -> Turn:
    """The same where XLA computes the numbers: the nodes, told which channels they are to see."""
    inner = interpreter(nodes[::-1], [source, *angles], nodes[0].outputs)
    first = np.broadcast_to(np.arange(source.shape[-1]) < partner, source.shape)

    def function(*arrays: jax.Array) -> tuple[jax.Array, jax.Array]:
        seen = (first.astype(np.float32), (~first).astype(np.float32))
        (one,), (two,) = (inner(jnp.asarray(x), *arrays) for x in seen)
        return lax.select(first, one, two), lax.select(first, two, one)

    made_by: list[Node] = []
    own, across = equations(function, angles, made_by)
    return Turn(own, partner, across, made_by)


def _nodes(source: Value, turn: Turn) -> list[Node]:
    """What a turn says, on rows of all heads."""
    batch, length, heads, size = source.shape
    shape = (batch, length, heads * size)
    index = (np.arange(heads)[:, None] * size + turn.partner).ravel()
    rows = made(Reshape(shape), [source], shape)
    other = made(Channels(index, 2), rows.outputs, shape)
    nodes, terms = [*turn.nodes, rows, other], []
    for numbers, x in ((turn.own, rows), (turn.across, other)):
        if isinstance(numbers, Value):
            factor = made(Reshape(shape), [numbers], shape)
        else:
            factor = known_beside(numbers.reshape(shape[1:]), rows.outputs[0])
        term = made(Elementwise("mul"), [*x.outputs, *factor.outputs], shape)
        nodes += [factor, term]
        terms += term.outputs
    total = made(Elementwise("add"), terms, shape)
    return [*nodes, total, made(Reshape(source.shape), total.outputs, source.shape)]


RULES = Rules(sampled=(to_rotary,))
