"""What a paper's table is made of: our rows, the paper's numbers, and what should come out."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol


class Interrupted(Exception):
    """Ctrl-C was pressed; the state is saved."""


class Job(NamedTuple):
    """What a setting's `run` is told besides the setting itself.

    Args:
        seed: of everything random.
        smoke: a few steps on little data, seconds in all; the result means nothing.
        data: the folder with the user's own data sets (`--data-folder`), or None.
        folder: for checkpoints; empty at first, the same after an interruption, deleted in the end.
        report: to be called often as report(done, total, {"loss": ...}).
    """

    seed: int
    smoke: bool
    data: Path | None
    folder: Path
    report: Callable[[int, int, Mapping[str, float]], None]


def added(default: Any) -> Any:
    """A field that a setting got after its first records: at its default it is not mentioned.

    Settings stand in others, whose records go by all of their fields.
    """
    return field(default=default, metadata={"added": True})


class Setting(Protocol):
    """Everything that decides a result, seeds apart: a frozen dataclass.

    Its fields are numbers, strings, tuples, functions at the top of a module, or frozen dataclasses
    of such. `run` returns what JSON can hold; `headline` names the number that tables show.
    """

    headline: ClassVar[str]

    @property
    def label(self) -> str:
        """A short name for files and people."""

    def run(self, job: Job) -> dict[str, Any]:
        """The result; raises Interrupted once its state is saved."""


@dataclass(frozen=True)
class Row:
    """A line of ours; `seeds` is how many to run."""

    name: str
    setting: Setting
    seeds: int = 1


@dataclass(frozen=True)
class PaperNumber:
    """A number the paper's own source gives; `row` names the line of ours that answers to it."""

    setting: str
    value: float
    unit: str
    source: str
    row: str = ""


class MissingError(Exception):
    """A record that a claim needs is not there yet."""


@dataclass(frozen=True)
class Results:
    """The records of a table's rows by name."""

    records: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    headlines: Mapping[str, str] = field(default_factory=dict)

    def values(self, row: str, quantity: str | None = None) -> list[float]:
        """The row's headline, or another quantity of its result, for each seed there is."""
        quantity = self.headlines[row] if quantity is None else quantity
        return [record["result"][quantity] for record in self.records[row]]

    def mean(self, row: str, quantity: str | None = None) -> float:
        """The mean over the seeds.

        Raises:
            MissingError: there is no record yet.
        """
        values = self.values(row, quantity)
        if not values:
            raise MissingError(row)
        return statistics.fmean(values)

    def spread(self, row: str, quantity: str | None = None) -> float | None:
        """The standard deviation over the seeds (n - 1), or None with fewer than two."""
        values = self.values(row, quantity)
        return statistics.stdev(values) if len(values) > 1 else None


class Term(NamedTuple):
    """A mean over the seeds of a row, of its headline or of another quantity, times a factor."""

    row: str
    quantity: str | None = None
    factor: float = 1.0


MARGIN = 0.003  # of an accuracy: 0.3 points; less than that is of no use to anybody


class Contrast(NamedTuple):
    """That a sum of terms is above a number, by a margin that is of some use.

    Below it by the margin contradicts. `least` is how few seeds a row may have.
    """

    terms: tuple[Term, ...]
    above: float = 0.0
    margin: float = 0.0
    least: int = 3


def more(better: str, worse: str, quantity: str | None = None) -> Contrast:
    """That one row has the higher mean; for accuracies, by 0.3 points."""
    margin = MARGIN if (quantity or "accuracy").startswith("accuracy") else 0.0
    return Contrast((Term(better, quantity), Term(worse, quantity, -1.0)), margin=margin)


def no_less(row: str, other: str, quantity: str | None = None, by: float = MARGIN) -> Contrast:
    """That one row's mean is not below another's by as much as `by`."""
    return Contrast((Term(row, quantity), Term(other, quantity, -1.0)), above=-by)


class Fact(NamedTuple):
    """What each record says or does not, without chance: `holds(results)`, or MissingError."""

    holds: Callable[[Results], bool]


@dataclass(frozen=True)
class Claim:
    """A trend of the paper: all of its tests, or with `any_of` the best of them.

    Example:
        >>> Claim("gradual beats one-shot", more("gradual", "one-shot"))
    """

    text: str
    tests: tuple[Contrast | Fact, ...]
    any_of: bool

    def __init__(self, text: str, *tests: Contrast | Fact, any_of: bool = False):
        for name, value in (("text", text), ("tests", tests), ("any_of", any_of)):
            object.__setattr__(self, name, value)


class Paper(Protocol):
    """A file of experiments: what its module has at the top."""

    __name__: str
    __doc__: str | None
    TITLE: str
    ROWS: tuple[Row, ...]
    PAPER: tuple[PaperNumber, ...]
    CLAIMS: tuple[Claim, ...]
