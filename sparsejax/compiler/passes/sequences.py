"""Sequences (batch, rows, channels) as images of width 1, which join what rows would part.

A region of rows holds nothing but rows of one number. One of images may hold sequences of several
lengths, their axes in another order, and the images that they were made of.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from sparsejax.compiler.graph.edit import Edit, constant_of, is_float, made
from sparsejax.compiler.graph.graph import Node, Value
from sparsejax.compiler.graph.images import LAST, MIN_ROWS
from sparsejax.compiler.nodes.affine import Affine
from sparsejax.compiler.nodes.attention import Attention
from sparsejax.compiler.nodes.channels import Channels
from sparsejax.compiler.nodes.concat import Concat
from sparsejax.compiler.nodes.elementwise import IN_JAX, ORDERED, Elementwise
from sparsejax.compiler.nodes.join import Join
from sparsejax.compiler.nodes.known import Known, known_beside, of_each_item
from sparsejax.compiler.nodes.linear import Linear
from sparsejax.compiler.nodes.mean import Mean
from sparsejax.compiler.nodes.norm import Norm
from sparsejax.compiler.nodes.pad import Pad, pairs_of
from sparsejax.compiler.nodes.pick import pick_of
from sparsejax.compiler.nodes.primitive import Primitive
from sparsejax.compiler.nodes.reshape import Reshape
from sparsejax.compiler.nodes.softmax import Softmax
from sparsejax.compiler.nodes.transpose import Transpose

TURNED = (0, 2, 1)
MOVED = ("slice", "rev", "pad")  # of rows, where layers are on both sides


def to_images(edit: Edit) -> bool:
    """Turn the nodes on sequences into nodes on images where a region of rows would end."""
    changed = False
    for nodes in _groups(edit):
        if _pays(nodes):
            for node in nodes:
                edit.replace(node, *_on_images(node))
            changed = True
    return changed


def _groups(edit: Edit) -> Iterator[list[Node]]:
    """Nodes that can be on images and are connected by sequences, in an order that they run in."""
    group_of: dict[Value, list[Node]] = {}
    groups: list[list[Node]] = []
    for node in [node for slot in edit.slots for node in slot]:
        if not _may(edit, node):
            continue
        values = [value for value in (*node.inputs, *node.outputs) if _is_sequence(value)]
        met = {id(group_of[value]): group_of[value] for value in values if value in group_of}
        group = [node]
        for other in met.values():
            group += other
            values += [value for value, of in group_of.items() if of is other]
        groups = [each for each in groups if id(each) not in met] + [group]
        group_of |= dict.fromkeys(values, group)
    for group in groups:
        yield sorted(group, key=edit.slot.__getitem__)


def _is_sequence(value: Value) -> bool:
    return len(value.shape) == 3 and value.constant is None and 0 not in value.shape


def _pays(nodes: list[Node]) -> bool:
    """Are there layers of enough rows, and is there what regions of rows cannot hold?"""
    places = [i for i, node in enumerate(nodes) if isinstance(node.op, Linear | Attention)]
    rows = [value.shape[1] for i in places for value in nodes[i].inputs]
    if max(rows, default=0) < MIN_ROWS:
        return False
    between = nodes[places[0] : places[-1]]
    return any(map(_parts, nodes)) or any(node.op.name in MOVED for node in between)


def _parts(node: Node) -> bool:
    """Would regions of rows end at the node?"""
    if isinstance(node.op, Reshape):
        return any(len(value.shape) == 4 for value in (*node.inputs, *node.outputs))
    if isinstance(node.op, Attention):
        return node.inputs[0].shape[:-1] != node.inputs[1].shape[:-1]
    if _gate_of(node) is not None:
        return True
    return isinstance(node.op, Transpose) or node.op.name == "concatenate"


def _gate_of(node: Node) -> int | None:
    """Which input of arithmetic is one number for each sequence and channel; None if none is."""
    if not isinstance(node.op, Primitive) or node.op.name not in IN_JAX:
        return None
    shape, whole = node.outputs[0].shape, [v.shape == node.outputs[0].shape for v in node.inputs]
    if any(value.constant is not None for value in node.inputs) or sum(whole) != 1:
        return None
    gate = whole.index(False)
    fits = len(shape) == 3 and node.inputs[gate].shape == (shape[0], 1, shape[2])
    return gate if fits and (gate == 1 or node.op.name not in ORDERED) else None


def _may(edit: Edit, node: Node) -> bool:
    """Can the node be on images?"""
    if len(node.outputs) != 1 or not is_float(*node.inputs, *node.outputs) or node.op.effects:
        return False
    if not any(map(_is_sequence, (*node.inputs, *node.outputs))):
        return False
    if isinstance(node.op, Reshape):
        before, after = node.inputs[0].shape, node.outputs[0].shape
        return _is_outline(before, after) or _of_normed_heads(edit, node)
    computed = [value for value in (*node.inputs, *node.outputs) if value.constant is None]
    if isinstance(node.op, Primitive) and node.op.name == "reduce_sum":
        return tuple(node.op.equation.params["axes"]) == (1,)
    if not all(map(_is_sequence, computed)) or len({value.shape[0] for value in computed}) != 1:
        return False
    return _op_on_images(node) is not None


def _is_outline(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    """Does a reshape keep batch and channels, of sequences and images or vectors?"""
    ranks = {len(before), len(after)}
    return ranks in ({3, 4}, {2, 3}) and (before[0], before[-1]) == (after[0], after[-1])


def _of_normed_heads(edit: Edit, node: Node) -> bool:
    """Does a reshape cut channels into heads for a norm of each, or put these together again?"""
    x, y = node.inputs[0], node.outputs[0]
    if {len(x.shape), len(y.shape)} != {3, 4} or x.shape[:2] != y.shape[:2]:
        return False
    cut, norms = (y, edit.readers.get(y, [])) if len(y.shape) == 4 else (x, [edit.writer.get(x)])
    alone = cut not in edit.outputs and len(norms) > 0
    return alone and all(n and isinstance(n.op, Norm) and n.op.axis == 3 for n in norms)


def _op_on_images(node: Node) -> Any:
    """The op on images of width 1, None if there is none."""
    op, shape = node.op, node.inputs[0].shape
    if isinstance(op, Linear | Attention | Elementwise):
        return op
    if isinstance(op, Affine):
        axis = -1 if op.scale.size == 1 else LAST
        return replace(op, axis=axis) if op.scale.size == 1 or op.axis == 2 else None
    if isinstance(op, Norm | Softmax | Channels | Concat):
        return replace(op, axis=LAST) if op.axis == 2 else None
    if isinstance(op, Known):
        return Known(op.numbers[:, None]) if op.numbers.ndim == 2 else None
    if isinstance(op, Transpose):
        if op.permutation != TURNED:
            return None
        places = np.arange(shape[1] * shape[2]).reshape(shape[1:]).T
        return pick_of(places[:, None], (shape[1], 1, shape[2]))
    return _op_of_equation(node) if isinstance(op, Primitive) else None


def _op_of_equation(node: Node) -> Any:
    assert isinstance(node.op, Primitive)
    name, params = node.op.name, node.op.equation.params
    known = [constant_of(value) for value in node.inputs]
    shape = node.outputs[0].shape
    if name == "concatenate" and int(params["dimension"]) == 1:
        fits = all(v.constant is None or of_each_item(v, v.shape) is not None for v in node.inputs)
        return Join() if fits else None
    if name == "pad":
        return _pad_of(node)
    if name in ("slice", "rev") and node.inputs[0].shape[2] == shape[2]:
        _, length, channels = node.inputs[0].shape
        index = np.arange(length)[None, :, None]
        kept = _moved_rows(name, params, index)
        places = kept[0, :, :1, None] * channels + np.arange(channels)
        return pick_of(places, (length, 1, channels)) if len(kept) == 1 else None
    if _gate_of(node) is not None:
        return Elementwise(name)
    if name in IN_JAX and sum(array is not None for array in known) == 1:
        if known[0] is not None and name in ORDERED:
            return None
        x, other = node.inputs[:: -1 if known[0] is not None else 1]
        fits = x.shape == shape and of_each_item(other, shape) is not None
        return Elementwise(name) if fits else None
    return None


def _pad_of(node: Node) -> Pad | None:
    """Zeros before and behind the rows."""
    pairs = pairs_of(node)
    if pairs is None or any(pairs[0]) or any(pairs[2]):
        return None
    return Pad((pairs[1], (0, 0)))


def _moved_rows(name: str, params: dict, index: np.ndarray) -> np.ndarray:
    """The rows that a slice or reversal takes."""
    if name == "rev":
        return index[:, ::-1] if tuple(params["dimensions"]) == (1,) else index[:0]
    begin, end = params["start_indices"], params["limit_indices"]
    step = (params["strides"] or (1, 1, 1))[1]
    whole = begin[0] == 0 and begin[2] == 0
    return index[:, begin[1] : end[1] : step] if whole else index[:0]


def _on_images(node: Node) -> list[Node]:
    """The nodes that take the place of one."""
    nodes: list[Node] = []
    shape = node.outputs[0].shape
    if isinstance(node.op, Reshape):
        image = _image(node.inputs[0], nodes)
        if not _is_outline(node.inputs[0].shape, shape):
            image = _cut(image, shape, nodes)
            _reshaped(image, shape, nodes)
            return nodes
        if len(shape) == 3:
            image = _reshaped(image, (shape[0], shape[1], 1, shape[2]), nodes)
        _reshaped(image, shape, nodes)
        return nodes
    if isinstance(node.op, Primitive) and node.op.name == "reduce_sum":
        nodes.append(made(Mean(), [_image(node.inputs[0], nodes)], shape))
        length = np.full(1, float(node.inputs[0].shape[1]))
        nodes.append(made(Affine(length, np.zeros(1)), nodes[-1].outputs, shape))
        return nodes
    op = _op_on_images(node)
    like = next(value for value in node.inputs if value.constant is None)
    inputs = [
        _image(v, nodes)
        if v.constant is None
        else _known(v, v.shape if isinstance(op, Join) else shape, _image(like, nodes), nodes)
        for v in (node.inputs[:1] if isinstance(op, Pad) else node.inputs)
    ]
    if isinstance(op, Elementwise) and (node.inputs[0].constant is not None or _gate_of(node) == 0):
        inputs = inputs[::-1]
    nodes.append(made(op, inputs, (*shape[:2], 1, shape[2])))
    _reshaped(nodes[-1].outputs[0], shape, nodes)
    return nodes


def _image(value: Value, nodes: list[Node]) -> Value:
    """A sequence as an image of width 1."""
    if len(value.shape) != 3:
        return value
    return _reshaped(value, (*value.shape[:2], 1, value.shape[2]), nodes)


def _cut(image: Value, shape: tuple[int, ...], nodes: list[Node]) -> Value:
    """Rows (N, L, 1, C) with heads as pixels, (N, L, heads, size), or the other way around."""
    sides = shape[1:] if len(shape) == 4 else (shape[1], 1, shape[2])
    pick = pick_of(np.arange(math.prod(sides)).reshape(sides), image.shape[1:])
    nodes.append(made(pick, [image], (shape[0], *sides)))
    return nodes[-1].outputs[0]


def _known(value: Value, shape: tuple[int, ...], like: Value, nodes: list[Node]) -> Value:
    """Known rows as an image that is the same for each of `like`."""
    numbers = of_each_item(value, shape)
    assert numbers is not None
    nodes.append(known_beside(numbers[:, None], like))
    return nodes[-1].outputs[0]


def _reshaped(value: Value, shape: tuple[int, ...], nodes: list[Node]) -> Value:
    nodes.append(made(Reshape(shape), [value], shape))
    return nodes[-1].outputs[0]
