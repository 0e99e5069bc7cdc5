"""Normalised paths, matrix views and the exact top-k mask: what everything else builds on."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, UInt


def is_masked_node(node: Any) -> bool:
    """True for the placeholder that stands where a leaf has no mask; use it as `is_leaf`."""
    return isinstance(node, optax.MaskedNode)


def path_of(key_path: Sequence[Any]) -> str:
    """The normalised path of a leaf, such as "layers/0/kernel".

    Dicts, nnx.State, nnx.Optimizer views, Equinox modules, tuples and lists all read alike; the
    box around an nnx variable or a linen `Partitioned` leaf (a trailing `.value`) is left out.
    """
    names = [jax.tree_util.keystr((key,), simple=True).removeprefix(".") for key in key_path]
    boxed = len(names) > 1 and isinstance(key_path[-1], jax.tree_util.GetAttrKey)
    if boxed and names[-1] in ("value", "raw_value"):
        names = names[:-1]
    return "/".join(names)


def leaves_with_paths(tree: Any) -> list[tuple[str, Any]]:
    """All leaves with their normalised paths, MaskedNode placeholders included."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_masked_node)
    return [(path_of(key_path), leaf) for key_path, leaf in flat]


def map_with_paths(f: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """The tree of `f(path, leaf, *others)`; MaskedNode placeholders count as leaves."""
    return jax.tree_util.tree_map_with_path(
        lambda key_path, *leaves: f(path_of(key_path), *leaves), tree, *rest, is_leaf=is_masked_node
    )


def as_matrix(leaf: Any, output_axis: int = -1) -> Any:
    """The leaf as (outputs, everything else flattened); NumPy stays NumPy, JAX stays JAX."""
    order = _outputs_first(leaf.ndim, output_axis)
    return leaf.transpose(order).reshape(leaf.shape[order[0]], -1)


def from_matrix(matrix: Any, leaf_shape: tuple[int, ...], output_axis: int = -1) -> Any:
    """The inverse of `as_matrix`: the leaf of shape `leaf_shape`."""
    order = _outputs_first(len(leaf_shape), output_axis)
    return matrix.reshape([leaf_shape[axis] for axis in order]).transpose(np.argsort(order))


def _outputs_first(num_axes: int, output_axis: int) -> list[int]:
    if not -num_axes <= output_axis < num_axes:
        raise ValueError(f"output_axis must name one of {num_axes} axes, got {output_axis}.")
    first = output_axis % num_axes
    return [first, *(axis for axis in range(num_axes) if axis != first)]


def count_pruned(sparsity: float | Float[Array, ""], num_groups: int) -> int | Int[Array, ""]:
    """The number of pruned groups, floor(sparsity * num_groups + 0.5).

    A Python number is computed in float64. A traced float32 is multiplied exactly, in 16-bit
    limbs, as float32 products are wrong by up to 2 groups above 2**24. As the float32 nearest to
    a decimal such as 0.9 may lie just below it, halves round up with a slack of at most 1/64.
    """
    if isinstance(sparsity, float | int | np.floating | np.integer):
        return min(math.floor(float(sparsity) * num_groups + 0.5), num_groups)
    if sparsity.dtype == jnp.float64:
        return jnp.floor(sparsity * num_groups + 0.5).astype(jnp.int32)
    sparsity = jnp.asarray(sparsity, jnp.float32)
    fraction = (jnp.clip(sparsity, 0.0, 1.0 - 2.0**-24) * 2.0**32).astype(jnp.uint32)
    f1, f0 = fraction >> 16, fraction & 0xFFFF
    n1, n0 = jnp.uint32(num_groups >> 16), jnp.uint32(num_groups & 0xFFFF)
    low = f1 * n0 + (f0 * n0 >> 16)
    middle = f0 * n1 + (low & 0xFFFF)
    whole = f1 * n1 + (low >> 16) + (middle >> 16)
    slack = min(num_groups // 2**9 + 1, 2**10)
    rounded = (whole + ((middle & 0xFFFF) + 2**15 + slack >> 16)).astype(jnp.int32)
    return jnp.where(sparsity >= 1.0, num_groups, rounded)


def top_k_mask(
    scores: Float[Array, "..."],
    k: int | Int[Array, ""],
    *,
    keep: Bool[Array, "..."] | None = None,
    allowed: Bool[Array, "..."] | None = None,
) -> Bool[Array, "..."]:
    """A mask with exactly k True, at the highest scores.

    Equal scores are taken by lower index, NaN ranks below -inf, and -0.0 equals 0.0. `keep`
    positions come first and positions outside `allowed` last, each by score. The k-th score is
    found by bisection on the floats' ordered bit pattern with counting reductions only: no sort
    and no gather, so that it is legal on any sharding and moves no scores between devices.

    Args:
      scores: any shape, float64, float32, float16 or bfloat16.
      k: how many to take, 0..scores.size; static or traced.
      keep: positions taken before all others.
      allowed: positions taken before those that are not allowed.

    Example:
      >>> top_k_mask(jnp.array([0.5, 2.0, 1.0, 1.0]), 2).tolist()
      [False, True, True, False]
    """
    classes = [] if keep is None else [keep]
    if allowed is not None:
        classes.append(allowed if keep is None else allowed | keep)
    return ranked_top_k_mask(scores, k, classes)


def ranked_top_k_mask(
    scores: Float[Array, "..."], k: int | Int[Array, ""], classes: Sequence[Bool[Array, "..."]]
) -> Bool[Array, "..."]:
    """As `top_k_mask`, with nested masks: all of classes[0] come first, then classes[1], ..."""
    if scores.size >= 2**31:
        raise ValueError(f"top_k_mask needs fewer than 2**31 scores, got {scores.size}.")
    k = jnp.asarray(k, jnp.int32)
    keys = ordered_keys(scores)
    taken = jnp.zeros(scores.shape, bool)
    active = jnp.ones(scores.shape, bool)
    for members in reversed(classes):
        enough = _count(members) >= k
        taken = jnp.where(enough, taken, taken | (members & active))
        active = jnp.where(enough, active & members, active & ~members)
    if classes:
        first = jnp.array(np.iinfo(keys.dtype).max, keys.dtype)
        keys = jnp.where(taken, first, jnp.where(active, keys, 0))
    threshold = _kth_key(keys, k)
    above = keys > threshold
    return above | _first_true(keys == threshold, k - _count(above))


def ordered_keys(scores: Float[Array, "..."]) -> UInt[Array, "..."]:
    """Unsigned integers in the order of the scores, NaN lowest; 0 and the maximum stay unused."""
    if not jnp.issubdtype(scores.dtype, jnp.floating):
        raise TypeError(f"Scores must be floating point, got {scores.dtype}; cast them first.")
    if scores.dtype.itemsize == 1:
        scores = scores.astype(jnp.float16)
    bits = jax.lax.bitcast_convert_type(scores, f"uint{8 * scores.dtype.itemsize}")
    sign = jnp.array(1 << (8 * scores.dtype.itemsize - 1), bits.dtype)
    infinity = jax.lax.bitcast_convert_type(jnp.array(jnp.inf, scores.dtype), bits.dtype)
    bits = jnp.where(bits == sign, 0, bits)
    ordered = jnp.where(bits >= sign, ~bits, bits | sign)
    return jnp.where((bits & ~sign) > infinity, 1, ordered)


def _count(mask: Bool[Array, "..."]) -> Int[Array, ""]:
    return jnp.sum(mask, dtype=jnp.int32)


def _kth_key(keys: UInt[Array, "..."], k: Int[Array, ""]) -> UInt[Array, ""]:
    """The largest t with at least k keys >= t."""
    width = 8 * keys.dtype.itemsize

    def try_bit(step: Int[Array, ""], found: UInt[Array, ""]) -> UInt[Array, ""]:
        bit = jnp.array(1, keys.dtype) << (width - 1 - step).astype(keys.dtype)
        candidate = found | bit
        return jnp.where(_count(keys >= candidate) >= k, candidate, found)

    return jax.lax.fori_loop(0, width, try_bit, jnp.zeros((), keys.dtype))


def _first_true(ties: Bool[Array, "..."], k: Int[Array, ""]) -> Bool[Array, "..."]:
    """The first k True of `ties` in index order."""
    index = jnp.zeros(ties.shape, jnp.uint32)
    for axis, size in enumerate(ties.shape):
        index = index * np.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, ties.shape, axis)

    def bisect() -> UInt[Array, ""]:
        def halve(step: Int[Array, ""], end: UInt[Array, ""]) -> UInt[Array, ""]:
            bit = jnp.uint32(1) << (width - 1 - step).astype(jnp.uint32)
            return jnp.where(_count(ties & (index < (end | bit))) <= k, end | bit, end)

        return jax.lax.fori_loop(0, width, halve, jnp.uint32(0))

    width = ties.size.bit_length()
    everything = jnp.uint32(ties.size)
    return ties & (index < jax.lax.cond(_count(ties) == k, lambda: everything, bisect))
