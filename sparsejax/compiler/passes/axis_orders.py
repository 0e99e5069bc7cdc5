"""Changes of axis order, NHWC to NCHW or back, moved behind what can work in either."""

from typing import NamedTuple

from sparsejax.compiler.graph.edit import Edit, made
from sparsejax.compiler.graph.graph import Node, Value
from sparsejax.compiler.graph.images import TO_FIRST, TO_LAST
from sparsejax.compiler.nodes.op import RegionOp
from sparsejax.compiler.nodes.reshape import Reshape
from sparsejax.compiler.nodes.transpose import Transpose


class Change(NamedTuple):
    """What a value was before the order of its axes was changed."""

    source: Value
    to_last: bool


def change_of(edit: Edit, value: Value) -> Change | None:
    """The change of order that wrote a value; of 1x1 images it is a reshape."""
    writer = edit.writer.get(value)
    if writer is None or len(value.shape) != 4 or not isinstance(writer.op, Transpose | Reshape):
        return None
    source = writer.inputs[0]
    if isinstance(writer.op, Transpose):
        known = writer.op.permutation in (TO_LAST, TO_FIRST)
        return Change(source, writer.op.permutation == TO_LAST) if known else None
    batch = value.shape[0]
    if value.shape[1:3] == (1, 1) and source.shape == (batch, value.shape[3], 1, 1):
        return Change(source, True)
    if value.shape[2:] == (1, 1) and source.shape == (batch, 1, 1, value.shape[1]):
        return Change(source, False)
    return None


def sink_order(edit: Edit, node: Node) -> bool:
    """The same change of all inputs moves behind the node, where it may meet its reverse."""
    if not isinstance(node.op, RegionOp):
        return False
    changes = [change_of(edit, value) for value in node.inputs]
    first = changes[0]
    if first is None or any(c is None or c.to_last != first.to_last for c in changes):
        return False
    op = node.op.before_change(first.to_last)
    if op is None:
        return False
    inputs = [change.source for change in changes if change is not None]
    shape = node.outputs[0].shape
    if len(shape) != 4:
        return edit.replace(node, made(op, inputs, shape))
    order = TO_LAST if first.to_last else TO_FIRST
    inner = made(op, inputs, [shape[order.index(axis)] for axis in range(4)])
    return edit.replace(node, inner, made(Transpose(order), inner.outputs, shape))
