"""How a sparsity budget is divided among leaves: functions (leaves, weights, sparsity) -> dict."""

from collections.abc import Sequence

import jax
import numpy as np

from sparsejax.plans.leaf import Allocator, Leaves, PlanLeaf, Weights
from sparsejax.threshold import common_threshold, kept_by_threshold
from sparsejax.top_k import count_pruned, ordered_keys


def uniform(leaves: Leaves, weights: Weights, sparsity: float) -> dict[str, float]:
    """The same sparsity for each leaf."""
    return {leaf.path: sparsity for leaf in leaves}


def erk(leaves: Leaves, weights: Weights, sparsity: float) -> dict[str, float]:
    """Erdos-Renyi-Kernel: a leaf's density is proportional to sum(shape) / prod(shape).

    Where that exceeds 1, the leaf is dense and the others carry the budget, which is met to one
    group of the leaf with the smallest groups.

    Reference: Evci et al., Rigging the Lottery, ICML 2020, arXiv 1911.11134, section 3; after
    Mocanu et al., Nature Communications 2018.
    """
    sizes = np.array([leaf.num_weights for leaf in leaves], float)
    raw = np.array([sum(leaf.shape) for leaf in leaves]) / np.maximum(sizes, 1)
    dense = np.zeros(len(leaves), bool)
    density = np.ones(len(leaves))
    while not dense.all():
        budget = (1.0 - sparsity) * sizes.sum() - sizes[dense].sum()
        density = np.where(dense, 1.0, raw * (budget / (raw * sizes)[~dense].sum()))
        if not (density > 1.0).any():
            break
        dense |= density >= density[~dense].max()
    return _rounded(leaves, (1.0 - np.minimum(density, 1.0)) * sizes)


def global_magnitude(leaves: Leaves, weights: Weights, sparsity: float) -> dict[str, float]:
    """What one threshold on |w| over all leaves prunes from each; groups go by their mean |w|.

    Reference: Gupta et al., Is Complexity Required for Neural Network Pruning?, 2022,
    arXiv 2209.14624.
    """
    scores = [_group_sums(leaf, np.abs(_concrete(leaf, weights))) for leaf in leaves]
    means = [score / leaf.group_size for leaf, score in zip(leaves, scores, strict=True)]
    return _from_counts(leaves, _below_threshold(leaves, means, sparsity))


def global_magnitude_with_minimum(
    *, min_weights: int | None = None, percent: float | None = None
) -> Allocator:
    """As `global_magnitude`, but each leaf keeps `min_weights`, or all it has if that is fewer.

    Small leaves stay dense, the others are rescaled to the budget, and those that then keep too
    few are clamped, until the total is met.

    Args:
      min_weights: the least number of weights in a leaf.
      percent: or that number as a percentage of all weights in the plan; the paper takes 0.2 for
        MobileNet-v1 at 90 %, and 0.02 for MobileNet-v2 at 98 % on CIFAR-10.

    Reference: Gupta et al., arXiv 2209.14624, "minimum threshold" (MT).
    """
    if (min_weights is None) == (percent is None):
        raise ValueError(
            "global_magnitude_with_minimum needs either min_weights or percent, "
            f"got min_weights={min_weights}, percent={percent}."
        )

    def allocate(leaves: Leaves, weights: Weights, sparsity: float) -> dict[str, float]:
        sizes = np.array([leaf.num_weights for leaf in leaves], float)
        least = int(sizes.sum() * percent / 100) if min_weights is None else min_weights
        most_pruned = np.maximum(sizes - least, 0.0)
        budget = sparsity * sizes.sum()
        if most_pruned.sum() < budget:
            raise ValueError(
                f"A minimum of {least} weights a leaf allows a sparsity of at most "
                f"{most_pruned.sum() / sizes.sum():.6f}, got {sparsity}; lower one of them."
            )
        unlimited = global_magnitude(leaves, weights, sparsity)
        pruned = np.array([unlimited[leaf.path] for leaf in leaves]) * sizes
        pruned = _clamped_to_budget(pruned, most_pruned, budget)
        return _rounded(leaves, pruned, most_pruned)

    return allocate


def lamp(leaves: Leaves, weights: Weights, sparsity: float) -> dict[str, float]:
    """What a global threshold on the LAMP score prunes from each leaf.

    The score of a group is its sum of squares over that of all groups in its leaf that are no
    smaller; so that the largest group of a leaf scores 1 and always stays.

    Reference: Lee et al., Layer-adaptive Sparsity for the Magnitude-based Pruning, ICLR 2021,
    arXiv 2010.07611, equation 3.
    """
    scores = []
    for leaf in leaves:
        squares = np.sort(_group_sums(leaf, np.square(_concrete(leaf, weights))), axis=None)
        no_smaller = np.cumsum(squares[::-1])[::-1]
        scores.append(squares / np.maximum(no_smaller, np.finfo(float).tiny))
    return _from_counts(leaves, _below_threshold(leaves, scores, sparsity))


def _concrete(leaf: PlanLeaf, weights: Weights) -> np.ndarray:
    values = weights[leaf.path]
    if isinstance(values, jax.core.Tracer | jax.ShapeDtypeStruct):
        raise TypeError(
            f"{leaf.path}: an allocator by magnitude needs concrete weights, got "
            f"{type(values).__name__}; call plan outside jax.jit on initialised params."
        )
    return np.asarray(values).astype(np.float64)


def _group_sums(leaf: PlanLeaf, scores: np.ndarray) -> np.ndarray:
    return np.asarray(leaf.pattern.group_scores(scores))


def _below_threshold(leaves: Leaves, scores: list[np.ndarray], sparsity: float) -> list[int]:
    """How many groups of each leaf the lowest scores are that make up the budget in weights."""
    sizes = np.array([leaf.group_size for leaf in leaves], np.int64)
    num_weights = np.array([leaf.num_weights for leaf in leaves], np.int64)
    total = int(num_weights.sum())
    num_kept = total - count_pruned(sparsity, total)
    keys = [ordered_keys(own) for own in scores]
    kept = kept_by_threshold(keys, sizes, common_threshold(keys, sizes, num_kept), num_kept)
    return ((num_weights - kept) // np.maximum(sizes, 1)).tolist()


def _clamped_to_budget(pruned: np.ndarray, most: np.ndarray, budget: float) -> np.ndarray:
    """The allocation scaled to the budget, with no leaf above its most."""
    pruned = np.where(most > 0, pruned, 0.0)
    for _ in range(1000):
        missing = budget - pruned.sum()
        if abs(missing) <= 1e-9 * max(budget, 1.0):
            return pruned
        free = pruned < most if missing > 0 else pruned > 0
        base = np.where(free, pruned, 0.0)
        if base.sum() == 0.0:
            base = np.where(free, most, 0.0)
        pruned = np.minimum(pruned + base * (missing / base.sum()), most)
    raise ValueError("The minimum number of weights a leaf does not converge; lower it.")


def _rounded(
    leaves: Leaves, pruned: np.ndarray, most: np.ndarray | None = None
) -> dict[str, float]:
    """Sparsities of whole groups; the error of a leaf is carried to leaves with smaller groups."""
    group_sizes = [max(leaf.group_size, 1) for leaf in leaves]
    order = sorted(range(len(leaves)), key=lambda index: -group_sizes[index])
    counts = [0] * len(leaves)
    error = 0.0
    # Large groups first, so that their rounding error can still be met by small ones; the second
    # round spends what a leaf at its limit had to pass on.
    for index in order * 2:
        leaf, size = leaves[index], group_sizes[index]
        highest = leaf.pattern.max_sparsity(leaf.shape) * leaf.num_weights
        highest = highest if most is None else min(highest, most[index])
        wanted = pruned[index] + error
        counts[index] = int(np.clip(np.floor(wanted / size + 0.5), 0, highest // size))
        pruned[index] = counts[index] * size
        error = wanted - pruned[index]
    return _from_counts(leaves, counts)


def _from_counts(leaves: Leaves, counts: Sequence[int]) -> dict[str, float]:
    pairs = zip(leaves, counts, strict=True)
    return {leaf.path: n / max(leaf.pattern.num_groups(leaf.shape), 1) for leaf, n in pairs}
