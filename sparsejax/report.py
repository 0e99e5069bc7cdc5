"""How sparse a network is: nonzeros, parameters and multiply-adds of each leaf and in total."""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import jax.numpy as jnp

from sparsejax import text, tree
from sparsejax.check import Finding, check
from sparsejax.doors import FUNCTION, PLAN, check_examples, checked
from sparsejax.multiply_adds import multiply_adds
from sparsejax.opt_states import masks_of
from sparsejax.plan import Plan
from sparsejax.stacks import take

CAPTION = "sparsity = zeros / parameters of the row, where a dense leaf counts whole"


@dataclass(frozen=True)
class LeafReport:
    """One leaf, or a sum of leaves.

    Attributes:
        path: normalised, "total" and "planned" for sums.
        shape: of the leaf, () for sums.
        pattern: of the plan, "dense" where it names none, "" for sums.
        parameters: the number of weights.
        nonzeros: those that the mask keeps; without an optimizer state, those that are not 0.0. A
            dense leaf counts whole, zeros or not.
        multiply_adds: of one call on the example; None when no function was given.
        sparse_multiply_adds: those with a kept weight.
    """

    path: str
    shape: tuple[int, ...]
    pattern: str
    parameters: int
    nonzeros: int
    multiply_adds: int | None
    sparse_multiply_adds: int | None

    @property
    def sparsity(self) -> float:
        """Zeros / parameters."""
        return 1.0 - self.nonzeros / max(self.parameters, 1)


@dataclass(frozen=True)
class Report:
    """All leaves in the order of the params, and two sums: all of them, and the planned ones.

    `findings` are those of `check` where there was an optimizer state.
    """

    leaves: tuple[LeafReport, ...]
    findings: tuple[Finding, ...] = ()

    @property
    def total(self) -> LeafReport:
        """All leaves: the denominator is every parameter."""
        return _sum("total", self.leaves)

    @property
    def planned(self) -> LeafReport:
        """The leaves of the plan: the denominator is what may be pruned."""
        return _sum("planned", [leaf for leaf in self.leaves if leaf.pattern != "dense"])

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, dicts, numbers and strings, for JSON."""
        as_dict = lambda leaf: {**asdict(leaf), "sparsity": leaf.sparsity}
        return {
            "leaves": [as_dict(leaf) for leaf in self.leaves],
            "total": as_dict(self.total),
            "planned": as_dict(self.planned),
            "findings": [str(finding) for finding in self.findings],
        }

    def __str__(self) -> str:
        """A table; dense leaves of fewer than two axes are summed up in one row."""
        counted = self.total.multiply_adds is not None
        columns = ["leaf", "shape", "pattern", "parameters", "nonzeros", "sparsity"]
        columns += ["multiply-adds", "sparse"] if counted else []
        small = [leaf for leaf in self.leaves if leaf.pattern == "dense" and len(leaf.shape) < 2]
        shown = [leaf for leaf in self.leaves if leaf not in small]
        shown += [_sum(f"{len(small)} vectors", small)] if small else []
        table = text.table(
            "Report",
            columns,
            [_row(leaf, counted) for leaf in (*shown, self.planned)],
            footer=_row(self.total, counted),
            caption=CAPTION,
        )
        return "\n".join([table, *(f"! {finding}" for finding in self.findings)])


@checked(plan=PLAN, apply_fn=FUNCTION)
def report(
    plan: Plan,
    params: Any,
    opt_state: Any = None,
    *,
    apply_fn: Callable | None = None,
    example: Any = None,
) -> Report:
    """The nonzeros, sparsity, parameters and multiply-adds of each leaf, and in total.

    With an optimizer state the masks are counted (the hard masks, whatever a Reparam does in the
    forward pass), without one the zeros of the planned leaves. Multiply-adds are counted in
    `apply_fn(params, example)`, batch and padding included, in convolutions and matrix products;
    a leaf's sparse ones are in proportion to its nonzeros.

    Args:
        plan: what may be pruned.
        params: the weights.
        opt_state: of a transform that `sparsify` made, or what holds it.
        apply_fn: the network, as it was before `accelerate`.
        example: its input, an array or a jax.ShapeDtypeStruct; a tuple for several.

    Raises:
        ValueError: only one of apply_fn and example is given, the plan names a leaf that the params
            lack, or the opt_state holds no masks.

    Example:
        >>> print(sj.report(plan, params))
    """
    if (apply_fn is None) != (example is None):
        raise ValueError(
            "report needs apply_fn and example together to count multiply-adds, got only "
            f"{'example' if apply_fn is None else 'apply_fn'}."
        )
    arrays = [
        (path, leaf) for path, leaf in tree.leaves_with_paths(params) if hasattr(leaf, "shape")
    ]
    missing = plan.shapes.keys() - {path for path, _ in arrays}
    if missing:
        raise ValueError(
            f"report needs the params that the plan was made for, they lack {sorted(missing)[0]}."
        )
    masks = {} if opt_state is None else dict(tree.leaves_with_paths(masks_of(opt_state)))
    counts = None
    if apply_fn is not None:
        inputs = example if isinstance(example, tuple) else (example,)
        check_examples("report", apply_fn, params, inputs)
        counts = multiply_adds(apply_fn, params, *inputs)
    findings = () if opt_state is None else check(params, opt_state).findings
    rows = (row for path, leaf in arrays for row in _rows(plan, path, leaf, masks, counts))
    return Report(tuple(rows), findings)


def _rows(
    plan: Plan, path: str, array: Any, masks: dict[str, Any], counts: dict[str, int] | None
) -> Iterator[LeafReport]:
    """The rows of an array: one, or one for each layer of a stack."""
    leaves, shape = plan.slices(path), tuple(jnp.shape(array))
    adds = None if counts is None else counts.get(path, 0) // max(len(leaves), 1)
    for leaf in leaves:
        kept = int(jnp.count_nonzero(take(leaf, masks.get(path, array))))
        sparse = None if adds is None else adds * kept // max(leaf.num_weights, 1)
        pattern = str(leaf.pattern)
        yield LeafReport(leaf.path, leaf.shape, pattern, leaf.num_weights, kept, adds, sparse)
    if not leaves:
        size = math.prod(shape)
        yield LeafReport(path, shape, "dense", size, size, adds, adds)


def _sum(name: str, leaves: Any) -> LeafReport:
    add = lambda numbers: None if None in numbers else sum(numbers)
    return LeafReport(
        name,
        (),
        "",
        sum(leaf.parameters for leaf in leaves),
        sum(leaf.nonzeros for leaf in leaves),
        add([leaf.multiply_adds for leaf in leaves]),
        add([leaf.sparse_multiply_adds for leaf in leaves]),
    )


def _row(leaf: LeafReport, counted: bool) -> list[str]:
    shape = "x".join(map(str, leaf.shape))
    row = [leaf.path, shape, leaf.pattern, f"{leaf.parameters:,}", f"{leaf.nonzeros:,}"]
    row.append(f"{leaf.sparsity:.4f}")
    return row + ([f"{leaf.multiply_adds:,}", f"{leaf.sparse_multiply_adds:,}"] if counted else [])
