"""What nodes would compute alike is computed once: the angles of all layers, or their mask."""

from collections.abc import Hashable
from dataclasses import fields
from typing import Any

import numpy as np

from sparsejax.compiler.graph.edit import Edit
from sparsejax.compiler.graph.graph import Node, Value
from sparsejax.compiler.nodes.known import Known
from sparsejax.compiler.nodes.layer import Layer
from sparsejax.compiler.nodes.op import RegionOp
from sparsejax.compiler.nodes.primitive import Primitive
from sparsejax.compiler.nodes.transpose import Transpose

MAX_COMPARED = 1 << 16  # numbers of a constant


def share(edit: Edit) -> None:
    """Let one node make what several would, where none of them has weights."""
    made_by: dict[Hashable, Node] = {}
    for node in [node for slot in edit.slots for node in slot]:
        key = _key(node)
        if key is None:
            continue
        first = made_by.setdefault(key, node)
        if first is not node:
            edit.bypass(node, *first.outputs)


def _key(node: Node) -> Hashable:
    """Equal where nodes compute the same; None where they are not compared."""
    if node.op.effects or not node.outputs:
        return None
    shape, op = node.outputs[0].shape, node.op
    if isinstance(op, Known):  # whatever it stands beside
        return Known, shape, op.channels_last, op.numbers.tobytes()
    inputs = tuple(map(_identity, node.inputs))
    if isinstance(op, RegionOp | Transpose) and not isinstance(op, Layer):
        own = (getattr(op, field.name) for field in fields(op))  # type: ignore[arg-type]
        return type(op), shape, tuple(map(_field, own)), inputs
    if not isinstance(op, Primitive):
        return None
    params = op.equation.params
    if not all(map(_is_told_by_its_text, params.values())):
        return None
    return op.name, repr(sorted(params.items())), inputs


def _is_told_by_its_text(parameter: Any) -> bool:
    """Not a function, and nothing that holds one."""
    if isinstance(parameter, tuple | list):
        return all(map(_is_told_by_its_text, parameter))
    plain = isinstance(parameter, np.dtype | type) or not callable(parameter)
    return plain and not hasattr(parameter, "eqns") and not hasattr(parameter, "jaxpr")


def _identity(value: Value) -> Hashable:
    return id(value) if value.constant is None else _field(value.constant)


def _field(x: Any) -> Hashable:
    if not isinstance(x, np.ndarray):
        return x if isinstance(x, Hashable) else id(x)
    return id(x) if x.size > MAX_COMPARED else (x.shape, x.dtype.str, x.tobytes())
