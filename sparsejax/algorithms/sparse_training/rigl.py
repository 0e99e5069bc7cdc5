"""Rigging the lottery (RigL)."""

from sparsejax.masks.prune_and_grow import drop, grow, start
from sparsejax.masks.schedules import cosine_decay
from sparsejax.masks.scores import gradient, magnitude, random
from sparsejax.masks.transforms import MaskTransform, chain
from sparsejax.masks.transforms import every as at_every


def rigl(end: int, *, every: int = 100, fraction: float = 0.3) -> MaskTransform:
    """RigL: a random mask at the target; then small weights make way where gradients are large.

    Every `every` steps a leaf drops f = fraction / 2 (1 + cos(pi t / end)) of its kept
    weights by |w| and grows as many by |gradient|, the dropped ones included. Grown weights start
    from zero with zero moments. How the sparsity is spread (ERK in the paper) is the plan's
    business.

    Args:
      end: the step T_end at which f reaches 0; 25k of 32k steps in the paper.
      every: steps Delta T between two updates of the masks.
      fraction: of the kept weights at t = 0, the paper's alpha.

    Differs: the step that changes the masks also applies its gradient.

    Reference: Evci et al., "Rigging the Lottery: Making All Tickets Winners", ICML 2020,
    arXiv 1911.11134, section 3 and equation 1.
    """
    rewire = chain(drop(magnitude, cosine_decay(fraction, end)), grow(gradient))
    return chain(start(random), at_every(every, rewire, begin=every, end=max(end, every)))
