"""Rotary positions: channels that turn in pairs, by angles that are known for each row."""

from collections.abc import Sequence

import numpy as np

from sparsejax.compiler.graph.edit import Edit, grown, is_float, made
from sparsejax.compiler.graph.graph import Node, Value
from sparsejax.compiler.nodes.channels import Channels
from sparsejax.compiler.nodes.elementwise import Elementwise
from sparsejax.compiler.nodes.known import known_beside
from sparsejax.compiler.nodes.op import Rules
from sparsejax.compiler.nodes.reshape import Reshape
from sparsejax.compiler.nodes.sampled import computed

MAX_NODES = 16
MAX_PROBED = 1 << 22  # elements
LAST = ("concatenate", "add", "sub")  # what it may end with
LINEAR = ("mul", "neg", "slice", "split", "stack", *LAST)


def to_rotary(edit: Edit, node: Node) -> bool:
    """Sums of a channel and another of the same head, times numbers that are known for each row."""
    shape = node.outputs[0].shape if node.outputs else ()
    if node.op.name not in LAST or len(shape) != 4:
        return False
    if not 0 < node.outputs[0].size <= MAX_PROBED:
        return False
    joins = lambda other: other.op.name in LINEAR or isinstance(other.op, Reshape)
    for (source, *more), nodes in grown(edit, node, joins, most=MAX_NODES):
        joined = any(other.op.name in ("concatenate", "stack") for other in nodes)
        if more or not joined or source.shape != shape or not is_float(source):
            continue
        found = _turn_of(source, nodes)
        if found is not None:
            return edit.replace(node, *_nodes(source, *found))
    return False


def _turn_of(
    source: Value, nodes: Sequence[Node]
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """What channels are multiplied by, their partners, and what these are multiplied by."""
    size = source.shape[-1]
    if size % 2:
        return None
    channel = np.arange(size)
    random = np.random.default_rng(0).normal(size=source.shape)
    for partner in ((channel + size // 2) % size, channel ^ 1):
        first = np.broadcast_to(np.where(channel < partner, 1.0, 0.0), source.shape)
        one, two, other = (computed(source, nodes, x) for x in (first, 1 - first, random))
        if one is None or two is None or other is None:
            return None
        own, across = np.where(first, one, two), np.where(first, two, one)
        expected = own * random + across * random[..., partner]
        alike = (own == own[:1]).all() and (across == across[:1]).all()
        if alike and np.abs(expected - other).max() <= 1e-6 * np.abs(expected).max():
            return own[0], partner, across[0]
    return None


def _nodes(source: Value, own: np.ndarray, partner: np.ndarray, across: np.ndarray) -> list[Node]:
    """own x + across x[partner], on rows of all heads."""
    batch, length, heads, size = source.shape
    shape = (batch, length, heads * size)
    index = (np.arange(heads)[:, None] * size + partner).ravel()
    rows = made(Reshape(shape), [source], shape)
    other = made(Channels(index, 2), rows.outputs, shape)
    nodes, terms = [rows, other], []
    for numbers, x in ((own, rows), (across, other)):
        known = known_beside(numbers.reshape(shape[1:]), rows.outputs[0])
        term = made(Elementwise("mul"), [*x.outputs, *known.outputs], shape)
        nodes += [known, term]
        terms += term.outputs
    total = made(Elementwise("add"), terms, shape)
    return [*nodes, total, made(Reshape(source.shape), total.outputs, source.shape)]


RULES = Rules(sampled=(to_rotary,))
