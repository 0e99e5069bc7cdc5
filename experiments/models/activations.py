"""Activations with parameters of their own."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

import sparsejax as sj


class PACT(nnx.Module):
    """ReLU up to a learned limit, which starts at 6, rounded to `bits` if there are any."""

    def __init__(self, bits: int | None = None):
        self.limit = nnx.Param(jnp.asarray(6.0, jnp.float32))
        self.bits = bits

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The clipped activations."""
        return sj.pact(x, self.limit[...], bits=self.bits)
