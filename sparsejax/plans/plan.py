"""The plan: which leaves are sparse, in which pattern and how much; static and serialisable."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np

from sparsejax import patterns, text, tree
from sparsejax.doors import ALLOCATOR, checked
from sparsejax.patterns import Pattern
from sparsejax.patterns.stacked import Stacked, array_shape, name_of, slice_shape, take
from sparsejax.plans import plan_json
from sparsejax.plans.allocate import uniform
from sparsejax.plans.leaf import Allocator, Chooses, PlanLeaf
from sparsejax.plans.orientation import (
    check_orientation,
    warn_of_cap,
    warn_of_rounding,
    warn_of_vectors,
)
from sparsejax.plans.rules import check_rules, claimed_by, hint, patterns_of

PATTERNS = tuple(
    thing for thing in vars(patterns).values() if Pattern in getattr(thing, "__mro__", ())[1:]
)
Rule = Pattern | Stacked | tuple[Pattern | Stacked, float] | list[Pattern | Stacked] | None
CAPTION = "sparsity = zeros / weights of the leaves listed here; all others are dense"


@dataclass(frozen=True)
class Plan:
    """The sparse leaves in the order of the params; leaves that it does not name are dense."""

    leaves: tuple[PlanLeaf, ...]

    def __post_init__(self) -> None:
        paths = [leaf.path for leaf in self.leaves]
        for leaf in self.leaves:
            if paths.count(leaf.path) > 1:
                raise ValueError(f"{leaf.path}: a plan needs each leaf once, got it twice.")
            _check_leaf(leaf)

    def __getitem__(self, path: str) -> PlanLeaf:
        """The leaf of this path."""
        if path not in self._by_path:
            raise KeyError(f"The plan has no leaf {path!r}; {hint(path, list(self._by_path))}.")
        return self._by_path[path]

    def get(self, path: str) -> PlanLeaf | None:
        """The leaf of this path, or None where it is dense; a stack has a leaf for each layer."""
        leaf = self._by_path.get(path)
        if leaf is None and path in self._by_array:
            raise KeyError(
                f"{path!r} is a stack of {len(self._by_array[path])} leaves, the first of them "
                f"{self._by_array[path][0].path!r}; ask for one of them, or for slices({path!r})."
            )
        return leaf

    def slices(self, path: str) -> tuple[PlanLeaf, ...]:
        """The leaves in the array of this path: one, all layers of a stack, or none if dense."""
        return self._by_array.get(path, ())

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each array that holds planned leaves, by its path."""
        return {path: array_shape(leaves) for path, leaves in self._by_array.items()}

    @cached_property
    def _by_path(self) -> dict[str, PlanLeaf]:
        return {leaf.path: leaf for leaf in self.leaves}

    @cached_property
    def _by_array(self) -> dict[str, tuple[PlanLeaf, ...]]:
        found: dict[str, tuple[PlanLeaf, ...]] = {}
        for leaf in self.leaves:
            found[leaf.array_path] = (*found.get(leaf.array_path, ()), leaf)
        return found

    @property
    def num_weights(self) -> int:
        """The number of weights in the plan's leaves: the denominator of `sparsity`."""
        return sum(leaf.num_weights for leaf in self.leaves)

    @property
    def num_pruned(self) -> int:
        """The exact number of zeros at the target."""
        return sum(leaf.num_pruned for leaf in self.leaves)

    @property
    def sparsity(self) -> float:
        """Zeros at the target / weights in the plan's leaves (dense leaves do not count)."""
        return self.num_pruned / max(self.num_weights, 1)

    def __str__(self) -> str:
        """The plan as a table of 80 columns."""
        return str(self._table())

    def _repr_html_(self) -> str:
        return self._table().html()

    def _table(self) -> text.Table:
        paths, note = text.shortened([leaf.path for leaf in self.leaves])
        rows = [
            (path, "x".join(map(str, leaf.shape)), text.brief(leaf.pattern), *_numbers(leaf))
            for path, leaf in zip(paths, self.leaves, strict=True)
        ]
        return text.Table(
            "Plan",
            ["leaf", "shape", "pattern", "weights", "sparsity", "kept"],
            rows,
            footer=("total", "", "", *_numbers(self)),
            caption=note + CAPTION,
        )

    def to_json(self) -> str:
        """The plan as JSON; patterns by class name and fields."""
        return plan_json.to_json(self.leaves)

    @classmethod
    def from_json(cls, source: str, *, patterns: tuple[type, ...] = PATTERNS) -> "Plan":
        """The plan that `to_json` wrote; name your own pattern classes in `patterns`.

        Raises:
            ValueError: it is not what `to_json` writes, or no plan can be so: the leaf is named.
        """
        return cls(plan_json.from_json(source, patterns))


def _check_leaf(leaf: PlanLeaf) -> None:
    """Its pattern fits its shape, and its sparsity is one that the pattern reaches."""
    if not all(0 <= length < 2**63 for length in leaf.shape):
        raise ValueError(f"{leaf.path}: a leaf's lengths must be in [0, 2**63), got {leaf.shape}.")
    leaf.pattern.validate(leaf.shape, leaf.path)
    highest = leaf.pattern.max_sparsity(leaf.shape)
    if not 0.0 <= leaf.sparsity <= highest:
        raise ValueError(
            f"{leaf.path}: {leaf.pattern} needs a sparsity in [0, {highest:g}], "
            f"got {leaf.sparsity}."
        )


@checked(allocate=ALLOCATOR)
def plan(
    params: Any,
    rules: Mapping[str, Rule],
    *,
    sparsity: float | None = None,
    allocate: Allocator = uniform,
    budget: Chooses | None = None,
) -> Plan:
    """The plan that the rules make of the params.

    A rule is a regular expression, searched in the normalised path ("layers/0/kernel"), and what
    to do with the leaf: a Pattern, (Pattern, sparsity), or None for dense. `Stacked(Pattern)` takes
    each layer of an array that a scan goes over for a leaf of its own. The first match wins; what
    no rule matches is dense. `NM` leaves have the sparsity 1 - n/m unless the rule gives one.

    Args:
      params: any pytree of arrays, or of shapes where the allocator looks at shapes only.
      rules: as above, in order.
      sparsity: fraction of zeros in [0, 1) over the leaves whose rule leaves it open.
      allocate: divides it among them: `uniform`, `erk`, `lamp`, `global_magnitude`, ...
      budget: of `sj.budgets`, in place of both: it chooses the sparsity of each leaf, and its
        pattern where the rule is a list of them, so that the sum of costs keeps the budget and the
        sum of losses is least.

    Raises:
      ValueError: a rule claims no leaf, a pattern does not fit its leaf, it is not known which of
        the leaf's axes the pattern counts along, or the budget cannot be met.

    Warns (`SparsityWarning`) where a rule prunes vectors among matrices, where a pattern does not
    reach the sparsity, and where one that you gave rounds to no group of a leaf or to all of them.

    Example:
      >>> params = {"body": {"kernel": jnp.ones((8, 4))}, "head": {"kernel": jnp.ones((4, 2))}}
      >>> sj.plan(params, {r"head": None, r"kernel": sj.Unstructured()}, sparsity=0.75).sparsity
      0.75
    """
    check_rules(rules, choices=budget is not None)
    arrays = {path: leaf for path, leaf in tree.leaves_with_paths(params) if hasattr(leaf, "shape")}
    claims = _claims(rules, list(arrays))
    if budget is not None:
        if sparsity is not None or allocate is not uniform:
            raise ValueError(
                "plan needs either a budget or a sparsity and its allocation, got both."
            )
        return _within(budget, arrays, rules, claims)
    leaves = [
        leaf
        for path, regex in claims
        if rules[regex] is not None
        for leaf in _planned(path, arrays, rules[regex], regex)
    ]
    rule_of = dict(claims)
    leaves = [_capped(leaf, rule_of[leaf.array_path], sparsity) for leaf in leaves]
    _warn_of_vectors(rules, claims, arrays)
    open_leaves = [leaf for leaf in leaves if np.isnan(leaf.sparsity)]
    allocated: dict[str, float] = {}
    if open_leaves:
        if not isinstance(sparsity, int | float | np.floating) or not 0.0 <= sparsity < 1.0:
            raise ValueError(f"plan needs a sparsity in [0, 1), got {sparsity!r}.")
        weights = {leaf.path: take(leaf, arrays[leaf.array_path]) for leaf in open_leaves}
        allocated = allocate(open_leaves, weights, sparsity)
    made = Plan(
        tuple(replace(leaf, sparsity=allocated.get(leaf.path, leaf.sparsity)) for leaf in leaves)
    )
    for leaf in made.leaves:
        if allocate is uniform or leaf.path not in allocated:  # else it is the allocator's choice
            warn_of_rounding(leaf, rule_of[leaf.array_path])
    return made


def _within(
    budget: Chooses, arrays: Mapping[str, Any], rules: Mapping[str, Rule], claims: Any
) -> Plan:
    """The plan that a budget chooses."""
    _warn_of_vectors(rules, claims, arrays)
    alternatives = [
        own
        for path, regex in claims
        if (choice := patterns_of(rules[regex]))
        for own in zip(*(_planned(path, arrays, each, regex) for each in choice), strict=True)
    ]
    weights = {own[0].path: take(own[0], arrays[own[0].array_path]) for own in alternatives}
    return Plan(tuple(budget.choose(alternatives, weights)))


def _claims(rules: Mapping[str, Rule], paths: list[str]) -> list[tuple[str, str]]:
    """Each path with the first rule that matches it; every rule must claim one."""
    claimed: dict[str, str] = {}
    for path in paths:
        first = next((regex for regex in rules if re.search(regex, path)), None)
        if first is not None:
            claimed[path] = first
    for regex in rules:
        if regex not in claimed.values():
            taken = sorted({claimed[path] for path in claimed if re.search(regex, path)})
            if taken:
                why = f"its leaves are claimed by {', '.join(map(repr, taken))} before it"
            else:
                why = hint(regex, paths)
            raise ValueError(f"plan needs each rule to claim a leaf, {regex!r} claims none; {why}.")
    return list(claimed.items())


def _warn_of_vectors(rules: Mapping[str, Rule], claims: Any, arrays: Mapping[str, Any]) -> None:
    """Say where a rule that matches matrices prunes scales or biases as well."""
    for regex in rules:
        own = [path for path, other in claims if other == regex and rules[regex] is not None]
        vectors = [path for path in own if len(arrays[path].shape) < 2]
        matrices = [p for p, x in arrays.items() if len(x.shape) > 1 and re.search(regex, p)]
        warn_of_vectors(regex, vectors, len(vectors) + len(matrices))


def _planned(path: str, arrays: Mapping[str, Any], rule: Any, regex: str) -> list[PlanLeaf]:
    """The leaf, or the layers of a stack, with its sparsity, or NaN where the allocator decides."""
    pattern, sparsity = rule if isinstance(rule, tuple) else (rule, float("nan"))
    places: list[Any] = [()]
    leaf = arrays[path]
    shape = tuple(leaf.shape)
    with claimed_by(regex):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(f"{path}: a sparse leaf must be floating point, got {leaf.dtype}.")
        if isinstance(pattern, Stacked):
            places = list(pattern.places(shape, path))
            pattern = pattern.pattern
            shape = slice_shape(shape, places[0]) if places else shape
    layer = places[0] if places else ()
    shapes = {name: slice_shape(tuple(array.shape), layer) for name, array in arrays.items()}
    check_orientation(pattern, shape, path, regex, shapes)
    with claimed_by(regex):
        _check_leaf(PlanLeaf(path, shape, pattern, 0.0 if np.isnan(sparsity) else sparsity))
    return [PlanLeaf(name_of(path, at), shape, pattern, sparsity, at) for at in places]


def _capped(leaf: PlanLeaf, regex: str, wanted: Any) -> PlanLeaf:
    """The leaf at its pattern's highest sparsity, if that is below what an allocator may choose."""
    highest = leaf.pattern.max_sparsity(leaf.shape)
    if highest == 1.0 or not np.isnan(leaf.sparsity):
        return leaf
    if not any(index for _, index in leaf.at):  # of a stack once
        warn_of_cap(leaf.array_path, leaf.pattern, regex, wanted or 0.0, highest)
    return replace(leaf, sparsity=highest)


def _numbers(part: PlanLeaf | Plan) -> tuple[str, str, str]:
    kept = part.num_weights - part.num_pruned
    return f"{part.num_weights:,}", f"{part.num_pruned / max(part.num_weights, 1):.4f}", f"{kept:,}"
