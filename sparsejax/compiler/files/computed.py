"""What stands between regions in a sequence: arithmetic, reductions and lookups."""

import math
from typing import Any

import numpy as np

from sparsejax.compiler.files import arithmetic, items
from sparsejax.compiler.files.items import Apart
from sparsejax.compiler.files.taken import Taken
from sparsejax.compiler.files.values import Values
from sparsejax.compiler.graph.graph import Node, Value
from sparsejax.compiler.nodes.transpose import Transpose


def each_number(to: Values, node: Node, formula: arithmetic.Formula) -> None:
    """A program of one number, for all of an array."""
    (output,), values = node.outputs, node.inputs
    seen = [_spread(to, value, output) for value in values if value.constant is None]
    outer, *others = {own for _, own in seen}
    if others:
        raise Apart(f"{node.op.name} takes arrays with items along different axes")
    numbers = iter(number for number, _ in seen)
    inputs = [next(numbers) if v.constant is None else _known(to, v, output, outer) for v in values]
    program = to.whole.program(arithmetic.numbers(formula, len(inputs)))
    to.run(program, inputs, [to.enter(output, outer)])


def _spread(to: Values, value: Value, output: Value) -> tuple[int, int]:
    """The number of a computed value in the shape of the output, and its outer."""
    number, outer = to.ids[value], to.outers[value]
    if value.shape == output.shape:
        return number, outer
    return to.viewed(items.spread(value, output.shape, outer, to.whole.batch), number)


def _known(to: Values, value: Value, output: Value, outer: int) -> int:
    """The number of a constant in the shape of the output; one number is kept once."""
    array, floats = np.asarray(value.constant), items.item_floats(output, to.whole.batch)
    if (array == array.flat[0]).all():
        return to.viewed(
            items.View(0, [items.Digit(floats, 0)], 1), to.constant(array.ravel()[:1])
        )[0]
    whole = np.broadcast_to(array, output.shape)
    return to.id_of(Value(output.shape, value.dtype, whole), outer)


def reduced(to: Values, node: Node) -> None:
    """A program of what is reduced; that lies together, or else comes first."""
    (value,), (output,), batch = node.inputs, node.outputs, to.whole.batch
    axes = sorted(node.op.equation.params["axes"])  # type: ignore[attr-defined]
    number, outer = to.ids[value], to.outers[value]
    if axes and axes[-1] - axes[0] >= len(axes):
        order = [*axes, *(a for a in range(len(value.shape)) if a not in axes)]
        value, number, outer = to.transposed(value, number, outer, order)
        axes = list(range(len(axes)))
    own = items.axis_of_items(value, outer, batch)
    if own in axes:
        raise Apart(f"{node.op.name} goes along the axis of the items")
    length = math.prod(value.shape[axis] for axis in axes)
    behind = math.prod(value.shape[axes[-1] + 1 :]) if axes else 1
    is_behind = bool(axes) and own is not None and own > axes[-1]
    channels = behind // batch if is_behind else behind
    whole = value.dtype != np.float32
    kind = arithmetic.REDUCTIONS[node.op.name]
    program = to.whole.program(arithmetic.reduction(kind, length, channels, whole))
    made = to.enter(output, outer // length if is_behind else outer)
    to.run(program, [number], [made])


def take(to: Values, taken: Taken) -> None:
    """Rows of a table; where it is known it is no value."""
    (output,), batch = taken.node.outputs, to.whole.batch
    index, numbers, outer = to.transposed(
        taken.places,
        to.ids[taken.places],
        to.outers[taken.places],
        [*taken.of_places, len(taken.places.shape) - 1],
    )
    rows, row = taken.table.shape[taken.axis], [taken.table.shape[a] for a in taken.of_row]
    inputs, options = [numbers], dict[str, Any](fill=True) if taken.fill else {}
    if taken.table.constant is not None:
        table = np.asarray(taken.table.constant).transpose(taken.axis, *taken.of_row)
        options["constant"] = to.whole.keep(table)
    else:
        inputs.insert(0, _table(to, taken, items.axis_of_items(index, outer, batch)))
    made = Value((*index.shape[:-1], *row), output.dtype)
    floats = to.new(items.item_floats(made, batch))
    ends = {"inputs": inputs, "outputs": [floats]}
    to.parts.append({"take": rows, "floats": math.prod(row), **options, **ends})
    last = Node(Transpose(taken.order), [made], [output])
    seen = items.view_of(last, outer, batch)
    to.ids[output], to.outers[output] = to.viewed(seen, floats)


def _table(to: Values, taken: Taken, place: int | None) -> int:
    """The number of a computed table, with the pairs first; their items are at `place`."""
    table, order = taken.table, [*(a for a, _ in taken.pairs), taken.axis, *taken.of_row]
    made, number, outer = to.transposed(table, to.ids[table], to.outers[table], order)
    own = items.axis_of_items(made, outer, to.whole.batch)
    if own != place or (own is not None and own >= len(taken.pairs)):
        raise Apart("items look up what others have")
    return number
