"""What each primitive makes of removed channels, on `fills`."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from sparsejax.jaxprs.moves import aligned
from sparsejax.jaxprs.widths.fills import (
    Fill,
    Removal,
    Vector,
    agreed,
    constant_of,
    evaluated,
    joined,
    vector,
    zero_or_unknown,
)
from sparsejax.jaxprs.widths.folding import Owed, of_product
from sparsejax.jaxprs.widths.held import kept
from sparsejax.jaxprs.widths.program import Step
from sparsejax.jaxprs.widths.rules import numbers_of

Rule = Callable[[Removal, Step, list[Fill]], list[Fill]]


def elementwise(removal: Removal, step: Step, fills: list[Fill]) -> Fill:
    """The fill of an equation that treats each element alone."""
    equation, result = step.equation, step.results[0]

    def along(axis: int) -> Vector:
        size = removal.spans.size(result.axes[axis])
        own = [vector(fill, axis, size) for fill in fills]
        return evaluated(equation, own)

    constant = constant_of(equation, [fill.constant for fill in fills])
    return removal.fill(result, along)._replace(constant=constant)


def _reduction(removal: Removal, step: Step, fills: list[Fill]) -> list[Fill]:
    name, axes, operand = step.equation.primitive.name, step.equation.params["axes"], fills[0]
    spans = step.operands[0].axes
    for axis in axes:
        if axis in operand.along:
            own = operand.along[axis]
            removal.exits(spans[axis], (own != 0) | (name != "reduce_sum"), step.said, sums=True)
    kept = [axis for axis in range(len(spans)) if axis not in axes]
    count = math.prod(removal.spans.size(spans[axis]) for axis in axes)

    def along(place: int) -> Vector:
        own = operand.along[kept[place]]
        if name == "reduce_sum":
            return own * count
        return own if name in ("reduce_max", "reduce_min") else np.full(len(own), np.nan)

    return [removal.fill(step.results[0], along)]


def _broadcast(removal: Removal, step: Step, fills: list[Fill]) -> list[Fill]:
    places = step.equation.params["broadcast_dimensions"]
    sources = {place: axis for axis, place in enumerate(places)}

    def along(axis: int) -> Vector:
        return vector(
            fills[0], sources.get(axis, -1), removal.spans.size(step.results[0].axes[axis])
        )

    return [removal.fill(step.results[0], along)]


def _reshape(removal: Removal, step: Step, fills: list[Fill]) -> list[Fill]:
    sizes = [[removal.spans.size(a) for a in v.axes] for v in (step.operands[0], step.results[0])]
    found: dict[int, Vector] = {}
    for sources, places in aligned(*sizes):
        whole = np.full([sizes[0][axis] for axis in sources], np.nan)
        for index, axis in enumerate(sources):
            shape = [-1 if i == index else 1 for i in range(len(sources))]
            own = vector(fills[0], axis, sizes[0][axis]).reshape(shape)
            whole = np.where(np.isnan(whole), own, whole)
        whole = whole.reshape([sizes[1][place] for place in places])
        for index, place in enumerate(places):
            rows = np.moveaxis(whole, index, 0).reshape(whole.shape[index], -1)
            found[place] = agreed(list(rows.T))
    return [removal.fill(step.results[0], lambda axis: found[axis])]


def _concatenate(removal: Removal, step: Step, fills: list[Fill]) -> list[Fill]:
    place = step.equation.params["dimension"]
    size = lambda index, axis: removal.spans.size(step.operands[index].axes[axis])

    def along(axis: int) -> Vector:
        own = [vector(fill, axis, size(i, axis)) for i, fill in enumerate(fills)]
        return np.concatenate(own) if axis == place else agreed(own)

    return [removal.fill(step.results[0], along)]


def _pad(removal: Removal, step: Step, fills: list[Fill]) -> list[Fill]:
    config, padding = step.equation.params["padding_config"], vector(fills[1], 0, 1)
    wider = any(tuple(own) != (0, 0, 0) for own in config)

    def along(axis: int) -> Vector:
        own = vector(fills[0], axis, removal.spans.size(step.operands[0].axes[axis]))
        low, high, _ = config[axis]
        if (low, high) == (0, 0):
            return np.where(own == padding, own, np.nan) if wider else own
        return np.concatenate([np.repeat(padding, low), own, np.repeat(padding, high)])

    return [removal.fill(step.results[0], along)]


def _slice(removal: Removal, step: Step, fills: list[Fill]) -> list[Fill]:
    params = step.equation.params
    strides = params["strides"] or (1,) * len(step.operands[0].axes)
    ends = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    taken = [slice(*own) for own in ends]
    size = lambda axis: removal.spans.size(step.operands[0].axes[axis])
    along = lambda axis: vector(fills[0], axis, size(axis))[taken[axis]]
    return [removal.fill(step.results[0], along)]


def _split(removal: Removal, step: Step, fills: list[Fill]) -> list[Fill]:
    place, ends = step.equation.params["axis"], np.cumsum(step.equation.params["sizes"])
    whole = lambda axis: vector(fills[0], axis, removal.spans.size(step.operands[0].axes[axis]))

    def part(index: int) -> Callable[[int], Vector]:
        start = ends[index] - step.equation.params["sizes"][index]
        return lambda axis: whole(axis)[start : ends[index]] if axis == place else whole(axis)

    return [removal.fill(value, part(index)) for index, value in enumerate(step.results)]


def _gather(removal: Removal, step: Step, fills: list[Fill]) -> list[Fill]:
    dims, table = step.equation.params["dimension_numbers"], step.operands[0].axes
    gone = (*dims.collapsed_slice_dims, *dims.operand_batching_dims)
    windows = [axis for axis in range(len(table)) if axis not in gone]
    sources = dict(zip(dims.offset_dims, windows, strict=True))
    size = lambda axis: removal.spans.size(step.results[0].axes[axis])
    along = lambda axis: vector(fills[0], sources.get(axis, -1), size(axis))
    return [removal.fill(step.results[0], along)]


def _dot(removal: Removal, step: Step, fills: list[Fill]) -> list[Fill]:
    (contracted, batch), groups = numbers_of(step.equation)

    def own(side: int, axis: int) -> Vector:
        return vector(fills[side], axis, removal.spans.size(step.operands[side].axes[axis]))

    owed: tuple[Owed, ...] = ()
    for pair in zip(*contracted, strict=True):
        if removal.removed(step.operands[0].axes[pair[0]]) is not None:
            vectors = own(0, pair[0]), own(1, pair[1])
            owed += _contracted(removal, step, fills, pair, vectors)
    sources: list[list[tuple[int, int]]] = [
        [(side, axis) for side, axis in enumerate(pair)] for pair in zip(*batch, strict=True)
    ]
    for side, value in enumerate(step.operands[:2]):
        used = (*contracted[side], *batch[side], *(groups if side else ()))
        sources += [[(side, axis)] for axis in range(len(value.axes)) if axis not in used]

    def along(place: int) -> Vector:
        zeros = [own(side, axis) == 0 for side, axis in sources[place]]
        return np.where(np.any(zeros, axis=0), 0.0, np.nan)

    return [removal.fill(step.results[0], along)._replace(owed=owed)]


def _contracted(
    removal: Removal, step: Step, fills: list[Fill], axes: Any, vectors: tuple[Vector, Vector]
) -> tuple[Owed, ...]:
    """What is owed for the removed positions of an axis of a product, or they must stay."""
    bad = (vectors[0] != 0) & (vectors[1] != 0)
    side = int(fills[0].array is None)
    span = step.operands[1 - side].axes[axes[1 - side]]
    gone = removal.removed(span)
    found = of_product(step, side, fills[side].array, vectors[1 - side], bad & gone)
    if found is None:
        removal.exits(span, bad, step.said)
        return ()
    removal.exits(span, bad & ~found.bad, step.said)
    return (found._replace(span=span),)


def _convolution(removal: Removal, step: Step, fills: list[Fill]) -> list[Fill]:
    params = step.equation.params
    (x, w, y), groups = params["dimension_numbers"], params["feature_group_count"]
    spans, (images, kernel) = removal.spans, step.operands
    inputs = vector(fills[0], x[1], spans.size(images.axes[x[1]])).reshape(groups, -1)
    weights = vector(fills[1], w[1], inputs.shape[1])
    # One group: what a removed input still holds (a bias, say) times its weights can be folded into
    # what follows. With groups that constant differs from group to group: those inputs stay.
    owed: tuple[Owed, ...] = ()
    if removal.removed(kernel.axes[w[1]]) is not None and groups == 1:
        owed = _contracted(removal, step, fills, (x[1], w[1]), (inputs[0], weights))
    elif removal.removed(kernel.axes[w[1]]) is not None:
        outer, _ = spans.divided(images.axes[x[1]], (groups, inputs.shape[1]))
        bad = ((inputs != 0) & (weights != 0))[kept(spans, outer, removal.keep)].any(0)
        removal.exits(kernel.axes[w[1]], bad, step.said)
    outputs = vector(fills[1], w[0], spans.size(kernel.axes[w[0]]))
    silent = np.repeat((inputs == 0).all(1), len(outputs) // groups)

    def along(axis: int) -> Vector | float:
        return np.where((outputs == 0) | silent, 0.0, np.nan) if axis == y[1] else np.nan

    return [removal.fill(step.results[0], along)._replace(owed=owed)]


def _windows(removal: Removal, step: Step, fills: list[Fill]) -> list[Fill]:
    along = lambda axis: zero_or_unknown(fills[0].along[axis])
    if step.equation.primitive.name != "reduce_window_sum":
        along = lambda axis: fills[0].along[axis]
    return [removal.fill(value, along) for value in step.results]


def _tiled(removal: Removal, step: Step, fills: list[Fill]) -> Fill:
    times = step.equation.params["reps"]
    size = lambda axis: removal.spans.size(step.operands[0].axes[axis])
    return removal.fill(
        step.results[0], lambda axis: np.tile(vector(fills[0], axis, size(axis)), times[axis])
    )


def _stacked(removal: Removal, step: Step, fills: list[Fill]) -> Fill:
    new = step.equation.params["axis"]
    size = lambda axis: removal.spans.size(step.results[0].axes[axis])
    along = lambda axis: agreed([vector(f, axis - (axis > new), size(axis)) for f in fills])
    return removal.fill(step.results[0], along)


def _unstacked(removal: Removal, step: Step, fills: list[Fill]) -> Fill:
    gone = step.equation.params["axis"]
    return removal.fill(step.results[0], lambda axis: fills[0].along[axis + (axis >= gone)])


def _same_axes(removal: Removal, step: Step, fills: list[Fill]) -> list[Fill]:
    """Each result from the operand of its number; what has none is not known."""

    def filled(index: int, value: Any) -> Fill:
        size = lambda axis: removal.spans.size(value.axes[axis])
        unknown = lambda axis: np.nan
        known = lambda axis: vector(fills[index], axis, size(axis))
        return removal.fill(value, known if index < len(fills) else unknown)

    return [filled(index, value) for index, value in enumerate(step.results)]


def _cumulative(removal: Removal, step: Step, fills: list[Fill]) -> list[Fill]:
    return [removal.fill(step.results[0], lambda axis: zero_or_unknown(fills[0].along[axis]))]


RULES: dict[str, Rule] = {
    **dict.fromkeys(("reduce_max", "reduce_min", "reduce_sum", "reduce_prod"), _reduction),
    **dict.fromkeys(("reduce_and", "reduce_or"), _reduction),
    **dict.fromkeys(("reshape", "squeeze", "expand_dims"), _reshape),
    **dict.fromkeys(("reduce_window_max", "reduce_window_min", "reduce_window_sum"), _windows),
    **dict.fromkeys(("rev", "dynamic_slice", "sort", "top_k"), _same_axes),
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin"), _cumulative),
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "conv_general_dilated": _convolution,
    "dot_general": _dot,
    "dynamic_update_slice": lambda removal, step, fills: [
        joined(removal, step.results[0], fills[:2])
    ],
    "gather": _gather,
    "pad": _pad,
    "ragged_dot_general": _dot,
    "slice": _slice,
    "split": _split,
    "stack": lambda removal, step, fills: [_stacked(removal, step, fills)],
    "tile": lambda removal, step, fills: [_tiled(removal, step, fills)],
    "transpose": lambda removal, step, fills: [
        removal.fill(
            step.results[0],
            lambda axis: fills[0].along[step.equation.params["permutation"][axis]],
        )
    ],
    "unstack": lambda removal, step, fills: [_unstacked(removal, step, fills)] * len(step.results),
}
