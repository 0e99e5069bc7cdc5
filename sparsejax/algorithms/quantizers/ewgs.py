"""Element-wise gradient scaling (EWGS) of a quantizer with a learned interval."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sparsejax.algorithms.quantizers.leafwise import TINY, check_bits, kept_mean, leafwise
from sparsejax.reparams.reparam import Reparam, memoized


@memoized
def ewgs(bits: int, *, delta: float = 1e-3) -> Reparam:
    """EWGS: |c| (2 x_q - 1) with x_n = clip((w - l) / (u - l), 0, 1), rounded to x_q.

    x_q is the nearest multiple of 1 / (2^bits - 1). Its gradient g becomes
    g (1 + delta sign(g) (x_n - x_q)) at x_n: larger where the step goes away from the level. l, u
    and c are learned per leaf; they start at -3 and 3 standard deviations and where the mean |w|
    stays as it is. Give `sparsify` a `learned_tx` without weight decay.

    The loss needs one more line: compute it at `forward(params, opt_state)`.

    Args:
      bits: at least 1.
      delta: at least 0; at 0 it is the straight-through estimator. The paper also adapts it to the
        Hessian's trace, which is left out here.

    Differs: c multiplies the weights, in place of the layer's output.

    Reference: Lee, Kim, Ham, "Network Quantization with Element-wise Gradient Scaling", CVPR 2021,
    arXiv 2104.00903, equations 1 to 5.
    """
    check_bits("ewgs", bits, 1)
    if delta < 0:
        raise ValueError(f"ewgs needs delta >= 0, got {delta}; 0 is straight through.")
    top = 2**bits - 1

    def levels(weights: Any, lower: Any, upper: Any) -> Float[Array, "..."]:
        width = upper - lower
        width = jnp.where(jnp.abs(width) > TINY, width, TINY)
        normal = jnp.clip((weights - lower) / width, 0.0, 1.0)
        return 2.0 * _discretize(top, delta, normal) - 1.0

    def init(weights: Float[Array, "..."]) -> Float[Array, "3"]:
        kept = weights != 0
        reach = 3.0 * jnp.sqrt(kept_mean((weights - kept_mean(weights, kept)) ** 2, kept))
        size = kept_mean(jnp.abs(levels(weights, -reach, reach)), kept)
        scale = kept_mean(jnp.abs(weights), kept) / jnp.maximum(size, TINY)
        return jnp.stack([-reach, reach, scale])

    def forward(
        weights: Float[Array, "..."], mask: Bool[Array, "..."], learned: Float[Array, "3"]
    ) -> Float[Array, "..."]:
        lower, upper, scale = learned
        return jnp.abs(scale) * levels(weights, lower, upper)

    return leafwise(forward, init)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _discretize(top: int, delta: float, x: Float[Array, "..."]) -> Float[Array, "..."]:
    return jnp.round(top * x) / top


def _discretize_forward(top: int, delta: float, x: Any) -> tuple[Any, Any]:
    rounded = _discretize(top, delta, x)
    return rounded, x - rounded


def _discretize_backward(top: int, delta: float, error: Any, grad: Any) -> tuple[Any]:
    return (grad * (1.0 + delta * jnp.sign(grad) * error),)


_discretize.defvjp(_discretize_forward, _discretize_backward)
