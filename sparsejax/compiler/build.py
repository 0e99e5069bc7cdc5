"""A graph as a function of arrays: one custom call for each region, XLA for what is between."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sparsejax.compiler.engine.call import region_call
from sparsejax.compiler.graph.graph import Graph, Node, Region, Value
from sparsejax.compiler.graph.interpret import interpreter
from sparsejax.compiler.layouts.select import Choice
from sparsejax.compiler.layouts.tune import Chooser
from sparsejax.compiler.nodes.control import Control


class Built(NamedTuple):
    """The calls of a graph's regions, and what was chosen for their products."""

    calls: dict[Region, Callable]
    choices: dict[Node, Choice]


def build(schedule: Sequence[Region | Node], chooser: Chooser) -> Built:
    """Packs the regions of a graph.

    Args:
        schedule: its regions and what is left in XLA.
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
        elif isinstance(region.op, Control):
            for body in region.op.bodies:
                inner = build(body.schedule, chooser)
                calls |= inner.calls
                choices |= inner.choices
    return Built(calls, choices)


def assembled(
    graph: Graph, schedule: Sequence[Region | Node], calls: Mapping[Region, Callable]
) -> Callable:
    """The graph as a function of its inputs that returns the list of its outputs.

    Args:
        graph: whose inputs and outputs these are.
        schedule: its regions and what is left in XLA, in an order that they can run in.
        calls: of the regions; those without one run in XLA.
    """
    call_of = {part: _call(part, calls) for part in schedule}

    def run(*inputs: jax.Array) -> list[jax.Array]:
        env: dict[Value, Any] = dict(zip(graph.inputs, inputs, strict=True))

        def read(value: Value) -> Any:
            return env[value] if value.constant is None else value.constant

        for part in schedule:
            call = call_of[part]
            env.update(zip(part.outputs, call(*map(read, part.inputs)), strict=True))
        return [jnp.asarray(read(value)) for value in graph.outputs]

    return run


def _call(part: Region | Node, calls: Mapping[Region, Callable]) -> Callable:
    """A part as a function of its inputs that returns the list of its outputs."""
    if isinstance(part, Region):
        return calls.get(part) or interpreter(part.nodes, part.inputs, part.outputs)
    if not isinstance(part.op, Control):
        return part.op.evaluate
    return partial(part.op.run, [assembled(body, body.schedule, calls) for body in part.op.bodies])
