"""PACT: activations clipped at a learned limit, and their quantization."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sparsejax.algorithms.quantizers.leafwise import check_bits


def pact(
    x: Float[Array, "..."], limit: Float[Array, ""], *, bits: int | None = None
) -> Float[Array, "..."]:
    """The activations clip(x, 0, limit), rounded to multiples of limit / (2^bits - 1).

    The slope is 1 in x on [0, limit) and 0 outside; in the limit it is 1 where x >= limit and 0
    elsewhere. The limit is a parameter of the model, in the place of a ReLU (the paper starts at
    10), and needs weight decay: without it nothing pulls it down.

    Args:
      x: pre-activations.
      limit: learned, positive.
      bits: None clips without rounding.

    Example:
      >>> sj.quantizers.pact(jnp.array([-1.0, 0.4, 2.5, 7.0]), 6.0, bits=2).tolist()
      [0.0, 0.0, 2.0, 6.0]

    Reference: Choi et al., "PACT: Parameterized Clipping Activation for Quantized Neural Networks",
    2018, arXiv 1805.06085, equations 1 to 3.
    """
    if bits is not None:
        check_bits("pact", bits, 1)
    return _pact(bits, x, jnp.asarray(limit, x.dtype))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _pact(bits: int | None, x: Any, limit: Any) -> Any:
    clipped = jnp.clip(x, 0, limit)
    if bits is None:
        return clipped
    top = 2**bits - 1
    return jnp.round(clipped * (top / limit)) * (limit / top)


@_pact.defjvp
def _pact_jvp(bits: int | None, primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> Any:
    x, limit = primals
    dx, dlimit = tangents
    inside = jnp.where(x >= 0, dx, jnp.zeros((), x.dtype))
    return _pact(bits, x, limit), jnp.where(x >= limit, dlimit, inside)
