"""Matrices of weights in the smallest of the ways that xla_ops/files/weights.h describes."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

BLOCKS = (1, 2, 4, 8)
MAX_EXPANSION = 1024  # bytes of weights for each stored byte: no reader allows more


class Stored(NamedTuple):
    """Weights as they are stored.

    Attributes:
        form: how it is said which cells are stored: "all", "mask" or "gaps".
        block: rows of a cell.
        values: of these cells.
        where: the bits or gaps, None for "all".
    """

    form: str
    block: int
    values: np.ndarray
    where: np.ndarray | None = None

    @property
    def num_bytes(self) -> int:
        """Of values and index."""
        return self.values.nbytes + (0 if self.where is None else self.where.nbytes)


def stored(matrix: np.ndarray, dtype: type[np.floating]) -> Stored:
    """A float32 (rows, cols) matrix as it takes the fewest bytes, its values in `dtype`."""
    ways = [Stored("all", 1, matrix.astype(dtype).ravel())]
    for block in BLOCKS:
        ways += _sparse(matrix, block, dtype)
    readable = (way for way in ways if matrix.nbytes <= MAX_EXPANSION * way.num_bytes)
    return min(readable, key=lambda way: way.num_bytes)


def _sparse(matrix: np.ndarray, block: int, dtype: type[np.floating]) -> Iterator[Stored]:
    rows, cols = matrix.shape
    padded: np.ndarray = np.pad(matrix, ((0, -rows % block), (0, 0)))
    cells = padded.reshape(-1, block, cols).swapaxes(1, 2).reshape(-1, block)
    kept: Any = cells.any(axis=1)
    values = cells[kept].astype(dtype).ravel()
    yield Stored("mask", block, values, np.packbits(kept, bitorder="little"))
    yield Stored("gaps", block, values, gaps(kept, np.uint8))
    yield Stored("gaps", block, values, gaps(kept, np.uint16))


def gaps(kept: np.ndarray, dtype: type[np.unsignedinteger]) -> np.ndarray:
    """How many cells lie before each that is kept, and behind the last; too many in several parts.

    >>> gaps(np.array([False, True, True, False]), np.uint8).tolist()
    [1, 0, 1]
    """
    most = int(np.iinfo(dtype).max)
    places = np.flatnonzero(kept)
    before = np.diff(places, prepend=-1) - 1
    behind = kept.size - 1 - (places[-1] if places.size else -1)
    parts = before // most + 1
    codes = np.full(int(parts.sum()), most, dtype)
    codes[np.cumsum(parts) - 1] = before % most
    last = [behind % most] if behind % most else []
    return np.concatenate([codes, np.array([most] * (behind // most) + last, dtype)])
