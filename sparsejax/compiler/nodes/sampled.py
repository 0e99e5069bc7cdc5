"""Equations along one axis as a function of rows, to be told by what it makes of them."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsejax.compiler.graph import fold
from sparsejax.compiler.graph.edit import Edit, constant_of, grown, is_float, made
from sparsejax.compiler.graph.graph import Node, Value
from sparsejax.compiler.nodes.affine import along_one_axis
from sparsejax.compiler.nodes.primitive import Primitive
from sparsejax.compiler.nodes.reshape import Reshape
from sparsejax.compiler.nodes.transpose import Transpose
from sparsejax.jaxprs import moves

MAX_NODES = 32  # of one function; flax's layer norm has 16
OTHERS = ("integer_pow", "convert_element_type")
REDUCTIONS: dict[str, Callable] = {"reduce_sum": np.sum, "reduce_max": np.max}
COMPLEX: dict[str, Callable] = {
    "complex": lambda real, imag: real + 1j * imag,
    "real": np.real,
    "imag": np.imag,
}
REPEAT = "broadcast_in_dim"
CLOSE = 3e-6  # of formulas in float32


@dataclass(frozen=True, eq=False)
class Along:
    """Nodes that lead from one array to another, and reduce along some axes as if these were one.

    Attributes:
        source: the array.
        nodes: from the last to the first.
        places: of the axes that they reduce along, among those longer than 1.
    """

    source: Value
    nodes: Sequence[Node]
    places: frozenset[int]

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes of the source."""
        return tuple(_long(self.source.shape)[place] for place in sorted(self.places))

    @property
    def axis(self) -> int:
        """The axis of the source if it is one, else -1."""
        return self.axes[0] if len(self.places) == 1 else -1

    @property
    def length(self) -> int:
        """Of the axes together."""
        return math.prod(self.source.shape[axis] for axis in self.axes)

    def __call__(self, rows: np.ndarray) -> np.ndarray | None:
        """What they make of float64 rows (any number, length); None where NumPy cannot tell."""
        values: dict[Value, np.ndarray] = {self.source: rows}
        for node in reversed(self.nodes):
            inputs = [
                self._known(v, node) if v.constant is not None else values[v] for v in node.inputs
            ]
            result = _result(node, inputs)
            if result is None:
                return None
            values[node.outputs[0]] = result
        return values[self.nodes[0].outputs[0]]

    def through(self, op: Any) -> list[Node]:
        """The nodes that compute the same by an op of the source."""
        inner, shape = made(op, [self.source], self.source.shape), self.nodes[0].outputs[0].shape
        if shape == self.source.shape:
            return [inner]
        return [inner, made(Reshape(shape), inner.outputs, shape)]

    def _known(self, value: Value, node: Node) -> np.ndarray | None:
        """A constant as a row, None if it differs from row to row."""
        array, shape = constant_of(value), node.outputs[0].shape
        found = None if array is None else along_one_axis(array, shape)
        if found is None or found[0] == -1:
            return found and found[1]
        if _sizes(shape) != _sizes(self.source.shape) or len(self.places) > 1:
            return None
        return found[1] if _long(shape)[min(self.places)] == found[0] else None


def _long(shape: Sequence[int]) -> list[int]:
    """The axes that are longer than 1."""
    return [axis for axis, size in enumerate(shape) if size != 1]


def _sizes(shape: Sequence[int]) -> list[int]:
    """The sizes that are no 1."""
    return [size for size in shape if size != 1]


def _result(node: Node, inputs: Sequence[np.ndarray | None]) -> np.ndarray | None:
    known = [array for array in inputs if array is not None]
    if len(known) < len(inputs):
        return None
    if not isinstance(node.op, Primitive) or node.op.name == REPEAT:
        return known[0]
    if node.op.name in REDUCTIONS:
        return np.asarray(REDUCTIONS[node.op.name](known[0], 1, keepdims=True))
    results = fold.in_numpy(node.op.equation, known, double=True)
    return None if results is None else results[0]


def functions_to(edit: Edit, sink: Node) -> Iterator[Along]:
    """The functions along an axis, or several, that end with a node, the smallest first."""
    if not _is_elementwise(sink) or not is_float(*sink.outputs):
        return
    whole = _sizes(sink.outputs[0].shape)
    places: frozenset[int] = frozenset()
    for sources, nodes in grown(edit, sink, _joins, most=MAX_NODES):
        own = _places(nodes[-1], whole)
        if -1 in own or (places and own and own != places):
            return
        places, alone = places or own, sources[0]
        if places and len(sources) == 1 and _sizes(alone.shape) == whole and is_float(alone):
            yield Along(alone, nodes, places)


def _joins(node: Node) -> bool:
    """Does it work along rows, or move axes of length 1?"""
    if isinstance(node.op, Transpose):
        moved = [axis for axis in node.op.permutation if node.inputs[0].shape[axis] != 1]
        return moved == sorted(moved)
    if isinstance(node.op, Reshape):
        return _sizes(node.inputs[0].shape) == _sizes(node.outputs[0].shape)
    return _is_elementwise(node) or node.op.name in (*REDUCTIONS, REPEAT)


def _places(node: Node, whole: list[int]) -> frozenset[int]:
    """Where the long axes are that a node reduces or repeats along; -1 for any other."""
    if not isinstance(node.op, Primitive):
        return frozenset()
    shape = node.outputs[0].shape
    if node.op.name in REDUCTIONS:
        before = node.inputs[0].shape
        long = _long(before) if _sizes(before) == whole else []
        axes = [int(axis) for axis in node.op.equation.params["axes"]]
        return frozenset(long.index(axis) if axis in long else -1 for axis in axes)
    long = _long(shape) if _sizes(shape) == whole else []
    places: frozenset[int] = frozenset()
    for value in node.inputs:
        laid = _laid(node, value.shape, len(shape))
        if value.constant is None and laid:
            differs = [axis for axis in range(len(shape)) if laid[axis] != shape[axis]]
            own = frozenset(long.index(axis) if axis in long else -1 for axis in differs)
            if places and own and own != places:
                return frozenset((-1,))
            places = places or own
    return places


def _laid(node: Node, shape: Sequence[int], rank: int) -> Sequence[int]:
    """An input's sizes along the axes of the output."""
    if node.op.name != REPEAT:
        return shape
    assert isinstance(node.op, Primitive)
    dims = [int(d) for d in node.op.equation.params["broadcast_dimensions"]]
    return [shape[dims.index(axis)] if axis in dims else 1 for axis in range(rank)]


def _is_elementwise(node: Node) -> bool:
    if not isinstance(node.op, Primitive) or len(node.outputs) != 1 or node.op.effects:
        return False
    return node.op.name in fold.ELEMENTWISE or node.op.name in OTHERS


def computed(nodes: Sequence[Node], arrays: Mapping[Value, np.ndarray]) -> np.ndarray | None:
    """What nodes make of whole arrays, in float64; None where NumPy cannot tell.

    Args:
        nodes: that lead from these to the output of the first, from the last to the first.
        arrays: for the values that they are made of.
    """
    values: dict[Value, Any] = dict(arrays)
    for node in reversed(nodes):
        inputs = [constant_of(v) if v.constant is not None else values[v] for v in node.inputs]
        results = None if any(i is None for i in inputs) else _results(node, inputs)
        if results is None:
            return None
        values |= dict(zip(node.outputs, results, strict=True))
    return np.asarray(values[nodes[0].outputs[0]])


def _results(node: Node, inputs: Sequence[Any]) -> list[np.ndarray] | None:
    if isinstance(node.op, Reshape):
        return [inputs[0].reshape(node.op.shape)]
    if isinstance(node.op, Transpose):
        return [inputs[0].transpose(node.op.permutation)]
    assert isinstance(node.op, Primitive)
    params = node.op.equation.params
    if node.op.name == "stack":
        return [np.stack(inputs, params["axis"])]
    if node.op.name in REDUCTIONS:
        return [REDUCTIONS[node.op.name](inputs[0], tuple(map(int, params["axes"])))]
    if node.op.name in COMPLEX:
        return [COMPLEX[node.op.name](*inputs)]
    if any(map(np.iscomplexobj, inputs)) and node.op.name in fold.ELEMENTWISE:
        return [fold.ELEMENTWISE[node.op.name](*inputs)]
    moved = moves.moved(node.op.equation, inputs)
    return moved or fold.in_numpy(node.op.equation, inputs, double=True)


def near(actual: np.ndarray, expected: np.ndarray) -> bool:
    """Are they equal but for how float32 rounds constants, to the largest of a row?"""
    if not np.array_equal(np.isnan(actual), np.isnan(expected)):
        return False
    most = np.nanmax(np.abs(expected), axis=1, keepdims=True, initial=1e-30)
    return bool((np.nan_to_num(np.abs(actual - expected)) <= CLOSE * most).all())
