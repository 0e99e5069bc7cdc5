"""The exact top-k mask: without a sort or a gather, so that it is legal on any sharding."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt

from sparsejax.arrays import split_axes, vary_alike

_DIGIT_BITS = 3


def count_pruned(sparsity: float | Float[Array, ""], num_groups: int) -> int | Int[Array, ""]:
    """The number of pruned groups, floor(sparsity * num_groups + 0.5).

    A Python number is computed in float64. A traced float32 is multiplied exactly, in 16-bit
    limbs, as float32 products are wrong by up to 2 groups above 2**24. As the float32 nearest to
    a decimal such as 0.9 may lie just below it, halves round up with a slack of at most 1/64.
    """
    if isinstance(sparsity, float | int | np.floating | np.integer):
        return min(math.floor(float(sparsity) * num_groups + 0.5), num_groups)
    return _count_traced(sparsity, num_groups)


@partial(jax.jit, static_argnums=1)
def _count_traced(sparsity: Float[Array, ""], num_groups: int) -> Int[Array, ""]:
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


@jax.jit
def ranked_top_k_mask(
    scores: Float[Array, "..."], k: int | Int[Array, ""], classes: Sequence[Bool[Array, "..."]]
) -> Bool[Array, "..."]:
    """As `top_k_mask`, with nested masks: all of classes[0] come first, then classes[1], ..."""
    if scores.size >= 2**31:
        raise ValueError(f"top_k_mask needs fewer than 2**31 scores, got {scores.size}.")
    scores, k, *classes = vary_alike(scores, jnp.asarray(k, jnp.int32), *classes)
    keys = ordered_keys(scores)
    keys = keys.astype(jnp.promote_types(keys.dtype, jnp.uint32))  # as wide as an index
    first = np.array(np.iinfo(keys.dtype).max, keys.dtype)
    if classes:
        taken, active = _class_of_kth(k, classes)
        keys = jnp.where(taken, first, jnp.where(active, keys, 0))
    earliness = (scores.size - _linear_index(scores.shape)).astype(keys.dtype)

    def ties(threshold: UInt[Array, ""]) -> UInt[Array, "..."]:
        return jnp.where(keys > threshold, first, jnp.where(keys == threshold, earliness, 0))

    num_bits = 8 * scores.dtype.itemsize, (scores.size + 1).bit_length()
    threshold, latest = _kth(keys, ties, k, num_bits)
    return (keys > threshold) | ((keys == threshold) & (earliness >= latest))


def ordered_keys(scores: Float[Any, "..."]) -> UInt[Any, "..."]:
    """Unsigned integers in the order of the scores, NaN lowest; 0 and the maximum stay unused.

    Of NumPy's arrays it makes NumPy's.
    """
    if not jnp.issubdtype(scores.dtype, jnp.floating) or scores.dtype.itemsize == 1:
        raise TypeError(
            "Scores must be float64, float32, float16 or bfloat16, "
            f"got {scores.dtype}; cast them first."
        )
    namespace = scores.__array_namespace__()
    bits = scores.view(f"uint{8 * scores.dtype.itemsize}")
    sign = bits.dtype.type(1 << (8 * scores.dtype.itemsize - 1))
    infinity = np.array(np.inf, scores.dtype).view(bits.dtype)
    bits = namespace.where(bits == sign, 0, bits)
    ordered = namespace.where(bits >= sign, ~bits, bits | sign)
    return namespace.where((bits & ~sign) > infinity, bits.dtype.type(1), ordered)


def _class_of_kth(k: Int[Array, ""], classes: Sequence[Bool[Array, "..."]]) -> tuple[Any, Any]:
    """The positions that all come before the class of the k-th, and that class itself."""
    taken: Any = False
    active: Any = True
    counts = list(_counts(classes)) if classes else []
    for members, count in zip(reversed(classes), reversed(counts), strict=True):
        enough = count >= k
        taken = taken | (~enough & active & members)
        active = active & (members == enough)
    return taken, active


def _kth(
    keys: UInt[Array, "..."],
    ties: Callable[[UInt[Array, ""]], UInt[Array, "..."]],
    k: Int[Array, ""],
    num_bits: tuple[int, int],
) -> tuple[UInt[Array, ""], UInt[Array, ""]]:
    """The largest t with at least k keys >= t, and of ties(t), which rank equal keys, the same.

    It ends as soon as exactly k are reached: of 6 M random floats after 8 sweeps of 19.

    A sweep settles 3 bits by counting against 7 candidates at once. The whole mask of 25 M floats
    takes 0.3 s of one Zen 3 core, against 1.2 s with 1 bit a sweep; 4 bits gain nothing and take
    twice as long to compile. Compiling is what a mask of few weights costs (0.7 s, and each leaf
    has its own), so that both searches share one loop, and its state is one vector: XLA compiles
    every scalar of a loop by itself.
    """
    key_digits, tie_digits = (-(-bits // _DIGIT_BITS) for bits in num_bits)
    num_sweeps = np.array(key_digits + tie_digits, keys.dtype)
    digits = np.arange(1, 1 << _DIGIT_BITS, dtype=keys.dtype)
    exactly = np.array(1 << _DIGIT_BITS, keys.dtype)
    of_step, of_threshold, of_latest = np.eye(3, dtype=keys.dtype)

    def settle_digit(state: UInt[Array, "3"]) -> UInt[Array, "3"]:
        step, threshold, latest = state
        among_keys = step < key_digits
        shift = _DIGIT_BITS * (jnp.where(among_keys, key_digits, num_sweeps) - 1 - step)
        found = jnp.where(among_keys, threshold, latest)
        here = jnp.where(among_keys, keys, ties(threshold))
        counts = _counts([here >= found | digit << shift for digit in digits])
        fits = digits << shift >> shift == digits  # the first digit may have fewer bits
        # Reached candidates, which are the digit, and in the bits above whether one has just k.
        sums = jnp.where(fits & (counts >= k), jnp.where(counts == k, exactly + 1, 1), 0)
        total = jnp.sum(sums, dtype=keys.dtype)
        digit = (total & (exactly - 1)) << shift
        ahead = jnp.where(total >= exactly, num_sweeps, 1)
        return state + of_step * ahead + jnp.where(among_keys, of_threshold, of_latest) * digit

    nothing, _ = vary_alike(jnp.zeros(3, keys.dtype), k)
    _, threshold, latest = jax.lax.while_loop(
        lambda state: state[0] < num_sweeps, settle_digit, nothing
    )
    return threshold, latest


def _counts(masks: Sequence[Bool[Array, "..."]]) -> Int[Array, "num_masks"]:
    """How many True each mask has, in one sweep over what the masks are made of.

    XLA fuses a reduction of several operands on CPU, but not one of a single operand; on a mesh,
    however, it gathers the results of the former. So that one runs within parts of the axes that
    no sharding can cut, and the few partial counts are summed the plain way.
    """
    hits = tuple(_whole_on_device(mask).astype(jnp.int32) for mask in masks)
    axes = range(1, hits[0].ndim, 2)
    counts = jax.lax.reduce(hits, (np.int32(0),) * len(hits), _add_each, axes)
    return jnp.stack(counts).sum(range(1, len(axes) + 1), dtype=jnp.int32)


def _add_each(left: Sequence[Array], right: Sequence[Array]) -> tuple[Array, ...]:
    return tuple(a + b for a, b in zip(left, right, strict=True))


def _whole_on_device(array: Array) -> Array:
    """The array with each axis as (parts, rest), so that no part lies on two devices."""
    num_devices = max(jax.typeof(array).sharding.mesh.size, 1)
    return split_axes(array, [size // math.gcd(size, num_devices) or 1 for size in array.shape])


def _linear_index(shape: tuple[int, ...]) -> UInt[Array, "..."]:
    index = jnp.zeros(shape, jnp.uint32)
    for axis, size in enumerate(shape):
        index = index * np.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
    return index
