"""Activation maps as bytes: a head with the order, type and shape, code words, and a checksum."""

import math
import struct
import zlib
from typing import Any

import numpy as np
from jaxtyping import Integer

from sparsejax.activations.bits import packed, unpacked
from sparsejax.activations.exponential import (
    MAX_K,
    best_k,
    checked_k,
    seg_lengths,
    seg_values,
    seg_words,
)
from sparsejax.activations.histograms import LIMIT, checked_maps, histogram
from sparsejax.doors import named

_HEAD = struct.Struct("<4sBcBB")  # mark, k, dtype's kind and size, number of axes
_WORD = struct.Struct("<Q")  # each length of the shape, and the number of bits
_SUM = struct.Struct("<I")
_MARK = b"SEG1"
_MAX_AXES = 32


def encode(maps: Any, *, k: int | None = None) -> bytes:
    """Integer maps as bytes, each value in the sparse-exponential-Golomb code of order k.

    A zero is the bit 1. x > 0 is a 0 and the exponential-Golomb code of n = x - 1: with q = n >> k,
    as many zeros as q + 1 has bits behind its first, then q + 1, then the k low bits of n. In front
    of the words stand k, type, shape and the number of bits, behind them a checksum.

    Args:
      maps: integers from 0 to 2^32 - 1 of any shape.
      k: the order, from 0 to 32; that of the fewest bits by default.

    Raises:
      TypeError: the maps are not of integers.
      ValueError: a value or k is out of its range.

    Example:
      >>> data = sj.activations.encode(jnp.array([[0, 0, 7], [0, 1, 0]], jnp.uint8))
      >>> sj.activations.decode(data)
      array([[0, 0, 7],
             [0, 1, 0]], dtype=uint8)

    Differs: the paper's algorithm, as far as it is remembered, takes the plain code at k = 0, which
    spends one bit on a zero, too. Its text was not at hand; the lengths here are those of others'
    code for it.

    Reference: Georgiadis, "Accelerating Convolutional Neural Networks via Activation Map
    Compression", CVPR 2019, arXiv 1812.04056.
    """
    values = checked_maps("encode", maps)
    flat, kind = values.ravel(), np.asarray(maps).dtype
    order = best_k(histogram(flat)) if k is None else checked_k("encode", k)
    lengths = seg_lengths(flat, order)
    head = _HEAD.pack(_MARK, order, kind.kind.encode(), kind.itemsize, values.ndim)
    sizes = b"".join(map(_WORD.pack, (*values.shape, int(lengths.sum()))))
    data = head + sizes + packed(seg_words(flat, order), lengths)
    return data + _SUM.pack(zlib.crc32(data))


def decode(data: bytes) -> Integer[np.ndarray, "..."]:
    """The maps that `encode` made these bytes of, in their type and shape.

    Raises:
      TypeError: what came are no bytes.
      ValueError: the bytes are damaged, or are something else.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"decode needs bytes, got {named(data)}; pass what encode returned.")
    try:
        return _decoded(bytes(data))
    except ValueError as error:
        raise ValueError(
            f"decode needs bytes as encode returned them: {error}; encode the maps anew."
        ) from error


def _decoded(data: bytes) -> Integer[np.ndarray, "..."]:
    if len(data) < _HEAD.size + _WORD.size + _SUM.size or not data.startswith(_MARK):
        raise ValueError(f"{len(data)} bytes without its mark")
    if _SUM.unpack_from(data, len(data) - _SUM.size)[0] != zlib.crc32(data[: -_SUM.size]):
        raise ValueError("the checksum is another")
    _, k, kind, item_size, num_axes = _HEAD.unpack_from(data)
    start = _HEAD.size + (num_axes + 1) * _WORD.size
    words = data[start : -_SUM.size]
    if k > MAX_K or num_axes > _MAX_AXES or start > len(data) - _SUM.size:
        raise ValueError(f"no head has k = {k} and {num_axes} axes")
    if kind not in (b"i", b"u") or item_size not in (1, 2, 4, 8):
        raise ValueError("the type is none of integers")
    *shape, num_bits = (
        _WORD.unpack_from(data, _HEAD.size + axis * _WORD.size)[0] for axis in range(num_axes + 1)
    )
    # Every value takes a bit, so that nothing larger than the bytes that came is ever made.
    if (num_bits + 7) // 8 != len(words) or math.prod(shape) > num_bits:
        raise ValueError(f"{len(words)} bytes of words do not hold shape {tuple(shape)}")
    if math.prod(max(length, 1) for length in shape) >= LIMIT**2 // 16:
        raise ValueError(f"no array has shape {tuple(shape)}")
    bits = unpacked(words, num_bits)
    values = seg_values(bits, math.prod(shape), k)
    dtype = np.dtype(f"{kind.decode()}{item_size}")
    if values.max(initial=0) > min(np.iinfo(dtype).max, LIMIT - 1):
        raise ValueError(f"a value is above those of {dtype}")
    return values.astype(dtype).reshape(shape)
