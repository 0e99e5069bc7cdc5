"""What of a schedule the outputs need: of loops, what is carried for nobody falls away."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sparsejax.compiler.files.taken import Taken, taken_of
from sparsejax.compiler.graph.graph import Graph, Node, Region, Value
from sparsejax.compiler.nodes.control import Scan


class Loop(NamedTuple):
    """A scan, as far as it is needed.

    Attributes:
        node: with the scan.
        body: the parts of a turn.
        shared, carried, scanned: which of its inputs of each kind, from 0.
        stacked: which of its stacks.
    """

    node: Node
    body: list["Part"]
    shared: list[int]
    carried: list[int]
    scanned: list[int]
    stacked: list[int]

    @property
    def inputs(self) -> list[Value]:
        """What it reads."""
        return [self.node.inputs[i] for i in self.places]

    @property
    def places(self) -> list[int]:
        """Of what it reads, among the inputs of the node and of its body."""
        first, last = self.op.num_shared, self.op.num_shared + self.op.num_carried
        return [
            *self.shared,
            *(first + i for i in self.carried),
            *(last + i for i in self.scanned),
        ]

    @property
    def op(self) -> Scan:
        """The scan."""
        assert isinstance(self.node.op, Scan)
        return self.node.op


Part = Region | Node | Loop | Taken


def needed(schedule: Sequence[Region | Node], outputs: set[Value]) -> list[Part]:
    """The parts that the outputs need, loops as `Loop`, lookups as `Taken`."""
    wanted, parts = set(outputs), []  # type: tuple[set[Value], list[Part]]
    writer = {v: part for part in schedule if isinstance(part, Node) for v in part.outputs}
    for part in reversed(schedule):
        if not wanted.intersection(part.outputs) and not _has_effects(part):
            continue
        own = _told(part, wanted, writer) if isinstance(part, Node) else part
        wanted.update(own.inputs)
        parts.append(own)
    return parts[::-1]


def _told(node: Node, wanted: set[Value], writer: Mapping[Value, Node]) -> Part:
    if isinstance(node.op, Scan) and not node.op.effects:
        return _loop(node, wanted)
    return taken_of(node, writer) or node


def with_graphs(graph: Graph, parts: Sequence[Part]) -> Iterator[tuple[Graph, Part]]:
    """The parts, those of loops' bodies, too, each with the graph that it is of."""
    for part in parts:
        yield graph, part
        if isinstance(part, Loop):
            yield from with_graphs(part.op.bodies[0], part.body)


def _has_effects(part: Region | Node) -> bool:
    return isinstance(part, Node) and part.op.effects


def _loop(node: Any, wanted: set[Value]) -> Loop:
    op: Scan = node.op
    (body,) = op.bodies
    count = op.num_carried
    carried = {i for i in range(count) if node.outputs[i] in wanted}
    stacked = [i for i, value in enumerate(node.outputs[count:]) if value in wanted]
    while True:
        results = {body.outputs[i] for i in carried} | {body.outputs[count + i] for i in stacked}
        parts = needed(body.schedule, results)
        read = results.union(*(part.inputs for part in parts))
        there = [place for place, value in enumerate(body.inputs) if value in read]
        last = op.num_shared + count
        more = carried | {i - op.num_shared for i in there if op.num_shared <= i < last}
        if more == carried:
            break
        carried = more
    shared, scanned = (
        [i for i in there if i < op.num_shared],
        [i - last for i in there if i >= last],
    )
    return Loop(node, parts, shared, sorted(carried), scanned, stacked)
