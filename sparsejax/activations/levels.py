"""Post-ReLU maps as integers and back: linear, with zero kept at zero."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt

MAX_BITS = 16  # float32 tells 2^24 levels apart; half a step is then kept to a few parts in 1,000
_TINY = 1e-30  # a step below is lost in float32


class Quantized(NamedTuple):
    """A map in levels of one step.

    Attributes:
      levels: uint8 up to 8 bits, else uint16.
      step: the value of one level.
    """

    levels: UInt[Array, "..."] | UInt[np.ndarray, "..."]
    step: Float[Array, ""]


def quantize(maps: Any, *, bits: int = 16, maximum: Any = None) -> Quantized:
    """A post-ReLU map in 2^bits levels from 0 to its maximum: round(x / maximum (2^bits - 1)).

    Zero is level 0, and values from 0 to the maximum come back from `dequantize` within half a
    step. Values above a given maximum are the last level.

    Args:
      maps: floats from 0 on, of one layer. In a traced function, what is below counts as zero.
      bits: from 1 to 16.
      maximum: what the last level stands for, from calibration, say; that of the map by default.

    Raises:
      TypeError: the map is not of floats.
      ValueError: bits is out of its range, the map has values below zero or none that are finite,
        or the maximum is negative.

    Example:
      >>> sj.activations.quantize(jnp.array([0.0, 0.5, 1.0]), bits=2).levels
      Array([0, 2, 3], dtype=uint8)

    Differs: how the paper rounds is remembered, not read.

    Reference: Georgiadis, "Accelerating Convolutional Neural Networks via Activation Map
    Compression", CVPR 2019, arXiv 1812.04056.
    """
    if not 1 <= bits <= MAX_BITS:
        raise ValueError(f"quantize needs bits from 1 to {MAX_BITS}, got {bits}.")
    x = jnp.asarray(maps)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"quantize needs maps of floats, got {x.dtype}; they are levels, perhaps.")
    _check_values(x, maximum)
    x = x.astype(jnp.float32)
    top = jnp.max(x, initial=0.0) if maximum is None else jnp.asarray(maximum, jnp.float32)
    last = 2**bits - 1
    there = top / last > _TINY
    ratio = jnp.clip(jnp.where(there, x / jnp.where(there, top, 1.0), 0.0), 0.0, 1.0)
    levels = jnp.round(ratio * last).astype(jnp.uint8 if bits <= 8 else jnp.uint16)
    return Quantized(levels, jnp.where(there, top / last, 0.0))


def dequantize(quantized: Quantized) -> Float[Array, "..."]:
    """The values that the levels stand for, in float32."""
    return jnp.asarray(quantized.levels).astype(jnp.float32) * quantized.step


def _check_values(x: Array, maximum: Any) -> None:
    """What can be known of concrete values."""
    if not isinstance(x, jax.core.Tracer) and x.size:
        low, high = float(x.min()), float(x.max())
        if not (low >= 0 and np.isfinite(high)):
            raise ValueError(
                f"quantize needs finite values from 0 on, got {low:g} to {high:g}; "
                "take the map behind the ReLU."
            )
    if not isinstance(maximum, jax.core.Tracer | None) and not 0 <= float(maximum) < np.inf:
        raise ValueError(f"quantize needs a finite maximum from 0 on, got {maximum}.")
