"""Powers and magnitudes, of which products and maxima are made once all else was told."""

import numpy as np

from sparsejax.compiler.graph.edit import Edit, is_float, made
from sparsejax.compiler.graph.graph import Node
from sparsejax.compiler.nodes.affine import Affine
from sparsejax.compiler.nodes.elementwise import Elementwise
from sparsejax.compiler.nodes.op import Rules
from sparsejax.compiler.nodes.primitive import Primitive

POWERS = ("square", "integer_pow", "abs")


def multiplied_out(edit: Edit, node: Node) -> bool:
    """Squares, cubes and fourth powers are products; a magnitude is the larger of x and -x."""
    if not isinstance(node.op, Primitive) or node.op.name not in POWERS:
        return False
    (x,), shape = node.inputs, node.outputs[0].shape
    if x.constant is not None or not is_float(x, *node.outputs) or len(shape) < 2:
        return False
    if node.op.name == "abs":
        negative = made(Affine(-np.ones(1), -np.zeros(1)), [x], shape)
        return edit.replace(node, negative, made(Elementwise("max"), [x, *negative.outputs], shape))
    power = 2 if node.op.name == "square" else int(node.op.equation.params["y"])
    if power not in (2, 3, 4):
        return False
    square = made(Elementwise("mul"), [x, x], shape)
    if power == 2:
        return edit.replace(node, square)
    other = x if power == 3 else square.outputs[0]
    return edit.replace(node, square, made(Elementwise("mul"), [square.outputs[0], other], shape))


RULES = Rules(fused=(multiplied_out,))
