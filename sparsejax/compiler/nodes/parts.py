"""Experts: stacks of linear layers, one after the other.

What cuts and joins them stays in XLA; their products run in regions.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.compiler.graph.edit import Edit, constant_of, is_float, made
from sparsejax.compiler.graph.graph import Node
from sparsejax.compiler.graph.op import MappingType
from sparsejax.compiler.nodes.linear import Linear
from sparsejax.compiler.nodes.op import Rules
from sparsejax.compiler.nodes.primitive import Primitive

MOST_EXPERTS = 64


@dataclass(frozen=True)
class Part:
    """The i-th along the first axis."""

    index: int
    effects = False
    name = "Part"

    def __str__(self) -> str:
        """Which."""
        return f"Part {self.index}"

    def evaluate(self, x: jax.Array) -> list[jax.Array]:
        return [x[self.index]]

    def mapping(self, node: Node) -> MappingType:
        return MappingType.ONE_TO_ONE


@dataclass(frozen=True)
class Stack:
    """All inputs along a new first axis."""

    effects = False
    name = "Stack"

    def __str__(self) -> str:
        """The kind."""
        return self.name

    def evaluate(self, *parts: jax.Array) -> list[jax.Array]:
        return [jnp.stack(parts)]

    def mapping(self, node: Node) -> MappingType:
        return MappingType.ONE_TO_ONE


def to_experts(edit: Edit, node: Node) -> bool:
    """A product of stacks (experts, rows, in) @ (experts, in, out), an expert after the other."""
    if not (isinstance(node.op, Primitive) and node.op.name == "dot_general"):
        return False
    (contracted, batch), (x, stack) = node.op.equation.params["dimension_numbers"], node.inputs
    weights = constant_of(stack)
    if weights is None or x.constant is not None or not is_float(*node.inputs, *node.outputs):
        return False
    if weights.ndim != 3 or len(x.shape) != 3 or not 0 < len(weights) <= MOST_EXPERTS:
        return False
    own, other = (tuple(int(axis) for axis in axes) for axes in contracted)
    if batch != ((0,), (0,)) or own != (2,) or other not in ((1,), (2,)):
        return False
    if not np.isfinite(weights).all():
        return edit.refuse(node, "weights are not finite")
    matrices = weights if other == (1,) else weights.swapaxes(1, 2)
    nodes, products = [], []
    for index, matrix in enumerate(matrices):
        part = made(Part(index), [x], x.shape[1:])
        op = Linear(matrix, np.zeros(matrix.shape[1]), stack.path and f"{stack.path}[{index}]")
        product = made(op, part.outputs, (x.shape[1], matrix.shape[1]))
        nodes += [part, product]
        products += product.outputs
    return edit.replace(node, *nodes, made(Stack(), products, node.outputs[0].shape))


RULES = Rules(named=(to_experts,))
