"""Equations along one axis as a function of rows, to be told by what it makes of them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sparsejax.compiler.graph import fold
from sparsejax.compiler.graph.edit import Edit, constant_of, is_float
from sparsejax.compiler.graph.graph import Node, Value
from sparsejax.compiler.nodes.affine import along_one_axis
from sparsejax.compiler.nodes.primitive import Primitive
from sparsejax.compiler.nodes.reshape import Reshape

MAX_NODES = 32  # of one function; flax's layer norm has 16
OTHERS = ("integer_pow", "convert_element_type")
REDUCTIONS: dict[str, Callable] = {"reduce_sum": np.sum, "reduce_max": np.max}
CLOSE = 3e-6  # of formulas in float32


@dataclass(frozen=True, eq=False)
class Along:
    """Nodes that lead from one array to another of its shape, and reduce along one axis.

    Attributes:
        source: the array.
        nodes: from the last to the first.
        axis: that they reduce along.
    """

    source: Value
    nodes: Sequence[Node]
    axis: int

    @property
    def length(self) -> int:
        """Of the axis."""
        return self.source.shape[self.axis]

    def __call__(self, rows: np.ndarray) -> np.ndarray | None:
        """What they make of float64 rows (any number, length); None where NumPy cannot tell."""
        values: dict[Value, np.ndarray] = {self.source: rows}
        for node in reversed(self.nodes):
            inputs = [self._known(v) if v.constant is not None else values[v] for v in node.inputs]
            result = _result(node, inputs)
            if result is None:
                return None
            values[node.outputs[0]] = result
        return values[self.nodes[0].outputs[0]]

    def _known(self, value: Value) -> np.ndarray | None:
        """A constant as a row, None if it differs from row to row."""
        array = constant_of(value)
        found = None if array is None else along_one_axis(array, self.source.shape)
        return found[1] if found and found[0] in (self.axis, -1) else None


def _result(node: Node, inputs: Sequence[np.ndarray | None]) -> np.ndarray | None:
    known = [array for array in inputs if array is not None]
    if len(known) < len(inputs):
        return None
    if not isinstance(node.op, Primitive) or node.op.name == "broadcast_in_dim":
        return known[0]
    if node.op.name in REDUCTIONS:
        return np.asarray(REDUCTIONS[node.op.name](known[0], 1, keepdims=True))
    results = fold.in_numpy(node.op.equation, known, double=True)
    return None if results is None else results[0]


def functions_to(edit: Edit, sink: Node) -> Iterator[Along]:
    """The functions along an axis that end with a node, the smallest first."""
    if not _is_elementwise(sink) or not is_float(*sink.outputs) or sink.outputs[0].constant:
        return
    shape = sink.outputs[0].shape
    nodes, members, axes = [sink], {sink}, set[int]()
    frontier = [v for v in dict.fromkeys(sink.inputs) if v.constant is None]
    while frontier and len(nodes) <= MAX_NODES:
        if axes and len(frontier) == 1 and frontier[0].shape == shape and is_float(frontier[0]):
            yield Along(frontier[0], list(nodes), next(iter(axes)))
        inner = [node for v in frontier if (node := _inner(edit, v, members, shape))]
        if not inner:
            return
        latest = max(inner, key=lambda node: edit.slot[node])
        axes |= _axes(latest)
        if len(axes) > 1:
            return
        nodes.append(latest)
        members.add(latest)
        inputs = [v for v in latest.inputs if v.constant is None]
        frontier = [v for v in dict.fromkeys([*frontier, *inputs]) if v is not latest.outputs[0]]


def _inner(edit: Edit, value: Value, members: set[Node], shape: tuple[int, ...]) -> Node | None:
    """The writer of a value that the members alone read, if it works along rows."""
    node = edit.writer.get(value)
    if node is None or value in edit.outputs or not members.issuperset(edit.readers[value]):
        return None
    before = node.inputs[0].shape if node.inputs else ()
    if _is_elementwise(node):
        return node
    if isinstance(node.op, Reshape):  # (rows) and (rows, 1)
        kept = [[size for size in each if size != 1] for each in (before, value.shape)]
        return node if kept[0] == kept[1] and value.size < np.prod(shape) else None
    if not isinstance(node.op, Primitive):
        return None
    if node.op.name in REDUCTIONS:
        return node if before == shape and len(_axes(node)) == 1 else None
    return node if node.op.name == "broadcast_in_dim" and _repeats(node, shape) else None


def _repeats(node: Node, shape: tuple[int, ...]) -> bool:
    """Is it one number a row, repeated along it?"""
    assert isinstance(node.op, Primitive)
    dims = [int(d) for d in node.op.equation.params["broadcast_dimensions"]]
    before = node.inputs[0].shape
    laid = [before[dims.index(axis)] if axis in dims else 1 for axis in range(len(shape))]
    differs = [axis for axis in range(len(shape)) if laid[axis] != shape[axis]]
    return len(node.inputs) == 1 and node.outputs[0].shape == shape and len(differs) == 1


def _is_elementwise(node: Node) -> bool:
    if not isinstance(node.op, Primitive) or len(node.outputs) != 1 or node.op.effects:
        return False
    return node.op.name in fold.ELEMENTWISE or node.op.name in OTHERS


def _axes(node: Node) -> set[int]:
    """The axes of a reduction."""
    if not isinstance(node.op, Primitive) or node.op.name not in REDUCTIONS:
        return set()
    return {int(axis) for axis in node.op.equation.params["axes"]}


def near(actual: np.ndarray, expected: np.ndarray) -> bool:
    """Are they equal but for how float32 rounds constants, to the largest of a row?"""
    if not np.array_equal(np.isnan(actual), np.isnan(expected)):
        return False
    most = np.nanmax(np.abs(expected), axis=1, keepdims=True, initial=1e-30)
    return bool((np.nan_to_num(np.abs(actual - expected)) <= CLOSE * most).all())
