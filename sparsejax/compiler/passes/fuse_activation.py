"""Activations told by their values: what a few equations make of samples of their one input."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from sparsejax.compiler.graph import fold
from sparsejax.compiler.graph.activation import recognise
from sparsejax.compiler.graph.edit import Edit, grown, is_float, made, number_of
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
    for source, nodes in reversed(list(_leading(edit, node))):
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


def _leading(edit: Edit, sink: Node) -> Iterator[tuple[Value, list[Node]]]:
    """Sets of nodes that lead from one float32 value of the sink's shape to the sink."""
    shape = sink.outputs[0].shape
    joins = lambda node: _is_elementwise(node) and node.outputs[0].shape == shape
    is_number = lambda value: number_of(value) is not None
    for sources, nodes in grown(edit, sink, joins, most=MAX_NODES, known=is_number):
        if len(sources) == 1 and sources[0].shape == shape and is_float(sources[0]):
            yield sources[0], nodes


def _evaluated(
    source: Value, nodes: Sequence[Node], output: Value, samples: np.ndarray
) -> np.ndarray | None:
    """What the nodes make of samples in place of the source; None where NumPy cannot tell."""
    values, double = {source: samples}, samples.dtype == np.float64
    for node in reversed(nodes):  # they were found from the last to the first
        inputs = []
        for value in node.inputs:
            number = number_of(value)
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
