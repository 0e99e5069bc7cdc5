"""PReLU with a slope for each channel below 0."""

from sparsejax.compiler.graph.edit import Edit, is_float, made, number_of
from sparsejax.compiler.graph.graph import Node, Value
from sparsejax.compiler.graph.images import FIRST, LAST
from sparsejax.compiler.nodes.affine import Affine
from sparsejax.compiler.nodes.elementwise import Elementwise
from sparsejax.compiler.nodes.known import known_beside
from sparsejax.compiler.nodes.op import Rules
from sparsejax.compiler.nodes.primitive import Primitive
from sparsejax.compiler.nodes.reshape import Reshape

KINDS = {"gt": "slope", "ge": "slope_below"}


def to_slopes(edit: Edit, node: Node) -> bool:
    """Where images are above 0 themselves, elsewhere themselves times numbers of their channels."""
    if not isinstance(node.op, Primitive) or node.op.name != "select_n" or len(node.inputs) != 3:
        return False
    which, below, x = node.inputs
    told, scaled = edit.writer.get(which), edit.writer.get(below)
    if told is None or told.op.name not in KINDS or told.inputs[0] is not x:
        return False
    if scaled is None or not isinstance(scaled.op, Affine) or scaled.inputs[0] is not x:
        return False
    op, zero = scaled.op, number_of(told.inputs[1])
    if zero is None or zero.any() or op.shift.any() or op.activation:
        return False
    image = _image(edit, x)
    if image is None or not is_float(x) or op.scale.size == 1:
        return False
    # In neither order are the width of an image, or the length of a line, its channels.
    if op.axis not in ((FIRST, LAST) if image is x else (LAST - 1,)):
        return False
    slopes = known_beside(op.scale[None, None], image, op.axis != FIRST or image is not x)
    kind = Elementwise(KINDS[told.op.name])
    sloped = made(kind, [image, *slopes.outputs], image.shape)
    return edit.replace(node, slopes, sloped, made(Reshape(x.shape), sloped.outputs, x.shape))


def _image(edit: Edit, x: Value) -> Value | None:
    """An image, or that of one row which a line (N, length, C) was."""
    if len(x.shape) == 4:
        return x
    writer = edit.writer.get(x)
    if len(x.shape) != 3 or writer is None or not isinstance(writer.op, Reshape):
        return None
    return writer.inputs[0] if writer.inputs[0].shape == (x.shape[0], 1, *x.shape[1:]) else None


RULES = Rules(fused=(to_slopes,))
