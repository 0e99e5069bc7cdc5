"""Budgets that are counted: kept weights, bytes of them, multiply-adds."""

import builtins
from collections.abc import Mapping
from typing import Any

from sparsejax.budgets.budget import Budget, Losses
from sparsejax.budgets.losses import energy_lost
from sparsejax.plans.leaf import PlanLeaf

VALUE_BYTES, INDEX_BYTES = 4, 4  # float32, and int32 for each stored group


def parameters(limit: float, *, losses: Losses = energy_lost) -> Budget:
    """A budget of kept weights over the leaves of the plan.

    Args:
      limit: a number of weights (int), or a fraction of the leaves' weights (float in (0, 1]).
      losses: what each leaf loses, `energy_lost` or `output_error(calibration)`.

    Example:
      >>> plan = sj.plan(params, {"kernel": sj.Unstructured()}, budget=sj.budgets.parameters(0.5))
      >>> plan.sparsity >= 0.5
      True
    """
    return _counted("parameters", limit, "weights", lambda leaf, num_layers: _kept(leaf), losses)


def stored_bytes(limit: float, *, losses: Losses = energy_lost) -> Budget:
    """A budget of the bytes that float32 weights and an int32 for each kept group take.

    A leaf that would take more so than dense is counted dense.

    Args:
      limit: bytes (int), or a fraction of the dense leaves' bytes (float in (0, 1]).
      losses: as in `parameters`.
    """

    def cost(leaf: PlanLeaf, num_layers: int) -> float:
        packed = _kept(leaf) * (VALUE_BYTES + INDEX_BYTES / max(leaf.group_size, 1))
        return min(packed, leaf.num_weights * VALUE_BYTES)

    return _counted("stored_bytes", limit, "bytes", cost, losses)


def multiply_adds_left(
    limit: float, counts: Mapping[str, builtins.int], *, losses: Losses = energy_lost
) -> Budget:
    """A budget of multiply-adds over the leaves of the plan.

    Args:
      limit: multiply-adds (int), or a fraction of the dense leaves' (float in (0, 1]).
      counts: of each leaf when it is dense, `sj.multiply_adds(apply_fn, params, *example)`.
      losses: as in `parameters`.

    Raises:
      ValueError: in `sj.plan`, when a leaf of the plan has no count.

    Example:
      >>> counts = sj.multiply_adds(model.apply, params, x)
      >>> budget = sj.budgets.multiply_adds_left(0.3, counts)
      >>> plan = sj.plan(params, {"kernel": sj.Unstructured()}, budget=budget)
    """

    def cost(leaf: PlanLeaf, num_layers: int) -> float:
        if leaf.array_path not in counts:
            raise ValueError(
                f"multiply_adds_left needs a count for {leaf.array_path}, got those of "
                f"{', '.join(counts) or 'no leaf'}; take them of the same params."
            )
        return counts[leaf.array_path] / num_layers * _kept(leaf) / max(leaf.num_weights, 1)

    return _counted("multiply_adds_left", limit, "multiply-adds", cost, losses)


def _kept(leaf: PlanLeaf) -> float:
    return float(leaf.num_weights - leaf.num_pruned)


def _counted(name: str, limit: Any, unit: str, cost: Any, losses: Losses) -> Budget:
    whole = isinstance(limit, int) and not isinstance(limit, bool)
    if not (whole and limit > 0) and not (isinstance(limit, float) and 0 < limit <= 1):
        raise ValueError(
            f"{name} needs a number of {unit} (int, > 0) or a fraction of the dense leaves' "
            f"(float in (0, 1]), got {limit!r}."
        )
    return Budget(limit, unit, cost, losses, relative=not whole)
