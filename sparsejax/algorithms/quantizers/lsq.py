"""Learned step size quantization (LSQ)."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sparsejax.algorithms.quantizers.leafwise import (
    TINY,
    check_bits,
    kept_mean,
    leafwise,
    round_through,
)
from sparsejax.reparams.reparam import Reparam, memoized


@memoized
def lsq(bits: int) -> Reparam:
    """LSQ: s round(clip(w / s, -Qn, Qp)) with a learned step s per leaf.

    Qn = 2^(bits-1) and Qp = Qn - 1. Rounding has the slope 1, so that ds is round(w/s) - w/s
    inside the range and -Qn or Qp beyond it, summed and scaled by 1 / sqrt(N Qp) for N kept
    weights. s starts at 2 mean|w| / sqrt(Qp). Give `sparsify` a `learned_tx` without weight decay.

    The loss needs one more line: compute it at `forward(params, opt_state)`.

    Args:
      bits: at least 2.

    Differs: |s| is used, so that an optimizer step across 0 leaves a step size.

    Reference: Esser et al., "Learned Step Size Quantization", ICLR 2020, arXiv 1902.08153,
    equations 1 to 3 and section 2.2.
    """
    check_bits("lsq", bits, 2)
    lowest, highest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1

    def init(weights: Float[Array, "..."]) -> Float[Array, ""]:
        return 2.0 * kept_mean(jnp.abs(weights), weights != 0) / highest**0.5

    def forward(
        weights: Float[Array, "..."], mask: Bool[Array, "..."], learned: Float[Array, ""]
    ) -> Float[Array, "..."]:
        num_kept = jnp.maximum(jnp.sum(mask, dtype=jnp.float32), 1.0)
        step = jnp.maximum(jnp.abs(learned), TINY)
        step = _scale_gradient(step, 1.0 / jnp.sqrt(num_kept * highest))
        return step * round_through(jnp.clip(weights / step, lowest, highest))

    return leafwise(forward, init)


@jax.custom_jvp
def _scale_gradient(x: Float[Array, ""], factor: Float[Array, ""]) -> Float[Array, ""]:
    return x


@_scale_gradient.defjvp
def _scale_gradient_jvp(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[Any, Any]:
    return primals[0], tangents[0] * primals[1]
