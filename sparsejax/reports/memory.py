"""What a sparse training must hold: weights, gradients, moments and indices at its peak."""

from dataclasses import dataclass
from typing import Any

import jax
import optax

from sparsejax.doors import PLAN, checked
from sparsejax.masks.transforms import OPTIMIZER
from sparsejax.plans.plan import Plan
from sparsejax.tree import map_with_paths

INDEX_BYTES = 4  # int32, one for each stored group


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes by what they are for; activations and data are not counted.

    Attributes:
        weights: of all leaves, those of sparse ones that are kept.
        gradients: as many.
        moments: of the optimizer.
        indices: one int32 for each kept group of a sparse leaf, shared by all of the above.
    """

    weights: int
    gradients: int
    moments: int
    indices: int

    @property
    def total(self) -> int:
        """The sum."""
        return self.weights + self.gradients + self.moments + self.indices


@checked(plan=PLAN, tx=OPTIMIZER)
def training_memory(
    params: Any,
    plan: Plan,
    tx: optax.GradientTransformation,
    *,
    peak: float = 1.0,
    dense_gradients: bool = False,
) -> TrainingMemory:
    """The bytes that a training needs at its peak if it stores the kept weights only.

    It is an account of what the method asks for, as in MEST's comparison of methods, not of this
    library's own training, which simulates sparsity by masks.

    Args:
      params: arrays or shapes.
      plan: patterns and targets; leaves that it does not name are dense.
      tx: the optimizer, for its param-shaped state.
      peak: the most that is kept on the way, as a multiple of the targets: 1 for MEST with EM and
        for SET, 1.5 for the EM&S of `mest_ems`, infinity for pruning from a dense network.
      dense_gradients: whether the method needs gradients of pruned weights, as RigL does.

    Raises:
      ValueError: peak < 1.

    Example:
      >>> sj.reports.training_memory(params, plan, optax.adam(1e-3)).total < 5 * 4 * 40
      True

    Reference: Yuan et al., "MEST: Accurate and Fast Memory-Economic Sparse Training Framework on
    the Edge", NeurIPS 2021, arXiv 2110.14032.
    """
    if peak < 1.0:
        raise ValueError(f"training_memory needs peak >= 1, got {peak}.")
    groups = {leaf.path: _kept_groups(leaf, peak) for leaf in plan.leaves}

    def kept_weights(path: str, x: Any) -> int:
        leaves = plan.slices(path)
        return sum(groups[leaf.path] * leaf.group_size for leaf in leaves) if leaves else x.size

    kept = map_with_paths(kept_weights, params)
    shapes = jax.eval_shape(lambda p: p, params)
    bytes_of = lambda leaf, count: min(count, leaf.size) * leaf.dtype.itemsize
    weights = sum(jax.tree.leaves(jax.tree.map(bytes_of, shapes, kept)))
    dense = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
    moments: list[int] = []
    state = jax.eval_shape(tx.init, shapes)
    optax.tree.map_params(
        tx, lambda leaf, count: moments.append(bytes_of(leaf, count)), state, kept
    )
    return TrainingMemory(
        weights=weights,
        gradients=dense if dense_gradients else weights,
        moments=sum(moments),
        indices=INDEX_BYTES * sum(groups.values()),
    )


def _kept_groups(leaf: Any, peak: float) -> int:
    """At the peak, in whole groups."""
    num_groups = leaf.pattern.num_groups(leaf.shape)
    target = num_groups - leaf.num_pruned // leaf.group_size
    return num_groups if peak == float("inf") else min(num_groups, int(peak * target + 0.5))
