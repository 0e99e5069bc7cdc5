"""Groups of nodes that grow without ever waiting for themselves."""

import itertools
from collections.abc import Callable, Hashable
from typing import Any

from sparsejax.compiler.graph.graph import Graph, Node, Value

Join = Callable[[Any, Any], Hashable | None]


class Partition:
    """Nodes in groups that can run one after the other.

    Two groups become one unless a third must run between them: pairs of neighbours being convex is
    not enough. `before[g]` has a bit for every group that must run before group g, so that this is
    one test of bits.
    """

    def __init__(self, join: Join):
        self.join = join  # the form of two groups together, None if they must stay apart
        self.members: dict[int, list[Node]] = {}
        self.forms: dict[int, Any] = {}
        self.before: dict[int, int] = {}
        self.group: dict[Node, int] = {}

    def add(self, node: Node, form: Any, feeding: set[int]) -> int:
        """A new group of one node that runs after the groups that feed it."""
        number = len(self.group)
        self.members[number], self.forms[number] = [node], form
        self.before[number] = 0
        for group in feeding:
            self.before[number] |= self.before[group] | 1 << group
        self.group[node] = number
        return number

    def merge(self, a: int, b: int) -> int:
        """One group of two where that is allowed, else b."""
        if a == b:
            return b
        form = self.join(self.forms[a], self.forms[b])
        if form is None or self._between(a, b):
            return b
        # `before` has a bit for each group that must run first, so that "is something between the
        # two?" is one `and`, whatever the number of nodes. Who waited for either waits for both.
        both = 1 << a | 1 << b
        before = (self.before[a] | self.before.pop(b)) & ~both
        self.before[a], self.forms[a] = before, form
        for group, bits in self.before.items():
            if bits & both:
                self.before[group] = (bits | before | 1 << a) & ~(1 << b)
        for node in self.members[b]:
            self.group[node] = a
        self.members[a] += self.members.pop(b)
        del self.forms[b]
        return a

    def _between(self, a: int, b: int) -> bool:
        """Must any third group run after one of the two and before the other?"""
        either = self.before[a] | self.before[b]
        both = 1 << a | 1 << b
        return any(
            either >> group & 1 and bits & both
            for group, bits in self.before.items()
            if group not in (a, b)
        )


def partition(graph: Graph, forms: dict[Node, Any], join: Join) -> Partition:
    """The nodes in groups as large as a walk along the graph finds.

    Args:
        graph: whose nodes are in an order that they can run in.
        forms: of the nodes that may join others.
        join: the form of two groups together, None if they must stay apart.
    """
    made = Partition(join)
    writer: dict[Value, Node] = {}
    readers: dict[Value, list[Node]] = {}
    waits = in_order(graph)
    for node in graph.nodes:
        feeding = {made.group[writer[v]] for v in node.inputs if v in writer}
        feeding |= {made.group[other] for other in waits.get(node, ())}
        beside = {made.group[r] for v in node.inputs for r in readers.get(v, ()) if r in forms}
        group = made.add(node, forms.get(node), feeding)
        writer.update(dict.fromkeys(node.outputs, node))
        for value in node.inputs:
            readers.setdefault(value, []).append(node)
        if node not in forms:
            continue
        for numbers in (feeding, beside):
            for number in sorted(numbers, reverse=True):
                if made.forms.get(number) is not None:
                    group = made.merge(number, group)
    return made


def in_order(graph: Graph) -> dict[Node, tuple[Node, ...]]:
    """The node with effects that each other such node must wait for."""
    nodes = [node for node in graph.nodes if node.op.effects]
    return {node: (before,) for before, node in itertools.pairwise(nodes)}
