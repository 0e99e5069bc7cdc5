"""Code words to bytes and back, most significant bit first."""

import numpy as np
from jaxtyping import Int, UInt8


def packed(codes: Int[np.ndarray, "words"], lengths: Int[np.ndarray, "words"]) -> bytes:
    """The words one behind the other: each the number `code`, with zeros in front to its length."""
    ends = np.cumsum(lengths)
    bits = np.zeros(int(ends[-1]) if len(ends) else 0, np.uint8)
    for place in range(int(codes.max(initial=0)).bit_length()):
        bits[ends[(codes >> place) & 1 == 1] - 1 - place] = 1
    return np.packbits(bits).tobytes()


def unpacked(data: bytes, num_bits: int) -> UInt8[np.ndarray, "num_bits"]:
    """The first bits of the bytes."""
    return np.unpackbits(np.frombuffer(data, np.uint8), count=num_bits)


def numbers_at(
    bits: UInt8[np.ndarray, "num_bits"],
    starts: Int[np.ndarray, "words"],
    lengths: Int[np.ndarray, "words"],
) -> Int[np.ndarray, "words"]:
    """The numbers that stand at these places; no place is behind the end."""
    numbers = np.zeros(len(starts), np.int64)
    for place in range(int(lengths.max(initial=0))):
        inside = place < lengths
        numbers[inside] = numbers[inside] << 1 | bits[starts[inside] + place]
    return numbers
