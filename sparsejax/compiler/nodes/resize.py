"""Images of another size: each pixel is a weighted sum of a few rows, then of a few columns.

`jax.image.resize` multiplies by a matrix along each side, of which a row has two weights (bilinear)
or four (bicubic, or two to one): picks of rows, each times a number for each row.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sparsejax.compiler.graph.edit import Edit, constant_of, is_float, made
from sparsejax.compiler.graph.graph import Node, Value
from sparsejax.compiler.graph.images import channel_axis, sides
from sparsejax.compiler.nodes.elementwise import Elementwise
from sparsejax.compiler.nodes.known import known_beside
from sparsejax.compiler.nodes.op import Rules
from sparsejax.compiler.nodes.pick import Pick, separable
from sparsejax.compiler.nodes.primitive import Primitive
from sparsejax.compiler.nodes.transpose import Transpose

MOST_TAPS = 4


class Mixed(NamedTuple):
    """A value made of another by matrices along some of its axes.

    Attributes:
        source: the other.
        axes: which axis of the source each of the value's is.
        matrices: (out, in) by the axis of the source.
    """

    source: Value
    axes: list[int]
    matrices: Mapping[int, np.ndarray]


def to_picks(edit: Edit, node: Node) -> bool:
    """Matrices along the sides of an image, of which each row has few weights."""
    if not isinstance(node.op, Transpose) or len(node.outputs[0].shape) != 4:
        return False
    mixed = _mixed(edit, node.inputs[0])
    permutation = list(node.op.permutation)
    if not mixed.matrices or [mixed.axes[axis] for axis in permutation] != [0, 1, 2, 3]:
        return False
    last = _channels_last(frozenset(mixed.matrices))
    if last is None or not is_float(mixed.source) or 0 in node.outputs[0].shape:
        return False
    x, nodes = mixed.source, []  # type: Value, list[Node]
    for axis, matrix in sorted(mixed.matrices.items()):
        taps = _taps(matrix)
        if taps is None:
            return False
        nodes += _along(x, axis, *taps, last)
        x = nodes[-1].outputs[0]
    return edit.replace(node, *nodes)


def _mixed(edit: Edit, value: Value) -> Mixed:
    itself = Mixed(value, list(range(len(value.shape))), {})
    node = edit.sole_writer(value, Primitive)
    if node is None or node.op.name != "dot_general":
        return itself
    known = [constant_of(v) for v in node.inputs]
    side = 1 if known[0] is None else 0  # of the matrix
    matrix, inner = known[side], node.inputs[1 - side]
    assert isinstance(node.op, Primitive)
    contracted, batch = node.op.equation.params["dimension_numbers"]
    own, other = contracted[side], contracted[1 - side]
    plain = matrix is not None and matrix.ndim == 2 and len(own) == 1 and not batch[0]
    if not plain or matrix is None or inner.constant is not None:
        return itself
    before = _mixed(edit, inner)
    axis = before.axes[int(other[0])]
    if axis in before.matrices:
        return itself
    rest = [each for i, each in enumerate(before.axes) if i != int(other[0])]
    axes = [axis, *rest] if side == 0 else [*rest, axis]
    mix = matrix.T if int(own[0]) == 0 else matrix
    return Mixed(before.source, axes, {**before.matrices, axis: mix})


def _channels_last(axes: frozenset[int]) -> bool | None:
    """The order of axes of an image that is resized along these; of axis 2 alone a guess."""
    if axes <= {1, 2}:
        return True
    return False if axes <= {2, 3} else None


def _taps(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Which inputs each output is made of, and their weights: (taps, out); None if of many."""
    most = int((matrix != 0).sum(1).max(initial=1))
    if most > MOST_TAPS:
        return None
    order = np.argsort(matrix == 0, axis=1, kind="stable")[:, :most]
    weights = np.take_along_axis(matrix, order, 1)
    places = np.maximum.accumulate(np.where(weights != 0, order, 0), axis=1)
    return places.T, weights.T


def _along(
    x: Value, axis: int, places: np.ndarray, weights: np.ndarray, channels_last: bool
) -> list[Node]:
    """Sums of what is picked along an axis of an image."""
    shape = (*x.shape[:axis], places.shape[1], *x.shape[axis + 1 :])
    height, width = (shape[side] for side in sides(channels_last))
    nodes: list[Node] = []
    total: Value | None = None
    for place, weight in zip(places, weights, strict=True):
        picked = made(_picked(shape, axis, place, channels_last), [x], shape)
        along = weight[:, None] if axis == sides(channels_last)[0] else weight
        numbers = np.broadcast_to(along, (height, width))[..., None]
        factor = known_beside(numbers, picked.outputs[0], channels_last)
        term = made(Elementwise("mul"), [*picked.outputs, *factor.outputs], shape)
        nodes += [picked, factor, term]
        if total is not None:
            nodes.append(made(Elementwise("add"), [total, *term.outputs], shape))
        total = nodes[-1].outputs[0]
    return nodes


def _picked(shape: Sequence[int], axis: int, place: np.ndarray, channels_last: bool) -> Pick:
    along = [np.arange(size) for size in shape]
    along[axis] = place
    height, width = sides(channels_last)
    channels = along[channel_axis(channels_last)]
    return separable(along[height], along[width], channels, channels_last)


RULES = Rules(sampled=(to_picks,))
