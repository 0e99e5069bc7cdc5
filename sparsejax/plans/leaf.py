"""A leaf of a plan: an array, or a layer of a stack of them, with its pattern and its target."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from sparsejax.patterns import Pattern
from sparsejax.top_k import count_pruned


@dataclass(frozen=True)
class PlanLeaf:
    """A leaf, its pattern and its target sparsity.

    A layer of a stack (`Stacked`) is a leaf, too: its path ends in its index, "layers/kernel[3]",
    its shape is that of the layer, and `at` holds (axis, index) where it lies in the array.
    """

    path: str
    shape: tuple[int, ...]
    pattern: Pattern
    sparsity: float
    at: tuple[tuple[int, int], ...] = ()

    @property
    def array_path(self) -> str:
        """The path of the array that holds the leaf: of the whole stack, for a layer of one."""
        return self.path.rpartition("[")[0] if self.at else self.path

    @property
    def num_weights(self) -> int:
        """The number of weights."""
        return int(np.prod(self.shape))

    @property
    def group_size(self) -> int:
        """The number of weights that are pruned or kept as one."""
        return self.num_weights // max(self.pattern.num_groups(self.shape), 1)

    @property
    def num_pruned(self) -> int:
        """The exact number of zeros at the target."""
        groups = self.pattern.num_groups(self.shape)
        return int(count_pruned(self.sparsity, groups)) * self.group_size


Leaves = Sequence[PlanLeaf]
Weights = Mapping[str, Any]
Allocator = Callable[[Leaves, Weights, float], dict[str, float]]


class Chooses(Protocol):
    """What `plan(budget=)` takes: a budget of `sj.budgets`."""

    def choose(self, alternatives: Sequence[Leaves], weights: Weights) -> Leaves:
        """One of the alternatives of each leaf, whose sparsity it sets where that is NaN."""
        ...
