"""A graph while it is rewritten: who writes and who reads each value, kept up to date."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from sparsejax.compiler.graph.graph import FLOAT32, Graph, Node, Value

Rule = Callable[["Edit", Node], bool]  # did it change the graph?


class Edit:
    """A graph whose nodes may be exchanged, each change at a cost that does not grow with it.

    Every node keeps the slot of the node that it took the place of, so that the order stays one
    in which the nodes can run.
    """

    def __init__(self, graph: Graph):
        self.graph = graph
        self.outputs = set(graph.outputs)
        self.slots: list[list[Node]] = [[] for _ in graph.nodes]
        self.slot: dict[Node, int] = {}
        self.writer: dict[Value, Node] = {}
        self.readers: dict[Value, list[Node]] = {}
        for slot, node in enumerate(graph.nodes):
            self._insert(node, slot, 0)

    def sole_writer(self, value: Value, *kinds: type) -> Node | None:
        """The node of one of these kinds that writes a value which one node alone reads."""
        node = self.writer.get(value)
        if node is None or not isinstance(node.op, kinds) or value in self.outputs:
            return None
        return node if len(self.readers.get(value, ())) == 1 else None

    def replace(self, node: Node, *nodes: Node) -> bool:
        """Let `nodes` take the place of a node; the last gets its output if it has but one."""
        if len(node.outputs) == 1:
            nodes[-1].outputs = node.outputs
        slot = self.slot[node]
        place = self.slots[slot].index(node)
        self._remove(node)
        for offset, new in enumerate(nodes):
            self._insert(new, slot, place + offset)
        self._drop_unread(node.inputs)
        return True

    def bypass(self, node: Node, *values: Value) -> bool:
        """Let all that read a node's outputs read these values instead."""
        for old, value in zip(node.outputs, values, strict=True):
            for reader in self.readers.pop(old, []):
                reader.inputs = [value if v is old else v for v in reader.inputs]
                _append(self.readers.setdefault(value, []), reader)
            if old in self.outputs:
                self.outputs.remove(old)
                self.outputs.add(value)
                self.graph.outputs = [value if v is old else v for v in self.graph.outputs]
        self._remove(node)
        self._drop_unread(node.inputs)
        return True

    def sweep(self, rules: Sequence[Rule], *, backward: bool = False) -> bool:
        """Try the rules on every node once, and on what they make; did any change the graph?"""
        changed = False
        order: Iterable[int] = range(len(self.slots))
        for slot in reversed(list(order)) if backward else order:
            while any(
                rule(self, node)
                for node in list(self.slots[slot])
                if not node.op.effects  # they stay what they were, and are run as often
                for rule in rules
            ):
                changed = True
        return changed

    def refuse(self, node: Node, reason: str) -> bool:
        """Note why a node that looks like a layer is none."""
        self.graph.reasons.setdefault(node, reason)
        return False

    def finish(self) -> None:
        """Write the nodes back."""
        self.graph.nodes = [node for nodes in self.slots for node in nodes]
        self.graph.prune()

    def _insert(self, node: Node, slot: int, place: int) -> None:
        self.slots[slot].insert(place, node)
        self.slot[node] = slot
        self.writer.update(dict.fromkeys(node.outputs, node))
        for value in node.inputs:
            _append(self.readers.setdefault(value, []), node)

    def _remove(self, node: Node) -> None:
        self.slots[self.slot.pop(node)].remove(node)
        for value in node.outputs:
            if self.writer.get(value) is node:
                del self.writer[value]
        for value in dict.fromkeys(node.inputs):
            self.readers[value].remove(node)

    def _drop_unread(self, values: Iterable[Value]) -> None:
        """Remove the nodes that nobody needs any more."""
        for value in dict.fromkeys(values):
            node = self.writer.get(value)
            if node is None or node.op.effects:
                continue
            if not any(self.readers.get(v) or v in self.outputs for v in node.outputs):
                self._remove(node)
                self._drop_unread(node.inputs)


def _append(nodes: list[Node], node: Node) -> None:
    if node not in nodes:
        nodes.append(node)


def made(op: Any, inputs: Sequence[Value], shape: Sequence[int]) -> Node:
    """A node with a new float32 value as its output."""
    return Node(op, list(inputs), [Value(tuple(map(int, shape)), FLOAT32)])


def is_float(*values: Value) -> bool:
    """Are all values float32?"""
    return all(value.dtype == FLOAT32 for value in values)


def constant_of(value: Value) -> np.ndarray | None:
    """The known array, None where there is none that NumPy can hold."""
    return value.constant if isinstance(value.constant, np.ndarray) else None


def number_of(value: Value) -> np.ndarray | None:
    """The one number that a constant holds, whatever its shape, as (1,); None if there are more."""
    array = constant_of(value)
    if array is None or array.size == 0 or (array.size > 1 and any(array.strides)):
        return None
    return array[(slice(0, 1),) * array.ndim].reshape(1)


def is_known(value: Value) -> bool:
    """Is it a constant?"""
    return value.constant is not None


def grown(
    edit: Edit,
    sink: Node,
    joins: Callable[[Node], bool],
    *,
    most: int,
    known: Callable[[Value], bool] = is_known,
) -> Iterator[tuple[list[Value], list[Node]]]:
    """Sets of nodes that lead to the sink, the last first, and the values that each is made of.

    The set always grows by the latest writer that it alone reads, so that every value that all
    paths lead through is once the only one.

    Args:
        edit: the graph.
        sink: of all sets.
        joins: may a node be in them?
        most: nodes in a set, the sink apart.
        known: is a value none of those that a set is made of?
    """
    nodes, members = [sink], {sink}
    frontier = [v for v in dict.fromkeys(sink.inputs) if not known(v)]
    while frontier and len(nodes) <= most:
        yield frontier, list(nodes)
        writers = filter(None, map(edit.writer.get, frontier))
        inner = [node for node in writers if joins(node) and _read_by(edit, node, members)]
        if not inner:
            return
        latest = max(inner, key=lambda node: edit.slot[node])
        nodes.append(latest)
        members.add(latest)
        inputs = [v for v in latest.inputs if not known(v)]
        frontier = [v for v in dict.fromkeys([*frontier, *inputs]) if v not in latest.outputs]


def _read_by(edit: Edit, node: Node, members: set[Node]) -> bool:
    """Do these nodes alone read what a node writes?"""
    readers = (reader for value in node.outputs for reader in edit.readers.get(value, ()))
    return edit.outputs.isdisjoint(node.outputs) and members.issuperset(readers)


def not_float32(node: Node) -> str:
    """Which of the values are of another type."""
    names = ("its weights", "its input", "its result")
    values = (*sorted(node.inputs, key=lambda v: v.constant is None), *node.outputs)
    typed = [(np.dtype(v.dtype).name, name) for v, name in zip(values, names, strict=True)]
    dtype, name = next(pair for pair in typed if pair[0] != "float32")
    return f"{dtype} ({name}), not float32"
