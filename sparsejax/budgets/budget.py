"""A budget: what each leaf costs at each sparsity, what it loses, and how much all may cost."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sparsejax.budgets.knapsack import cheapest_loss
from sparsejax.plans.leaf import PlanLeaf, Weights

SPARSITIES = (0.0, *(n / 20 for n in range(4, 19)), 0.925, 0.95, 0.96, 0.97, 0.98, 0.99)
"""What is chosen from, where costs are no table."""

Losses = Callable[[PlanLeaf, object, Sequence[float]], np.ndarray]
"""(leaf, weights, sparsities) -> the loss at each of them, comparable between leaves."""


@dataclass(frozen=True)
class Budget:
    """How much the leaves of a plan may cost together; made by the functions beside it.

    Attributes:
        limit: of the sum of costs, `fixed` included; of the dense leaves' sum if `relative`.
        unit: in words, for errors.
        cost: (leaf, layers) -> the cost of a leaf at its sparsity; layers are those of its array.
        losses: of a leaf at several sparsities.
        sparsities: leaf -> those that it may have; `SPARSITIES` if None.
        fixed: what is spent whatever the leaves do.
        relative: is the limit a fraction of what dense leaves cost?
    """

    limit: float
    unit: str
    cost: Callable[[PlanLeaf, int], float]
    losses: Losses
    sparsities: Callable[[PlanLeaf], Sequence[float]] | None = None
    fixed: float = 0.0
    relative: bool = False

    def choose(
        self, alternatives: Sequence[Sequence[PlanLeaf]], weights: Weights
    ) -> list[PlanLeaf]:
        """The leaves with the least sum of losses whose costs stay within the budget.

        Args:
            alternatives: of each leaf, one for each pattern that it may have; a sparsity that is
                not NaN stays.
            weights: of the leaves, by path.

        Raises:
            ValueError: the cheapest choice costs more than the budget.
        """
        options = [
            [leaf for own in each for leaf in self._at_sparsities(own)] for each in alternatives
        ]
        layers = Counter(each[0].array_path for each in alternatives)
        price = lambda leaf: self.cost(leaf, layers[leaf.array_path])
        costs = [np.array([price(leaf) for leaf in own]) for own in options]
        losses = [
            np.concatenate([self._losses(own, weights) for own in each]) for each in alternatives
        ]
        limit = self.limit
        if self.relative:
            limit *= sum(price(replace(each[0], sparsity=0.0)) for each in alternatives)
        self._check_reachable(limit, sum(own.min() for own in costs))
        chosen = cheapest_loss(costs, losses, limit - self.fixed)
        return [own[index] for own, index in zip(options, chosen, strict=True)]

    def _levels(self, leaf: PlanLeaf) -> list[float]:
        """The sparsities that the leaf may have, its pattern's highest among them."""
        if not np.isnan(leaf.sparsity):
            return [leaf.sparsity]
        highest = leaf.pattern.max_sparsity(leaf.shape)
        known = SPARSITIES if self.sparsities is None else self.sparsities(leaf)
        levels = [level for level in known if level <= highest]
        return levels if highest == 1.0 or highest in levels else [*levels, highest]

    def _at_sparsities(self, leaf: PlanLeaf) -> list[PlanLeaf]:
        return [replace(leaf, sparsity=level) for level in self._levels(leaf)]

    def _losses(self, leaf: PlanLeaf, weights: Weights) -> np.ndarray:
        return self.losses(leaf, weights[leaf.path], self._levels(leaf))

    def _check_reachable(self, limit: float, least: float) -> None:
        if self.fixed + least > limit * (1 + 1e-9):
            spent = f", {self.fixed:.4g} of them whatever is pruned" if self.fixed else ""
            raise ValueError(
                f"A budget of {limit:.4g} {self.unit} cannot be met: the plan's leaves cost at "
                f"least {self.fixed + least:.4g}{spent}; raise it, or let more leaves be pruned."
            )
