"""A graph as a function of arrays: one custom call for each region, XLA for what is between."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sparsejax.compiler.engine.call import region_call
from sparsejax.compiler.graph.graph import Graph, Node, Region, Value
from sparsejax.compiler.layouts.select import Choice
from sparsejax.compiler.layouts.tune import Chooser


class Built(NamedTuple):
    """A function of a graph's inputs that returns the list of its outputs, and what was chosen."""

    run: Callable
    choices: dict[Node, Choice]


def build(graph: Graph, schedule: Sequence[Region | Node], chooser: Chooser) -> Built:
    """Packs the regions of a graph.

    Args:
        graph: whose inputs and outputs these are.
        schedule: its regions and what is left in XLA, in an order that they can run in.
        chooser: decides how the products of each region are stored.
    """
    choices: dict[Node, Choice] = {}
    calls: dict[Region, Callable] = {}
    for region in schedule:
        if isinstance(region, Region):
            chosen = chooser(region)
            layouts = {node: choice.layout for node, choice in chosen.items()}
            calls[region] = region_call(region, layouts)
            choices |= chosen

    def run(*inputs: jax.Array) -> list[jax.Array]:
        env: dict[Value, Any] = dict(zip(graph.inputs, inputs, strict=True))

        def read(value: Value) -> Any:
            return env[value] if value.constant is None else value.constant

        for part in schedule:
            arrays = map(read, part.inputs)
            call = calls[part] if isinstance(part, Region) else part.op.evaluate
            outputs = call(*arrays)
            env.update(zip(part.outputs, outputs, strict=True))
        return [jnp.asarray(read(value)) for value in graph.outputs]

    return Built(run, choices)
