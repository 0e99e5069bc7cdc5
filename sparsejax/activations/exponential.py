"""Sparse-exponential-Golomb codes: one bit for a zero, few for small values, any value at all."""

import operator
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from sparsejax.activations.bits import numbers_at
from sparsejax.activations.histograms import Histogram, checked_maps

MAX_K = 32  # of values below 2^32 none is shorter with more


def code_lengths(maps: Any, *, k: int) -> Int[np.ndarray, "..."]:
    """The bits that each value takes in the sparse-exponential-Golomb code of order k.

    A zero takes 1, x > 0 takes 2 + k + 2 floor(log2(((x - 1) >> k) + 1)).

    Raises:
      TypeError: the maps are not of integers.
      ValueError: k is not from 0 to 32, or a value is negative, or 2^32 or more.

    Example:
      >>> sj.activations.code_lengths(jnp.array([0, 1, 4, 5]), k=2)
      array([1, 4, 4, 6])

    Reference: Georgiadis, "Accelerating Convolutional Neural Networks via Activation Map
    Compression", CVPR 2019, arXiv 1812.04056.
    """
    return seg_lengths(checked_maps("code_lengths", maps), checked_k("code_lengths", k))


def best_k(histogram: Histogram) -> int:
    """The order with which all values together take the fewest bits, the least of equals.

    Every order is tried in the closed form, which costs no more than the levels that occur.

    Example:
      >>> sj.activations.best_k(sj.activations.histogram(jnp.array([0, 0, 900, 1000, 1023])))
      10
    """
    totals = [int(histogram.counts @ seg_lengths(histogram.values, k)) for k in range(MAX_K + 1)]
    return int(np.argmin(totals))


def checked_k(who: str, k: Any) -> int:
    """The order as an int, or a sentence."""
    try:
        order = operator.index(k)
    except TypeError as error:
        raise TypeError(f"{who} needs an integer as k, got {k!r}; leave it to best_k.") from error
    if not 0 <= order <= MAX_K:
        raise ValueError(f"{who} needs k from 0 to {MAX_K}, got {order}; leave it to best_k.")
    return order


def eg_lengths(values: Int[np.ndarray, "..."], k: int) -> Int[np.ndarray, "..."]:
    """The bits of each value in the plain exponential-Golomb code."""
    return 1 + k + 2 * _floor_log2((values >> k) + 1)


def seg_lengths(values: Int[np.ndarray, "..."], k: int) -> Int[np.ndarray, "..."]:
    """The bits of each value: one for a zero, one more than plain for x - 1."""
    return np.where(values == 0, 1, 1 + eg_lengths(np.maximum(values - 1, 0), k))


def seg_words(values: Int[np.ndarray, "words"], k: int) -> Int[np.ndarray, "words"]:
    """The words as numbers: 1 for a zero, else q + 1 and the k low bits, where q = (x - 1) >> k."""
    below = np.maximum(values - 1, 0)
    word = (((below >> k) + 1) << k) | (below & ((1 << k) - 1))
    return np.where(values == 0, 1, word)


def seg_values(bits: UInt8[np.ndarray, "num_bits"], size: int, k: int) -> Int[np.ndarray, "size"]:
    """The values that the words of all these bits say.

    Raises:
      ValueError: they are not the words of `size` values.
    """
    text, place, places = bits.tobytes(), 0, []
    # A word's end is known only when it is read; this walks over nonzeros, zeros are runs of ones.
    while (start := text.find(b"\0", place)) >= 0:
        one = text.find(b"\1", start + 1)
        places.append((place, start, one))
        place = 2 * one - start + k
        if one < 0 or place > len(text):
            raise ValueError("a code word has no end")
    before, starts, ones = np.array(places, np.int64).reshape(-1, 3).T
    at = np.cumsum(starts - before + 1) - 1
    if len(places) + int((starts - before).sum()) + len(text) - place != size:
        raise ValueError(f"the code words are not those of {size} values")
    zeros = ones - starts - 1
    if zeros.max(initial=0) > MAX_K:
        raise ValueError("a code word is longer than any")
    numbers = numbers_at(bits, ones, zeros + 1 + k)
    values = np.zeros(size, np.int64)
    values[at] = numbers - (1 << k) + 1
    return values


def _floor_log2(values: Int[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
    """Exact for positive values below 2^53, which a float holds."""
    return np.frexp(values.astype(np.float64))[1].astype(np.int64) - 1
