"""Graphs of several regions and loops as sequences of programs: xla_ops/files/sequence.h."""

import math
from collections.abc import Sequence
from typing import Any

from sparsejax.compiler.files import arithmetic, computed, items
from sparsejax.compiler.files.items import Apart
from sparsejax.compiler.files.needed import Loop, Part
from sparsejax.compiler.files.taken import Taken
from sparsejax.compiler.files.values import Sequences, Values
from sparsejax.compiler.graph.graph import Graph, Node, Region, Value
from sparsejax.compiler.graph.images import FIRST
from sparsejax.compiler.nodes.reshape import Reshape
from sparsejax.compiler.passes.channel_axes import channel_axes
from sparsejax.compiler.regions.split import form_of


def sequence_of(graph: Graph, parts: Sequence[Part], whole: Sequences) -> dict[str, Any]:
    """The sequence of a graph whose arrays have the items along their first axes.

    Args:
        graph: whose inputs and outputs these are.
        parts: of it, each of which `can_run`.
        whole: gets programs and constants.

    Raises:
        Apart: where the items of a batch meet.
    """
    made = Values(whole)
    for value in graph.inputs:
        made.enter(value, 1)
    _add(made, graph, parts)
    for value in graph.outputs:
        if value.constant is None and made.outers[value] != 1:
            raise Apart(f"an output of shape {value.shape} has other axes before that of the items")
        if whole.batch > 1 and value.shape[:1] != (whole.batch,):
            raise Apart(f"an output of shape {value.shape} has no axis of the items")
    return made.finish([made.id_of(value, 1) for value in graph.outputs])


def can_run(graph: Graph, part: Part) -> bool:
    """Can a sequence hold a part of a graph?"""
    if not isinstance(part, Node):
        return True
    moves = isinstance(part.op, Reshape) or items.is_view(part) or items.is_join(part)
    computes = arithmetic.is_reduction(part) or arithmetic.formula_of(part)
    return bool(moves or computes or _region(graph, part))


def _region(graph: Graph, node: Node) -> Region | None:
    """The region of a node alone, None where it is none."""
    form = form_of(node, channel_axes(graph).get(node))
    if form is None:
        return None
    read = list(dict.fromkeys(node.inputs))
    return Region([node], read, node.outputs, form.axis == 0, form.axis != FIRST)


def _add(to: Values, graph: Graph, parts: Sequence[Part]) -> None:
    for part in parts:
        if isinstance(part, Loop):
            _loop(to, part)
        elif isinstance(part, Region):
            _call(to, part)
        elif isinstance(part, Taken):
            computed.take(to, part)
        else:
            _node(to, graph, part)


def _node(to: Values, graph: Graph, part: Node) -> None:
    if isinstance(part.op, Reshape):
        _same(to, part)
    elif items.is_view(part):
        _view(to, part)
    elif items.is_join(part):
        _join(to, part)
    elif arithmetic.is_reduction(part):
        computed.reduced(to, part)
    elif formula := arithmetic.formula_of(part):
        computed.each_number(to, part, formula)
    else:
        region = _region(graph, part)
        assert region is not None, f"{part.op.name} cannot run"
        _call(to, region)


def _same(to: Values, node: Node) -> None:
    (value,), (output,) = node.inputs, node.outputs
    to.ids[output], to.outers[output] = to.ids[value], to.outers[value]


def _view(to: Values, node: Node) -> None:
    (value,), (output,) = node.inputs, node.outputs
    seen = items.view_of(node, to.outers[value], to.whole.batch)
    to.ids[output], to.outers[output] = to.viewed(seen, to.ids[value])


def _join(to: Values, node: Node) -> None:
    outers = [to.outers[value] for value in node.inputs]
    parts, outer = items.join_of(node, outers, to.whole.batch)
    inputs = [to.ids[value] for value in node.inputs]
    outputs = [to.enter(node.outputs[0], outer)]
    to.parts.append({"join": parts, "inputs": inputs, "outputs": outputs})


def _call(to: Values, region: Region) -> None:
    outer = to.outers[region.inputs[0]]
    meet = region.rows and any(node.op.rows_meet for node in region.nodes)  # type: ignore[attr-defined]
    rows = region.inputs[0].shape[-2] if meet else 1
    for value in (*region.inputs, *region.outputs):
        unit = rows * value.shape[-1] if region.rows else math.prod(value.shape[1:])
        items.check_whole(value, outer, to.whole.batch, unit)
    inputs = [to.id_of(value, outer) for value in region.inputs]
    outputs = [to.enter(value, outer) for value in region.outputs]
    to.run(to.whole.program(region, rows), inputs, outputs)


def _loop(to: Values, loop: Loop) -> None:
    """Where the items lie in constants that are carried or scanned is found by trying."""
    unknown = [value for value in loop.inputs if value.constant is not None]
    axes = range(max((len(value.shape) for value in unknown), default=1))
    apart = []
    for axis in axes:
        try:
            with to.whole.attempt():
                return _loop_along(to, loop, axis)
        except Apart as error:
            apart.append(error)
    raise apart[0]


def _loop_along(to: Values, loop: Loop, axis: int) -> None:
    """The loop, if items lie along this axis of the constants of a turn."""
    body, inner = loop.op.bodies[0], Values(to.whole)
    first, count = len(loop.shared) + len(loop.carried), loop.op.num_carried
    times = loop.op.length if to.whole.batch > 1 else 1
    if any(to.outers.get(value, times) % times for value in loop.inputs[first:]):
        raise Apart("a loop goes along the axis of the items")
    outers = []
    for i, place in enumerate(loop.places):
        own, rows = body.inputs[place], times if i >= first else 1
        outer = _outer_of(to, loop.node.inputs[place], axis, rows, own)
        inner.enter(own, outer)
        outers.append(rows * outer)
    _add(inner, body, loop.body)
    stacks = [body.outputs[count + i] for i in loop.stacked]
    stack_outers = [_outer_of(inner, value, axis, 1, value) for value in stacks]
    handed_on = [_carried(inner, body, loop, i) for i in loop.carried]
    made = inner.finish([*handed_on, *map(inner.id_of, stacks, stack_outers)])
    inputs = [to.id_of(value, o) for value, o in zip(loop.inputs, outers, strict=True)]
    returned = [*loop.carried, *(count + i for i in loop.stacked)]
    where = [*outers[len(loop.shared) : first], *(times * outer for outer in stack_outers)]
    outputs = [to.enter(loop.node.outputs[i], o) for i, o in zip(returned, where, strict=True)]
    options: dict[str, Any] = {"reverse": True} if loop.op.reverse else {}
    options |= {"shared": len(loop.shared), "carried": len(loop.carried)}
    ends = {"inputs": inputs, "outputs": outputs, "body": made}
    to.parts.append({"loop": loop.op.length, **options, **ends})


def _outer_of(to: Values, value: Value, axis: int, rows: int, own: Value) -> int:
    """Where the items of what a turn has of a value lie; in a constant along `axis`.

    Args:
        value: that there is.
        axis: of a constant in a turn.
        rows: how many turns' parts the value holds.
        own: what a turn has of it.
    """
    if value.constant is None:
        return to.outers[value] // rows
    if to.whole.batch == 1:
        return 1
    if own.shape[axis : axis + 1] != (to.whole.batch,):
        raise Apart(f"an array of shape {own.shape} is not one for each item")
    return math.prod(own.shape[:axis])


def _carried(to: Values, body: Graph, loop: Loop, i: int) -> int:
    """What a turn hands on: made in it, or what it was given in the same place."""
    before, after = body.inputs[loop.op.num_shared + i], body.outputs[i]
    number = to.id_of(after, to.outers[before])
    if after is before or number >= len(loop.places):
        return number
    copy = to.new(to.values[number])
    to.parts.append({"view": [to.values[number], 1], "inputs": [number], "outputs": [copy]})
    return copy
