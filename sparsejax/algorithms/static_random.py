"""A fixed random mask, the baseline of every sparse training method."""

from sparsejax.masks import MaskTransform, start
from sparsejax.scores import random


def static_random() -> MaskTransform:
    """A random mask at the plan's target that never changes.

    Reference: Liu et al., "The Unreasonable Effectiveness of Random Pruning", ICLR 2022,
    arXiv 2202.02643, section 3.
    """
    return start(random)
