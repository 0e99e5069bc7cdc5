"""Rows of the report for layers that stay in XLA: other ranks, other products, loops."""

import math
from typing import Any

import jax
import numpy as np

from sparsejax.compiler.graph.graph import Graph, Node, Value
from sparsejax.compiler.nodes.primitive import Primitive
from sparsejax.compiler.passes.loops import LAYER_NAMES
from sparsejax.compiler.reports.layer_report import LayerReport
from sparsejax.jaxprs import calls
from sparsejax.jaxprs.multiply_adds import multiply_adds

HOLDERS = (*LAYER_NAMES, *calls.INLINED, *calls.CUSTOM, "scan", "while", "cond")


def left_layers(graph: Graph, node: Node) -> list[LayerReport]:
    """A row for each constant that an equation multiplies by, none for other equations."""
    weights = [value for value in node.inputs if isinstance(value.constant, np.ndarray)]
    if not weights or len(weights) == len(node.inputs) or not isinstance(node.op, Primitive):
        return []
    if node.op.name not in HOLDERS:
        return []
    counts = _counted(node, node.op)
    reason = graph.reasons.get(node) or f"inside {node.op.name}, which runs in XLA"
    return [
        _row(node, value, counts[str(index)], reason)
        for index, value in enumerate(node.inputs)
        if str(index) in counts
    ]


def _counted(node: Node, op: Primitive) -> dict[str, int]:
    """The multiply-adds of the constants among an equation's inputs, by their place."""
    known = {
        str(index): value.constant
        for index, value in enumerate(node.inputs)
        if isinstance(value.constant, np.ndarray)
    }
    others = [v for index, v in enumerate(node.inputs) if str(index) not in known]

    def again(weights: dict[str, Any], *computed: Any) -> Any:
        rest = iter(computed)
        inputs = (
            weights[str(index)] if str(index) in known else next(rest)
            for index in range(len(node.inputs))
        )
        return op.evaluate(*inputs)

    shapes = [_like(value) for value in others]
    return multiply_adds(again, {name: _shape(array) for name, array in known.items()}, *shapes)


def _like(value: Value) -> Any:
    if value.constant is not None:  # keys
        return value.constant
    return jax.ShapeDtypeStruct(value.shape, value.dtype)


def _shape(array: np.ndarray) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype)


def _row(node: Node, weights: Value, multiply_adds: int, reason: str) -> LayerReport:
    array = weights.constant
    nonzero = int(np.count_nonzero(array))
    return LayerReport(
        path=weights.path,
        kind=_kind(node),
        shape=array.shape,
        sparsity=1 - nonzero / max(array.size, 1),
        kernel="xla",
        pattern="dense",
        activation="",
        microseconds=math.nan,
        break_even=math.nan,
        reason=reason,
        region=-1,
        multiply_adds=multiply_adds,
        sparse_multiply_adds=multiply_adds * nonzero // max(array.size, 1),
    )


def _kind(node: Node) -> str:
    assert isinstance(node.op, Primitive)
    name, params = node.op.name, node.op.equation.params
    if name not in LAYER_NAMES:
        return name
    if name == "dot_general":
        return "product"
    transposed = any(step != 1 for step in params["lhs_dilation"])
    return f"{len(node.inputs[0].shape) - 2}-D {'transposed ' * transposed}convolution"
