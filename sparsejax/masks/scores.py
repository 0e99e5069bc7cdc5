"""How much each weight matters: functions (weights, grads, key) -> scores, higher is kept."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


def magnitude(
    weights: Float[Array, "..."], grads: Float[Array, "..."] | None, key: PRNGKeyArray | None
) -> Float[Array, "..."]:
    """|w|."""
    return jnp.abs(weights)


def gradient(
    weights: Float[Array, "..."] | None, grads: Float[Array, "..."], key: PRNGKeyArray | None
) -> Float[Array, "..."]:
    """|dL/dw|, the growth criterion of RigL (Evci et al., ICML 2020, arXiv 1911.11134)."""
    return jnp.abs(grads)


def saliency(
    weights: Float[Array, "..."], grads: Float[Array, "..."], key: PRNGKeyArray | None
) -> Float[Array, "..."]:
    """|w * dL/dw|, the first-order change of the loss, as in SNIP (Lee et al., ICLR 2019)."""
    return jnp.abs(weights * grads)


def random(
    weights: Float[Array, "..."], grads: Float[Array, "..."] | None, key: PRNGKeyArray
) -> Float[Array, "..."]:
    """Uniform float32 scores in [0, 1), sharded like the weights."""
    # Drawn as a matrix: XLA takes 4 s to compile the draw of a (3, 3, 4, 8) array, 0.4 s of this.
    matrix = (math.prod(weights.shape[:-1]), *weights.shape[-1:])
    draws = jax.random.uniform(key, matrix, jnp.float32).reshape(weights.shape)
    return jnp.zeros_like(weights, jnp.float32) + draws
