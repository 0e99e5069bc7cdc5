"""DoReFa weights: the uniform grid on tanh-compressed weights."""

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
def dorefa(bits: int) -> Reparam:
    """DoReFa weights: 2 Q(tanh(w) / (2 max|tanh(w)|) + 1/2) - 1, in [-1, 1].

    Q rounds to multiples of 1 / (2^bits - 1) with the slope 1; the rest is differentiated. The
    levels do not depend on the scale of w: normalise after the layer. One bit is
    sign(w) mean|w|, with the slope 1. PACT trains its weights so, beside `pact` activations.

    The loss needs one more line: compute it at `forward(params, opt_state)`.

    Args:
      bits: at least 1.

    Reference: Zhou et al., "DoReFa-Net: Training Low Bitwidth Convolutional Neural Networks with
    Low Bitwidth Gradients", 2016, arXiv 1606.06160, equations 7 and 9.
    """
    check_bits("dorefa", bits, 1)
    top = 2**bits - 1

    def one_bit(weights: Float[Array, "..."], mask: Bool[Array, "..."]) -> Float[Array, "..."]:
        scale = kept_mean(jnp.abs(weights), mask)
        signs = jnp.where(weights < 0, -scale, scale)
        return weights + jax.lax.stop_gradient(signs - weights)

    def forward(weights: Float[Array, "..."], mask: Bool[Array, "..."]) -> Float[Array, "..."]:
        squashed = jnp.tanh(weights)
        highest = jnp.maximum(jnp.max(jnp.abs(jnp.where(mask, squashed, 0.0))), TINY)
        return 2.0 * round_through(top * (squashed / (2.0 * highest) + 0.5)) / top - 1.0

    return leafwise(one_bit if bits == 1 else forward)
