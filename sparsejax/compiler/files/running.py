"""Sequences of programs as functions in JAX; their numbers were checked in C++."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from sparsejax.compiler.files.ports import Ports

Call = Callable[..., list[Array]]


def running(sequence: Mapping[str, Any], calls: Sequence[Call], constants: np.ndarray) -> Call:
    """The function of arrays of (items, floats) that returns such arrays.

    Args:
        sequence: as xla_ops/files/sequence.h has it.
        calls: the programs, as functions of arrays of (items, floats).
        constants: of the file.
    """

    def run(*inputs: Array) -> list[Array]:
        env = dict(enumerate(inputs))
        for part in sequence["parts"]:
            read = [env[number] for number in part.get("inputs", ())]
            if "call" in part:
                made = calls[part["call"]](*read)
            elif "loop" in part:
                made = _loop(part, running(part["body"], calls, constants), read)
            elif "view" in part:
                made = [_view(part, *read)]
            elif "join" in part:
                pieces = [x.reshape(len(x), part["join"], -1) for x in read]
                made = [jnp.concatenate(pieces, 2).reshape(len(inputs[0]), -1)]
            elif "take" in part:
                made = [_taken(part, read, constants)]
            else:
                floats = sequence["values"][part["outputs"][0]]
                own = constants[part["constant"] :][:floats]
                made = [jnp.broadcast_to(own, (len(inputs[0]), floats))]
            env.update(zip(part["outputs"], made, strict=True))
        return [env[number] for number in sequence["outputs"]]

    return run


def of_items(call: Call, inputs: Sequence[tuple[int, ...]]) -> Call:
    """The function of arrays of (items, floats), of one of arrays of (other items, *shape).

    Args:
        call: the function.
        inputs: the shapes of what it takes.
    """

    def run(*arrays: Array) -> list[Array]:
        shaped = (x.reshape(-1, *shape) for x, shape in zip(arrays, inputs, strict=True))
        return [y.reshape(len(arrays[0]), -1) for y in call(*shaped)]

    return run


def of_ports(call: Call, ports: Ports) -> Call:
    """The function of arrays as ports have them, of one of arrays of (items, floats)."""

    def run(*arrays: Array) -> list[Array]:
        batch = ports.batch_of(arrays)
        made = call(*(x.reshape(batch, -1).astype(np.float32) for x in arrays))
        pairs = zip(made, ports.outputs, strict=True)
        return [y.reshape(p.sizes(batch)).astype(p.dtype) for y, p in pairs]

    return run


def _loop(part: Mapping[str, Any], body: Call, inputs: Sequence[Array]) -> list[Array]:
    shared, count, turns = part.get("shared", 0), part.get("carried", 0), part["loop"]

    def turn(carried: Sequence[Array], rows: Sequence[Array]) -> tuple[list[Array], list[Array]]:
        outputs = body(*inputs[:shared], *carried, *rows)
        return outputs[:count], outputs[count:]

    stacks = [x.reshape(len(x), turns, -1).swapaxes(0, 1) for x in inputs[shared + count :]]
    start = list(inputs[shared : shared + count])
    reverse = part.get("reverse") is True
    carried, made = lax.scan(turn, start, stacks, length=turns, reverse=reverse)
    return [*carried, *(y.swapaxes(0, 1).reshape(y.shape[1], -1) for y in made)]


def _view(part: Mapping[str, Any], x: Array) -> Array:
    numbers, begin = part["view"], part.get("begin", 0)
    digits = list(zip(numbers[::2], numbers[1::2], strict=True))
    unit = digits[-1][0] if digits and digits[-1][1] == 1 else 1
    if any(number % unit for number in (begin, x.shape[1], *(stride for _, stride in digits[:-1]))):
        unit = 1
    digits = digits[:-1] if unit > 1 else digits
    places = np.full((), begin // unit)
    for count, stride in digits:
        places = places[..., None] + np.arange(count) * (stride // unit)
    rows = x.reshape(len(x), -1, unit)
    return jnp.take(rows, places.ravel(), axis=1).reshape(len(x), -1)


def _taken(part: Mapping[str, Any], read: Sequence[Array], constants: np.ndarray) -> Array:
    rows, floats, index = part["take"], part["floats"], read[-1]
    inside = (index >= 0) & (index <= rows - 1)
    places = jnp.clip(index, 0, rows - 1).astype(np.int32)
    if "constant" in part:
        made = jnp.asarray(constants[part["constant"] :][: rows * floats]).reshape(rows, floats)[
            places
        ]
    else:
        tables = read[0].reshape(len(index), -1, rows, floats)
        own = places.reshape(len(index), tables.shape[1], -1, 1)
        made = jnp.take_along_axis(tables, own, 2).reshape(*index.shape, floats)
    made = jnp.where(inside[..., None], made, np.nan) if part.get("fill") is True else made
    return made.reshape(len(index), -1)
