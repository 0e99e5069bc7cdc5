"""What a function's values are on an example: how many zeros each layer meets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from sparsejax.compiler.graph.graph import Graph, Node, Region, Value
from sparsejax.compiler.graph.interpret import interpreter, with_weights
from sparsejax.compiler.layouts.select import Traits
from sparsejax.doors import named
from sparsejax.patterns.layout import COLUMNS, Layout

MOST = 0.7  # of a layer's input that may be other than zero where skipping zeros is tried
SKIPPING = Layout(COLUMNS, 1)


@dataclass
class Seen:
    """The values of a graph on an example, or none."""

    values: Mapping[Value, np.ndarray] = field(default_factory=dict)

    def density(self, node: Node) -> float:
        """What fraction of a product's input is not zero; 1 where that is not known."""
        x = self.values.get(node.inputs[0])
        return 1.0 if x is None or not x.size else np.count_nonzero(x) / x.size

    def operands(self, region: Region) -> list[np.ndarray]:
        """One image, or all rows, of each input of a region; nothing where they are not known."""
        if any(value not in self.values for value in region.inputs):
            return []
        images = (self.values[v] if region.rows else self.values[v][:1] for v in region.inputs)
        return [np.ascontiguousarray(image, np.float32).ravel() for image in images]


def seen(graph: Graph, inputs: Sequence[Any]) -> Seen:
    """What the graph computes from these inputs, outside of its loops."""
    values = [v for node in graph.nodes for v in node.outputs]
    with jax.ensure_compile_time_eval():  # inside jit, too
        arrays = with_weights(interpreter(graph.nodes, graph.inputs, values), inputs)()
    given = zip(graph.inputs, inputs, strict=True)
    return Seen({v: np.asarray(array) for v, array in (*given, *zip(values, arrays, strict=True))})


def counted_in(example: tuple, tune: bool) -> tuple:
    """Examples of inputs, if zeros can be counted in them and what is faster be measured."""
    if not tune:
        raise ValueError(
            "compile needs tune=True with skip_zeros=True: it measures what is faster."
        )
    for leaf in jax.tree.leaves(example):
        if isinstance(leaf, jax.ShapeDtypeStruct | jax.core.Tracer):
            raise ValueError(
                "compile needs example arrays with skip_zeros=True, in which it counts zeros, got "
                f"{named(leaf)}; pass real data."
            )
    return example


def may_skip(traits: Traits) -> bool:
    """Is skipping the zeros of a layer's input worth a trial?

    Weights that are zero are never multiplied, whatever they meet; here all of them are.
    """
    return bool(traits.density <= MOST and traits.stored[0] == 1 and traits.groups == 1)
