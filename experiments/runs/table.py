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


@dataclass(frozen=True)
class Claim:
    """A trend of the paper and how to look for it: `holds(results)`, which may raise MissingError.

    Example:
        >>> Claim("gradual beats one-shot", lambda r: r.mean("gradual") > r.mean("one-shot"))
    """

    text: str
    holds: Callable[[Results], bool | None]

    def check(self, results: Results) -> bool | None:
        """Whether the claim holds, or None while records are missing."""
        try:
            return self.holds(results)
        except MissingError:
            return None


class Paper(Protocol):
    """A file of experiments: what its module has at the top."""

    __name__: str
    __doc__: str | None
    TITLE: str
    ROWS: tuple[Row, ...]
    PAPER: tuple[PaperNumber, ...]
    CLAIMS: tuple[Claim, ...]
