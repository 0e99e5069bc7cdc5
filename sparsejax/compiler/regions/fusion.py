"""Which nodes of a graph may run fused, by how each maps inputs to outputs (DNNFusion).

Reference: Niu et al., "DNNFusion: Accelerating Deep Neural Networks Execution with Advanced
Operator Fusion", PLDI 2021, arXiv:2108.13342, tables 2 and 3, listing 1.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sparsejax import text
from sparsejax.compiler.graph.graph import Graph, Node, Value
from sparsejax.compiler.graph.op import MappingType
from sparsejax.compiler.regions.partition import Partition

Profitable = Callable[[Sequence[Node]], bool]

_ONE, _MANY, _ALL = MappingType.ONE_TO_ONE, MappingType.ONE_TO_MANY, MappingType.MANY_TO_MANY
_MOVE, _MIX = MappingType.REORGANIZE, MappingType.SHUFFLE


def fused(first: MappingType, second: MappingType) -> tuple[MappingType, bool] | None:
    """What two nodes after each other are together (table 3).

    Returns:
        Their mapping type and whether it must be measured if fusing them pays; None where it never
        does.
    """
    if MappingType.OPAQUE in (first, second):
        return None
    if first is _ONE or second is _ONE:
        return (second if first is _ONE else first), False
    if first in (_MANY, _ALL):
        return None if second is _ALL else (first, True)
    if second in (_MANY, _ALL):
        return second, True
    return (_MIX if first is second is _MIX else _MOVE), False


@dataclass(frozen=True)
class FusedBlock:
    """Nodes that run fused, and their mapping type together."""

    nodes: tuple[Node, ...]
    mapping: MappingType


@dataclass(frozen=True)
class Fusion:
    """A graph's nodes in blocks.

    Attributes:
        blocks: in an order that they can run in.
        bytes_before: of all values that a node hands to another.
        bytes_after: of those that a block hands to another.
    """

    blocks: tuple[FusedBlock, ...]
    bytes_before: int
    bytes_after: int

    @property
    def num_before(self) -> int:
        """Nodes."""
        return sum(len(block.nodes) for block in self.blocks)

    @property
    def num_after(self) -> int:
        """Blocks."""
        return len(self.blocks)

    def __str__(self) -> str:
        """A table of the blocks."""
        rows = [
            (
                str(i),
                block.mapping.value,
                str(len(block.nodes)),
                " ".join(map(kind_of, block.nodes)),
            )
            for i, block in enumerate(self.blocks)
        ]
        caption = (
            f"{self.num_before} nodes in {self.num_after} blocks; intermediate values "
            f"{self.bytes_before / 1e6:.2f} MB before, {self.bytes_after / 1e6:.2f} MB after"
        )
        columns = ("block", "mapping", "nodes", "what")
        return text.table("DNNFusion's plan", columns, rows, caption=caption)


def fuse(graph: Graph, *, profitable: Profitable | None = None, max_nodes: int = 32) -> Fusion:
    """The blocks that DNNFusion makes of a graph, traced or rewritten.

    The one-to-one node with the smallest output seeds a block, which takes in the nodes behind it,
    then those before it, as table 3 allows and as long as no block waits for itself; then the next
    seed, until there is none.

    Args:
        graph: is not changed.
        profitable: is asked about the nodes of a block to be, the last of which is new, where table
            3 leaves it to a measurement, such as `Profile`; without one these are not fused.
        max_nodes: of a block.

    Differs:
        The paper rewrites the graph by laws of arithmetic first, which `passes.laws` does here.
    """
    grower = _Grower(graph, profitable or (lambda nodes: False), max_nodes)
    seeds = [node for node in graph.nodes if node.op.mapping(node) is _ONE]
    for seed in sorted(seeds, key=lambda node: sum(map(_bytes, node.outputs))):
        grower.grow(seed)
    return grower.finish()


class _Grower:
    """Blocks that grow; `groups.forms` holds their mapping types."""

    def __init__(self, graph: Graph, profitable: Profitable, max_nodes: int):
        self.graph, self.profitable, self.max_nodes = graph, profitable, max_nodes
        self.writer = {value: node for node in graph.nodes for value in node.outputs}
        self.users = graph.users()
        self.groups = Partition(lambda a, b: a)
        self.done: set[Node] = set()
        for node in graph.nodes:
            feeding = {self.groups.group[n] for n in self.before(node)}
            self.groups.add(node, node.op.mapping(node), feeding)

    def before(self, node: Node) -> list[Node]:
        """The nodes that a node reads from."""
        return list(dict.fromkeys(self.writer[v] for v in node.inputs if v in self.writer))

    def behind(self, node: Node) -> list[Node]:
        """The nodes that read from a node."""
        return list(dict.fromkeys(n for v in node.outputs for n in self.users.get(v, ())))

    def grow(self, seed: Node) -> None:
        """Make the block of a seed that is in none yet."""
        if seed in self.done:
            return
        self.done.add(seed)
        for behind in (True, False):
            reached = [seed]
            while reached:
                node = reached.pop()
                for other in self.behind(node) if behind else self.before(node):
                    if other not in self.done and self._take(seed, other, behind):
                        self.done.add(other)
                        reached.append(other)

    def _take(self, seed: Node, other: Node, behind: bool) -> bool:
        """Add a node to the seed's block if it may be and pays."""
        block, single = self.groups.group[seed], self.groups.group[other]
        own, new = self.groups.forms[block], other.op.mapping(other)
        result = fused(own, new) if behind else fused(new, own)
        members = [*self.groups.members[block], other]
        if result is None or len(members) > self.max_nodes:
            return False
        mapping, measure = result
        if measure and not self.profitable(members):
            return False
        if self.groups.merge(block, single) != block:
            return False
        self.groups.forms[block] = mapping
        return True

    def finish(self) -> Fusion:
        """The blocks as they are, each behind all that must run before it."""
        before, members = self.groups.before, self.groups.members
        order = sorted(before, key=lambda g: (before[g].bit_count(), g))
        return fusion_of(self.graph, [(members[g], self.groups.forms[g]) for g in order])


def fusion_of(graph: Graph, blocks: Iterable[tuple[Sequence[Node], MappingType]]) -> Fusion:
    """The nodes of a graph in these blocks, with the bytes that they hand on."""
    place = {node: i for i, node in enumerate(graph.nodes)}
    made = [FusedBlock(tuple(sorted(n, key=place.__getitem__)), form) for n, form in blocks]
    handed = list(_handed(graph, {n: i for i, block in enumerate(made) for n in block.nodes}))
    before = sum(_bytes(value) for value, _ in handed)
    return Fusion(tuple(made), before, sum(_bytes(value) for value, crosses in handed if crosses))


def _handed(graph: Graph, block: Mapping[Node, int]) -> Iterator[tuple[Value, bool]]:
    """Values that other nodes read, and whether a node of another block does."""
    users = graph.users()
    for node in graph.nodes:
        for value in node.outputs:
            readers = users.get(value, [])
            if readers:
                yield value, any(block[reader] != block[node] for reader in readers)


def kind_of(node: Node) -> str:
    """What a node is called in a table."""
    kind = getattr(node.op, "kind", "identity")
    return node.op.name if kind == "identity" else kind


def _bytes(value: Value) -> int:
    return value.size * value.dtype.itemsize
