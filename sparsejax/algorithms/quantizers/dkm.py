"""DKM: differentiable k-means clustering of weights."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sparsejax.algorithms.quantizers.leafwise import TINY, check_bits, leafwise
from sparsejax.reparams.reparam import Reparam, memoized


@memoized
def dkm(bits: int, *, temperature: float = 1e-4, num_iterations: int = 3) -> Reparam:
    """DKM: each weight is a soft mixture of 2^bits centroids of its leaf, and one in the end.

    Attention A = softmax(-(w - c)^2 / temperature) over the centroids; c = sum(A w) / sum(A), over
    the kept weights and `num_iterations` times; the forward weight is A c. The gradient passes
    through all of it in float32. Each step starts from the centroids of the last, which `learned`
    holds: the optimizer does not change them, the clustering does. `harden` takes the centroid
    next to each weight. One dimension only: a cluster is of single weights.

    The loss needs one more line: compute it at `forward(params, opt_state)`.

    Args:
      bits: at least 1: 2^bits centroids for each leaf, of float32.
      temperature: in units of squared weights; the colder, the harder.
      num_iterations: of k-means in each forward pass.

    Differs: a fixed number of iterations, and a start at the quantiles of the weights; the paper
    goes on until the centroids rest and starts from k-means++. Squared distances are what k-means
    minimises. The defaults are those of the authors' coremltools.

    Reference: Cho et al., "DKM: Differentiable K-Means Clustering Layer for Neural Network
    Compression", ICLR 2022, arXiv 2108.12659, section 3.2.
    """
    check_bits("dkm", bits, 1)
    if temperature <= 0 or num_iterations < 1:
        raise ValueError(
            "dkm needs temperature > 0 and num_iterations >= 1, "
            f"got temperature={temperature}, num_iterations={num_iterations}."
        )

    def init(weights: Float[Array, "..."]) -> Float[Array, "num_centroids"]:
        # nanquantile would meet jax.debug_nans.
        ordered = jnp.sort(jnp.where(weights != 0, weights, jnp.inf), axis=None)
        last = jnp.maximum(jnp.sum(weights != 0), 1).astype(jnp.float32) - 1.0
        positions = (jnp.arange(2**bits, dtype=jnp.float32) + 0.5) / 2**bits * last
        lower = jnp.floor(positions)
        at = lambda index: jnp.nan_to_num(ordered[index.astype(jnp.int32)], posinf=0.0)
        return at(lower) + (positions - lower) * (at(jnp.ceil(positions)) - at(lower))

    def closeness(
        weights: Float[Array, "n"], centroids: Float[Array, "num_centroids"]
    ) -> Float[Array, "num_centroids n"]:
        """The attention times a number for each weight, which the nearest centroid makes 1."""
        distances = (weights - centroids[:, None]) ** 2
        nearest = jax.lax.stop_gradient(jnp.min(distances, axis=0))
        return jnp.exp((nearest - distances) / temperature)

    def settle(
        weights: Float[Array, "..."],
        mask: Bool[Array, "..."],
        centroids: Float[Array, "num_centroids"],
    ) -> Float[Array, "num_centroids"]:
        centroids = jax.lax.stop_gradient(centroids)
        flat, kept = weights.ravel(), mask.ravel()
        for _ in range(num_iterations):
            close = closeness(flat, centroids)
            shares = kept.astype(jnp.float32) / jnp.sum(close, axis=0)
            # Products and not sums over the rows: their gradients are 2x faster on CPU.
            totals = _product(close, shares)
            means = _product(close, shares * flat) / jnp.maximum(totals, TINY)
            centroids = jnp.where(totals > TINY, means, centroids)  # an empty cluster waits
        return centroids

    def forward(
        weights: Float[Array, "..."],
        mask: Bool[Array, "..."],
        centroids: Float[Array, "num_centroids"],
    ) -> Float[Array, "..."]:
        centroids = settle(weights, mask, centroids)
        close = closeness(weights.ravel(), centroids)
        return (_product(centroids, close) / jnp.sum(close, axis=0)).reshape(weights.shape)

    def harden(
        weights: Float[Array, "..."],
        mask: Bool[Array, "..."],
        centroids: Float[Array, "num_centroids"],
    ) -> Float[Array, "..."]:
        centroids = settle(weights, mask, centroids)
        distances = jnp.abs(weights.ravel() - centroids[:, None])
        return centroids[jnp.argmin(distances, axis=0)].reshape(weights.shape)

    return leafwise(forward, init, refresh=settle, harden=harden)


_product = functools.partial(jnp.matmul, precision="highest")
