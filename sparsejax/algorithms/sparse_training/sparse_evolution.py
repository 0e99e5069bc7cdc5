"""Sparse evolutionary training (SET)."""

from sparsejax.masks.prune_and_grow import drop, grow, start
from sparsejax.masks.scores import magnitude, random
from sparsejax.masks.transforms import MaskTransform, chain
from sparsejax.masks.transforms import every as at_every


def sparse_evolution(
    *, every: int = 100, fraction: float = 0.3, end: int | None = None
) -> MaskTransform:
    """SET: a random mask at the target; then the smallest weights make way for random new ones.

    Every `every` steps each leaf drops `fraction` of its kept weights and grows as many, which
    start from zero with zero moments.

    Args:
      every: steps between two updates of the masks; the paper's is one epoch.
      fraction: zeta of the kept weights that is replaced; 0.3 in the paper.
      end: the last step that changes the masks; None goes on for ever.

    Differs: drops the smallest |w|, where the paper takes the smallest positive and the largest
    negative ones; the two differ only when the signs are out of balance.

    Reference: Mocanu et al., "Scalable training of artificial neural networks with adaptive sparse
    connectivity inspired by network science", Nature Communications 2018, arXiv 1707.04780,
    algorithm 1.
    """
    evolve = chain(drop(magnitude, lambda step: fraction), grow(random))
    return chain(start(random), at_every(every, evolve, begin=every, end=end))
