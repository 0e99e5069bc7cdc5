"""Block-punched pruning: in a block of filters x channels the same places of all kernels go."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float


def block_punched(
    weights: Float[Any, "..."],
    sparsity: float,
    *,
    filters: int = 8,
    channels: int = 4,
    output_axis: int = -1,
) -> Bool[np.ndarray, "..."]:
    """The mask of block-punched pruning, True where kept; it fits `sj.Block(filters, channels)`.

    The score of a place (of kh x kw) in a block is the sum over its channels of the L2 norm of its
    filters' weights there. Places of all blocks with a score at or below the percentile
    100 * sparsity go. In a dense layer or a 1x1 convolution that is a whole block.

    Args:
      weights: a kernel (kh, kw, in, out) or (in, out); with output_axis=0, (out, in, kh, kw) or
        (out, in).
      sparsity: fraction of the places that go, in [0, 1); 0 keeps all.
      filters, channels: of a block.
      output_axis: -1 for flax kernels, 0 for Equinox weights.

    Raises:
      ValueError: filters or channels are no multiples of a block, or another number of axes.

    Example:
      >>> weights = jnp.arange(32.0).reshape(1, 1, 8, 4)
      >>> mask = sj.search.block_punched(weights, 0.4, filters=4, channels=4)
      >>> mask[0, 0, :, 0].tolist()
      [False, False, False, False, True, True, True, True]

    Reference: Cai et al., "YOLObile: Real-Time Object Detection on Mobile Devices via
    Compression-Compilation Co-Design", AAAI 2021, arXiv 2009.05697; score and threshold as in the
    authors' code. Differs: a sparsity of 0 keeps everything, where theirs takes the lowest score.
    """
    kernel = _as_oihw(np.asarray(weights), output_axis)
    rows, cols = kernel.shape[:2]
    if rows % filters or cols % channels:
        raise ValueError(
            f"block_punched needs multiples of {filters} filters and {channels} channels, got "
            f"{rows} and {cols}; leave the layer out, or take smaller blocks."
        )
    blocks = kernel.reshape(rows // filters, filters, cols // channels, channels, -1)
    scores = np.linalg.norm(blocks, axis=1).sum(2)  # (row blocks, column blocks, places)
    kept = (
        scores > np.percentile(scores, 100 * sparsity) if sparsity else np.ones_like(scores, bool)
    )
    mask = np.broadcast_to(kept[:, None, :, None], blocks.shape).reshape(kernel.shape)
    return _from_oihw(mask, np.ndim(weights), output_axis)


def _as_oihw(weights: np.ndarray, output_axis: int) -> np.ndarray:
    if weights.ndim not in (2, 4) or output_axis not in (-1, 0):
        raise ValueError(
            "block_punched needs a kernel of 2 or 4 axes and output_axis -1 or 0, got shape "
            f"{weights.shape} and {output_axis}."
        )
    if weights.ndim == 2:
        weights = weights[None, None] if output_axis == -1 else weights[..., None, None]
    return weights.transpose(3, 2, 0, 1) if output_axis == -1 else weights


def _from_oihw(mask: np.ndarray, ndim: int, output_axis: int) -> np.ndarray:
    if output_axis == -1:
        mask = mask.transpose(2, 3, 1, 0)
        return mask if ndim == 4 else mask[0, 0]
    return mask if ndim == 4 else mask[..., 0, 0]
