"""One-shot pruning: all of it at one step."""

from sparsejax.doors import SCORE, checked
from sparsejax.masks.prune_and_grow import prune
from sparsejax.masks.scores import magnitude
from sparsejax.masks.transforms import MaskTransform, Score, every


@checked(score=SCORE)
def one_shot(at: int = 0, *, score: Score = magnitude) -> MaskTransform:
    """Prunes every leaf to its target at step `at`, and never again.

    With `magnitude` and a trained network this is the classic prune-then-fine-tune; with
    `saliency` at step 0 it is SNIP on one batch, layer by layer.

    Args:
      at: the step, >= 0.
      score: the highest scores are kept.

    Reference: Han et al., "Learning both Weights and Connections for Efficient Neural Networks",
    NeurIPS 2015, arXiv 1506.02626, section 3.
    """
    return every(1, prune(score, lambda step: 1.0), begin=at, end=at)
