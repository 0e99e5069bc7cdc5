"""Equations that only move elements, done to labels: which weight lies where in a variable."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

Label = np.ndarray


def moved(equation: Any, labels: Sequence[Label]) -> list[Label] | None:
    """The labels of the outputs, None if the equation does more than move elements."""
    name = equation.primitive.name
    if name in SAME:
        return list(labels[: len(equation.outvars)])
    if name not in MOVES:
        return None
    shapes = [tuple(v.aval.shape) for v in equation.outvars]
    if len(labels) == 1 and is_uniform(labels[0]) and name != "pad":
        return [uniform(labels[0], shape) for shape in shapes]
    if name == "dynamic_slice":
        return [uniform(labels[0], shapes[0])] if is_uniform(labels[0]) else None
    found = MOVES[name](equation.params, *labels)
    return found if isinstance(found, list) else [found]


def is_uniform(labels: Label) -> bool:
    """Is it one label everywhere, as `uniform` makes them? Looks at strides, not at elements."""
    return labels.size > 0 and not any(
        stride for stride, size in zip(labels.strides, labels.shape, strict=True) if size > 1
    )


def uniform(label: Any, shape: tuple[int, ...]) -> Label:
    """An array of one label that takes no memory."""
    return np.broadcast_to(np.asarray(label).reshape(-1)[:1].reshape(()), shape)


def equal(one: Label, other: Label) -> bool:
    """Are these the same labels?"""
    if one is other:
        return True
    if one.shape != other.shape:
        return False
    if one.size and is_uniform(one) and is_uniform(other):
        return (
            one.ravel()[:1] == other.ravel()[:1] if one.ndim == 0 else _first(one) == _first(other)
        )
    return np.array_equal(one, other)


def _first(labels: Label) -> Any:
    return labels[(0,) * labels.ndim]


def aligned(ins: Sequence[int], outs: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """The least groups of axes that a reshape makes of each other; axes of 1 are in none."""
    left = [[axis for axis, size in enumerate(sizes) if size != 1] for sizes in (ins, outs)]
    while left[0]:
        own: list[list[int]] = [[left[0].pop(0)], [left[1].pop(0)]]
        total = lambda side: math.prod((ins, outs)[side][axis] for axis in own[side])  # noqa: B023
        # The smaller product takes its next axis, until both sides count the same elements.
        while total(0) != total(1):
            side = int(total(0) > total(1))
            own[side].append(left[side].pop(0))
        yield own[0], own[1]


def _broadcast(params: Any, labels: Label, *rest: Label) -> Label:
    shape = [1] * len(params["shape"])
    for axis, size in zip(params["broadcast_dimensions"], labels.shape, strict=True):
        shape[axis] = size
    return np.broadcast_to(labels.reshape(shape), params["shape"])


def _slice(params: Any, labels: Label) -> Label:
    strides = params["strides"] or (1,) * labels.ndim
    parts = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    return labels[tuple(slice(*part) for part in parts)]


def _pad(params: Any, labels: Label, filled: Label) -> Label:
    config = params["padding_config"]
    sizes = [
        low + high + size + max(size - 1, 0) * inner
        for (low, high, inner), size in zip(config, labels.shape, strict=True)
    ]
    wide = np.zeros([max(size, 0) for size in sizes], labels.dtype)
    if any(low < 0 or high < 0 for low, high, _ in config):
        labels = labels[
            tuple(
                slice(max(-low, 0), size - max(-high, 0))
                for (low, high, _), size in zip(config, labels.shape, strict=True)
            )
        ]
    places = zip(config, labels.shape, strict=True)
    wide[
        tuple(
            slice(max(low, 0), max(low, 0) + max(size - 1, 0) * (inner + 1) + (size > 0), inner + 1)
            for (low, _, inner), size in places
        )
    ] = labels
    return wide


def _split(params: Any, labels: Label) -> list[Label]:
    ends = np.cumsum(params["sizes"])[:-1]
    return np.split(labels, ends, params["axis"])


# Each output is the operand of the same number.
SAME = (
    *("convert_element_type", "copy", "copy_p", "device_put", "layout_constraint", "name"),
    *("optimization_barrier", "pbroadcast", "pcast", "pvary", "reduce_precision", "reshard"),
    *("sharding_constraint", "stop_gradient"),
)
MOVES: dict[str, Callable[..., Any]] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": lambda params, *labels: np.concatenate(labels, params["dimension"]),
    "dynamic_slice": lambda params, *labels: labels[0],
    "expand_dims": lambda params, labels: np.expand_dims(labels, params["dimensions"]),
    "pad": _pad,
    "reshape": lambda params, labels, *rest: labels.reshape(params["new_sizes"]),
    "rev": lambda params, labels: np.flip(labels, params["dimensions"]),
    "slice": _slice,
    "split": _split,
    "stack": lambda params, *labels: np.stack(labels, params["axis"]),
    "squeeze": lambda params, labels: np.squeeze(labels, params["dimensions"]),
    "tile": lambda params, labels: np.tile(labels, params["reps"]),
    "transpose": lambda params, labels: labels.transpose(params["permutation"]),
    "unstack": lambda params, labels: list(np.moveaxis(labels, params["axis"], 0)),
}
