"""Values that depend on the step: optax schedules under the names that pruning papers use."""

from collections.abc import Callable

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

Schedule = Callable[[Int[Array, ""] | int], Float[Array, ""]]


def cubic(begin: int, end: int) -> Schedule:
    """The ramp 1 - (1 - (step - begin) / (end - begin))^3, held at 0 before and at 1 after.

    Times a leaf's target it is the sparsity of gradual magnitude pruning.

    Reference: Zhu and Gupta, To prune, or not to prune, 2017, arXiv 1710.01878, equation 1.
    """
    if not 0 <= begin < end:
        raise ValueError(f"cubic needs 0 <= begin < end, got begin={begin}, end={end}.")
    schedule = optax.polynomial_schedule(
        0.0, 1.0, 3, transition_steps=end - begin, transition_begin=begin
    )
    return lambda step: jnp.asarray(schedule(step), jnp.float32)


def cosine_decay(initial: float, end: int) -> Schedule:
    """initial / 2 * (1 + cos(pi * step / end)), and 0 from `end` on: RigL's drop fraction.

    Reference: Evci et al., Rigging the Lottery, ICML 2020, arXiv 1911.11134, section 3.
    """
    if end < 1 or not 0.0 <= initial <= 1.0:
        raise ValueError(
            f"cosine_decay needs 0 <= initial <= 1 and end >= 1, got initial={initial}, end={end}."
        )
    schedule = optax.cosine_decay_schedule(initial, end)
    return lambda step: schedule(jnp.asarray(step, jnp.float32))
