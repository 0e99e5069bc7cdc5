"""Trees as arrays by leaf name, with checksums, and back into a target's structure and sharding."""

import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from sparsejax.tree import path_of

_NUMBERS = (bool, int, float, complex)
_DATA = (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct, *_NUMBERS)


def named_leaves(tree: Any) -> dict[str, Any]:
    """The arrays and numbers of a tree by their paths; what else it holds is left out."""
    found: dict[str, Any] = {}
    for key_path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if isinstance(leaf, _DATA):
            name = path_of(key_path)
            while name in found:  # normalised paths may coincide
                name += "'"
            found[name] = leaf
    return found


def with_leaves(tree: Any, values: Iterable[Any]) -> Any:
    """The tree with these arrays and numbers, in the order of `named_leaves`."""
    own = iter(values)
    return jax.tree.map(lambda leaf: next(own) if isinstance(leaf, _DATA) else leaf, tree)


def check_targets(leaves: Sequence[dict[str, Any]], records: Sequence[Any], whose: str) -> None:
    """Raise a ValueError naming the first leaf that is not as its record of the checkpoint says."""
    if len(leaves) > len(records):
        raise ValueError(
            f"restore needs the trees that were saved: {whose} has {len(records)}, got "
            f"{len(leaves)}; pass them in the order of save."
        )
    for index, (own, saved) in enumerate(zip(leaves, records, strict=False)):
        for name in [*saved, *own]:
            there = _words(*saved[name][:2]) if name in saved else "not there"
            here = _words(*describe(own[name])) if name in own else "not there"
            if there != here:
                raise ValueError(
                    f"restore needs trees like the saved ones: {index}/{name} is {there} in "
                    f"{whose} and {here} in the target; build the target as it was built then."
                )


def describe(leaf: Any) -> tuple[str, list[int]]:
    """Dtype and shape, as far as a target must agree in them."""
    kind = type(leaf).__name__ if isinstance(leaf, _NUMBERS) else str(leaf.dtype)
    return kind, list(np.shape(leaf))


def as_array(name: str, leaf: Any) -> Any:
    """What is stored of a leaf: an array as it is, a PRNG key's data, a number as an array.

    Raises:
      TypeError: it is an array of Python objects or strings, or a number that no dtype holds.
    """
    if _is_key(leaf):
        return jax.random.key_data(leaf)
    array = leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)
    if array.dtype.kind in "OSUMm":
        raise TypeError(
            f"A checkpoint needs numeric arrays, got dtype {array.dtype} at {name}; "
            "pass it in notes=, or leave it out."
        )
    return array


def checksum(array: Any) -> int:
    """CRC-32 of an array's bytes in C order, whatever its sharding."""
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        array = multihost_utils.process_allgather(array, tiled=True)
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def template(leaf: Any) -> Any:
    """What tells orbax how to read a leaf: onto its sharding, or as NumPy where it has none."""
    if _is_key(leaf):
        leaf = _key_data(leaf)
    sharding = _sharding(leaf)
    shape, dtype = np.shape(leaf), getattr(leaf, "dtype", None) or np.asarray(leaf).dtype
    if sharding is None:
        return np.empty(shape, dtype)
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def like(leaf: Any, array: Any) -> Any:
    """The array as the leaf has it: JAX, NumPy or a number, key or data, committed or not."""
    if _is_key(leaf):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=_key_impl(leaf))
    if isinstance(leaf, _NUMBERS):
        return type(leaf)(array.item())
    if isinstance(leaf, np.generic):
        return array[()]
    if isinstance(leaf, np.ndarray):
        return array
    if not np.shape(leaf) and leaf.weak_type:  # strong, it would promote its operands
        return jnp.asarray(array.item())
    return jnp.asarray(array)


def _sharding(leaf: Any) -> Any:
    """Where an array was put; None where JAX may move it, as it may what nobody has put."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return leaf.sharding
    return leaf.sharding if isinstance(leaf, jax.Array) and leaf.committed else None


def _is_key(leaf: Any) -> bool:
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key)


def _key_data(leaf: Any) -> Any:
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.eval_shape(jax.random.key_data, leaf)
    return jax.random.key_data(leaf)


def _key_impl(leaf: Any) -> Any:
    seen: list[Any] = []  # key_impl knows traced keys, but no ShapeDtypeStruct
    jax.eval_shape(lambda key: seen.append(jax.random.key_impl(key)), leaf)
    return seen[0]


def _words(kind: str, shape: list[int]) -> str:
    return f"{kind}{tuple(shape)}" if shape else kind
