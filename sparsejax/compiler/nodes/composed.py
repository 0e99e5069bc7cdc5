"""Images put together of parts of one: borders that repeat, reflect or wrap, turns, repeats.

`jnp.pad` with a mode, `jnp.roll`, `jnp.repeat` and `jnp.stack` are several equations each. Told by
where they move the places of their one source, they are a pick.
"""

import numpy as np

from sparsejax.compiler.graph.edit import Edit, constant_of, grown, is_float, made
from sparsejax.compiler.graph.graph import Node, Value
from sparsejax.compiler.nodes.op import Rules
from sparsejax.compiler.nodes.pick import MAX_TRACED, pick_of_all
from sparsejax.compiler.nodes.primitive import Primitive
from sparsejax.compiler.nodes.reshape import Reshape
from sparsejax.compiler.nodes.sampled import computed
from sparsejax.compiler.nodes.transpose import Transpose

COMPOSED = ("concatenate", "stack", "broadcast_in_dim")
MOVED = (*COMPOSED, "slice", "split", "rev")
MOST_NODES = 24
MOST_STEPS = 4  # from an image to a convolution


def to_pick(edit: Edit, node: Node) -> bool:
    """What leads to a convolution, and only moves the floats of an image or a line."""
    output = node.outputs[0]
    if not _moves(node) or not is_float(output) or len(output.shape) not in (3, 4):
        return False
    if not 0 < output.size <= MAX_TRACED or not _leads_to_convolution(edit, output):
        return False
    found = None
    for sources, nodes in grown(edit, node, _moves, most=MOST_NODES):
        alone = sources[0] if len(sources) == 1 else None
        if alone and len(alone.shape) == len(output.shape) and 0 < alone.size <= MAX_TRACED:
            found = alone, nodes
    if found is None or not any(_composes(each, len(output.shape)) for each in found[1]):
        return False
    source, nodes = found
    places = np.arange(source.size, dtype=np.int32).reshape(source.shape)
    moved = computed(nodes, {source: places})
    if moved is None:
        return False
    before, after = _image(source.shape), _image(output.shape)
    pick = pick_of_all(moved.reshape(after), before)
    if pick is None:
        return False
    image = made(Reshape(before), [source], before)
    picked = made(pick, image.outputs, after)
    back = made(Reshape(output.shape), picked.outputs, output.shape)
    return edit.replace(node, image, picked, back)


def _composes(node: Node, rank: int) -> bool:
    """Does it join or repeat parts, or move parts that are axes for a while?"""
    if not isinstance(node.op, Primitive):
        return False
    return node.op.name in COMPOSED or len(node.outputs[0].shape) != rank


def _image(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A line (N, length, C) as an image of one row."""
    return shape if len(shape) == 4 else (shape[0], 1, *shape[1:])


def _moves(node: Node) -> bool:
    if isinstance(node.op, Reshape | Transpose):
        return True
    if not isinstance(node.op, Primitive) or node.op.name not in MOVED:
        return False
    return all(value.constant is None for value in node.inputs)


def _leads_to_convolution(edit: Edit, value: Value) -> bool:
    """Is a convolution a few equations behind?"""
    values = {value}
    for _ in range(MOST_STEPS):
        readers = [node for v in values for node in edit.readers.get(v, ())]
        if any(_is_layer(node) for node in readers):
            return True
        values = {v for node in readers if len(node.outputs) == 1 for v in node.outputs}
    return False


def _is_layer(node: Node) -> bool:
    """A convolution that is to be in a region: what is moved for others is left to XLA."""
    return node.op.name == "conv_general_dilated" and constant_of(node.inputs[1]) is not None


RULES = Rules(sampled=(to_pick,))
