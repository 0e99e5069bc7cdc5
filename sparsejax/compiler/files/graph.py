"""The graph of a file: a program by names, its inputs and outputs, and what tensors it needs."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sparsejax.compiler.engine.program import INPUT, NONE, OUTPUT, Program, Step, read_steps
from sparsejax.compiler.files.weights import Stored, stored
from sparsejax.compiler.graph.graph import Size
from sparsejax.compiler.nodes.conv import DEPTHWISE
from sparsejax.compiler.nodes.known import KNOWN
from sparsejax.compiler.nodes.layer import PRODUCT
from sparsejax.patterns.layout import BLOCKS, COLUMNS, Layout

# Fields of a step that are written as they are, unless they have their default.
NUMBERS = (
    "inputs",
    "window",
    "strides",
    "dilation",
    "pads",
    "residual",
    "gate",
    "groups",
    "channels",
)
WORDS = ("pooling", "binary")
DENSE = Layout(BLOCKS, 4)  # for products that skip zeros: not every reader has them


class Written(NamedTuple):
    """The steps of a program as JSON, and the tensors that they name."""

    steps: list[dict[str, Any]]
    tensors: dict[str, np.ndarray]


class Weights(NamedTuple):
    """A matrix of weights and the bias of its rows."""

    matrix: np.ndarray
    bias: np.ndarray


def weights_of(program: Program, sizes: Sequence[Size], step: Step) -> Weights | None:
    """The weights of a step, None where it has none."""
    if step.weights == NONE:
        return None
    taps = math.prod(step.window)
    cols = 1
    if step.op == PRODUCT:
        cols = sizes[step.inputs[0]][0] // step.groups * taps
    elif step.op == DEPTHWISE:
        cols = taps
    elif step.op == KNOWN:
        (rows,) = step.channels
        cols = rows * sizes[step.output][2]
    rows = sizes[step.output][0]
    matrix = program.floats[step.weights :][: rows * cols].reshape(rows, cols)
    return Weights(matrix, program.floats[step.bias :][:rows])


def written(program: Program, paths: Mapping[int, str], dtype: type[np.floating]) -> Written:
    """The steps of a program.

    Args:
        program: of one item.
        paths: of the weights of each step that has them.
        dtype: of the values of weights.

    Raises:
        ValueError: when weights are too large for the dtype.
    """
    sizes, steps = read_steps(program.words)
    bounds: dict[tuple[float, float], int] = {}
    entries: list[dict[str, Any]] = []
    tensors: dict[str, np.ndarray] = {}
    for number, step in enumerate(steps):
        entry = _fields(step, bounds)
        weights = weights_of(program, sizes, step)
        if weights is not None:
            path = paths.get(number, "")
            if path:
                entry["path"] = path
            _check_range(weights.matrix, path, dtype)
            kept = stored(weights.matrix, dtype)
            entry["weights"] = {"form": kept.form, "block": kept.block}
            tensors |= _tensors(number, kept, weights.bias)
        entries.append(entry)
    if bounds:
        tensors["bounds"] = np.array(list(bounds), np.float32)
    return Written(entries, tensors)


def _tensors(number: int, kept: Stored, bias: np.ndarray) -> dict[str, np.ndarray]:
    tensors = {f"{number}.values": kept.values, f"{number}.bias": bias}
    return tensors if kept.where is None else {**tensors, f"{number}.where": kept.where}


def _check_range(matrix: np.ndarray, path: str, dtype: type[np.floating]) -> None:
    largest, most = float(np.abs(matrix).max(initial=0)), float(np.finfo(dtype).max)
    if largest > most:
        raise ValueError(
            f"save needs weights of at most {most:g} for "
            f'values="{np.dtype(dtype).name}", got {largest:g} in {path or "a layer"}; '
            'pass values="float32".'
        )


def _fields(step: Step, bounds: dict[tuple[float, float], int]) -> dict[str, Any]:
    """All of a step but its weights."""
    entry: dict[str, Any] = {"op": step.op}
    default = Step(step.op, NONE)
    if step.output != NONE:
        entry["output"] = step.output
    for name in NUMBERS:
        value = getattr(step, name)
        if tuple(np.ravel(value)) != tuple(np.ravel(getattr(default, name))):
            entry[name] = value if isinstance(value, int) else list(map(int, value))
    if step.op in (INPUT, OUTPUT):
        entry["argument"] = step.argument
    return entry | dict(_by_name(step, default, bounds))


def _by_name(
    step: Step, default: Step, bounds: dict[tuple[float, float], int]
) -> Iterator[tuple[str, Any]]:
    """The fields that are names, and the activation's numbers."""
    activation = step.activation
    if activation:
        yield "function", activation.name
    if activation.low or activation.high:
        pair = (activation.low, activation.high)
        yield "bounds", bounds.setdefault(pair, len(bounds))
    if step.layout != default.layout:
        storage, *layout = step.layout if step.layout.storage != COLUMNS else DENSE
        yield "storage", storage.name.lower()
        yield "layout", list(layout)
    for name in WORDS:
        if getattr(step, name) != getattr(default, name):
            yield name, getattr(step, name)
