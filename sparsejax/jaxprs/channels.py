"""Which axes of the params hold the same channels, found by tracing the function."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend import core

from sparsejax.doors import FUNCTION, check_examples, checked, tracing
from sparsejax.jaxprs import ELEMENTWISE, body_of
from sparsejax.jaxprs.read import by_paths, walk

Places = tuple[tuple[str, int], ...]  # (path of the leaf, axis)
Axes = tuple[int, ...]  # a node of the union-find for each axis

Rule = Callable[["_Joined", Any, list[Axes], list[Axes]], None]

REDUCTIONS = ("reduce_and", "reduce_max", "reduce_min", "reduce_or", "reduce_prod", "reduce_sum")


@checked(apply_fn=FUNCTION)
def coupled_channels(
    apply_fn: Callable[..., Any], params: Any, *example: Any
) -> tuple[Places, ...]:
    """The groups of axes of the params that one permutation can be applied to without effect.

    Each group is a tuple of (path, axis): such as the outputs of a convolution, the batch norm
    behind it, depthwise convolutions, everything that a residual addition joins to it, and the
    inputs of the layers that follow. Permuting all of them alike leaves every output as it is, but
    for the order of sums. Axes that must keep their order are in no group: the inputs and outputs
    of the function, taps of windows, and what goes through an equation that is not known here.

    Example:
      >>> sj.structured.coupled_channels(model.apply, params, x)
      ((('body/kernel', 1), ('head/kernel', 0)),)

    Reference: Xu et al., "SparseByteNN: A Novel Mobile Inference Acceleration Framework Based on
    Fine-Grained Group Sparsity", 2023, arXiv 2310.19509, abstract: whole-network rearrangement.
    """
    check_examples("coupled_channels", apply_fn, params, example)
    arrays, call = by_paths(apply_fn, params)
    with tracing("coupled_channels"):
        closed = jax.make_jaxpr(call)(arrays, *example)
    joined = _Joined()
    inputs = [joined.new(len(v.aval.shape)) for v in closed.jaxpr.invars]
    for axes in inputs[len(arrays) :]:
        joined.freeze(axes)
    for axes in _walk(closed, inputs, joined):
        joined.freeze(axes)
    groups: dict[int, list[tuple[str, int]]] = {}
    for (path, array), axes in zip(arrays.items(), inputs, strict=False):
        for axis, node in enumerate(axes):
            if array.shape[axis] > 1:
                groups.setdefault(joined.root(node), []).append((path, axis))
    frozen = joined.root(0)
    return tuple(tuple(group) for root, group in groups.items() if root != frozen)


class _Joined:
    """A union-find of axes; node 0 stands for all that must keep their order."""

    def __init__(self) -> None:
        self._parents = [0]

    def new(self, count: int) -> Axes:
        """Axes that are free so far."""
        first = len(self._parents)
        self._parents.extend(range(first, first + count))
        return tuple(range(first, first + count))

    def root(self, node: int) -> int:
        """What stands for the node's group; equal for two nodes of one."""
        while self._parents[node] != node:
            self._parents[node] = node = self._parents[self._parents[node]]
        return node

    def join(self, one: int, other: int) -> None:
        """The two axes hold the same channels."""
        low, high = sorted((self.root(one), self.root(other)))
        self._parents[high] = low

    def freeze(self, axes: Sequence[int]) -> None:
        """These keep their order."""
        for axis in axes:
            self.join(0, axis)


def _walk(closed: core.ClosedJaxpr, inputs: Sequence[Axes], joined: _Joined) -> list[Axes]:
    """Join what the equations of a jaxpr join; the axes of its outputs."""

    def frozen(v: Any, value: Any) -> Axes:
        axes = joined.new(len(v.aval.shape))
        joined.freeze(axes)
        return axes

    def step(equation: Any, operands: list[Axes]) -> list[Axes]:
        body = body_of(equation)
        if body is not None:
            return _walk(body, operands, joined)
        results = [joined.new(len(v.aval.shape)) for v in equation.outvars]
        RULES.get(equation.primitive.name, _unknown)(joined, equation, operands, results)
        return results

    return walk(closed.jaxpr, closed.consts, inputs, step, frozen)


def _unknown(joined: _Joined, equation: Any, operands: list[Axes], results: list[Axes]) -> None:
    for axes in (*operands, *results):
        joined.freeze(axes)


def _elementwise(joined: _Joined, equation: Any, operands: list[Axes], results: list[Axes]) -> None:
    for axes in operands:
        for one, other in zip(axes, results[0], strict=bool(axes)):
            joined.join(one, other)


def _reduction(joined: _Joined, equation: Any, operands: list[Axes], results: list[Axes]) -> None:
    kept = [a for i, a in enumerate(operands[0]) if i not in equation.params["axes"]]
    for one, other in zip(kept, results[0], strict=True):
        joined.join(one, other)


def _broadcast(joined: _Joined, equation: Any, operands: list[Axes], results: list[Axes]) -> None:
    sizes, shape = equation.invars[0].aval.shape, equation.params["shape"]
    places = equation.params["broadcast_dimensions"]
    for axis, size, place in zip(operands[0], sizes, places, strict=True):
        if size == shape[place]:  # what is spread over an axis is the same for all its channels
            joined.join(axis, results[0][place])


def _transpose(joined: _Joined, equation: Any, operands: list[Axes], results: list[Axes]) -> None:
    for place, axis in zip(results[0], equation.params["permutation"], strict=True):
        joined.join(place, operands[0][axis])


def _reshape(joined: _Joined, equation: Any, operands: list[Axes], results: list[Axes]) -> None:
    """Axes that stay whole are joined; those that are merged or cut keep their order."""
    ins, outs = (
        [(axis, size) for axis, size in zip(axes, v.aval.shape, strict=True) if size != 1]
        for axes, v in ((operands[0], equation.invars[0]), (results[0], equation.outvars[0]))
    )
    if equation.params.get("dimensions") is not None and equation.primitive.name == "reshape":
        ins = outs = [(0, 0)]
    if any(size == 0 for _, size in (*ins, *outs)):
        return _unknown(joined, equation, operands, results)
    while ins:
        one, other = [ins.pop(0)], [outs.pop(0)]
        while _product(one) != _product(other):
            part, rest = (one, ins) if _product(one) < _product(other) else (other, outs)
            part.append(rest.pop(0))
        if len(one) == len(other) == 1:
            joined.join(one[0][0], other[0][0])
        else:
            joined.freeze([axis for axis, _ in (*one, *other)])


def _product(axes: list[tuple[int, int]]) -> int:
    return math.prod(size for _, size in axes)


def _same(joined: _Joined, equation: Any, operands: list[Axes], results: list[Axes]) -> None:
    for one, other in zip(operands, results, strict=True):
        for pair in zip(one, other, strict=True):
            joined.join(*pair)


def _along(is_kept: Callable[[Any, int], bool]) -> Rule:
    """The rule of an equation that treats each axis for itself and keeps the order of some."""

    def rule(joined: _Joined, equation: Any, operands: list[Axes], results: list[Axes]) -> None:
        for axes in (*operands, *results):
            if not axes:
                continue  # the scalar that fills a pad or starts a reduction
            for axis, (one, other) in enumerate(zip(axes, results[0], strict=True)):
                if is_kept(equation, axis):
                    joined.join(one, other)
                else:
                    joined.freeze((one, other))

    return rule


def _whole_slice(equation: Any, axis: int) -> bool:
    params, size = equation.params, equation.invars[0].aval.shape[axis]
    strides = params["strides"] or (1,) * (axis + 1)
    own = (params["start_indices"][axis], params["limit_indices"][axis], strides[axis])
    return own == (0, size, 1)


def _no_window(equation: Any, axis: int) -> bool:
    params = equation.params
    one = all(
        params.get(name, ones)[axis] == 1
        for ones in [(1,) * (axis + 1)]
        for name in ("window_dimensions", "window_strides", "base_dilation", "window_dilation")
    )
    return one and tuple(params["padding"][axis]) == (0, 0)


def _convolution(joined: _Joined, equation: Any, operands: list[Axes], results: list[Axes]) -> None:
    (images, kernel), (outputs,), params = operands, results, equation.params
    x, w, y = params["dimension_numbers"]
    joined.freeze(
        [axes[i] for axes, spec in ((images, x), (kernel, w), (outputs, y)) for i in spec[2:]]
    )
    sizes = [equation.invars[0].aval.shape[x[1]], equation.invars[1].aval.shape[w[0]]]
    joined.join(images[x[0]], outputs[y[0]])
    if params["batch_group_count"] == params["feature_group_count"] == 1:
        joined.join(images[x[1]], kernel[w[1]])
        joined.join(kernel[w[0]], outputs[y[1]])
    elif params["batch_group_count"] == 1 and sizes == [params["feature_group_count"]] * 2:
        joined.join(images[x[1]], kernel[w[0]])  # depthwise
        joined.join(kernel[w[0]], outputs[y[1]])
    else:
        joined.freeze([*images, *kernel, *outputs])


def _dot(joined: _Joined, equation: Any, operands: list[Axes], results: list[Axes]) -> None:
    (contracted, batch), (left, right) = equation.params["dimension_numbers"], operands
    for pair in (*zip(*contracted, strict=True), *zip(*batch, strict=True)):
        joined.join(left[pair[0]], right[pair[1]])
    free = [
        [axis for i, axis in enumerate(axes) if i not in (*summed, *shared)]
        for axes, summed, shared in zip(operands, contracted, batch, strict=True)
    ]
    own = [*(left[i] for i in batch[0]), *free[0], *free[1]]
    for one, other in zip(own, results[0], strict=True):
        joined.join(one, other)


RULES: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(REDUCTIONS, _reduction),
    **dict.fromkeys(("optimization_barrier", "sharding_constraint"), _same),
    **dict.fromkeys(("reshape", "squeeze"), _reshape),
    **dict.fromkeys(("reduce_window_max", "reduce_window_min"), _along(_no_window)),
    **dict.fromkeys(("reduce_window", "reduce_window_sum"), _along(_no_window)),
    "broadcast_in_dim": _broadcast,
    "concatenate": _along(lambda equation, axis: axis != equation.params["dimension"]),
    "conv_general_dilated": _convolution,
    "dot_general": _dot,
    "pad": _along(lambda equation, axis: equation.params["padding_config"][axis] == (0, 0, 0)),
    "rev": _along(lambda equation, axis: axis not in equation.params["dimensions"]),
    "slice": _along(_whole_slice),
    "split": _along(lambda equation, axis: axis != equation.params["axis"]),
    "transpose": _transpose,
}
