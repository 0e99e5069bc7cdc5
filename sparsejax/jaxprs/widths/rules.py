"""What each primitive says of its axes: which hold the same channels, and which must stay whole."""

from collections.abc import Callable, Sequence
from typing import Any

from sparsejax.jaxprs.kinds import ELEMENTWISE
from sparsejax.jaxprs.moves import SAME, aligned
from sparsejax.jaxprs.widths.spans import Spans

Axes = tuple[int, ...]  # a span for each axis
Rule = Callable[[Spans, Any, Sequence[Axes]], list[Axes]]

REDUCTIONS = ("reduce_and", "reduce_max", "reduce_min", "reduce_or", "reduce_prod", "reduce_sum")


def fresh(spans: Spans, shape: Sequence[int], reason: str = "") -> Axes:
    """Axes that nothing is known of yet."""
    return tuple(spans.new(size, reason) for size in shape)


def unknown(spans: Spans, equation: Any, operands: Sequence[Axes]) -> list[Axes]:
    """All that it touches stays whole."""
    for axes in operands:
        freeze(spans, axes)
    return [fresh(spans, v.aval.shape, spans.because) for v in equation.outvars]


def freeze(spans: Spans, axes: Sequence[int]) -> None:
    """These stay whole."""
    for span in axes:
        spans.freeze(span)


def unify(spans: Spans, one: Sequence[int], other: Sequence[int]) -> None:
    """Axis by axis."""
    for pair in zip(one, other, strict=True):
        spans.unify(*pair)


def _elementwise(spans: Spans, equation: Any, operands: Sequence[Axes]) -> list[Axes]:
    result = []
    for axis, size in enumerate(equation.outvars[0].aval.shape):
        own = [axes[axis] for axes in operands if axes and spans.size(axes[axis]) == size]
        for other in own[1:]:
            spans.unify(own[0], other)
        result.append(own[0])
    return [tuple(result)] * len(equation.outvars)


def _reduction(spans: Spans, equation: Any, operands: Sequence[Axes]) -> list[Axes]:
    return [tuple(a for i, a in enumerate(operands[0]) if i not in equation.params["axes"])]


def _ordered_reduction(spans: Spans, equation: Any, operands: Sequence[Axes]) -> list[Axes]:
    freeze(spans, [operands[0][axis] for axis in equation.params["axes"]])
    return _reduction(spans, equation, operands)


def _along(axis_of: Callable[[Any], Sequence[int]]) -> Rule:
    """The rule of what looks at the order along some axes, and at each line along them alone."""

    def rule(spans: Spans, equation: Any, operands: Sequence[Axes]) -> list[Axes]:
        ordered = [axis % len(operands[0]) for axis in axis_of(equation)]
        for axes in operands:
            freeze(spans, [axes[axis] for axis in ordered])
            unify(spans, operands[0], axes)
        shapes = [v.aval.shape for v in equation.outvars]
        return [
            tuple(
                spans.new(n, spans.because) if i in ordered else a
                for i, (a, n) in enumerate(zip(operands[0], shape, strict=True))
            )
            for shape in shapes
        ]

    return rule


def _broadcast(spans: Spans, equation: Any, operands: Sequence[Axes]) -> list[Axes]:
    result = list(fresh(spans, equation.params["shape"]))
    for span, place in zip(operands[0], equation.params["broadcast_dimensions"], strict=True):
        if spans.size(span) == spans.size(result[place]):
            result[place] = span
    return [tuple(result)]


def _tile(spans: Spans, equation: Any, operands: Sequence[Axes]) -> list[Axes]:
    pairs = zip(equation.params["reps"], operands[0], strict=True)
    return [tuple(spans.nested([spans.new(times), span]) for times, span in pairs)]


def _transpose(spans: Spans, equation: Any, operands: Sequence[Axes]) -> list[Axes]:
    return [tuple(operands[0][axis] for axis in equation.params["permutation"])]


def _reshape(spans: Spans, equation: Any, operands: Sequence[Axes]) -> list[Axes]:
    shape = equation.outvars[0].aval.shape
    ordered = equation.primitive.name == "reshape" and equation.params["dimensions"] is not None
    if ordered or 0 in shape:
        return unknown(spans, equation, operands)
    result = [spans.ONE] * len(shape)
    for sources, places in aligned([spans.size(span) for span in operands[0]], shape):
        merged = spans.nested([operands[0][axis] for axis in sources])
        parts = spans.divided(merged, [shape[place] for place in places])
        for place, part in zip(places, parts, strict=True):
            result[place] = part
    return [tuple(result)]


def _concatenate(spans: Spans, equation: Any, operands: Sequence[Axes]) -> list[Axes]:
    place = equation.params["dimension"]
    rows = [axes for axes in operands if spans.size(axes[place])] or operands[:1]
    for axes in rows[1:]:
        for axis, span in enumerate(axes):
            if axis != place:
                spans.unify(rows[0][axis], span)
    whole = spans.joined([axes[place] for axes in rows])
    return [tuple(whole if axis == place else span for axis, span in enumerate(rows[0]))]


def _slice(spans: Spans, equation: Any, operands: Sequence[Axes]) -> list[Axes]:
    params = equation.params
    strides = params["strides"] or (1,) * len(operands[0])
    result = []
    for span, start, stop, stride in zip(
        operands[0], params["start_indices"], params["limit_indices"], strides, strict=True
    ):
        if stride == 1:
            result.append(spans.range(span, start, stop))
        else:
            result.append(_every(spans, span, stride, start, stop))
    return [tuple(result)]


def _every(spans: Spans, span: int, stride: int, start: int, stop: int) -> int:
    """One position of each block of as many as the stride is: blocks stay or go."""
    first, count = start - start % stride, -(-(stop - start) // stride)
    if first + count * stride > spans.size(span):
        spans.freeze(span)
        return spans.new(count, spans.because)
    blocks, within = spans.divided(
        spans.range(span, first, first + count * stride), (count, stride)
    )
    spans.freeze(within)
    return blocks


def _split(spans: Spans, equation: Any, operands: Sequence[Axes]) -> list[Axes]:
    place, start, results = equation.params["axis"], 0, []
    for size in equation.params["sizes"]:
        part = spans.range(operands[0][place], start, start + size)
        results.append(tuple(part if i == place else a for i, a in enumerate(operands[0])))
        start += size
    return results


def _pad(spans: Spans, equation: Any, operands: Sequence[Axes]) -> list[Axes]:
    result = []
    for span, (low, high, inner) in zip(
        operands[0], equation.params["padding_config"], strict=True
    ):
        if inner or low < 0 or high < 0:
            spans.freeze(span)
            size = spans.size(span)
            total = size + max(size - 1, 0) * inner + low + high
            result.append(spans.new(total, spans.because))
        elif low or high:
            ends = [spans.new(size) for size in (low, high)]
            result.append(spans.joined([ends[0], span, ends[1]]))
        else:
            result.append(span)
    return [tuple(result)]


def _windows(spans: Spans, equation: Any, operands: Sequence[Axes]) -> list[Axes]:
    shape = equation.outvars[0].aval.shape
    result = []
    for axis, (span, size) in enumerate(zip(operands[0], shape, strict=True)):
        if _is_looked_through(equation.params, axis):
            result.append(span)
        else:
            spans.freeze(span)
            result.append(spans.new(size, spans.because))
    return [tuple(result)] * len(equation.outvars)


def _is_looked_through(params: Any, axis: int) -> bool:
    names = ("window_dimensions", "window_strides", "base_dilation", "window_dilation")
    return all(params[name][axis] == 1 for name in names) and not any(params["padding"][axis])


def _gather(spans: Spans, equation: Any, operands: Sequence[Axes]) -> list[Axes]:
    """A look-up: axes taken whole stay what they are, the others keep their order."""
    dims, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    table, indices = operands
    result = list(fresh(spans, equation.outvars[0].aval.shape, spans.because))
    freeze(spans, indices)
    gone = (*dims.collapsed_slice_dims, *dims.operand_batching_dims)
    windows = [axis for axis in range(len(table)) if axis not in gone]
    places = dict(zip(windows, dims.offset_dims, strict=True))
    for axis, span in enumerate(table):
        if axis in places and sizes[axis] == spans.size(span):
            result[places[axis]] = span
        else:
            spans.freeze(span)
    return [tuple(result)]


def _dynamic_slice(spans: Spans, equation: Any, operands: Sequence[Axes]) -> list[Axes]:
    result = []
    for span, size in zip(operands[0], equation.params["slice_sizes"], strict=True):
        if spans.size(span) != size:
            spans.freeze(span)
            span = spans.new(size, spans.because)
        result.append(span)
    return [tuple(result)]


def _dynamic_update(spans: Spans, equation: Any, operands: Sequence[Axes]) -> list[Axes]:
    for span, part in zip(operands[0], operands[1], strict=True):
        if spans.size(span) == spans.size(part):
            spans.unify(span, part)
        else:
            freeze(spans, (span, part))
    return [operands[0]]


def _convolution(spans: Spans, equation: Any, operands: Sequence[Axes]) -> list[Axes]:
    (images, kernel), params = operands, equation.params
    x, w, y = params["dimension_numbers"]
    if params["batch_group_count"] != 1:
        return unknown(spans, equation, operands)
    freeze(spans, [*(images[i] for i in x[2:]), *(kernel[i] for i in w[2:])])
    groups = params["feature_group_count"]
    result = list(fresh(spans, equation.outvars[0].aval.shape, spans.because))
    result[y[0]], result[y[1]] = images[x[0]], kernel[w[0]]
    if groups == 1:
        spans.unify(images[x[1]], kernel[w[1]])
    else:
        # A group's inputs and outputs go together; inputs inside of a group are shared by all of
        # them, since the kernel has one axis for the inputs of every group.
        outer, inner = spans.divided(images[x[1]], (groups, spans.size(kernel[w[1]])))
        spans.unify(inner, kernel[w[1]])
        own, _ = spans.divided(kernel[w[0]], (groups, spans.size(kernel[w[0]]) // groups))
        spans.unify(outer, own)
    return [tuple(result)]


def numbers_of(equation: Any) -> tuple[Any, Sequence[int]]:
    """What a product contracts and shares, and the right's axes of groups, one of a row."""
    if (ragged := equation.params.get("ragged_dot_dimension_numbers")) is None:
        return equation.params["dimension_numbers"], ()
    return ragged.dot_dimension_numbers, ragged.rhs_group_dimensions


def _dot(spans: Spans, equation: Any, operands: Sequence[Axes]) -> list[Axes]:
    ((contracted, batch), groups), (left, right, *_) = numbers_of(equation), operands
    for pair in (*zip(*contracted, strict=True), *zip(*batch, strict=True)):
        spans.unify(left[pair[0]], right[pair[1]])
    used = (*contracted[0], *batch[0]), (*contracted[1], *batch[1], *groups)
    free = [
        [axis for i, axis in enumerate(axes) if i not in own]
        for axes, own in zip((left, right), used, strict=True)
    ]
    return [(*(left[i] for i in batch[0]), *free[0], *free[1])]


def _ragged_dot(spans: Spans, equation: Any, operands: Sequence[Axes]) -> list[Axes]:
    """Rows and groups keep their order; where rows are summed, as in a gradient, all do."""
    left, right, sizes = operands
    rows = equation.params["ragged_dot_dimension_numbers"].lhs_ragged_dimensions
    if not (groups := numbers_of(equation)[1]):
        return unknown(spans, equation, operands)
    freeze(spans, [*sizes, *(left[i] for i in rows), *(right[i] for i in groups)])
    return _dot(spans, equation, operands)


def _stack(spans: Spans, equation: Any, operands: Sequence[Axes]) -> list[Axes]:
    for axes in operands[1:]:
        unify(spans, operands[0], axes)
    result = list(operands[0])
    result.insert(equation.params["axis"], spans.new(len(operands), spans.because))
    return [tuple(result)]


def _unstack(spans: Spans, equation: Any, operands: Sequence[Axes]) -> list[Axes]:
    axis = equation.params["axis"]
    spans.freeze(operands[0][axis])
    return [tuple(a for i, a in enumerate(operands[0]) if i != axis)] * len(equation.outvars)


def _iota(spans: Spans, equation: Any, operands: Sequence[Axes]) -> list[Axes]:
    axes = fresh(spans, equation.outvars[0].aval.shape)
    spans.freeze(axes[equation.params["dimension"]])
    return [axes]


RULES: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(REDUCTIONS, _reduction),
    **dict.fromkeys(SAME, lambda spans, equation, operands: list(operands)),
    **dict.fromkeys(("argmax", "argmin"), _ordered_reduction),
    **dict.fromkeys(("expand_dims", "reshape", "squeeze"), _reshape),
    **dict.fromkeys(
        ("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"),
        _along(lambda equation: (equation.params["axis"],)),
    ),
    **dict.fromkeys(("reduce_window_max", "reduce_window_min", "reduce_window_sum"), _windows),
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "conv_general_dilated": _convolution,
    "dot_general": _dot,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update,
    "gather": _gather,
    "iota": _iota,
    "pad": _pad,
    "ragged_dot_general": _ragged_dot,
    "rev": _along(lambda equation: equation.params["dimensions"]),
    "slice": _slice,
    "sort": _along(lambda equation: (equation.params["dimension"],)),
    "split": _split,
    "stack": _stack,
    "tile": _tile,
    "top_k": _along(lambda equation: (equation.params.get("axis", -1),)),
    "transpose": _transpose,
    "unstack": _unstack,
}
