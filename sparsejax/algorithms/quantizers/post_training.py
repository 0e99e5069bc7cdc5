"""Uniform quantizers that look at the weights only, and quantization after training."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sparsejax.algorithms.quantizers.leafwise import TINY, check_bits, leafwise, round_through
from sparsejax.doors import PLAN, checked
from sparsejax.masks.initial import masks_from_zeros
from sparsejax.masks.transforms import MaskContext
from sparsejax.plans.plan import Plan
from sparsejax.reparams.reparam import REPARAM, Reparam, memoized


@memoized
def symmetric_quantizer(bits: int, *, axis: int | None = None) -> Reparam:
    """The grid of 2^bits - 1 levels k s with |k| <= K = 2^(bits-1) - 1 and s = max|w| / K.

    2 bits are the three levels -max|w|, 0 and max|w|. With `sparsify` the weights train through the
    grid of the moment, by the straight-through estimator; with `quantized` they are rounded once.

    The loss needs one more line: compute it at `forward(params, opt_state)`.

    Args:
      bits: at least 2.
      axis: None for one scale a leaf, or the axis along which each slice has its own (-1: output
        channels of a flax kernel).

    Reference: Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference",
    2018, arXiv 1806.08342, section 2.2.
    """
    check_bits("symmetric_quantizer", bits, 2)
    top = 2 ** (bits - 1) - 1

    def forward(weights: Float[Array, "..."], mask: Bool[Array, "..."]) -> Float[Array, "..."]:
        highest = jnp.max(jnp.abs(_kept(weights, mask)), _others(weights, axis), keepdims=True)
        step = jnp.maximum(highest, TINY) / top
        return step * round_through(weights / step)

    return leafwise(forward)


@memoized
def asymmetric_quantizer(bits: int, *, axis: int | None = None) -> Reparam:
    """The grid of 2^bits levels from min(w, 0) to max(w, 0), shifted so that 0 is one of them.

    s = (max - min) / (2^bits - 1), zero point z = round(-min / s), levels s (k - z) for k = 0 to
    2^bits - 1. Training goes through it as through `symmetric_quantizer`.

    The loss needs one more line: compute it at `forward(params, opt_state)`.

    Args:
      bits: at least 1.
      axis: as of `symmetric_quantizer`.

    Reference: Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference",
    2018, arXiv 1806.08342, section 2.1.
    """
    check_bits("asymmetric_quantizer", bits, 1)
    top = 2**bits - 1

    def forward(weights: Float[Array, "..."], mask: Bool[Array, "..."]) -> Float[Array, "..."]:
        kept, others = _kept(weights, mask), _others(weights, axis)
        lowest = jnp.min(kept, others, keepdims=True)  # 0 stands for pruned ones, or the limits
        highest = jnp.maximum(jnp.max(kept, others, keepdims=True), 0.0)
        lowest = jnp.minimum(lowest, 0.0)
        step = jnp.maximum(highest - lowest, TINY) / top
        zero = jnp.round(-lowest / step)
        # Rounding z may put the end of the range half a step outside: it clips, the slope stays.
        level = round_through(weights / step) + zero
        clipped = level + jax.lax.stop_gradient(jnp.clip(level, 0, top) - level)
        return step * (clipped - zero)

    return leafwise(forward)


@checked(plan=PLAN, quantizer=REPARAM)
def quantized(params: Any, plan: Plan, quantizer: Reparam) -> Any:
    """The params with the plan's leaves quantized after training; zeros stay zero.

    Leaves that the plan does not name stay as they are. A plan of sparsity 0 names dense leaves.

    Args:
      params: trained weights.
      plan: names the leaves; its targets do not matter.
      quantizer: such as `symmetric_quantizer(2)` or `dkm(1)`.

    Example:
      >>> sj.quantizers.quantized(params, plan, sj.quantizers.symmetric_quantizer(4))
      {...}
    """
    context = MaskContext(plan, jnp.zeros((), jnp.int32), None)
    learned = quantizer.init(params, context)
    masks = masks_from_zeros(params, plan)
    return (quantizer.harden or quantizer.apply)(params, masks, learned, context)


def _kept(weights: Float[Array, "..."], mask: Bool[Array, "..."]) -> Float[Array, "..."]:
    """The weights that decide the grid, which has no gradient."""
    return jax.lax.stop_gradient(jnp.where(mask, weights, 0.0))


def _others(weights: Float[Array, "..."], axis: int | None) -> tuple[int, ...]:
    """The axes over which one scale reaches."""
    own = () if axis is None else (axis % weights.ndim,)
    return tuple(other for other in range(weights.ndim) if other not in own)
