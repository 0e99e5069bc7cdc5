"""How sparse a network is: nonzeros, parameters and multiply-adds of each leaf and in total."""

import html
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import jax.numpy as jnp

from sparsejax import text, tree
from sparsejax.doors import FUNCTION, PLAN, check_examples, checked
from sparsejax.jaxprs.multiply_adds import multiply_adds
from sparsejax.patterns.stacked import take
from sparsejax.plans.plan import Plan
from sparsejax.reports.check import Finding, check
from sparsejax.training.opt_states import masks_of

CAPTION = "sparsity = zeros / parameters of the row, where a dense leaf counts whole"
COUNTED = "MMAdds = million multiply-adds, with a kept weight / all"
ZEROS = "; kept 0.0 = kept weights that are 0.0: their unit has no way in or out, or they are new"


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
        kept_zeros: kept weights that are exactly 0.0, by a state's masks; None without a state.
            They stay so where their unit has no way in or out, and take a place for nothing;
            weights that were grown in the last update count, too.
    """

    path: str
    shape: tuple[int, ...]
    pattern: str
    parameters: int
    nonzeros: int
    multiply_adds: int | None
    sparse_multiply_adds: int | None
    kept_zeros: int | None = None

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
        """A table of 80 columns; dense leaves of fewer than two axes are one row."""
        found = (text.wrapped(f"! {finding}") for finding in self.findings)
        return "\n".join([str(self._table()), *found])

    def _repr_html_(self) -> str:
        found = "".join(f"<p>{html.escape(str(finding))}</p>" for finding in self.findings)
        return self._table().html() + found

    def _table(self) -> text.Table:
        counted, zeros = self.total.multiply_adds is not None, bool(self.total.kept_zeros)
        columns = ["leaf", "shape", "pattern", "params", "nonzeros", "sparsity"]
        columns += (["kept 0.0"] if zeros else []) + (["MMAdds"] if counted else [])
        small = [leaf for leaf in self.leaves if leaf.pattern == "dense" and len(leaf.shape) < 2]
        shown = [leaf for leaf in self.leaves if leaf not in small]
        paths, note = text.shortened([leaf.path for leaf in shown])
        rows = [
            [path, *_row(leaf, counted, zeros)] for path, leaf in zip(paths, shown, strict=True)
        ]
        sums = [_sum(f"{len(small)} vectors", small)] if small else []
        rows += [[leaf.path, *_row(leaf, counted, zeros)] for leaf in (*sums, self.planned)]
        caption = note + CAPTION + (f"; {COUNTED}" if counted else "") + (ZEROS if zeros else "")
        footer = ["total", *_row(self.total, counted, zeros)]
        return text.Table("Report", columns, rows, footer, caption)


@checked(plan=PLAN, apply_fn=FUNCTION)
def report(
    params: Any,
    plan: Plan,
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
        params: the weights.
        plan: what may be pruned.
        opt_state: of a transform that `sparsify` made, or what holds it.
        apply_fn: the network, as it was before `accelerate`.
        example: its input, an array or a jax.ShapeDtypeStruct; a tuple for several.

    Raises:
        ValueError: only one of apply_fn and example is given, the plan names a leaf that the params
            lack, or the opt_state holds no masks.

    Example:
        >>> print(sj.report(params, plan))
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
    found = [] if opt_state is None else tree.leaves_with_paths(masks_of(opt_state))
    masks = {path: mask for path, mask in found if not tree.is_masked_node(mask)}
    counts = None
    if apply_fn is not None:
        inputs = example if isinstance(example, tuple) else (example,)
        check_examples("report", apply_fn, params, inputs)
        counts = multiply_adds(apply_fn, params, *inputs)
    findings = () if opt_state is None else check(params, opt_state, plan=plan).findings
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
        zeros = _kept_zeros(leaf, masks[path], array) if path in masks else None
        sparse = None if adds is None else adds * kept // max(leaf.num_weights, 1)
        pattern, size = text.brief(leaf.pattern), leaf.num_weights
        yield LeafReport(leaf.path, leaf.shape, pattern, size, kept, adds, sparse, zeros)
    if not leaves:
        size = math.prod(shape)
        zeros = 0 if masks else None
        yield LeafReport(path, shape, "dense", size, size, adds, adds, zeros)


def _kept_zeros(leaf: Any, mask: Any, array: Any) -> int:
    return int(jnp.count_nonzero(take(leaf, mask) & (take(leaf, array) == 0)))


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
        add([leaf.kept_zeros for leaf in leaves]),
    )


def _row(leaf: LeafReport, counted: bool, zeros: bool) -> list[str]:
    """What stands behind the path."""
    shape = "x".join(map(str, leaf.shape))
    row = [shape, leaf.pattern, f"{leaf.parameters:,}", f"{leaf.nonzeros:,}"]
    row += [f"{leaf.sparsity:.4f}", *([f"{leaf.kept_zeros or 0:,}"] if zeros else [])]
    if counted:
        sparse, whole = leaf.sparse_multiply_adds or 0, leaf.multiply_adds or 0
        row.append(f"{sparse / 1e6:.3g}/{whole / 1e6:.3g}")
    return row
