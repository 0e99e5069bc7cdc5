"""What a search chooses from: for each name some values, whole numbers or an interval."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Interval(NamedTuple):
    """All numbers from `low` to `high`."""

    low: float
    high: float


Choice = dict[str, Any]
Space = Mapping[str, Interval | Sequence[Any]]
"""By name: an `Interval`, a `range` of whole numbers, or a sequence of values without an order."""


def check_space(who: str, space: Space) -> None:
    """Each name has something to choose from.

    Raises:
      ValueError: there is no name, or one without values.
    """
    empty = [
        name
        for name, own in space.items()
        if not (own.low <= own.high if isinstance(own, Interval) else len(own))
    ]
    if empty or not space:
        raise ValueError(
            f"{who} needs an Interval, a range or values for each name, got none for "
            f"{', '.join(empty) or 'any name'}."
        )


def drawn(space: Space, rng: np.random.Generator) -> Choice:
    """A choice at random: every value, or number of an interval, as likely as the others."""
    return {
        name: float(rng.uniform(own.low, own.high))
        if isinstance(own, Interval)
        else own[int(rng.integers(len(own)))]
        for name, own in space.items()
    }
