"""How matrices are stored: worked examples, and the smallest of the ways."""

import numpy as np
import pytest

from sparsejax.compiler.files.weights import BLOCKS, gaps, stored


@pytest.mark.parametrize(
    ("kept", "codes"),
    [
        ([], []),
        ([1], [0]),
        ([0, 0, 1, 1], [2, 0]),
        ([1, 0, 0], [0, 2]),  # two cells behind the last
        ([0] * 255 + [1], [255, 0]),
        ([0] * 254 + [1], [254]),
        ([0] * 255, [255]),
        ([0] * 600, [255, 255, 90]),
        ([1] + [0] * 300 + [1], [0, 255, 45]),
    ],
)
def test_gaps_are_counted_by_hand(kept, codes):
    assert gaps(np.array(kept, bool), np.uint8).tolist() == codes


def test_bits_begin_with_the_lowest():
    matrix = np.zeros((2, 6), np.float32)
    matrix[0, 0], matrix[0, 1], matrix[1, 2] = 1, 2, 3
    mask = stored(
        np.where(np.arange(12).reshape(2, 6) % 2, 7, matrix).astype(np.float32), np.float32
    )
    assert mask.form == "mask" and mask.where.tolist() == [0b10101011, 0b1011]


def blocky(rng, block, sparsity, shape=(48, 80)):
    cells = rng.random((shape[0] // block, shape[1])) >= sparsity
    return (rng.normal(size=shape) * np.repeat(cells, block, 0)).astype(np.float32)


@pytest.mark.parametrize("block", BLOCKS)
def test_blocks_are_found(block):
    kept = stored(blocky(np.random.default_rng(0), block, 0.9), np.float32)
    assert (kept.form, kept.block) == ("gaps", block)


@pytest.mark.parametrize(
    ("sparsity", "index"),
    [(0.0, "all"), (0.5, "mask"), (0.8, "mask"), (0.9, "gaps"), (1.0, "gaps")],
)
def test_the_smallest_way_is_taken(sparsity, index):
    matrix = blocky(np.random.default_rng(0), 1, sparsity)
    assert stored(matrix, np.float32).form == index


def test_wide_gaps_have_sixteen_bits():
    matrix = np.zeros((100, 1000), np.float32)
    matrix[:, 700] = 1
    assert stored(matrix, np.float32).where.dtype == np.uint16


def test_no_byte_stands_for_more_than_a_kilobyte():
    matrix = np.zeros((512, 2048), np.float32)
    assert matrix.nbytes <= 1024 * stored(matrix, np.float32).num_bytes


def test_minus_zero_is_no_value():
    assert stored(np.full((4, 64), -0.0, np.float32), np.float32).values.size == 0
