"""Global magnitude pruning: one threshold for the whole network, and a floor per layer."""

from sparsejax.algorithms.pruning.gmp import gmp
from sparsejax.doors import SCORE, checked
from sparsejax.masks.prune_and_grow import prune
from sparsejax.masks.scores import magnitude
from sparsejax.masks.transforms import MaskTransform, Score
from sparsejax.masks.transforms import every as at_every


@checked(score=SCORE)
def global_mp(
    begin: int = 0,
    end: int | None = None,
    *,
    every: int = 1,
    min_weights: int = 0,
    score: Score = magnitude,
) -> MaskTransform:
    """Global magnitude pruning: one-shot at `begin`, or gradually until `end`.

    The plan gives the budget (the sum of its leaves' targets) and one threshold on the scores
    spends it, so that leaves end at different sparsities. The gradual form ramps the budget with
    the cubic of Zhu and Gupta; the paper leaves its ramp open.

    Args:
      begin: the first step that prunes.
      end: the step that reaches the target; None prunes once, at `begin`.
      every: steps between two updates of the masks.
      min_weights: the minimum threshold (MT): a layer keeps at least so many weights, and layers
        that have no more stay dense. 0.2 % of all weights for MobileNet-v1 at 90 %.
      score: the highest scores are kept; they are compared between layers.

    Reference: Gupta et al., "Is Complexity Required for Neural Network Pruning? A Case Study on
    Global Magnitude Pruning", 2022, arXiv 2209.14624, section 3 and algorithm 1.
    """
    if end is None:
        cut = prune(score, lambda step: 1.0, globally=True, min_weights=min_weights)
        return at_every(1, cut, begin=begin, end=begin)
    return gmp(begin, end, every=every, score=score, globally=True, min_weights=min_weights)
