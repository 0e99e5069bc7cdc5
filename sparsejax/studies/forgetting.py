"""Data efficiency: which examples a network never forgets, and a data source without them."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int


class ForgettingCounts(NamedTuple):
    """For each example: how often it was forgotten, whether it was right at last, and ever."""

    events: Int[np.ndarray, "examples"]
    correct: Bool[np.ndarray, "examples"]
    learned: Bool[np.ndarray, "examples"]


def no_forgetting(num_examples: int) -> ForgettingCounts:
    """The counts before the first epoch."""
    if num_examples < 1:
        raise ValueError(f"no_forgetting needs num_examples >= 1, got {num_examples}.")
    return ForgettingCounts(
        np.zeros(num_examples, np.int64), np.zeros(num_examples, bool), np.zeros(num_examples, bool)
    )


def count_forgetting(
    counts: ForgettingCounts, indices: Int[Any, "batch"], correct: Bool[Any, "batch"]
) -> ForgettingCounts:
    """The counts after a batch in which the examples of these indices were right or wrong.

    An example is forgotten when it was right the last time and is wrong now.

    Reference: Toneva et al., "An Empirical Study of Example Forgetting during Deep Neural Network
    Learning", ICLR 2019, arXiv 1812.05159, definition 1; as used in Yuan et al., "MEST", NeurIPS
    2021, arXiv 2110.14032.
    """
    indices, correct = np.asarray(indices), np.asarray(correct, bool)
    events, last, learned = (part.copy() for part in counts)
    events[indices] += last[indices] & ~correct
    last[indices] = correct
    learned[indices] |= correct
    return ForgettingCounts(events, last, learned)


def most_forgotten(
    counts: ForgettingCounts, num_removed: int, num_epochs: int
) -> Int[np.ndarray, "kept"]:
    """The indices, ascending, of all examples but the `num_removed` least forgotten.

    Examples that were never right count as forgotten in each of the `num_epochs` epochs; among
    equals those with lower indices are removed. MEST removes 12,000 of 50,000 after epoch 70 of
    160.

    Raises:
      ValueError: num_removed is not in 0..examples.

    Reference: Yuan et al., "MEST: Accurate and Fast Memory-Economic Sparse Training Framework on
    the Edge", NeurIPS 2021, arXiv 2110.14032; as in the authors' code.
    """
    if not 0 <= num_removed <= len(counts.events):
        raise ValueError(
            f"most_forgotten needs num_removed in 0..{len(counts.events)}, got {num_removed}."
        )
    events = np.where(counts.learned, counts.events, num_epochs)
    return np.sort(np.argsort(events, kind="stable")[num_removed:])


@dataclass(frozen=True)
class KeptExamples:
    """A data source with some of the examples of another, such as `most_forgotten` names.

    It has a length and items, as `grain.MapDataset.source` and torch samplers want.

    Attributes:
        source: anything with items.
        indices: the examples to keep, in the order of this source.
    """

    source: Any
    indices: Int[np.ndarray, "kept"]

    def __len__(self) -> int:
        """How many are kept."""
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        """The kept example of this index."""
        return self.source[int(self.indices[index])]
