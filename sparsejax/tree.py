"""Normalised paths, matrix views and the exact top-k mask: what everything else builds on."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, UInt

_DIGIT_BITS = 3


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


def trained(tree: Any) -> Any:
    """The tree with None for what no gradient reaches: functions, strings, flags.

    In a tree with such leaves, and in Equinox modules, numbers and integer arrays go, too, as they
    do in `equinox.filter_grad`.
    """
    module = any(map(_is_equinox, jax.tree.leaves(tree, is_leaf=_is_equinox)))
    leaves = jax.tree.leaves(tree)
    if not module and all(map(_is_number, leaves)):
        return tree
    return jax.tree.map(lambda leaf: leaf if _is_inexact_array(leaf) else None, tree)


def followed(like: Any, tree: Any) -> Any:
    """The tree with None where `like` has it: a whole module as its gradients see it."""
    none_too = lambda node: node is None or is_masked_node(node)
    return jax.tree.map(
        lambda own, leaf: None if own is None else leaf, like, tree, is_leaf=none_too
    )


def _is_equinox(node: Any) -> bool:
    return any(base.__module__.startswith("equinox.") for base in type(node).__mro__)


def _is_number(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") or (
        isinstance(leaf, int | float | complex) and not isinstance(leaf, bool)
    )


def _is_inexact_array(leaf: Any) -> bool:
    return hasattr(leaf, "shape") and jnp.issubdtype(leaf.dtype, jnp.inexact)


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


def split_axes(array: Any, steps: Sequence[int]) -> Any:
    """The array with each axis as (length / step, step); NumPy stays NumPy."""
    pairs = list(zip(array.shape, steps, strict=True))
    shape = [length for size, step in pairs for length in (size // step, step)]
    if isinstance(array, np.ndarray):
        return array.reshape(shape)
    names: list[Any] = []
    mesh = jax.typeof(array).sharding.mesh
    for (size, step), name in zip(pairs, jax.typeof(array).sharding.spec, strict=True):
        axes = (name,) if isinstance(name, str) else (name or ())
        num_shards = math.prod(mesh.shape[axis] for axis in axes)
        names += [name, None] if size // step % num_shards == 0 else [None, name]
    return reshape(array, shape, names)


def reshape(array: Any, shape: Sequence[int], names: Sequence[Any]) -> Any:
    """The array in the shape, with these axis names where the mesh is explicit."""
    mesh = jax.typeof(array).sharding.mesh
    explicit = any(name is not None for name in names)
    out = jax.sharding.NamedSharding(mesh, jax.P(*names)) if explicit else None
    return jax.lax.reshape(array, shape, out_sharding=out)


def vary_alike(*arrays: Any) -> tuple[Array, ...]:
    """The arrays, each varying over all mesh axes that any of them varies over in a `shard_map`.

    Transposed, it sums the gradients of what the devices share.
    """
    own = [frozenset(jax.typeof(array).manual_axis_type.varying) for array in arrays]
    everywhere = frozenset[str]().union(*own)
    missing = [tuple(sorted(everywhere - varying)) for varying in own]
    return tuple(
        jax.lax.pcast(array, axes, to="varying") if axes else array
        for array, axes in zip(arrays, missing, strict=True)
    )


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


@jax.jit
def ranked_top_k_mask(
    scores: Float[Array, "..."], k: int | Int[Array, ""], classes: Sequence[Bool[Array, "..."]]
) -> Bool[Array, "..."]:
    """As `top_k_mask`, with nested masks: all of classes[0] come first, then classes[1], ..."""
    if scores.size >= 2**31:
        raise ValueError(f"top_k_mask needs fewer than 2**31 scores, got {scores.size}.")
    scores, k, *classes = vary_alike(scores, jnp.asarray(k, jnp.int32), *classes)
    taken, active = _class_of_kth(k, classes)

    def keys() -> UInt[Array, "..."]:  # recomputed in each sweep: cheaper than 4 bytes a score
        keys = ordered_keys(scores)
        if not classes:
            return keys
        first = jnp.array(np.iinfo(keys.dtype).max, keys.dtype)
        return jnp.where(taken, first, jnp.where(active, keys, 0))

    threshold = _kth_key(keys, k, 8 * scores.dtype.itemsize)
    num_above, num_reaching = _counts([keys() > threshold, keys() >= threshold])

    def earliness() -> UInt[Array, "..."]:
        return jnp.where(keys() == threshold, scores.size - _linear_index(scores.shape), 0)

    num_bits = jnp.where(num_reaching == k, 0, (scores.size + 1).bit_length())
    latest = _kth_key(earliness, k - num_above, num_bits)
    return (keys() > threshold) | ((keys() == threshold) & (earliness() >= latest))


def ordered_keys(scores: Float[Array, "..."]) -> UInt[Array, "..."]:
    """Unsigned integers in the order of the scores, NaN lowest; 0 and the maximum stay unused."""
    if not jnp.issubdtype(scores.dtype, jnp.floating) or scores.dtype.itemsize == 1:
        raise TypeError(
            "Scores must be float64, float32, float16 or bfloat16, "
            f"got {scores.dtype}; cast them first."
        )
    bits = jax.lax.bitcast_convert_type(scores, f"uint{8 * scores.dtype.itemsize}")
    sign = jnp.array(1 << (8 * scores.dtype.itemsize - 1), bits.dtype)
    infinity = jax.lax.bitcast_convert_type(jnp.array(jnp.inf, scores.dtype), bits.dtype)
    bits = jnp.where(bits == sign, 0, bits)
    ordered = jnp.where(bits >= sign, ~bits, bits | sign)
    return jnp.where((bits & ~sign) > infinity, 1, ordered)


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


def _kth_key(
    keys: Callable[[], UInt[Array, "..."]], k: Int[Array, ""], num_bits: int | Int[Array, ""]
) -> UInt[Array, ""]:
    """The largest t with at least k keys >= t, of keys with so many bits; all ones for k = 0.

    Of 0 bits it is 0, without a sweep; both branches of a `lax.cond` would run under `vmap`.

    A sweep settles 3 bits by counting against 7 candidates at once. The whole mask of 25 M floats
    takes 0.3 s of one Zen 3 core, against 1.2 s with 1 bit a sweep; 4 bits gain nothing and take
    twice as long to compile.
    """
    dtype = jax.eval_shape(keys).dtype
    num_digits = -(-num_bits // _DIGIT_BITS)

    def settle_digit(step: Int[Array, ""], found: UInt[Array, ""]) -> UInt[Array, ""]:
        shift = jnp.asarray(_DIGIT_BITS * (num_digits - 1 - step), dtype)
        digits = jnp.arange(1, 1 << _DIGIT_BITS, dtype=dtype)
        fits = digits << shift >> shift == digits  # the first digit may have fewer bits
        here = keys()
        enough = _counts([here >= found | digit << shift for digit in digits]) >= k
        return found | jnp.sum(enough & fits, dtype=dtype) << shift

    nothing, _ = vary_alike(jnp.zeros((), dtype), k)
    return jax.lax.fori_loop(0, num_digits, settle_digit, nothing)


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
