"""A message about the base, and its exact length: values, and positions where they are not known.

Of a leaf goes what is shortest: all values, or those at some positions with a bit for each position
of the leaf, or with an index for each value. Framing (shapes, names) is not counted.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from sparsejax.federated.variables import Variables

SMALL_INDEX = 2**16  # an index into fewer positions takes two bytes, else four
NOWHERE = np.zeros(0, np.uint8)


def everything(base: Variables) -> Variables:
    """All positions of the base."""
    return jax.tree.map(lambda leaf: jnp.ones(jnp.shape(leaf), bool), base)


def num_bytes(base: Variables, positions: Variables, shared: Variables | None) -> Int[Array, ""]:
    """The exact bytes of a message with the base's values at these positions.

    Args:
      base: for shapes and types.
      positions: where the receiver does not know the values yet.
      shared: positions that both sides have agreed upon, or None.
    """
    trees = (base, positions) if shared is None else (base, positions, shared)
    sizes = jax.tree.leaves(jax.tree.map(_leaf_bytes, *trees))
    return sum(sizes, start=jnp.zeros((), jnp.int32))


def _leaf_bytes(leaf: Any, positions: Any, shared: Any = None) -> Any:
    each, whole = leaf.dtype.itemsize, leaf.size * leaf.dtype.itemsize
    count = jnp.sum(positions, dtype=jnp.int32)
    if shared is not None:
        agreed = jnp.sum(shared, dtype=jnp.int32) * each
        sizes = jnp.where(jnp.any(positions & ~shared), whole, agreed)
    else:
        with_index = each + _index_type(leaf.size).itemsize
        most = whole // with_index  # so that the product stays within 32 bits
        indexed = jnp.where(count <= most, jnp.minimum(count, most) * with_index, whole)
        sizes = jnp.minimum(jnp.minimum(whole, -(-leaf.size // 8) + count * each), indexed)
    return jnp.where(count > 0, sizes, 0)


def _index_type(size: int) -> np.dtype:
    return np.dtype(np.uint16 if size <= SMALL_INDEX else np.uint32)


def pack(base: Variables, positions: Variables, shared: Variables | None) -> list[np.ndarray]:
    """The message as NumPy arrays, values and positions of each leaf: `num_bytes` of payload."""
    trees = (base, positions) if shared is None else (base, positions, shared)
    columns = [map(np.asarray, jax.tree.leaves(tree)) for tree in trees]
    return [array for row in zip(*columns, strict=True) for array in _pack_leaf(*row)]


def _pack_leaf(
    leaf: np.ndarray, positions: Bool[np.ndarray, "..."], shared: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    flat, where = leaf.reshape(-1), np.flatnonzero(positions)
    if not len(where):
        return flat[:0], NOWHERE
    if shared is not None:
        beyond = (positions & ~shared).any()
        return (flat if beyond else flat[np.flatnonzero(shared)]), NOWHERE
    each, index = leaf.dtype.itemsize, _index_type(leaf.size)
    forms = (leaf.size * each, -(-leaf.size // 8) + len(where) * each)
    indexed = len(where) * (each + index.itemsize)
    if forms[0] <= min(forms[1], indexed):
        return flat, NOWHERE
    if forms[1] <= indexed:
        return flat[where], np.packbits(positions.reshape(-1))
    return flat[where], where.astype(index)


def unpack(
    message: list[np.ndarray], base: Variables, shared: Variables | None
) -> tuple[Variables, Variables]:
    """The base with the values of a message in their places, and which positions those are.

    Raises:
      ValueError: the message is none for this base.
    """
    leaves, structure = jax.tree.flatten(base)
    masks = [None] * len(leaves) if shared is None else jax.tree.leaves(shared)
    if len(message) != 2 * len(leaves):
        raise ValueError(
            f"A message about {len(leaves)} leaves has {2 * len(leaves)} arrays, got "
            f"{len(message)}; server and clients need the same network and personal layers."
        )
    rows = zip(leaves, message[::2], message[1::2], masks, strict=True)
    pairs = [_unpack_leaf(*row) for row in rows]
    values = [jnp.asarray(leaf) for leaf, _ in pairs]
    positions = [places for _, places in pairs]
    return jax.tree.unflatten(structure, values), jax.tree.unflatten(structure, positions)


def _unpack_leaf(
    leaf: Any, values: np.ndarray, places: np.ndarray, shared: Any
) -> tuple[np.ndarray, Bool[np.ndarray, "..."]]:
    out = np.array(leaf)
    flat, sent = out.reshape(-1), np.zeros(out.size, bool)
    if values.dtype.kind == "V":  # bfloat16, as NumPy's files give it back
        values = values.view(out.dtype)
    if not len(places):
        agreed = np.flatnonzero(shared) if shared is not None else NOWHERE
        at: Any = slice(0, len(values)) if len(values) in (0, len(flat)) else agreed
    elif places.dtype == np.uint8:
        at = np.flatnonzero(np.unpackbits(places)[: len(flat)])
    else:
        at = places
    if values.dtype != out.dtype or len(flat[at]) != len(values):
        raise ValueError(
            f"A message about a leaf of shape {out.shape} and {out.dtype} has values for it, got "
            f"{len(values)} of {values.dtype}; server and clients need the same network and update."
        )
    flat[at], sent[at] = values, True
    return out, sent.reshape(out.shape)
