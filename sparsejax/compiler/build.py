"""A graph as a function of arrays: one custom call for each region, XLA for what is between."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sparsejax.compiler.engine.call import Programs, region_call
from sparsejax.compiler.graph.graph import Graph, Node, Region, Value
from sparsejax.compiler.graph.interpret import interpreter
from sparsejax.compiler.layouts.select import Choice
from sparsejax.compiler.layouts.tune import NOTHING_HELD, Chooser, Held
from sparsejax.compiler.nodes.control import Control
from sparsejax.compiler.shelf import Packed, Shelf
from sparsejax.patterns.layout import COLUMNS


class Built(NamedTuple):
    """A graph's regions as they are packed, the calls of them, and the choices for products."""

    packed: dict[Region, Packed]
    calls: dict[Region, Callable]
    choices: dict[Node, Choice]


def build(schedule: Sequence[Region | Node], chooser: Chooser, shelf: Shelf) -> Built:
    """Packs the regions of a graph, but for what another shape has packed.

    Args:
        schedule: its regions and what is left in XLA.
        chooser: decides how the products of each region are stored.
        shelf: where packed regions are found.
    """
    built = Built({}, {}, {})
    for region in schedule:
        if isinstance(region, Region):
            packed = built.packed[region] = _packed(region, chooser, shelf)
            built.calls[region] = region_call(region, packed.programs)
            chosen = zip(region.nodes, packed.choices, strict=True)
            built.choices.update({node: choice for node, choice in chosen if choice})
        elif isinstance(region.op, Control):
            for body in region.op.bodies:
                inner = build(body.schedule, chooser, shelf)
                built.packed.update(inner.packed)
                built.calls.update(inner.calls)
                built.choices.update(inner.choices)
    return built


def _packed(region: Region, chooser: Chooser, shelf: Shelf) -> Packed:
    with shelf.choosing(region):
        packed = shelf.find(region)
        if packed is None:
            packed = _chosen(region, chooser, shelf)
            shelf.put(region, packed)
    shape = region.inputs[0].shape if region.rows else ()  # others pack for other numbers of rows
    own = (f"{key} {shape}" for key in packed.keys)
    chooser.keys |= dict(zip(region.nodes, own, strict=True))
    return packed


def _chosen(region: Region, chooser: Chooser, shelf: Shelf) -> Packed:
    choices = chooser(region, _held(region, shelf))
    layouts = {node: choice.layout for node, choice in choices.items()}
    programs = Programs(region, layouts, isa=chooser.isas.get(region, ""))
    keys = [chooser.keys.get(node, "") for node in region.nodes]
    return Packed(programs, list(map(choices.get, region.nodes)), keys)


def _held(region: Region, shelf: Shelf) -> Held:
    other = shelf.find_other(region)
    if other is None:
        return NOTHING_HELD
    layouts = {
        node: choice.layout
        for node, choice in zip(region.nodes, other.choices, strict=True)
        # Zeros were counted for the other number of rows alone.
        if choice and choice.layout.storage != COLUMNS
    }
    return Held(layouts, other.programs.strips["isa"])


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
