"""Soft masks: differentiable stand-ins for the hard choice which groups of a leaf stay."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sparsejax import arrays
from sparsejax.patterns import Pattern

_NEWTON_STEPS = 24


def squared_magnitude(weights: Float[Array, "..."], grads: Any, key: Any) -> Float[Array, "..."]:
    """w^2 in float32: the score that ranks groups as their root mean squares do."""
    return weights.astype(jnp.promote_types(weights.dtype, jnp.float32)) ** 2


def group_means(pattern: Pattern, values: Float[Array, "..."]) -> Float[Array, "..."]:
    """The mean of each group of a leaf, in float32 or better."""
    values = values.astype(jnp.promote_types(values.dtype, jnp.float32))
    group_size = values.size // max(pattern.num_groups(values.shape), 1)
    return jnp.asarray(pattern.group_scores(values)) / max(group_size, 1)


def spread(pattern: Pattern, groups: Float[Array, "..."], like: Array) -> Float[Array, "..."]:
    """The leaf, shaped as `like`, in which each weight holds the value of its group."""
    leaf = jnp.zeros_like(like, dtype=groups.dtype)
    return jax.linear_transpose(pattern.group_scores, leaf)(groups)[0]


def sigmoid_mask(
    weights: Float[Array, "..."],
    mask: Bool[Array, "..."],
    pattern: Pattern,
    temperature: float,
) -> Float[Array, "..."]:
    """The soft mask m = sigmoid((r^2 - t^2) / temperature), above 1/2 where a group is kept.

    r is the L2 norm of the group (|w| where each weight is its own) and t lies midway between the
    smallest kept and the largest pruned r: of the m weights beside it for N:M, else of the leaf. t
    is a constant to the gradient. m = 1 where nothing beside is pruned, 0 where all is.
    Everything is in float32, or float64 for float64 weights.
    """
    wide = weights.astype(jnp.promote_types(weights.dtype, jnp.float32))
    squares = jnp.asarray(pattern.group_scores(wide**2))
    kept = jnp.asarray(pattern.group_scores(mask.astype(wide.dtype))) > 0
    threshold = _squared_threshold(jax.lax.stop_gradient(squares), kept, pattern)
    return spread(pattern, jax.nn.sigmoid((squares - threshold) / temperature), wide)


def _squared_threshold(
    squares: Float[Array, "..."], kept: Bool[Array, "..."], pattern: Pattern
) -> Float[Array, "..."]:
    """t^2 for each group; -inf where its rivals are all kept and inf where they are all pruned."""
    quota = pattern.quota(squares.shape)  # one threshold divides the m of N:M, else the whole leaf
    box = quota.box if quota else squares.shape
    within = tuple(range(1, 2 * len(box), 2))
    norms, alive = arrays.split_axes(jnp.sqrt(squares), box), arrays.split_axes(kept, box)
    low = jnp.max(jnp.where(alive, -jnp.inf, norms), within, keepdims=True)
    high = jnp.min(jnp.where(alive, norms, jnp.inf), within, keepdims=True)
    squared = jnp.where(low < 0, low, ((low + high) / 2) ** 2)
    return jnp.broadcast_to(squared, norms.shape).reshape(squares.shape)


def soft_threshold(
    weights: Float[Array, "..."], threshold: Float[Array, "..."], pattern: Pattern
) -> Float[Array, "..."]:
    """w * max(1 - threshold / r, 0), with r the root mean square of w's group.

    For single weights it is sign(w) max(|w| - threshold, 0). A group at 0 has gradient 0.
    """
    norms = group_norms(weights, pattern)
    alive = norms > threshold
    shrunk = jnp.where(alive, 1.0 - threshold / jnp.where(alive, norms, 1.0), 0.0)
    return (weights * spread(pattern, shrunk, weights)).astype(weights.dtype)


def group_norms(weights: Float[Array, "..."], pattern: Pattern) -> Float[Array, "..."]:
    """The root mean square of each group in float32 or better; its slope at 0 is 0."""
    wide = weights.astype(jnp.promote_types(weights.dtype, jnp.float32))
    if pattern.num_groups(weights.shape) == weights.size:
        return jnp.sign(wide) * wide  # w^2 would underflow below 1e-19
    squares = group_means(pattern, wide**2)
    return jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1.0)), 0.0)


def soft_top_k(
    values: Float[Array, "..."], k: Float[Array, ""] | float, sharpness: Float[Array, ""] | float
) -> Float[Array, "..."]:
    """The soft mask of sum k that solves the entropic optimal transport of the values to "kept".

    It maximises sum(m v) plus the entropy of m and 1 - m over the sharpness, subject to
    sum(m) = k. So m = sigmoid(sharpness v + mu), with the one mu at which the sum is k: what
    Sinkhorn's iteration converges to, found here by Newton steps in a bracket. The gradient
    goes through mu, which makes that of each m sum to zero; k has none.

    Args:
      values: any shape.
      k: 0..values.size.
      sharpness: > 0; the higher, the closer to the hard top-k.

    Reference: Tai et al., "Spartan: Differentiable Sparsity via Regularized Transportation",
    NeurIPS 2022, arXiv 2205.14107, section 2.
    """
    wide = values.astype(jnp.promote_types(values.dtype, jnp.float32))
    k = jnp.asarray(k, wide.dtype)
    return _soft_top_k(sharpness * wide, jax.lax.stop_gradient(k))


@jax.custom_jvp
def _soft_top_k(logits: Float[Array, "..."], k: Float[Array, ""]) -> Float[Array, "..."]:
    within = jnp.clip(k, 0.5, max(logits.size - 0.5, 0.5))
    centre = jnp.log(within) - jnp.log(jnp.maximum(logits.size - within, 0.5))

    def step(_: Any, state: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        low, high, shift = state
        mask = jax.nn.sigmoid(logits + shift)
        excess, slope = jnp.sum(mask) - within, jnp.sum(mask * (1.0 - mask))
        low, high = jnp.where(excess < 0, shift, low), jnp.where(excess < 0, high, shift)
        newton = shift - excess / jnp.maximum(slope, 1e-30)
        inside = (newton >= low) & (newton <= high)  # the ends too: it stays where it arrives
        return low, high, jnp.where(inside, newton, (low + high) / 2)

    low, high = centre - jnp.max(logits), centre - jnp.min(logits)
    shift = jax.lax.fori_loop(0, _NEWTON_STEPS, step, (low, high, (low + high) / 2))[2]
    mask = jax.nn.sigmoid(logits + shift)
    return jnp.where(k >= logits.size, 1.0, jnp.where(k <= 0, 0.0, mask))


@_soft_top_k.defjvp
def _soft_top_k_jvp(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[Any, Any]:
    mask = _soft_top_k(*primals)
    slopes = mask * (1.0 - mask)
    mean = jnp.sum(slopes * tangents[0]) / jnp.maximum(jnp.sum(slopes), 1e-30)
    return mask, slopes * (tangents[0] - mean)


@jax.custom_vjp
def add_to_gradient(array: Float[Array, "..."], extra: Float[Array, "..."]) -> Any:
    """The array; `extra` is added to its gradient, as a penalty's would be."""
    return array


add_to_gradient.defvjp(
    lambda array, extra: (array, extra),
    lambda extra, grads: (grads + extra.astype(grads.dtype), jnp.zeros_like(extra)),
)
