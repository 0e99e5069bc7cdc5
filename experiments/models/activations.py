"""Activations with parameters of their own."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

import sparsejax as sj

START = 2.0  # after batch norm; the paper's 10 wants a long training with weight decay to come down


class PACT(nnx.Module):
    """ReLU up to a learned limit, rounded to `bits` if there are any."""

    def __init__(self, bits: int | None = None):
        self.limit = nnx.Param(jnp.asarray(START, jnp.float32))
        self.bits = bits

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The clipped activations."""
        return sj.quantizers.pact(x, self.limit[...], bits=self.bits)
