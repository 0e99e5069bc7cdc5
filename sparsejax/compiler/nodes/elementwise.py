"""Arithmetic on each element: sums, gates and activations, drawn into layers where that goes."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from sparsejax.compiler.engine.program import Builder
from sparsejax.compiler.graph.activation import IDENTITY, Activation
from sparsejax.compiler.graph.edit import Edit, is_float, made
from sparsejax.compiler.graph.graph import FLOAT32, Node, Value, broadcasts
from sparsejax.compiler.graph.images import EITHER, one_a_channel, one_a_pixel
from sparsejax.compiler.graph.op import MappingType
from sparsejax.compiler.nodes.layer import Layer
from sparsejax.compiler.nodes.op import RegionOp, Rules, last_axis, with_activation
from sparsejax.compiler.nodes.primitive import Primitive
from sparsejax.compiler.nodes.reshape import Reshape

AFFINE, BINARY = "affine", "binary"  # in xla_ops/engine/codes.def
IN_JAX: dict[str, Any] = {
    "add": jnp.add,
    "sub": jnp.subtract,
    "mul": jnp.multiply,
    "max": jnp.maximum,
    "min": jnp.minimum,
    "div": jnp.divide,
}
ORDERED = ("sub", "div")  # a and b are not the same as b and a
# x, and b times x below 0; at 0 they differ in what their derivative is.
SLOPES: dict[str, Any] = {
    "slope": lambda a, b: jnp.where(a > 0, a, a * b),
    "slope_below": lambda a, b: jnp.where(a >= 0, a, a * b),
}
# That stand in files alone: XLA runs them between regions.
IN_FILES: dict[str, Any] = {
    "less_equal": lambda a, b: (a <= b).astype(a.dtype),
    "keep": lambda a, b: jnp.where(b != 0, a, 0),
    "quotient": lambda a, b: jnp.trunc(a / b),
}


@dataclass(frozen=True)
class Elementwise(RegionOp):
    """activation(a kind b).

    Attributes:
        kind: "add", "sub", "mul", "max", "min", "div" or one of SLOPES of [a, b], in files also
            "less_equal" (1 or 0), "keep" (a where b is not 0, else 0) and "quotient", or "identity"
            of [a]. b has a's shape, or is one number per image and channel, (N, 1, 1, C) or
            (N, C, 1, 1), or one per pixel or row, (..., 1) or (N, 1, H, W).
        activation: of the result.
    """

    kind: str
    activation: Activation = IDENTITY

    def __str__(self) -> str:
        """Kind and activation."""
        if self.kind == "identity":
            return f"Elementwise {self.activation}"
        return f"Elementwise {self.kind}{with_activation(self.activation)}"

    def channel_axes(self, node: Node) -> frozenset[int]:
        """Those along which the other input is one number for each image and channel."""
        x, *others = (value.shape for value in node.inputs)
        if len(node.outputs[0].shape) != 4:
            return last_axis(node)
        if all(other == x for other in others):
            return EITHER
        laid = (one_a_channel, one_a_pixel)
        return frozenset(a for a in EITHER if any(others[0] == shape(x, a) for shape in laid))

    def before_change(self, to_last: bool) -> "Elementwise":
        return self

    def evaluate(self, a: jax.Array, *b: jax.Array) -> list[jax.Array]:
        if self.kind != "identity":
            a = (IN_JAX | SLOPES | IN_FILES)[self.kind](a, *b)
        return [self.activation(a)]

    def mapping(self, node: Node) -> MappingType:
        return MappingType.ONE_TO_MANY if broadcasts(node) else MappingType.ONE_TO_ONE

    def lower(self, node: Node, to: Builder) -> None:
        """A step, but for gates that products take in."""
        if self.kind == "identity":
            return to.add(node, AFFINE, activation=self.activation)
        if self._is_gate(node, to):
            a, b = (to.ids[value] for value in node.inputs)
            to.gates[node.outputs[0]] = (a, b)
            return None
        binary = "slope" if self.kind in SLOPES else self.kind
        return to.add(node, BINARY, activation=self.activation, binary=binary)

    def _is_gate(self, node: Node, to: Builder) -> bool:
        """One number a channel, for products alone: they multiply while they gather columns.

        Never of rows: one row looks like a gate, but the same program runs many.
        """
        output = node.outputs[0]
        if self.kind != "mul" or self.activation or output in to.region.outputs or to.region.rows:
            return False
        a, b = (to.sizes[to.ids[value]] for value in node.inputs)
        if b != (a[0], 1, 1):
            return False
        users = [user for user in to.region.nodes if output in user.inputs]
        return all(
            isinstance(user.op, Layer) and user.op.is_product and output not in user.inputs[1:]
            for user in users
        )


def to_elementwise(edit: Edit, node: Node) -> bool:
    """Arithmetic on two computed arrays of one shape, or with a gate."""
    if not isinstance(node.op, Primitive) or node.op.name not in IN_JAX:
        return False
    if not is_float(*node.inputs, *node.outputs):
        return False
    if any(value.constant is not None for value in node.inputs):
        return False
    a, b = node.inputs
    if a.shape != b.shape and node.op.name not in ORDERED and is_gate(b, a):
        a, b = b, a
    if a.shape != b.shape and not is_gate(a, b):
        return False
    op = Elementwise(node.op.name)
    return edit.replace(node, made(op, [a, b], node.outputs[0].shape))


def is_gate(x: Value, gate: Value) -> bool:
    """Is `gate` one number for each image and channel of `x`, or for each pixel or row?"""
    rank = len(x.shape)
    if len(gate.shape) != rank or rank < 2:
        return False
    if rank != 4:
        return gate.shape == one_a_pixel(x.shape, rank - 1)
    return any(gate.shape in (one_a_channel(x.shape, a), one_a_pixel(x.shape, a)) for a in EITHER)


def broadcast_gate(edit: Edit, node: Node) -> bool:
    """A gate that was broadcast to the image needs not be."""
    if not isinstance(node.op, Elementwise) or len(node.inputs) != 2:
        return False
    # x - gate is a step of the engine, gate - x is not; most others may be turned around.
    for position in (1,) if node.op.kind in ORDERED else (1, 0):
        x, other = node.inputs[1 - position], node.inputs[position]
        writer = edit.writer.get(other)
        if writer is None or not isinstance(writer.op, Primitive) or not is_float(*writer.inputs):
            continue
        if writer.op.name != "broadcast_in_dim" or len(writer.inputs) != 1 or len(x.shape) != 4:
            continue
        source = writer.inputs[0]
        dims = tuple(int(d) for d in writer.op.equation.params["broadcast_dimensions"])
        shape = tuple(source.shape[dims.index(i)] if i in dims else 1 for i in range(4))
        whole = x.shape == node.outputs[0].shape
        if source.constant is not None or not (whole and is_gate(x, Value(shape, FLOAT32))):
            continue
        gate = made(Reshape(shape), [source], shape)
        joined = made(node.op, [x, gate.outputs[0]], node.outputs[0].shape)
        return edit.replace(node, gate, joined)
    return False


def into_layer(edit: Edit, node: Node) -> bool:
    """An addition becomes the residual of the later of the layers that it follows."""
    op = node.op
    if not isinstance(op, Elementwise) or op.kind != "add":
        return False
    a, b = node.inputs
    if a is b or a.shape != b.shape:
        return False
    layers = [edit.sole_writer(value, Layer) for value in (a, b)]
    open_to = [layer for layer in layers if layer and _takes_residual(layer)]
    if not open_to:
        return False
    layer = max(open_to, key=lambda node: edit.slot[node])
    own: Any = layer.op
    other = b if layer.outputs[0] is a else a
    changed = own.changed(activation=op.activation)
    return edit.replace(node, made(changed, [layer.inputs[0], other], node.outputs[0].shape))


def _takes_residual(node: Node) -> bool:
    return isinstance(node.op, Layer) and len(node.inputs) == 1 and not node.op.activation


def activation_into(edit: Edit, node: Node) -> bool:
    """An activation runs with what computed its input."""
    activation = activation_of(node)
    if activation is None:
        return False
    before = edit.sole_writer(node.inputs[0], RegionOp)
    if before is None or getattr(before.op, "activation", None) != IDENTITY:
        return False
    op: Any = before.op
    changed = replace(op, activation=activation)
    return edit.replace(node, made(changed, before.inputs, node.outputs[0].shape))


def activation_of(node: Node) -> Activation | None:
    """The activation that a node is and nothing else."""
    if isinstance(node.op, Elementwise) and node.op.kind == "identity":
        return node.op.activation
    return None


RULES = Rules(
    named=(to_elementwise,), joined=(broadcast_gate,), fused=(into_layer, activation_into)
)
