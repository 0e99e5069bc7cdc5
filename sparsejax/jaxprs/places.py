"""Where in a jaxpr a product lies, and whose weights it holds."""

from typing import Any, NamedTuple

import numpy as np

from sparsejax.jaxprs.kinds import Kind
from sparsejax.jaxprs.moves import Label, is_uniform

Trail = tuple[int, ...]


class Labels(NamedTuple):
    """The labels of the weights: those of `paths[i]` begin at `starts[i]`; labels[i] None is data.

    Labels are > 0; 0 is no weight. All weights of a `coarse` leaf have one label.
    """

    paths: tuple[str, ...]
    starts: np.ndarray
    coarse: frozenset[str] = frozenset()

    def owners(self, labels: Label | None) -> dict[str, int]:
        """How many elements each leaf has there."""
        if labels is None:
            return {}
        if labels.size and is_uniform(labels):
            own, counts = np.asarray(labels[(0,) * labels.ndim])[None], np.array([labels.size])
            numbers = np.searchsorted(self.starts, own, side="right")
        else:
            numbers = np.searchsorted(self.starts, labels.ravel(), side="right")
            counts = np.bincount(numbers, minlength=1)
            numbers = np.flatnonzero(counts)
            counts = counts[numbers]
        found = zip(numbers.tolist(), counts.tolist(), strict=True)
        return {self.paths[number - 1]: count for number, count in found if number}

    def path(self, label: int) -> str:
        """The leaf that a label belongs to."""
        return self.paths[int(np.searchsorted(self.starts, label, side="right")) - 1]

    def of(self, path: str, labels: Label) -> Label:
        """The labels of one leaf, 0 elsewhere."""
        number = self.paths.index(path)
        end = self.starts[number + 1] if number + 1 < len(self.starts) else np.inf
        return np.where((labels >= self.starts[number]) & (labels < end), labels, 0)


class Site(NamedTuple):
    """A product with a weight.

    Attributes:
      trail: the ids of the equations around it, and its own.
      steps: of each loop around it, which turn; None if all turns are alike.
      times: how often it runs.
      choices: (trail, branch) of each `cond` around it.
      equation: the product; a `mul` if it is written out.
      kinds: of its two operands.
    """

    trail: Trail
    steps: tuple[int | None, ...]
    times: int
    choices: tuple[tuple[Trail, int], ...]
    equation: Any
    kinds: tuple[Kind, Kind]


class Place(NamedTuple):
    """Where the reader is; as in Site."""

    trail: Trail
    steps: tuple[int | None, ...]
    times: int
    choices: tuple[tuple[Trail, int], ...]

    def inside(self, equation: Any) -> "Place":
        return self._replace(trail=(*self.trail, id(equation)))

    def turn(self, step: int | None, times: int) -> "Place":
        return self._replace(steps=(*self.steps, step), times=self.times * times)
