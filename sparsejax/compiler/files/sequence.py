"""Graphs of several regions and loops as sequences of programs: xla_ops/files/sequence.h."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from sparsejax.compiler.files import arithmetic, items
from sparsejax.compiler.files.items import Apart
from sparsejax.compiler.files.needed import Loop, Part
from sparsejax.compiler.graph.graph import Graph, Node, Region, Value
from sparsejax.compiler.graph.images import FIRST
from sparsejax.compiler.nodes.reshape import Reshape
from sparsejax.compiler.nodes.transpose import Transpose
from sparsejax.compiler.passes.channel_axes import channel_axes
from sparsejax.compiler.regions.split import form_of


class Called(NamedTuple):
    """A program of a sequence: a region, and how many rows of it belong together."""

    region: Region
    rows: int


@dataclass
class Sequences:
    """What the sequences of a file, one for each loop, have in common.

    Attributes:
        batch: of the arrays, 1 where nothing is an item.
        programs: that are called.
        constants: one behind the other.
    """

    batch: int
    programs: list[Called] = field(default_factory=list)
    constants: list[np.ndarray] = field(default_factory=list)

    def program(self, region: Region, rows: int = 1) -> int:
        """The number of a program, which equal calls share."""
        called = Called(region, rows)
        if called not in self.programs:
            self.programs.append(called)
        return self.programs.index(called)

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Forgets what was added where items turn out to be apart."""
        sizes = len(self.programs), len(self.constants)
        try:
            yield
        except Apart:
            del self.programs[sizes[0] :], self.constants[sizes[1] :]
            raise


def sequence_of(graph: Graph, parts: Sequence[Part], whole: Sequences) -> dict[str, Any]:
    """The sequence of a graph whose arrays have the items along their first axes.

    Args:
        graph: whose inputs and outputs these are.
        parts: of it, each of which `can_run`.
        whole: gets programs and constants.

    Raises:
        Apart: where the items of a batch meet.
    """
    made = _Sequence(whole)
    for value in graph.inputs:
        made.enter(value, 1)
    made.add(graph, parts)
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


@dataclass
class _Sequence:
    """A sequence while it is written; `outers` says where the items of each array lie."""

    whole: Sequences
    values: list[int] = field(default_factory=list)
    parts: list[dict[str, Any]] = field(default_factory=list)
    ids: dict[Value, int] = field(default_factory=dict)
    outers: dict[Value, int] = field(default_factory=dict)

    def finish(self, outputs: list[int]) -> dict[str, Any]:
        return {"values": self.values, "parts": self.parts, "outputs": outputs}

    def new(self, floats: int) -> int:
        self.values.append(floats)
        return len(self.values) - 1

    def enter(self, value: Value, outer: int) -> int:
        """A value that is made here."""
        self.outers[value] = outer
        self.ids[value] = self.new(items.item_floats(value, self.whole.batch))
        return self.ids[value]

    def id_of(self, value: Value, outer: int) -> int:
        """The number of a value whose items lie so."""
        if value.constant is not None:
            return self.constant(items.alike(value, outer, self.whole.batch))
        if self.outers[value] != outer:
            raise Apart(f"the axis of the items is another one in an array of shape {value.shape}")
        return self.ids[value]

    def constant(self, item: np.ndarray) -> int:
        begin = sum(array.size for array in self.whole.constants)
        self.whole.constants.append(item.astype(np.float32))
        self.parts.append({"constant": begin, "outputs": [self.new(item.size)]})
        return len(self.values) - 1

    def add(self, graph: Graph, parts: Sequence[Part]) -> None:
        for part in parts:
            if isinstance(part, Loop):
                self.loop(part)
            elif isinstance(part, Region):
                self.call(part)
            else:
                self.node(graph, part)

    def node(self, graph: Graph, part: Node) -> None:
        if isinstance(part.op, Reshape):
            self.same(part)
        elif items.is_view(part):
            self.view(part)
        elif items.is_join(part):
            self.join(part)
        elif arithmetic.is_reduction(part):
            self.reduced(part)
        elif formula := arithmetic.formula_of(part):
            self.each_number(part, formula)
        else:
            region = _region(graph, part)
            assert region is not None, f"{part.op.name} cannot run"
            self.call(region)

    def same(self, node: Node) -> None:
        (value,), (output,) = node.inputs, node.outputs
        self.ids[output], self.outers[output] = self.ids[value], self.outers[value]

    def view(self, node: Node) -> None:
        (value,), (output,) = node.inputs, node.outputs
        made = self.viewed(node, self.ids[value], self.outers[value])
        self.ids[output], self.outers[output] = made

    def viewed(self, node: Node, number: int, outer: int) -> tuple[int, int]:
        """The number of a view of a value with the shape of the node's input, and its outer."""
        view = items.view_of(node, outer, self.whole.batch)
        if items.is_all(view, self.values[number]):
            return number, view.outer
        digits = [count for digit in view.digits for count in digit]
        floats = items.item_floats(node.outputs[0], self.whole.batch)
        made = {"view": digits, "inputs": [number], "outputs": [self.new(floats)]}
        self.parts.append(made | ({"begin": view.begin} if view.begin else {}))
        return len(self.values) - 1, view.outer

    def transposed(
        self, value: Value, number: int, outer: int, order: Sequence[int]
    ) -> tuple[Value, int, int]:
        """A value with its axes in another order, its number and its outer."""
        after = Value(tuple(value.shape[axis] for axis in order), value.dtype)
        node = Node(Transpose(tuple(order)), [value], [after])
        return after, *self.viewed(node, number, outer)

    def join(self, node: Node) -> None:
        outers = [self.outers[value] for value in node.inputs]
        parts, outer = items.join_of(node, outers, self.whole.batch)
        inputs = [self.ids[value] for value in node.inputs]
        outputs = [self.enter(node.outputs[0], outer)]
        self.parts.append({"join": parts, "inputs": inputs, "outputs": outputs})

    def call(self, region: Region) -> None:
        outer = self.outers[region.inputs[0]]
        meet = region.rows and any(node.op.rows_meet for node in region.nodes)  # type: ignore[attr-defined]
        rows = region.inputs[0].shape[-2] if meet else 1
        for value in (*region.inputs, *region.outputs):
            unit = rows * value.shape[-1] if region.rows else math.prod(value.shape[1:])
            items.check_whole(value, outer, self.whole.batch, unit)
        inputs = [self.id_of(value, outer) for value in region.inputs]
        outputs = [self.enter(value, outer) for value in region.outputs]
        self.run(self.whole.program(region, rows), inputs, outputs)

    def run(self, program: int, inputs: list[int], outputs: list[int]) -> None:
        self.parts.append({"call": program, "inputs": inputs, "outputs": outputs})

    def each_number(self, node: Node, formula: arithmetic.Formula) -> None:
        """A program of one number, for all of an array."""
        (output,) = node.outputs
        outer = next(self.outers[v] for v in node.inputs if v.constant is None)
        inputs = [self.like(value, output, outer) for value in node.inputs]
        program = self.whole.program(arithmetic.numbers(formula, len(inputs)))
        self.run(program, inputs, [self.enter(output, outer)])

    def like(self, value: Value, output: Value, outer: int) -> int:
        """The number of a value, a constant in the shape of the output."""
        if value.constant is None:
            return self.id_of(value, outer)
        array, floats = np.asarray(value.constant), items.item_floats(output, self.whole.batch)
        if (array == array.flat[0]).all():
            one = self.constant(array.ravel()[:1])
            ends = {"inputs": [one], "outputs": [self.new(floats)]}
            self.parts.append({"view": [floats, 0], **ends})
            return len(self.values) - 1
        whole = np.broadcast_to(array, output.shape)
        return self.id_of(Value(output.shape, value.dtype, whole), outer)

    def reduced(self, node: Node) -> None:
        """A program of what is reduced; that lies together, or else comes first."""
        (value,), (output,), batch = node.inputs, node.outputs, self.whole.batch
        axes = sorted(node.op.equation.params["axes"])  # type: ignore[attr-defined]
        number, outer = self.ids[value], self.outers[value]
        if axes and axes[-1] - axes[0] >= len(axes):
            order = [*axes, *(a for a in range(len(value.shape)) if a not in axes)]
            value, number, outer = self.transposed(value, number, outer, order)
            axes = list(range(len(axes)))
        own = items.axis_of_items(value, outer, batch)
        if own in axes:
            raise Apart(f"{node.op.name} goes along the axis of the items")
        length = math.prod(value.shape[axis] for axis in axes)
        behind = math.prod(value.shape[axes[-1] + 1 :]) if axes else 1
        is_behind = bool(axes) and own is not None and own > axes[-1]
        channels = behind // batch if is_behind else behind
        kind = arithmetic.REDUCTIONS[node.op.name]
        program = self.whole.program(arithmetic.reduction(kind, length, channels))
        made = self.enter(output, outer // length if is_behind else outer)
        self.run(program, [number], [made])

    def loop(self, loop: Loop) -> None:
        """Where the items lie in constants that are carried or scanned is found by trying."""
        unknown = [value for value in loop.inputs if value.constant is not None]
        axes = range(max((len(value.shape) for value in unknown), default=1))
        apart = []
        for axis in axes:
            try:
                with self.whole.attempt():
                    return self._loop(loop, axis)
            except Apart as error:
                apart.append(error)
        raise apart[0]

    def _loop(self, loop: Loop, axis: int) -> None:
        """The loop, if items lie along this axis of the constants of a turn."""
        body, inner = loop.op.bodies[0], _Sequence(self.whole)
        first, count = len(loop.shared) + len(loop.carried), loop.op.num_carried
        times = loop.op.length if self.whole.batch > 1 else 1
        if any(self.outers.get(value, times) % times for value in loop.inputs[first:]):
            raise Apart("a loop goes along the axis of the items")
        outers = []
        for i, place in enumerate(loop.places):
            own, rows = body.inputs[place], times if i >= first else 1
            outer = self.outer_of(loop.node.inputs[place], axis, rows, own)
            inner.enter(own, outer)
            outers.append(rows * outer)
        inner.add(body, loop.body)
        stacks = [body.outputs[count + i] for i in loop.stacked]
        stack_outers = [inner.outer_of(value, axis, 1, value) for value in stacks]
        handed_on = [inner.carried(body, loop, i) for i in loop.carried]
        made = inner.finish([*handed_on, *map(inner.id_of, stacks, stack_outers)])
        inputs = [self.id_of(value, o) for value, o in zip(loop.inputs, outers, strict=True)]
        returned = [*loop.carried, *(count + i for i in loop.stacked)]
        where = [*outers[len(loop.shared) : first], *(times * outer for outer in stack_outers)]
        outputs = [
            self.enter(loop.node.outputs[i], o) for i, o in zip(returned, where, strict=True)
        ]
        options: dict[str, Any] = {"reverse": True} if loop.op.reverse else {}
        options |= {"shared": len(loop.shared), "carried": len(loop.carried)}
        ends = {"inputs": inputs, "outputs": outputs, "body": made}
        self.parts.append({"loop": loop.op.length, **options, **ends})

    def outer_of(self, value: Value, axis: int, rows: int, own: Value) -> int:
        """Where the items of what a turn has of a value lie; in a constant along `axis`.

        Args:
            value: that there is.
            axis: of a constant in a turn.
            rows: how many turns' parts the value holds.
            own: what a turn has of it.
        """
        if value.constant is None:
            return self.outers[value] // rows
        if self.whole.batch == 1:
            return 1
        if own.shape[axis : axis + 1] != (self.whole.batch,):
            raise Apart(f"an array of shape {own.shape} is not one for each item")
        return math.prod(own.shape[:axis])

    def carried(self, body: Graph, loop: Loop, i: int) -> int:
        """What a turn hands on: made in it, or what it was given in the same place."""
        before, after = body.inputs[loop.op.num_shared + i], body.outputs[i]
        number = self.id_of(after, self.outers[before])
        if after is before or number >= len(loop.places):
            return number
        copy = self.new(self.values[number])
        self.parts.append({"view": [self.values[number], 1], "inputs": [number], "outputs": [copy]})
        return copy
