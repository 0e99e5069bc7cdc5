"""Variables to time networks with: norms that are not the identity, pruned 1x1 convolutions."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import sparsejax as sj


def random_statistics(variables: Any) -> Any:
    """The variables with batch norms that are not the identity."""
    rng = np.random.default_rng(0)

    def draw(path: str, leaf: jax.Array) -> jax.Array:
        if "norm" not in path:
            return leaf
        low, high = (0.5, 1.5) if path.endswith(("scale", "var")) else (-0.1, 0.1)
        return jnp.asarray(rng.uniform(low, high, leaf.shape), leaf.dtype)

    return sj.tree.map_with_paths(draw, variables)


def prune(variables: Any, pattern: sj.Pattern, sparsity: float) -> Any:
    """The variables with the smallest weights of the 1x1 convolutions set to zero."""

    def zero(path: str, leaf: jax.Array) -> jax.Array:
        if not path.endswith("pointwise/kernel"):
            return leaf
        return jnp.where(pattern.mask(jnp.abs(leaf), sparsity), leaf, 0)

    return sj.tree.map_with_paths(zero, variables)
