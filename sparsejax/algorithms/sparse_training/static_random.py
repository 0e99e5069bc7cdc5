"""A fixed random mask, the baseline of every sparse training method."""

from sparsejax.masks.prune_and_grow import start
from sparsejax.masks.scores import random
from sparsejax.masks.transforms import MaskTransform


def static_random() -> MaskTransform:
    """A random mask at the plan's target that never changes.

    Reference: Liu et al., "The Unreasonable Effectiveness of Random Pruning", ICLR 2022,
    arXiv 2202.02643, section 3.
    """
    return start(random)
