"""Which nodes of a graph may run fused, by how each maps inputs to outputs (DNNFusion).

Reference: Niu et al., "DNNFusion: Accelerating Deep Neural Networks Execution with Advanced
Operator Fusion", PLDI 2021, arXiv:2108.13342, tables 2 and 3, listing 1.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from sparsejax import text
from sparsejax.compiler.graph import (
    Channels,
    Conv,
    Elementwise,
    Graph,
    Linear,
    Mean,
    Node,
    Pool,
    Primitive,
    Reshape,
    Transpose,
    Value,
)
from sparsejax.compiler.partition import Partition

Profitable = Callable[[Sequence[Node]], bool]


class Mapping(Enum):
    """How elements of the inputs lead to elements of the output (table 2)."""

    ONE_TO_ONE = "one-to-one"
    ONE_TO_MANY = "one-to-many"
    MANY_TO_MANY = "many-to-many"
    REORGANIZE = "reorganize"
    SHUFFLE = "shuffle"
    OPAQUE = "opaque"


_ONE, _MANY, _ALL = Mapping.ONE_TO_ONE, Mapping.ONE_TO_MANY, Mapping.MANY_TO_MANY
_MOVE, _MIX = Mapping.REORGANIZE, Mapping.SHUFFLE

_NAMES = {
    _MANY: "gather dynamic_slice resize",
    _ALL: "conv_general_dilated dot_general ragged_dot cumsum cumprod cummax cummin cumlogsumexp "
    "reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or reduce_window_sum "
    "reduce_window_max reduce_window_min argmax argmin sort top_k",
    _MOVE: "reshape squeeze expand_dims",
    _MIX: "transpose rev",
    Mapping.OPAQUE: "scan while cond custom_call ffi_call sparsejax_kernel pure_callback "
    "io_callback random_bits threefry2x32 random_seed random_wrap random_unwrap scatter "
    "scatter-add dynamic_update_slice",
}
_MAPPING_OF = {name: mapping for mapping, names in _NAMES.items() for name in names.split()}


def mapping_of(node: Node) -> Mapping:
    """The mapping type of a node; a broadcast of what is known counts as none."""
    op = node.op
    if isinstance(op, Primitive):
        found = _MAPPING_OF.get(op.name)
        return found or (_MANY if _broadcasts(node) else _ONE)
    if isinstance(op, Conv | Linear | Pool | Mean):
        return _ALL
    if isinstance(op, Reshape | Transpose):
        return _MOVE if isinstance(op, Reshape) else _MIX
    if isinstance(op, Channels):
        first = int(op.index[0]) if op.index.size else 0
        sliced = np.array_equal(op.index, first + np.arange(op.index.size))
        return _ONE if sliced else _MIX
    return _MANY if isinstance(op, Elementwise) and _broadcasts(node) else _ONE


def _broadcasts(node: Node) -> bool:
    """Does any computed input have fewer elements than a larger one, or than the only output?"""
    sizes = [_size(v) for v in node.inputs if v.constant is None and v.shape]
    if not sizes:
        return False
    grows = isinstance(node.op, Primitive) and node.op.name == "broadcast_in_dim"
    return min(sizes) < (_size(node.outputs[0]) if grows else max(sizes))


def fused(first: Mapping, second: Mapping) -> tuple[Mapping, bool] | None:
    """What two nodes after each other are together (table 3).

    Returns:
        Their mapping type and whether it must be measured if fusing them pays; None where it never
        does.
    """
    if Mapping.OPAQUE in (first, second):
        return None
    if first is _ONE or second is _ONE:
        return (second if first is _ONE else first), False
    if first in (_MANY, _ALL):
        return None if second is _ALL else (first, True)
    if second in (_MANY, _ALL):
        return second, True
    return (_MIX if first is second is _MIX else _MOVE), False


@dataclass(frozen=True)
class Block:
    """Nodes that run fused, and their mapping type together."""

    nodes: tuple[Node, ...]
    mapping: Mapping


@dataclass(frozen=True)
class FusionPlan:
    """A graph's nodes in blocks.

    Attributes:
        blocks: in an order that they can run in.
        bytes_before: of all values that a node hands to another.
        bytes_after: of those that a block hands to another.
    """

    blocks: tuple[Block, ...]
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
            (str(i), block.mapping.value, str(len(block.nodes)), " ".join(map(_name, block.nodes)))
            for i, block in enumerate(self.blocks)
        ]
        caption = (
            f"{self.num_before} nodes in {self.num_after} blocks; intermediate values "
            f"{self.bytes_before / 1e6:.2f} MB before, {self.bytes_after / 1e6:.2f} MB after"
        )
        columns = ("block", "mapping", "nodes", "what")
        return text.table("DNNFusion's plan", columns, rows, caption=caption)


def plan_fusion(
    graph: Graph, *, profitable: Profitable | None = None, max_nodes: int = 32
) -> FusionPlan:
    """The blocks that DNNFusion makes of a graph, traced or rewritten.

    The one-to-one node with the smallest output seeds a block, which takes in the nodes behind it,
    then those before it, as table 3 allows and as long as no block waits for itself; then the next
    seed, until there is none.

    Args:
        graph: is not changed.
        profitable: is asked about the nodes of a block to be where table 3 leaves it to a
            measurement; without one these are not fused.
        max_nodes: of a block.

    Differs:
        The paper rewrites the graph by the laws of arithmetic first; `rewrite` does that here.
    """
    planner = _Planner(graph, profitable or (lambda nodes: False), max_nodes)
    seeds = [node for node in graph.nodes if mapping_of(node) is _ONE]
    for seed in sorted(seeds, key=lambda node: sum(map(_bytes, node.outputs))):
        planner.grow(seed)
    return planner.plan()


class _Planner:
    """Blocks that grow; `groups.forms` holds their mapping types."""

    def __init__(self, graph: Graph, profitable: Profitable, max_nodes: int):
        self.graph, self.profitable, self.max_nodes = graph, profitable, max_nodes
        self.writer = {value: node for node in graph.nodes for value in node.outputs}
        self.users = graph.users()
        self.groups = Partition(lambda a, b: a)
        self.done: set[Node] = set()
        for node in graph.nodes:
            feeding = {self.groups.group[n] for n in self.before(node)}
            self.groups.add(node, mapping_of(node), feeding)

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
        own, new = self.groups.forms[block], mapping_of(other)
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

    def plan(self) -> FusionPlan:
        """The blocks as they are."""
        place = {node: i for i, node in enumerate(self.graph.nodes)}
        blocks = []
        for number in self._order():
            nodes = sorted(self.groups.members[number], key=lambda node: place[node])
            blocks.append(Block(tuple(nodes), self.groups.forms[number]))
        handed = list(self._handed())
        return FusionPlan(
            tuple(blocks),
            sum(_bytes(value) for value, _ in handed),
            sum(_bytes(value) for value, crosses in handed if crosses),
        )

    def _order(self) -> list[int]:
        """The blocks, each behind all that must run before it."""
        return sorted(self.groups.before, key=lambda g: (self.groups.before[g].bit_count(), g))

    def _handed(self) -> Iterator[tuple[Value, bool]]:
        """Values that other nodes read, and whether a node of another block does."""
        group = self.groups.group
        for node in self.graph.nodes:
            for value in node.outputs:
                readers = self.users.get(value, [])
                if readers:
                    yield value, any(group[reader] != group[node] for reader in readers)


def _name(node: Node) -> str:
    if isinstance(node.op, Primitive):
        return node.op.name
    kind = getattr(node.op, "kind", "identity")
    return type(node.op).__name__ if kind == "identity" else kind


def _size(value: Value) -> int:
    return int(np.prod(value.shape, dtype=np.int64))


def _bytes(value: Value) -> int:
    return _size(value) * value.dtype.itemsize
