"""Codes of activation maps to compare: what each takes for a map, in bits."""

import heapq
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from sparsejax.activations.exponential import MAX_K, checked_k, eg_lengths, seg_lengths
from sparsejax.activations.histograms import Histogram, checked_maps, histogram

Maps = Int[np.ndarray, "..."]


class Coder(NamedTuple):
    """A code: its name, and the bits that it takes for integer maps of so many bits a value.

    Tables and models that a decoder needs, too, are not counted: they are made once, of maps of the
    training, and shared.
    """

    name: str
    num_bits: Callable[[Maps, int], float]


def bits_per_value(coder: Coder, maps: Any, *, bits: int = 16) -> float:
    """The bits that a coder takes for a value of the maps, in the mean; 0 where there are none.

    Args:
      coder: of this namespace, such as `zero_value()`.
      maps: integers from 0 to 2^bits - 1.
      bits: of a value as it is stored without a code.

    Raises:
      TypeError: the maps are not of integers.
      ValueError: a value does not fit the bits.

    Example:
      >>> maps = jnp.array([0, 0, 0, 9])
      >>> sj.activations.bits_per_value(sj.activations.zero_value(), maps, bits=16)
      5.0
    """
    values = checked_maps("bits_per_value", maps)
    if values.max(initial=0) >= 2**bits:
        raise ValueError(
            f"bits_per_value needs values of {bits} bits, got {values.max()}; say bits=."
        )
    return coder.num_bits(values, bits) / values.size if values.size else 0.0


def zero_value() -> Coder:
    """Zero-value compression: a bit for each value says whether it is zero, the others follow."""
    return Coder("ZVC", lambda maps, bits: maps.size + bits * int(np.count_nonzero(maps)))


def exponential_golomb(*, k: int | None = None) -> Coder:
    """The plain exponential-Golomb code of order k, of the best by default."""
    return Coder("EG", _of_order("exponential_golomb", eg_lengths, k))


def sparse_exponential_golomb(*, k: int | None = None) -> Coder:
    """The code of `encode`, of order k, of the best by default; its head is not counted."""
    return Coder("SEG", _of_order("sparse_exponential_golomb", seg_lengths, k))


def _of_order(who: str, lengths: Callable, k: int | None) -> Callable[[Maps, int], float]:
    orders = range(MAX_K + 1) if k is None else [checked_k(who, k)]

    def num_bits(maps: Maps, bits: int) -> float:
        own = histogram(maps)
        return min(int(own.counts @ lengths(own.values, order)) for order in orders)

    return num_bits


def golomb(*, divisor: int | None = None) -> Coder:
    """The Golomb code: x // divisor in unary, the rest in truncated binary.

    The best of the divisors 1 to 16 and, from there on, of sixteen to each octave by default.

    Raises:
      ValueError: the divisor is below 1.
    """
    if divisor is not None and divisor < 1:
        raise ValueError(f"golomb needs a divisor from 1 on, got {divisor}; leave it out, say.")

    def num_bits(maps: Maps, bits: int) -> float:
        own = histogram(maps)
        octaves = range(max(int(own.values.max(initial=0)).bit_length() - 4, 1))
        steps = {step << octave for octave in octaves for step in range(16, 32)}
        divisors = {*range(1, 16), *steps} if divisor is None else {divisor}
        return min(_golomb_bits(own, m) for m in divisors)

    return Coder("Golomb", num_bits)


def _golomb_bits(own: Histogram, divisor: int) -> int:
    long = (divisor - 1).bit_length()
    short_rests = (1 << long) - divisor  # the first rests have a bit less
    lengths = own.values // divisor + 1 + long - (own.values % divisor < short_rests)
    return int(own.counts @ lengths)


def huffman() -> Coder:
    """The Huffman code of the maps' own histogram, a bit for each value at least."""

    def num_bits(maps: Maps, bits: int) -> float:
        nodes = histogram(maps).counts.tolist()
        if len(nodes) < 2:
            return maps.size
        heapq.heapify(nodes)
        total = 0
        while len(nodes) > 1:  # each node adds a bit to all below it
            node = heapq.heappop(nodes) + nodes[0]
            heapq.heapreplace(nodes, node)
            total += node
        return total

    return Coder("Huffman", num_bits)


def entropy() -> Coder:
    """The bound of all codes that take each value by itself: -sum p log2 p of the histogram."""

    def num_bits(maps: Maps, bits: int) -> float:
        counts = histogram(maps).counts
        return float(counts @ np.log2(counts.sum() / counts)) if counts.size else 0.0

    return Coder("entropy", num_bits)


def range_coding() -> Coder:
    """Range coding with the maps' own histogram as its model, by the package `constriction`.

    What is counted are the bits of the words that it puts out.

    Raises:
      ImportError: constriction is missing.
    """
    try:
        import constriction
    except ImportError as error:
        raise ImportError(
            "range_coding needs constriction, which is not installed; "
            'install it with pip install "sparsejax[coding]".'
        ) from error

    def num_bits(maps: Maps, bits: int) -> float:
        own = histogram(maps)
        if len(own.values) < 2:  # its models have two values at least
            return 0.0
        model = constriction.stream.model.Categorical(
            own.counts.astype(np.float64) / own.size, perfect=False
        )
        encoder = constriction.stream.queue.RangeEncoder()
        encoder.encode(np.searchsorted(own.values, maps.ravel()).astype(np.int32), model)
        return float(encoder.num_bits())

    return Coder("range", num_bits)
