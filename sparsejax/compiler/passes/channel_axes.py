"""Where the channels of images are: told by what a node does, not by how large its sides are."""

from collections.abc import Iterator

from sparsejax.compiler.graph.graph import Graph, Node, Value
from sparsejax.compiler.graph.images import EITHER, LAST
from sparsejax.compiler.nodes.op import NEITHER, RegionOp


def channel_axes(graph: Graph) -> dict[Node, int]:
    """The channels' axis of every node on images: its own, or where either fits a neighbour's.

    Two neighbours may differ: the value between them is then read in two orders, by two regions.
    """
    possible = {node: _possible_axes(node) for node in graph.nodes}
    axes = {node: min(found) for node, found in possible.items() if len(found) == 1}
    open_nodes = [node for node, found in possible.items() if len(found) > 1]
    writer = {value: node for node in graph.nodes for value in node.outputs}
    users = graph.users()
    for nodes in (open_nodes, open_nodes[::-1], open_nodes):
        for node in nodes:
            if node not in axes:
                beside = _neighbours(node, writer, users)
                known = next((axes[other] for other in beside if other in axes), None)
                axes |= {} if known is None else {node: known}
    return dict.fromkeys(open_nodes, LAST) | axes


def _neighbours(
    node: Node, writer: dict[Value, Node], users: dict[Value, list[Node]]
) -> Iterator[Node]:
    """Who writes what a node reads, who reads what it writes, and who reads beside it."""
    yield from (writer[value] for value in node.inputs if value in writer)
    for value in (*node.outputs, *node.inputs):
        yield from users.get(value, ())


def _possible_axes(node: Node) -> frozenset[int]:
    """Which of the axes 1 and 3 may be the channels of the images that a node reads and writes."""
    if not any(len(value.shape) == 4 for value in (*node.inputs, *node.outputs)):
        return NEITHER
    return EITHER & node.op.channel_axes(node) if isinstance(node.op, RegionOp) else NEITHER
