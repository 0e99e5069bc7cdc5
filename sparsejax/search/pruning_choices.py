"""The space of neural pruning search: a pattern and a rate for each layer, with measured times."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from sparsejax.budgets.latency import LatencyTable
from sparsejax.plans.leaf import Leaves, PlanLeaf, Weights
from sparsejax.plans.plan import Plan, plan
from sparsejax.search.space import Choice

RATES = (1.0, 2.0, 2.5, 3.0, 5.0, 7.0, 10.0)


@dataclass(frozen=True)
class PruningSpace:
    """For each layer some patterns at some rates; what a choice of them takes by a table.

    Attributes:
      leaves: of each layer by path, by label "pattern at rate x", a leaf of a plan.
      table: milliseconds of the leaves.
    """

    leaves: Mapping[str, Mapping[str, PlanLeaf]]
    table: LatencyTable

    @property
    def space(self) -> dict[str, tuple[str, ...]]:
        """The labels of each layer, for a sampler."""
        return {path: tuple(own) for path, own in self.leaves.items()}

    def plan(self, choice: Choice) -> Plan:
        """The plan of a choice, for `sj.sparsify`, `sj.compile` or `pruned`."""
        return Plan(tuple(own[choice[path]] for path, own in self.leaves.items()))

    def milliseconds(self, choice: Choice) -> float:
        """What the network of a choice takes, by the table."""
        return self.table.milliseconds_of(self.plan(choice))

    def score(self, choice: Choice, accuracy: float, target: float, strength: float) -> float:
        """accuracy - strength * max(0, milliseconds - target)."""
        return accuracy - strength * max(0.0, self.milliseconds(choice) - target)


def sparsities_of(rates: Sequence[float] = RATES) -> list[float]:
    """1 - 1 / rate of each, for `LatencyTable.measure`.

    Args:
      rates: weights for each that is kept, >= 1.

    Raises:
      ValueError: a rate below 1.

    Example:
      >>> sj.search.sparsities_of((1, 2, 5))
      [0.0, 0.5, 0.8]
    """
    if low := [rate for rate in rates if rate < 1]:
        raise ValueError(f"sparsities_of needs rates of at least 1, got {low[0]}.")
    return [1.0 - 1.0 / rate for rate in rates]


def pruning_space(
    params: Any, rules: Mapping[str, Any], table: LatencyTable, *, rates: Sequence[float] = RATES
) -> PruningSpace:
    """The patterns of the rules at the rates, for each layer that they name.

    A pattern that does not reach a rate's sparsity is left out at that rate; rate 1 stands once.

    Args:
      params: of the network.
      rules: as for `sj.plan`, with lists of patterns.
      table: `LatencyTable.measure` of the same rules, best at `sparsities_of(rates)`.
      rates: weights for each that is kept.

    Raises:
      KeyError: the table lacks a pattern of a layer.

    Example:
      >>> rules = {"body": [sj.Unstructured(), sj.Block(4, 1)]}
      >>> levels = sj.search.sparsities_of((1, 2))
      >>> table = sj.budgets.LatencyTable.measure(model.apply, params, rules, x, sparsities=levels)
      >>> space = sj.search.pruning_space(params, rules, table, rates=(1, 2))
      >>> space.space["body/kernel"][:2]
      ('dense', 'Unstructured(output_axis=-1) at 2x')

    Reference: Zhao et al., "Achieving Real-Time Object Detection on Mobile Devices with Neural
    Pruning Search", 2021, arXiv 2106.14943; rates as remembered of Li et al., "NPAS: A
    Compiler-aware Framework of Unified Network Pruning and Architecture Search for Beyond Real-Time
    Mobile Acceleration", CVPR 2021, arXiv 2012.00596, whose text was not at hand.
    """
    gathered = _Alternatives([])
    plan(params, rules, budget=gathered)
    levels = dict(zip(sparsities_of(rates), rates, strict=True))
    leaves: dict[str, dict[str, PlanLeaf]] = {}
    for each in gathered.found:
        own = leaves.setdefault(each[0].path, {})
        for leaf in each:
            for level, rate in levels.items():
                if level <= leaf.pattern.max_sparsity(leaf.shape):
                    label = f"{leaf.pattern} at {rate:g}x" if level else "dense"
                    own.setdefault(label, replace(leaf, sparsity=level))
                    table.microseconds_of(own[label])
    return PruningSpace(leaves, table)


class _Alternatives(NamedTuple):
    """A budget that gathers what there is to choose from."""

    found: list[Leaves]

    def choose(self, alternatives: Sequence[Leaves], weights: Weights) -> list[PlanLeaf]:
        self.found.extend(alternatives)
        return [replace(own[0], sparsity=0.0) for own in alternatives]
