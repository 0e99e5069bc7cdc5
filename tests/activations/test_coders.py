"""What codes take for a map, against slow counts, words worked by hand and the entropy."""

import heapq
import itertools
import sys

import numpy as np
import pytest

import sparsejax as sj

acts = sj.activations
RNG = np.random.default_rng(0)
MAPS = {
    "empty": np.zeros((0,), np.uint8),
    "zeros": np.zeros((2, 30), np.uint8),
    "one level": np.full(40, 7, np.uint8),
    "two levels": np.repeat(np.array([0, 5], np.uint8), [30, 10]),
    "tail": (RNG.exponential(20, 600) * (RNG.random(600) > 0.6)).astype(np.uint8),
    "wide": (RNG.exponential(3000, 600) * (RNG.random(600) > 0.6)).astype(np.uint16),
}
CODERS = {
    "ZVC": acts.zero_value(),
    "EG": acts.exponential_golomb(),
    "SEG": acts.sparse_exponential_golomb(),
    "Golomb": acts.golomb(),
    "Huffman": acts.huffman(),
}


def golomb_word(x, m):
    """Unary quotient, then the rest in truncated binary."""
    bits = (m - 1).bit_length()
    short, rest = (1 << bits) - m, x % m
    low = (rest, bits - 1) if rest < short else (rest + short, bits)
    return "1" * (x // m) + "0" + (format(low[0], f"0{low[1]}b") if low[1] else "")


def test_golomb_words_are_a_prefix_code_and_counted():
    for m in (1, 2, 3, 5, 8, 11):
        words = [golomb_word(x, m) for x in range(40)]
        ordered = sorted(words)
        assert not any(b.startswith(a) for a, b in itertools.pairwise(ordered))
        counted = acts.golomb(divisor=m).num_bits(np.arange(40), 8)
        assert counted == sum(map(len, words))


@pytest.mark.parametrize("name", MAPS)
def test_golomb_takes_a_good_divisor(name):
    values = MAPS[name].astype(np.int64)
    every = [acts.golomb(divisor=m).num_bits(values, 16) for m in range(1, 600)]
    found = acts.golomb().num_bits(values, 16)
    assert found <= min(every) * 1.002


@pytest.mark.parametrize("name", MAPS)
def test_exponential_golomb_is_the_best_of_its_orders(name):
    values = MAPS[name].astype(np.int64)
    for k in (0, 3, 9):
        plain = sum(1 + k + 2 * (((x >> k) + 1).bit_length() - 1) for x in values.ravel().tolist())
        assert acts.exponential_golomb(k=k).num_bits(values, 16) == plain
        sparse = int(acts.code_lengths(values, k=k).sum())
        assert acts.sparse_exponential_golomb(k=k).num_bits(values, 16) == sparse
    for coder in (acts.exponential_golomb, acts.sparse_exponential_golomb):
        every = [coder(k=k).num_bits(values, 16) for k in range(33)]
        assert coder().num_bits(values, 16) == min(every)


def huffman_lengths(counts):
    """The depth of each leaf of the tree, built with the leaves themselves."""
    heap = [(count, i, [i]) for i, count in enumerate(counts)]
    heapq.heapify(heap)
    depth = [0] * len(counts)
    for tie in itertools.count(len(counts)):
        if len(heap) < 2:
            return depth
        (a, _, left), (b, _, right) = heapq.heappop(heap), heapq.heappop(heap)
        for leaf in left + right:
            depth[leaf] += 1
        heapq.heappush(heap, (a + b, tie, left + right))


def test_huffman_is_the_tree():
    values, counts = np.unique(MAPS["tail"], return_counts=True)
    depth = huffman_lengths(counts.tolist())
    assert sum(2.0**-d for d in depth) == 1.0 and len(values) == len(depth)
    assert acts.huffman().num_bits(MAPS["tail"].astype(np.int64), 8) == int(counts @ depth)


@pytest.mark.parametrize("name", MAPS)
def test_no_code_of_single_values_is_below_the_entropy(name):
    bound = acts.bits_per_value(acts.entropy(), MAPS[name])
    rates = {own: acts.bits_per_value(coder, MAPS[name]) for own, coder in CODERS.items()}
    assert all(rate >= bound - 1e-9 for rate in rates.values())
    assert rates["Huffman"] <= bound + 1
    if MAPS[name].size:
        nonzero = np.count_nonzero(MAPS[name]) / MAPS[name].size
        assert rates["ZVC"] == pytest.approx(1 + 16 * nonzero)


def test_entropy_worked_by_hand():
    # 3 of 4 are zero: 3/4 log2(4/3) + 1/4 log2 4 = 0.811278.
    assert acts.bits_per_value(acts.entropy(), [0, 0, 0, 9]) == pytest.approx(0.8112781)


@pytest.mark.parametrize("name", MAPS)
def test_range_coding_is_close_to_the_entropy(name):
    pytest.importorskip("constriction")
    values = MAPS[name].astype(np.int64)
    bits, bound = (c.num_bits(values, 16) for c in (acts.range_coding(), acts.entropy()))
    assert bound - 1e-6 <= bits <= 1.01 * bound + 64  # two words at the end


def test_range_coding_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "constriction", None)
    with pytest.raises(ImportError, match=r'pip install "sparsejax\[coding\]"'):
        acts.range_coding()


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: acts.bits_per_value(acts.huffman(), [256], bits=8), ValueError, "of 8 bits, got"),
        (lambda: acts.bits_per_value(acts.huffman(), [0.5]), TypeError, "integer maps"),
        (lambda: acts.golomb(divisor=0), ValueError, "a divisor from 1 on, got 0"),
        (lambda: acts.exponential_golomb(k=40), ValueError, "exponential_golomb needs k"),
    ],
)
def test_what_cannot_be_counted_is_said(call, kind, words):
    with pytest.raises(kind, match=words):
        call()
