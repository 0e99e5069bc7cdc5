"""Softmax over the channels, told by its values."""

from dataclasses import dataclass

import jax
import numpy as np
from scipy.special import softmax

from sparsejax.compiler.engine.program import Builder
from sparsejax.compiler.graph.edit import Edit
from sparsejax.compiler.graph.graph import Node
from sparsejax.compiler.graph.images import is_channel
from sparsejax.compiler.graph.op import MappingType
from sparsejax.compiler.nodes.op import ChannelsOp, Rules
from sparsejax.compiler.nodes.sampled import Along, functions_to, near

SOFTMAX = "softmax"  # in xla_ops/engine/codes.def


@dataclass(frozen=True)
class Softmax(ChannelsOp):
    """exp(x) / sum, over the channels; NaN where all are -inf."""

    axis: int

    def __str__(self) -> str:
        """Axis."""
        return f"Softmax axis {self.axis}"

    def evaluate(self, x: jax.Array) -> list[jax.Array]:
        return [jax.nn.softmax(x, self.axis)]

    def mapping(self, node: Node) -> MappingType:
        return MappingType.MANY_TO_MANY

    def lower(self, node: Node, to: Builder) -> None:
        """One step."""
        to.add(node, SOFTMAX)


def to_softmax(edit: Edit, node: Node) -> bool:
    """The equations of a softmax, however they are spelled."""
    for function in reversed(list(functions_to(edit, node))):
        if is_channel(function.axis, len(function.source.shape)) and is_softmax(function):
            return edit.replace(node, *function.through(Softmax(function.axis)))
    return False


def is_softmax(function: Along) -> bool:
    """Is a function of rows a softmax, where some are large, or infinite?"""
    if not any(node.op.name == "exp" for node in function.nodes):
        return False
    rows = np.random.default_rng(0).normal(size=(6, function.length))
    rows[1] *= 30
    rows[2] += 800
    rows[3, 0] = -np.inf
    rows[4] = -np.inf
    rows[5, -1] = np.nan
    with np.errstate(all="ignore"):
        actual = function(rows)
        return actual is not None and near(actual, softmax(rows, axis=1))


RULES = Rules(sampled=(to_softmax,))
