"""How often each value occurs in integer maps: all that the length of a code depends on."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Integer

LIMIT = 2**32  # values of codes are below; a code word's number then fits 64 bits
COUNTED = 2**20  # up to here counting into a table is faster than sorting


class Histogram(NamedTuple):
    """The values that occur, ascending, and how often each does."""

    values: Int[np.ndarray, "levels"]
    counts: Int[np.ndarray, "levels"]

    @property
    def size(self) -> int:
        """The number of values in all."""
        return int(self.counts.sum())

    @property
    def nonzeros(self) -> int:
        """The number of those that are not zero."""
        return int(self.counts[self.values > 0].sum())


def histogram(*maps: Any) -> Histogram:
    """The histogram of integer maps, of all of them together.

    Raises:
      TypeError: the maps are not of integers.
      ValueError: a value is negative, or 2^32 or more.

    Example:
      >>> sj.activations.histogram(jnp.array([0, 3, 0]), jnp.array([3, 5])).counts
      array([2, 2, 1])
    """
    flat = [checked_maps("histogram", own).ravel() for own in maps]
    values = np.concatenate(flat) if flat else np.zeros(0, np.int64)
    if values.size and values.max() < COUNTED:
        counts = np.bincount(values)
        levels = np.flatnonzero(counts)
        return Histogram(levels.astype(np.int64), counts[levels].astype(np.int64))
    levels, counts = np.unique(values, return_counts=True)
    return Histogram(levels.astype(np.int64), counts.astype(np.int64))


def checked_maps(who: str, maps: Any) -> Integer[np.ndarray, "..."]:
    """The maps as int64, or a sentence that says why they cannot be coded."""
    array = np.asarray(maps)
    if array.dtype.kind not in "iu":
        raise TypeError(
            f"{who} needs integer maps, got {array.dtype}; call sj.activations.quantize first."
        )
    if array.size and (array.min() < 0 or array.max() >= LIMIT):
        raise ValueError(
            f"{who} needs values from 0 to 2^32 - 1, got {array.min()} to {array.max()}; "
            "quantize maps behind a ReLU."
        )
    return array.astype(np.int64)
