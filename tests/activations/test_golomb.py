"""The sparse-exponential-Golomb code: by hand, both ways, its lengths, and damaged bytes."""

import struct
import zlib

import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj

HEAD = 8  # bytes: mark, k, type, axes
RNG = np.random.default_rng(0)
MAPS = {
    "empty": np.zeros((0, 3), np.int32),
    "scalar": np.array(5, np.uint8),
    "zeros": np.zeros((2, 9), np.uint16),
    "one": np.ones(9, np.int8),
    "largest": np.array([2**32 - 1, 0, 1, 2**31], np.uint32),
    "in int64": np.array([[2**32 - 1], [7]], np.int64),
    "sparse": (RNG.exponential(3000, (4, 5, 6)) * (RNG.random((4, 5, 6)) > 0.6)).astype(np.uint16),
    "all levels": np.arange(256, dtype=np.uint8),
    "around powers": np.array([2**i + d for i in range(1, 31) for d in (-1, 0, 1)], np.uint32),
    "turned": np.arange(12, dtype=np.int32).reshape(3, 4).T[::-1],
    "big endian": np.array([1, 300], ">u2"),
}


def word(x, k):
    """The code of one value as written in the paper's formula: the slow oracle."""
    if x == 0:
        return "1"
    n = x - 1
    q = bin((n >> k) + 1)[2:]
    low = format(n & (1 << k) - 1, f"0{k}b") if k else ""
    return "0" + "0" * (len(q) - 1) + q + low


def words_of(data, num_axes):
    """The bits between head and checksum."""
    start = HEAD + 8 * num_axes
    (num_bits,) = struct.unpack_from("<Q", data, start)
    bits = np.unpackbits(np.frombuffer(data[start + 8 : -4], np.uint8))
    assert not bits[num_bits:].any()
    return "".join(map(str, bits[:num_bits]))


def test_words_worked_by_hand():
    # k = 1: 0 -> 1; 1: n = 0 -> 0 1 0; 2: n = 1 -> 0 1 1; 3: n = 2, q + 1 = 10 -> 0 0 10 0.
    data = sj.activations.encode(np.array([0, 1, 2, 3], np.uint8), k=1)
    assert words_of(data, 1) == "101001100100"


@pytest.mark.parametrize("name", MAPS)
def test_maps_come_back_with_every_k(name):
    maps = MAPS[name]
    for k in range(33):
        data = sj.activations.encode(maps, k=k)
        found = sj.activations.decode(data)
        assert found.dtype == maps.dtype.newbyteorder("=") and found.shape == maps.shape
        np.testing.assert_array_equal(found, maps)
        flat = maps.ravel().tolist()
        # Words of large values with a small k are the formula's, too; all of them are short.
        assert words_of(data, maps.ndim) == "".join(word(x, k) for x in flat)
        lengths = sj.activations.code_lengths(maps, k=k)
        assert lengths.ravel().tolist() == [len(word(x, k)) for x in flat]


@pytest.mark.parametrize("name", MAPS)
def test_best_k_is_the_minimum_of_the_closed_form(name):
    maps = MAPS[name]
    bits = [int(sj.activations.code_lengths(maps, k=k).sum()) for k in range(33)]
    best = sj.activations.best_k(sj.activations.histogram(maps))
    assert best == bits.index(min(bits))
    assert len(words_of(sj.activations.encode(maps), maps.ndim)) == min(bits)


def test_a_histogram_counts_all_maps_together():
    found = sj.activations.histogram(jnp.array([[0, 3], [3, 0]]), np.array([2**31, 0]))
    assert found.values.tolist() == [0, 3, 2**31] and found.counts.tolist() == [3, 2, 1]
    assert (found.size, found.nonzeros) == (6, 3)
    assert sj.activations.histogram().size == 0


def test_any_damage_is_said_in_a_sentence():
    good = sj.activations.encode(MAPS["sparse"])
    rng = np.random.default_rng(1)
    damaged = [good[:end] for end in range(0, len(good), 7)] + [good + b"\0", b"", b"SEG1" * 40]
    for place in rng.integers(0, len(good), 200):
        other = bytearray(good)
        other[place] ^= 1 << rng.integers(8)
        damaged.append(bytes(other))
    for data in damaged:
        with pytest.raises(ValueError, match=r"^decode needs .*; encode the maps anew\.$"):
            sj.activations.decode(data)


def sealed(body):
    """The body with a checksum that fits, as a liar would send it."""
    return bytes(body) + struct.pack("<I", zlib.crc32(bytes(body)))


def test_damage_under_a_fitting_checksum_neither_crashes_nor_hangs():
    good = sj.activations.encode(MAPS["sparse"])[:-4]
    rng = np.random.default_rng(2)
    kept = 0
    for _ in range(500):
        body = bytearray(good)
        for place in rng.integers(0, len(body) if rng.random() < 0.5 else 40, rng.integers(1, 4)):
            body[place] = rng.integers(256)
        try:
            found = sj.activations.decode(sealed(body[: rng.integers(1, len(body) + 1)]))
            kept += found.nbytes <= 8 * 8 * len(body)
        except ValueError as error:
            assert str(error).startswith("decode needs bytes as encode returned them")


@pytest.mark.parametrize(
    "head",
    [
        {"shape": (2**62,)},
        {"shape": (2**40, 2**40, 0)},
        {"shape": (9,)},
        {"shape": (11,)},
        {"num_bits": 2**63},
        {"num_bits": 9},
        {"k": 33},
        {"kind": b"f"},
        {"item_size": 3},
        {"words": b"\x00\x00", "num_bits": 16},
        {"words": b"\xff\xfe", "num_bits": 16, "shape": (16,)},
        {"words": b"\x00" * 5 + b"\x01" + b"\xff" * 5, "num_bits": 88, "shape": (1,)},
        {"words": b"\x00\x40\x00\x00", "num_bits": 20, "shape": (1,), "item_size": 1},
    ],
    ids=str,
)
def test_heads_that_lie_are_refused(head):
    fields = {"k": 0, "kind": b"u", "item_size": 2, "shape": (10,), "num_bits": 10}
    fields |= {"words": b"\xff\xc0"} | head
    shape = fields["shape"]
    body = struct.pack(
        "<4sBcBB", b"SEG1", fields["k"], fields["kind"], fields["item_size"], len(shape)
    )
    body += struct.pack(f"<{len(shape) + 1}Q", *shape, fields["num_bits"]) + fields["words"]
    with pytest.raises(ValueError, match=r"^decode needs"):
        sj.activations.decode(sealed(body))


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda a: a.encode(np.ones(3)), TypeError, "integer maps, got float64"),
        (lambda a: a.encode(np.array([True])), TypeError, "integer maps, got bool"),
        (lambda a: a.encode(np.array([0, -1])), ValueError, "got -1 to 0"),
        (lambda a: a.encode(np.array([2**32])), ValueError, "from 0 to 2\\^32 - 1"),
        (lambda a: a.encode([1], k=33), ValueError, "k from 0 to 32, got 33"),
        (lambda a: a.encode([1], k=1.5), TypeError, "an integer as k, got 1.5"),
        (lambda a: a.code_lengths([1], k=-1), ValueError, "code_lengths needs k"),
        (lambda a: a.histogram(np.ones(2)), TypeError, "histogram needs integer maps"),
        (lambda a: a.decode("text"), TypeError, "decode needs bytes, got 'text'"),
    ],
)
def test_what_cannot_be_coded_is_said(call, kind, words):
    with pytest.raises(kind, match=words):
        call(sj.activations)
