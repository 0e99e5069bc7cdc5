"""Block-punched masks are those of the authors' code, and a space holds what its table has."""

import numpy as np
import pytest

import sparsejax as sj

RNG = np.random.default_rng(0)
BLOCK = sj.Block(8, 4)
PARAMS = {
    "a": {"kernel": np.ones((3, 3, 4, 8), np.float32)},
    "b": {"kernel": np.ones((4, 8), np.float32)},
}
RULES = {"a/kernel": [BLOCK, sj.KernelPattern()], "b/kernel": [BLOCK, sj.NM(2, 4)]}
RATES = (1, 2, 4)
LEVELS = (0.0, 0.5, 0.75)
TABLE = sj.budgets.LatencyTable(
    "here",
    {
        (path, str(pattern)): (LEVELS, (1000.0 * size, 600.0 * size, 300.0 * size))
        for size, (path, patterns) in enumerate(RULES.items(), 1)
        for pattern in patterns
    },
    fixed=500.0,
    scale=1.0,
)


def authors_mask(weight, percent):
    """A port of the authors' projection onto block-punched weights, loops and all: (n, c, h, w)."""
    n, c, h, w = weight.shape
    columns = weight.reshape(n, c * h * w)
    norms = []
    for row in range(0, n, 8):
        for channel in range(0, c, 4):
            for place in range(h * w):
                ids = [(channel + k) * h * w + place for k in range(4)]
                norms.append(sum(np.linalg.norm(columns[row : row + 8, i]) for i in ids))
    threshold = np.percentile(norms, percent)
    mask = np.ones_like(columns, bool)
    norms = iter(norms)
    for row in range(0, n, 8):
        for channel in range(0, c, 4):
            for place in range(h * w):
                if next(norms) <= threshold:
                    for k in range(4):
                        mask[row : row + 8, (channel + k) * h * w + place] = False
    return mask.reshape(weight.shape)


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.6, 0.8, 0.95])
@pytest.mark.parametrize("shape", [(16, 8, 3, 3), (8, 12, 1, 1), (24, 4, 5, 5)])
def test_block_punched_masks_are_bit_for_bit_the_authors(shape, sparsity):
    weight = RNG.normal(size=shape).astype(np.float32)
    expected = authors_mask(weight, 100 * sparsity)
    mask = sj.search.block_punched(weight, sparsity, output_axis=0)
    np.testing.assert_array_equal(mask, expected)
    flax = sj.search.block_punched(weight.transpose(2, 3, 1, 0), sparsity)
    np.testing.assert_array_equal(flax, expected.transpose(2, 3, 1, 0))
    BLOCK.check(flax)
    sj.Block(8, 4, output_axis=-1).pack(weight.transpose(2, 3, 1, 0), flax)


def test_a_dense_layer_loses_whole_blocks():
    weights = np.ones((8, 16), np.float32)
    weights[:4, :8] = 0.5
    mask = sj.search.block_punched(weights, 0.2)
    assert not mask[:4, :8].any() and mask.sum() == 8 * 16 - 32
    assert sj.search.block_punched(weights, 0.0).all()
    np.testing.assert_array_equal(sj.search.block_punched(weights.T, 0.2, output_axis=0), mask.T)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((3, 3, 4, 12), "multiples of 8 filters"), ((3, 3, 4), "a kernel of 2 or 4 axes")],
)
def test_what_has_no_blocks_is_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        sj.search.block_punched(np.ones(shape), 0.5)


def test_a_space_has_each_pattern_at_each_rate_that_it_reaches():
    space = sj.search.pruning_space(PARAMS, RULES, TABLE, rates=RATES)
    assert space.space == {
        "a/kernel": (
            "dense",
            f"{BLOCK} at 2x",
            f"{BLOCK} at 4x",
            *(f"{sj.KernelPattern()} at {rate}x" for rate in (2, 4)),
        ),
        "b/kernel": ("dense", f"{BLOCK} at 2x", f"{BLOCK} at 4x", f"{sj.NM(2, 4)} at 2x"),
    }
    choice = {"a/kernel": f"{BLOCK} at 4x", "b/kernel": "dense"}
    assert [leaf.sparsity for leaf in space.plan(choice).leaves] == [0.75, 0.0]
    assert space.milliseconds(choice) == (500 + 300 + 2000) / 1000
    assert space.score(choice, 0.9, target=2.3, strength=0.1) == pytest.approx(0.9 - 0.1 * 0.5)
    assert space.score(choice, 0.9, target=3.0, strength=0.1) == 0.9


def test_rates_lie_between_those_of_the_table_and_other_patterns_are_refused():
    space = sj.search.pruning_space(PARAMS, RULES, TABLE, rates=(1, 3))
    choice = {"a/kernel": f"{BLOCK} at 3x", "b/kernel": "dense"}
    assert space.milliseconds(choice) == pytest.approx((500 + 400 + 2000) / 1e3)
    with pytest.raises(KeyError, match=r"needs b/kernel as Channel.*measure it with the rules"):
        sj.search.pruning_space(PARAMS, {"b/kernel": [BLOCK, sj.Channel()]}, TABLE)
    with pytest.raises(ValueError, match="rates of at least 1"):
        sj.search.sparsities_of((0.5,))
