"""Activations told by their values: what a few equations make of samples of their one input."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from sparsejax.compiler.graph import fold
from sparsejax.compiler.graph.activation import recognise
from sparsejax.compiler.graph.edit import Edit, constant_of, is_float, made
from sparsejax.compiler.graph.graph import Node, Value
from sparsejax.compiler.nodes.elementwise import Elementwise
from sparsejax.compiler.nodes.primitive import Primitive
from sparsejax.jaxprs import calls

MAX_NODES = 24  # of one activation; gelu has 9
OTHERS = ("integer_pow", "convert_element_type", *calls.CUSTOM)


def to_activation(edit: Edit, node: Node) -> bool:
    """The node and all before it that only it needs, as one activation: the largest that fits."""
    if not _is_elementwise(node) or not is_float(*node.outputs):
        return False
    # A prefix of a gelu is an activation too, so the largest set wins; of an unknown function the
    # smaller ones are tried, too.
    for source, nodes in reversed(list(_grown(edit, node))):
        function = partial(_evaluated, source, nodes, node.outputs[0])
        activation = recognise(function)
        if activation is None:
            continue
        if not activation:
            return edit.bypass(node, source) if len(nodes) > 1 else False
        op = Elementwise("identity", activation)
        return edit.replace(node, made(op, [source], source.shape))
    return False


def _is_elementwise(node: Node) -> bool:
    if not isinstance(node.op, Primitive) or len(node.outputs) != 1 or node.op.effects:
        return False
    return node.op.name in fold.ELEMENTWISE or node.op.name in OTHERS


def _number(value: Value) -> np.ndarray | None:
    """The one number that a constant holds, whatever its shape."""
    array = constant_of(value)
    if array is None or not (array.size == 1 or not any(array.strides)):
        return None
    return array.ravel()[:1] if array.size == 1 else array[(slice(0, 1),) * array.ndim].ravel()


def _grown(edit: Edit, sink: Node) -> Iterator[tuple[Value, list[Node]]]:
    """Sets of nodes that lead from one float32 value of the sink's shape to the sink.

    The set always grows by the latest writer that it alone reads, so that every value that all
    paths lead through is tried.
    """
    shape = sink.outputs[0].shape
    nodes, members = [sink], {sink}
    frontier = [v for v in dict.fromkeys(sink.inputs) if _number(v) is None]
    while frontier and len(nodes) <= MAX_NODES:
        if len(frontier) == 1 and frontier[0].shape == shape and is_float(frontier[0]):
            yield frontier[0], list(nodes)
        writers = [edit.writer.get(v) for v in frontier]
        inner = [
            writer
            for value, writer in zip(frontier, writers, strict=True)
            if writer is not None and value not in edit.outputs and value.shape == shape
            if _is_elementwise(writer) and all(r in members for r in edit.readers[value])
        ]
        if not inner:
            return
        latest = max(inner, key=lambda node: edit.slot[node])
        nodes.append(latest)
        members.add(latest)
        inputs = [v for v in latest.inputs if _number(v) is None]
        frontier = [v for v in dict.fromkeys([*frontier, *inputs]) if v is not latest.outputs[0]]


def _evaluated(
    source: Value, nodes: Sequence[Node], output: Value, samples: np.ndarray
) -> np.ndarray | None:
    """What the nodes make of samples in place of the source; None where NumPy cannot tell."""
    values, double = {source: samples}, samples.dtype == np.float64
    for node in reversed(nodes):  # they were found from the last to the first
        inputs = []
        for value in node.inputs:
            number = _number(value)
            if number is None:
                inputs.append(values[value])
            else:
                inputs.append(np.broadcast_to(number, samples.shape))
        assert isinstance(node.op, Primitive)
        try:
            results = fold.in_numpy(node.op.equation, inputs, double=double)
        except (ValueError, TypeError):  # the body depends on the shape
            return None
        if results is None or results[0].shape != samples.shape:
            return None
        values[node.outputs[0]] = results[0]
    return values[output]
