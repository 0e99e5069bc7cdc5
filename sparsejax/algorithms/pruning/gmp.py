"""Gradual magnitude pruning."""

from sparsejax.doors import SCORE, checked
from sparsejax.masks.schedules import cubic
from sparsejax.masks.scores import magnitude
from sparsejax.masks.transforms import MaskTransform, Score, prune
from sparsejax.masks.transforms import every as at_every


@checked(score=SCORE)
def gmp(
    begin: int, end: int, every: int = 100, *, score: Score = magnitude, regrow: bool = False
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

    Reference: Zhu and Gupta, "To prune, or not to prune", 2017, arXiv 1710.01878, equation 1.
    """
    return at_every(every, prune(score, cubic(begin, end), regrow=regrow), begin=begin, end=end)
