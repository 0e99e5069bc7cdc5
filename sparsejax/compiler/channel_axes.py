"""Where the channels of images are: told by what a node does, not by how large its sides are."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from sparsejax.compiler.graph import (
    Affine,
    Channels,
    Concat,
    Conv,
    Elementwise,
    Graph,
    Mean,
    Node,
    Pad,
    Pool,
    Reshape,
    Value,
)

FIRST, LAST = 1, 3
EITHER = frozenset((FIRST, LAST))
NEITHER: frozenset[int] = frozenset()


def channel_axes(graph: Graph) -> dict[Node, int]:
    """The channels' axis of every node on images: its own, or where either fits a neighbour's.

    Two neighbours may differ: the value between them is then read in two layouts, by two regions.
    """
    possible = {node: possible_axes(node) for node in graph.nodes}
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


def possible_axes(node: Node) -> frozenset[int]:
    """Which of the axes 1 and 3 may be the channels of the images that a node reads and writes."""
    op: Any = node.op
    if not any(len(value.shape) == 4 for value in (*node.inputs, *node.outputs)):
        return NEITHER
    if isinstance(op, Conv | Mean):
        return frozenset((LAST if op.channels_last else FIRST,))
    if isinstance(op, Pool | Pad):
        return frozenset(axis for axis in EITHER if in_layout(op, axis == LAST))
    if isinstance(op, Concat | Channels) or (isinstance(op, Affine) and op.scale.size > 1):
        return EITHER & {op.axis}
    if isinstance(op, Elementwise):
        return _of_pair(*(value.shape for value in node.inputs))
    if isinstance(op, Reshape):
        return _of_reshape(node.inputs[0].shape, node.outputs[0].shape)
    return EITHER if isinstance(op, Affine) else NEITHER


def _of_pair(x: tuple, *others: tuple) -> frozenset[int]:
    """The axes along which the other input is one number for each image and channel."""
    if all(other == x for other in others):
        return EITHER
    return frozenset(axis for axis in EITHER if others[0] == one_a_channel(x, axis))


def one_a_channel(shape: tuple, axis: int) -> tuple[int, ...]:
    """The shape of one number for each image and channel."""
    return tuple(size if i in (0, axis) else 1 for i, size in enumerate(shape))


def _of_reshape(before: tuple, after: tuple) -> frozenset[int]:
    """Flattened images have been in either layout; vectors become 1x1 images in one."""
    if len(after) == 2:
        return EITHER
    if len(before) != 2:
        return NEITHER
    return frozenset(axis for axis in EITHER if after == one_a_channel(after, axis))


def in_layout(op: Any, channels_last: bool) -> Any:
    """The same pool or padding in this layout; None where it works on what are channels there.

    The axis 2 is the width of NHWC and the height of NCHW, and a window over it alone is in both.
    """
    if op.channels_last == channels_last:
        return op
    idle = 0 if op.channels_last else 1
    if any(op.padding[idle]):
        return None
    if isinstance(op, Pad):
        return replace(op, padding=op.padding[::-1], channels_last=channels_last)
    if op.window[idle] != 1 or op.strides[idle] != 1:
        return None
    return replace(
        op,
        window=op.window[::-1],
        strides=op.strides[::-1],
        padding=op.padding[::-1],
        channels_last=channels_last,
    )
