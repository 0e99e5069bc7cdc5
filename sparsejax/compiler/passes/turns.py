"""Layers of a scan that need no earlier turn, or that no later one needs: run for all at once.

One product of T rows reads its weights once, T products of one row T times.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core

from sparsejax.compiler.graph.edit import Edit
from sparsejax.compiler.graph.graph import Graph, Node, Value
from sparsejax.compiler.graph.interpret import interpreter
from sparsejax.compiler.graph.op import Op
from sparsejax.compiler.nodes.control import Scan
from sparsejax.compiler.nodes.primitive import Primitive
from sparsejax.compiler.nodes.reshape import Reshape
from sparsejax.compiler.nodes.transpose import Transpose

# Adds a jaxpr's equations to a graph; returns the values of its outputs.
Walk = Callable[[Graph, core.ClosedJaxpr, Sequence[Value]], list[Value]]
# Elements that all turns may make at once: 64 MB of float32.
MAX_AT_ONCE = 1 << 24


@dataclass
class Turns:
    """A scan: its body, whose inputs and outputs are in the order of these, and what it reads.

    Attributes:
        body: of one turn; inputs [shared, carried, scanned], outputs [carried, stacked].
        shared, carried, scanned: that the scan reads.
        length: number of turns.
    """

    body: Graph
    shared: list[Value]
    carried: list[Value]
    scanned: list[Value]
    length: int

    def inner(self) -> tuple[list[Value], list[Value]]:
        """What is shared and what is scanned, as the body sees it."""
        inputs, count = self.body.inputs, len(self.scanned)
        return inputs[: len(self.shared)], inputs[len(inputs) - count :]

    def outputs(self) -> list[Value]:
        """Like what the scan returns."""
        outputs, count = self.body.outputs, len(self.carried)
        stacks = (Value((self.length, *v.shape), v.dtype) for v in outputs[count:])
        return [*outputs[:count], *stacks]


def before(graph: Graph, loop: Turns, is_layer: Callable[[Node], bool], walk: Walk) -> Turns:
    """The scan without the layers that depend on what is scanned alone; these run before it."""
    _, scanned = loop.inner()
    free, nodes = set(scanned), []
    for node in loop.body.nodes:
        computed = [value for value in node.inputs if value.constant is None]
        if computed and _may_move(node) and free.issuperset(computed):
            free.update(node.outputs)
            nodes.append(node)
    # An LSTM's product with its inputs waits for no carry: T products of one row become one of T
    # rows, which share each load of a weight.
    nodes = _around(nodes, is_layer)
    if not loop.carried or not _fits(nodes, loop.length):
        return loop
    made = {value for node in nodes for value in node.outputs}
    _drop(loop.body, nodes)
    read = {v for node in loop.body.nodes for v in node.inputs} | set(loop.body.outputs)
    results = [value for node in nodes for value in node.outputs if value in read & made]
    arrays = dict(zip(scanned, loop.scanned, strict=True))
    stacks = _at_once(graph, nodes, arrays, {}, results, walk)
    kept = [value for value in scanned if value in read]
    first = len(loop.body.inputs) - len(scanned)
    loop.body.inputs = [*loop.body.inputs[:first], *kept, *results]
    loop.scanned = [*(arrays[value] for value in kept), *stacks]
    return loop


def after(loop: Turns, is_layer: Callable[[Node], bool]) -> tuple[Turns, Callable]:
    """The scan without the layers that only stacks are made from, and what runs these after it.

    The latter takes the graph, the stacks of the scan and `walk`, and returns the stacks as they
    were to be.
    """
    body, num_carried = loop.body, len(loop.carried)
    wanted = body.outputs[num_carried:]
    needed, nodes = set(body.outputs[:num_carried]), []
    for node in reversed(body.nodes):
        if any(value in needed for value in node.outputs) or not _may_move(node):
            needed.update(node.inputs)
        else:
            nodes.append(node)
    nodes = _behind(nodes[::-1], is_layer)
    if not loop.carried or not nodes or not _fits(nodes, loop.length):
        return loop, lambda graph, stacks, walk: stacks
    made = {value for node in nodes for value in node.outputs}
    outer = dict(zip(loop.inner()[0], loop.shared, strict=True))
    outer_rows = dict(zip(loop.inner()[1], loop.scanned, strict=True))
    read = dict.fromkeys(v for node in nodes for v in node.inputs if v.constant is None)
    handed = [v for v in read if v not in made and v not in outer and v not in outer_rows]
    kept = list(dict.fromkeys([*(v for v in wanted if v not in made), *handed]))
    _drop(body, nodes)
    body.outputs = [*body.outputs[:num_carried], *kept]
    body.prune()

    def finish(graph: Graph, stacks: Sequence[Value], walk: Walk) -> list[Value]:
        arrays = dict(zip(kept, stacks, strict=True))
        results = [value for value in dict.fromkeys(wanted) if value in made]
        rows = _at_once(graph, nodes, arrays | outer_rows, outer, results, walk)
        arrays |= dict(zip(results, rows, strict=True))
        return [arrays[value] for value in wanted]

    return loop, finish


def orders_into_body(edit: Edit, node: Node) -> None:
    """Changes of axes of what is scanned come in each turn, where sums undo them.

    A product with weights on the left, as Equinox has them, is one behind such a change.
    """
    if not isinstance(node.op, Scan):
        return
    (body,) = node.op.bodies
    users = body.users()
    first = node.op.num_shared + node.op.num_carried
    for place, value in enumerate(node.inputs[first:], first):
        writer, inner = edit.writer.get(value), body.inputs[place]
        change = None if writer is None else _in_each_turn(writer)
        if writer is None or change is None or inner in body.outputs:
            continue
        if not all(_is_sum(reader) for reader in users.get(inner, ())):
            continue
        source = writer.inputs[0]
        before = Value(source.shape[1:], source.dtype)
        node.inputs[place], body.inputs[place] = source, before
        body.nodes.insert(0, Node(change, [before], [inner]))


def _in_each_turn(node: Node) -> Op | None:
    """What a change of axes behind the first does to each turn; of one row it is a reshape."""
    before, after = node.inputs[0].shape, node.outputs[0].shape
    if isinstance(node.op, Transpose) and node.op.permutation[0] == 0:
        return Transpose(tuple(axis - 1 for axis in node.op.permutation[1:]))
    if isinstance(node.op, Reshape) and before[:1] == after[:1] and len(before) == len(after):
        return Reshape(after[1:])
    return None


def _is_sum(node: Node) -> bool:
    """Of two arrays of one shape?"""
    if not isinstance(node.op, Primitive) or node.op.name not in ("add", "sub"):
        return False
    return len({value.shape for value in (*node.inputs, *node.outputs)}) == 1


def _may_move(node: Node) -> bool:
    """Has it no effects, and constants that NumPy can hold?"""
    plain = all(v.constant is None or isinstance(v.constant, np.ndarray) for v in node.inputs)
    return plain and not node.op.effects


def _behind(nodes: Sequence[Node], is_layer: Callable[[Node], bool]) -> list[Node]:
    """The layers and what reads them, directly or not."""
    reached: set[Value] = set()
    taken = []
    for node in nodes:
        if is_layer(node) or any(value in reached for value in node.inputs):
            reached.update(node.outputs)
            taken.append(node)
    return taken


def _around(nodes: Sequence[Node], is_layer: Callable[[Node], bool]) -> list[Node]:
    """The layers, what reads them, and all that these need."""
    behind = set(_behind(nodes, is_layer))
    needed: set[Value] = set()
    taken = []
    for node in reversed(nodes):
        if node in behind or any(value in needed for value in node.outputs):
            needed.update(node.inputs)
            taken.append(node)
    return taken[::-1]


def _fits(nodes: Sequence[Node], length: int) -> bool:
    """Is there something to run, and not more than may be?"""
    elements = sum(value.size for node in nodes for value in node.outputs)
    return len(nodes) > 0 and length * elements <= MAX_AT_ONCE


def _drop(graph: Graph, nodes: Sequence[Node]) -> None:
    gone = set(nodes)
    graph.nodes = [node for node in graph.nodes if node not in gone]


class _Renamed(NamedTuple):
    """Nodes whose constants are inputs, and these constants."""

    nodes: list[Node]
    inputs: list[Value]
    constants: list[Value]


def _renamed(nodes: Sequence[Node]) -> _Renamed:
    """So that a constant stays one value with its path, however often the nodes are traced."""
    known: dict[Value, Value] = {}
    rename = lambda v: v if v.constant is None else known.setdefault(v, Value(v.shape, v.dtype))
    renamed = [Node(node.op, list(map(rename, node.inputs)), node.outputs) for node in nodes]
    return _Renamed(renamed, list(known.values()), list(known))


def _at_once(
    graph: Graph,
    nodes: Sequence[Node],
    rows: dict[Value, Value],
    shared: dict[Value, Value],
    results: list[Value],
    walk: Walk,
) -> list[Value]:
    """The results of the nodes in all turns, stacked.

    Args:
        graph: that they are added to.
        nodes: of the body of a scan.
        rows: what all turns have of the values that the nodes read.
        shared: what is the same in all turns.
        results: that are wanted.
        walk: adds equations to the graph.
    """
    inner, inputs, constants = _renamed(nodes)
    read = {value for node in inner for value in node.inputs}
    stacked, common = [v for v in rows if v in read], [v for v in shared if v in read]
    run: Any = interpreter(inner, [*stacked, *common, *inputs], results)
    axes = (*(0 for _ in stacked), *(None for _ in (*common, *inputs)))
    arguments = [*(rows[v] for v in stacked), *(shared[v] for v in common), *constants]
    shapes = [jax.ShapeDtypeStruct(value.shape, value.dtype) for value in arguments]
    return walk(graph, jax.make_jaxpr(jax.vmap(run, in_axes=axes))(*shapes), arguments)
