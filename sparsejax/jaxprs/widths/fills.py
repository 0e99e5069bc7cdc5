"""What removed channels hold: whether the rest of a network could see that they are gone.

Along each axis with removed positions, a fill is the number that the values hold at each of them,
whatever the inputs are and wherever in the other axes; NaN where there is no such number. Channels
leave where an axis is summed or contracted: that is as if they had never been there, if they are
zero.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sparsejax.jaxprs.in_numpy import ELEMENTWISE as FUNCTIONS
from sparsejax.jaxprs.kinds import ELEMENTWISE
from sparsejax.jaxprs.widths.folding import Owed
from sparsejax.jaxprs.widths.held import held, kept
from sparsejax.jaxprs.widths.program import Value
from sparsejax.jaxprs.widths.spans import Spans

Vector = np.ndarray
MOVES = ("reshape", "squeeze", "expand_dims", "transpose", "slice", "dynamic_slice", "rev", "split")


class Fill(NamedTuple):
    """What a variable holds.

    Attributes:
      along: for each axis with removed positions, the number at each of them; NaN elsewhere.
      constant: the number that it is everywhere, None if it is not one.
      array: the weights themselves, where they are known and were only moved.
      owed: what it lacks without the removed channels.
    """

    along: dict[int, Vector]
    constant: float | None = None
    array: np.ndarray | None = None
    owed: tuple[Owed, ...] = ()


class Seen(NamedTuple):
    """What would see that units of a run are gone.

    Attributes:
      units: those that are seen.
      reason: the first equation that sees one.
      sums: is there a sum over the run that is no product?
    """

    units: np.ndarray
    reason: str = ""
    sums: bool = False


class Removal:
    """Units that are removed: `keep` says which of which runs stay; and what would see that."""

    def __init__(self, spans: Spans, keep: Mapping[int, np.ndarray]):
        self.spans = spans
        self.keep = keep
        self.seen = {run: Seen(np.zeros(len(own), bool)) for run, own in keep.items()}
        self.folded: dict[str, list[tuple[np.ndarray, Owed]]] = {}  # amounts for a param
        self.uses: Counter[str] = Counter()
        self._removed: dict[int, np.ndarray | None] = {}

    def removed(self, span: int) -> np.ndarray | None:
        """Which positions are gone; None if none is."""
        span = self.spans.find(span)
        if span not in self._removed:
            # A derivative that is read later may have given a run another number.
            keep = {self.spans.find(run): own for run, own in self.keep.items()}
            touched = any(run in keep for run in self.spans.runs(span))
            gone = ~kept(self.spans, span, keep) if touched else None
            self._removed[span] = gone if gone is not None and gone.any() else None
        return self._removed[span]

    def fill(self, value: Value, along: Callable[[int], Vector | float]) -> Fill:
        """A fill of `along(axis)` where positions are removed."""
        own = {}
        for axis, span in enumerate(value.axes):
            gone = self.removed(span)
            if gone is not None:
                own[axis] = np.where(gone, along(axis), np.nan)
        return Fill(own)

    def exits(self, span: int, bad: np.ndarray, said: str, sums: bool = False) -> None:
        """An axis ends in an equation, at whose `bad` positions it matters what they held."""
        for run, own in held(self.spans, span).items():
            if run not in self.keep:
                continue
            units, reason, summed = self.seen[run]
            hit = own.units[bad[own.positions] & ~self.keep[run][own.units]]
            units[hit] = True
            if hit.size and not reason:
                reason = said
            self.seen[run] = Seen(units, reason, summed or sums)

    def charge(self, owed: Iterable[Owed]) -> None:
        """Nothing can take what is owed: the channels must stay."""
        for own in owed:
            self.exits(own.span, own.bad, own.said)


def vector(fill: Fill, axis: int, size: int) -> Vector:
    """The numbers along an axis, also of what is one number or not known."""
    if axis in fill.along and len(fill.along[axis]) == size:
        return fill.along[axis]
    return np.full(size, np.nan if fill.constant is None else fill.constant)


def constant_of(equation: Any, constants: Sequence[float | None]) -> float | None:
    """The number that all elements of the result are."""
    name = equation.primitive.name
    if not constants or any(constant is None for constant in constants):
        return None
    own = [np.array([constant], np.float64) for constant in constants]
    if name in MOVES or name == "broadcast_in_dim":
        result = own[0]
    elif name in ELEMENTWISE:
        result = evaluated(equation, own)
    else:
        return None
    return None if np.isnan(result[0]) else float(result[0])


def evaluated(equation: Any, own: Sequence[Vector]) -> Vector:
    """An elementwise equation on known numbers; NaN is not known, but nothing times it is."""
    name, params = equation.primitive.name, equation.params
    unknown = np.isnan(np.stack(own)).any(0)
    with np.errstate(all="ignore"):
        if name == "mul":
            # 0 times what is not known is 0: a removed channel's weights silence whatever comes.
            return np.where((own[0] == 0) | (own[1] == 0), 0.0, own[0] * own[1])
        if name == "div":
            return np.where((own[0] == 0) & (own[1] != 0), 0.0, own[0] / own[1])
        if name == "select_n":
            return _selected(*own)
        if name == "integer_pow":
            return own[0] ** params["y"]
        if name not in FUNCTIONS:
            return np.full(len(own[0]), np.nan)
        return np.where(unknown, np.nan, FUNCTIONS[name](*own))


def _selected(which: Vector, *cases: Vector) -> Vector:
    alike = np.all([case == cases[0] for case in cases], axis=0)
    chosen = np.choose(np.nan_to_num(which).astype(int), cases)
    return np.where(alike, cases[0], np.where(np.isnan(which), np.nan, chosen))


def zero_or_unknown(own: Vector) -> Vector:
    """What is zero stays so."""
    return np.where(own == 0, 0.0, np.nan)


def agreed(own: Sequence[Vector]) -> Vector:
    """What all say."""
    return np.where(np.all([one == own[0] for one in own], axis=0), own[0], np.nan)


def joined(removal: Removal, value: Value, fills: Sequence[Fill]) -> Fill:
    """What a variable holds that is one of several."""
    size = lambda axis: removal.spans.size(value.axes[axis])
    along = lambda axis: agreed([vector(fill, axis, size(axis)) for fill in fills])
    constants = {fill.constant for fill in fills}
    constant = constants.pop() if len(constants) == 1 else None
    return removal.fill(value, along)._replace(constant=constant)
