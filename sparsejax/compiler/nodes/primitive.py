"""Everything else: an equation of the jaxpr, which stays in XLA."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.extend.core import Literal

from sparsejax.compiler.graph import fold
from sparsejax.compiler.graph.edit import is_float
from sparsejax.compiler.graph.graph import Node, Value, broadcasts
from sparsejax.compiler.graph.images import sides
from sparsejax.compiler.graph.op import MappingType

_NAMES = {
    MappingType.ONE_TO_MANY: "gather dynamic_slice resize",
    MappingType.MANY_TO_MANY: "conv_general_dilated dot_general ragged_dot cumsum cumprod cummax "
    "cummin cumlogsumexp reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or "
    "reduce_window_sum reduce_window_max reduce_window_min argmax argmin sort top_k",
    MappingType.REORGANIZE: "reshape squeeze expand_dims",
    MappingType.SHUFFLE: "transpose rev",
    MappingType.OPAQUE: "scan while cond custom_call ffi_call sparsejax_kernel pure_callback "
    "io_callback random_bits threefry2x32 random_seed random_wrap random_unwrap scatter "
    "scatter-add dynamic_update_slice",
}
_MAPPING_OF = {name: mapping for mapping, names in _NAMES.items() for name in names.split()}


@dataclass(frozen=True, eq=False)
class Primitive:
    """An equation of the jaxpr."""

    equation: Any

    @property
    def name(self) -> str:
        """The primitive's name in JAX."""
        return self.equation.primitive.name

    @property
    def effects(self) -> bool:
        return bool(self.equation.effects)

    def __str__(self) -> str:
        """The primitive's name."""
        return self.name

    def evaluate(self, *inputs: jax.Array) -> list[jax.Array]:
        outputs = fold.bind(self.equation.primitive, self.equation.params, *inputs)
        return list(outputs) if self.equation.primitive.multiple_results else [outputs]

    def mapping(self, node: Node) -> MappingType:
        found = _MAPPING_OF.get(self.name)
        if found is None and broadcasts(node, grows=self.name == "broadcast_in_dim"):
            return MappingType.ONE_TO_MANY
        return found or MappingType.ONE_TO_ONE


def equations(function: Callable, inputs: Sequence[Value], nodes: list[Node]) -> list[Value]:
    """The outputs of a function of values, whose equations become nodes behind the others."""
    closed = jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct(v.shape, v.dtype) for v in inputs))
    known = lambda array: Value(np.shape(array), np.asarray(array).dtype, np.asarray(array))
    values = dict(zip(closed.jaxpr.constvars, map(known, closed.consts), strict=True))
    values |= dict(zip(closed.jaxpr.invars, inputs, strict=True))
    read = lambda atom: known(atom.val) if isinstance(atom, Literal) else values[atom]
    for equation in closed.jaxpr.eqns:
        written = [Value(v.aval.shape, v.aval.dtype) for v in equation.outvars]
        values |= dict(zip(equation.outvars, written, strict=True))
        nodes.append(Node(Primitive(equation), list(map(read, equation.invars)), written))
    return list(map(read, closed.jaxpr.outvars))


def reduction(node: Node, *names: str) -> dict[str, Any] | None:
    """The parameters of an equation on one computed float32 image."""
    if not isinstance(node.op, Primitive) or node.op.name not in names:
        return None
    if node.inputs[0].constant is not None or not is_float(*node.inputs, *node.outputs):
        return None
    return node.op.equation.params


def reduced_sides(node: Node, name: str) -> bool | None:
    """Where a reduction takes the height and width of an image away: are its channels last?"""
    params = reduction(node, name)
    if params is None or len(node.inputs[0].shape) != 4 or 0 in node.inputs[0].shape:
        return None
    axes = tuple(sorted(int(axis) for axis in params["axes"]))
    return next((last for last in (True, False) if sides(last) == axes), None)
