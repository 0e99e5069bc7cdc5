"""The weighted average of clients: what of it must be exact is exact."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sparsejax.federated.variables import check_floats


def weighted_average(stacked: Any, weights: Int[Array, "clients"] | Float[Array, "clients"]) -> Any:
    """The average over the first axis of each leaf, sum_j n_j w_j / sum_i n_i.

    It is computed as r + sum_j g_j (w_j - r) with g_j = n_j / sum_i n_i and r the client of the
    largest weight, in float32 at least. So what all clients agree on comes back bit for bit, zeros
    among it; one client alone gets its own weights back; a client of weight 0 may hold NaN.

    Args:
      stacked: any pytree of floating point arrays with the clients first; batch statistics as well.
      weights: n_j >= 0, the number of samples of each client, not of batches.

    Raises:
      TypeError: a leaf is of integers, booleans or keys, which have no average.
      ValueError: a leaf has not as many clients as there are weights, or all weights are 0. Where
        the weights are traced and all 0, the average is NaN.

    Example:
      >>> trees = {"kernel": jnp.array([[1.0, 0.0], [4.0, 0.0]])}
      >>> sj.federated.weighted_average(trees, jnp.array([2, 1]))["kernel"].tolist()
      [2.0, 0.0]

    Reference: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized
    Data", AISTATS 2017, arXiv 1602.05629, algorithm 1.
    """
    weights = jnp.asarray(weights)
    check_floats(stacked, "weighted_average", "take it from one client")
    for leaf in jax.tree.leaves(stacked):
        if leaf.shape[:1] != weights.shape:
            raise ValueError(
                f"weighted_average needs a weight for each client, got weights of shape "
                f"{weights.shape} and a leaf of shape {leaf.shape}; stack the clients first."
            )
    known = not isinstance(weights, jax.core.Tracer)
    if known and not (np.asarray(weights) > 0).any():
        raise ValueError(
            "weighted_average needs a client with a positive weight, got none; keep the average "
            "of before."
        )
    return _average(stacked, weights)


@jax.jit
def _average(stacked: Any, weights: Any) -> Any:
    """One program: reductions over the clients alone, so that no mesh gathers them."""
    counts = weights > 0
    numbers = jnp.arange(weights.size)
    # Not argmax: a mesh gathers what it finds on each device.
    heaviest = jnp.where(weights == jnp.max(weights), numbers, weights.size)
    first = numbers == jnp.min(heaviest)

    def average(leaf: Any) -> Any:
        dtype = jnp.promote_types(leaf.dtype, jnp.float32)
        along = (-1,) + (1,) * (leaf.ndim - 1)
        zero = jnp.zeros((), dtype)
        # A sum with one term, and not an index: that would gather the clients of a mesh.
        wide = leaf.astype(dtype)
        most = jnp.sum(jnp.where(first.reshape(along), wide, zero), 0, dtype=dtype)
        own = weights.astype(dtype).reshape(along)
        parts = own / jnp.sum(own, dtype=dtype)
        away = jnp.where(counts.reshape(along), wide - most, zero)
        return (most + jnp.sum(parts * away, 0, dtype=dtype)).astype(leaf.dtype)

    return jax.tree.map(average, stacked)
