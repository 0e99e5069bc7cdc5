"""Gradual magnitude pruning."""

from sparsejax.doors import SCORE, checked
from sparsejax.masks.prune_and_grow import prune
from sparsejax.masks.schedules import cubic
from sparsejax.masks.scores import magnitude
from sparsejax.masks.transforms import MaskTransform, Score
from sparsejax.masks.transforms import every as at_every


@checked(score=SCORE)
def gmp(
    begin: int,
    end: int,
    *,
    every: int = 100,
    score: Score = magnitude,
    regrow: bool = False,
    globally: bool = False,
    min_weights: int = 0,
) -> MaskTransform:
    """Gradual magnitude pruning: each leaf ramps to its target and pruned weights stay pruned.

    At step t the sparsity of a leaf is s_t = s_f - s_f (1 - (t - begin) / (end - begin))^3, held
    after `end`.

    Args:
      begin: the first step that prunes (nothing yet: s = 0).
      end: the step that reaches the target.
      every: steps between two updates of the masks.
      score: the highest scores are kept.
      regrow: whether a pruned weight may come back, for use with a Reparam.
      globally, min_weights: as in `prune`; `global_mp` is this method with one threshold.

    Reference: Zhu and Gupta, "To prune, or not to prune", 2017, arXiv 1710.01878, equation 1.
    """
    cut = prune(score, cubic(begin, end), regrow=regrow, globally=globally, min_weights=min_weights)
    return at_every(every, cut, begin=begin, end=end)
