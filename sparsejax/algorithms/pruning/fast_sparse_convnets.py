"""The training recipe and the choice of blocks of Fast Sparse ConvNets."""

from typing import Any

import numpy as np
from jaxtyping import Bool

from sparsejax import arrays
from sparsejax.algorithms.pruning.gmp import gmp
from sparsejax.masks.scores import magnitude
from sparsejax.masks.transforms import MaskTransform


def fast_sparse_convnets(num_steps: int) -> MaskTransform:
    """Gradual magnitude pruning as Fast Sparse ConvNets are trained, by steps of the whole run.

    The plan prunes the 1x1 convolutions alone, all to one sparsity: the first convolution,
    depthwise convolutions and the head stay dense, and blocks (4 output channels in the last block
    of MobileNet-v1, 2 from inverted residual 11 of MobileNet-v2 on) are ranked by the sum of |w|.

    Differs: the paper's steps are not public; pruning begins after 10 % of the steps, ends at 70 %
    and moves every 1 %.

    Reference: Elsen, Dukhan, Gale, Simonyan, "Fast Sparse ConvNets", CVPR 2020, arXiv 1911.09723,
    section 4; Zhu and Gupta, "To prune, or not to prune", 2017, arXiv 1710.01878, equation 1.
    """
    if num_steps < 10:
        raise ValueError(f"fast_sparse_convnets needs at least 10 steps, got {num_steps}.")
    every = max(num_steps // 100, 1)
    return gmp(num_steps // 10, num_steps * 7 // 10, every=every, score=magnitude)


def block_rows(mask: Bool[Any, "..."], *, output_axis: int = -1) -> int:
    """How many output channels share their inputs well enough to be stored as blocks: 4, 2 or 1.

    4 when the blocks of 4 that hold anything are at least 90 % full, else 2 by the same rule, else
    1. Output channels left over by the blocks do not count.

    Reference: the paper's kernels in XNNPACK; Elsen et al., "Fast Sparse ConvNets", CVPR 2020,
    arXiv 1911.09723, section 3.
    """
    kept = arrays.as_matrix(np.asarray(mask, bool), output_axis)
    for rows in (4, 2):
        whole = kept[: len(kept) // rows * rows].reshape(-1, rows, kept.shape[1])
        num_blocks = int(whole.any(1).sum())
        if num_blocks and whole.sum() * 10 >= num_blocks * rows * 9:
            return rows
    return 1
