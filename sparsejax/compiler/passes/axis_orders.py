"""Changes of axis order, NHWC to NCHW or back, moved to where they part no regions."""

from typing import Any, NamedTuple

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


def turn_image(edit: Edit, node: Node) -> bool:
    """Rows that are the pixels of NCHW images, flattened and turned, are those of NHWC images."""
    if not isinstance(node.op, Transpose) or node.op.permutation != (0, 2, 1):
        return False
    before = edit.writer.get(node.inputs[0])
    if before is None or not isinstance(before.op, Reshape):
        return False
    x, shape = before.inputs[0], node.outputs[0].shape
    if len(x.shape) != 4 or x.shape[:2] != (shape[0], shape[2]) or 1 in x.shape[2:]:
        return False
    turned = made(Transpose(TO_LAST), [x], [x.shape[axis] for axis in TO_LAST])
    return edit.replace(node, turned, made(Reshape(shape), turned.outputs, shape))


def raise_order(edit: Edit, node: Node) -> bool:
    """A change between nodes on images moves ahead of all that lead to it, where it parts none."""
    value = node.outputs[0]
    change = change_of(edit, value) if isinstance(node.op, Transpose) else None
    if change is None or not any(_on_images(reader) for reader in edit.readers.get(value, ())):
        return False
    above = _above(edit, node, change.to_last)
    order, back = (TO_LAST, TO_FIRST) if change.to_last else (TO_FIRST, TO_LAST)
    for other in above:
        op: Any = other.op
        turned = [made(Transpose(order), [v], [v.shape[i] for i in order]) for v in other.inputs]
        shape = other.outputs[0].shape
        inner = made(
            op.before_change(not change.to_last),
            [v.outputs[0] for v in turned],
            [shape[axis] for axis in order],
        )
        edit.replace(other, *turned, inner, made(Transpose(back), inner.outputs, shape))
    return bool(above)


def _on_images(node: Node) -> bool:
    return isinstance(node.op, RegionOp)


def _above(edit: Edit, node: Node, to_last: bool) -> list[Node]:
    """All nodes on images that lead to a change of order; none if one has to stay behind it."""
    found, reached = [], [node]
    while reached:
        for value in reached.pop().inputs:
            writer = edit.writer.get(value)
            if writer is None or not isinstance(writer.op, RegionOp) or writer in found:
                continue
            if value in edit.outputs or writer.op.before_change(not to_last) is None:
                return []
            found.append(writer)
            reached.append(writer)
    members = {node, *found}
    readers = {reader for other in found for reader in edit.readers[other.outputs[0]]}
    return found if readers <= members else []
