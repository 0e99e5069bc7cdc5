"""Iterative hard thresholding."""

from typing import Any

import jax.numpy as jnp

from sparsejax.masks.prune_and_grow import prune
from sparsejax.masks.transforms import MaskTransform
from sparsejax.masks.transforms import every as at_every


def iht(learning_rate: float, *, begin: int = 0, every: int = 1) -> MaskTransform:
    """Iterative hard thresholding: the largest weights after a dense gradient step stay.

    Scores are |w - learning_rate dL/dw|, of pruned weights too, which are 0. With
    `optax.sgd(learning_rate)` inside `sparsify` a step is w <- H_k(w - learning_rate dL/dw), H_k
    keeping the k largest by magnitude.

    Args:
      learning_rate: > 0, of the gradient step by which weights are ranked.
      begin: the first step that prunes.
      every: steps between two updates of the masks; between them gradients of kept weights alone.

    Reference: Jin et al., "Training Skinny Deep Neural Networks with Iterative Hard Thresholding
    Methods", 2016, arXiv 1607.05423; after Blumensath and Davies, 2009.
    """

    def stepped(weights: Any, grads: Any, key: Any) -> Any:
        return jnp.abs(weights - learning_rate * grads)

    return at_every(every, prune(stepped, lambda step: 1.0, regrow=True), begin=begin)
