"""Every pattern: exact counts, priorities, checks, packed forms, on every kind of leaf."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from sparsejax.patterns import BSR, CSR, NM, Block, Channel, Unstructured

# name: pattern, shape of the leaf, number of groups
CASES = {
    "unstructured_dense": (Unstructured(), (6, 10), 60),
    "unstructured_conv": (Unstructured(), (3, 3, 4, 8), 288),
    "unstructured_bias": (Unstructured(), (7,), 7),
    "unstructured_equinox": (Unstructured(output_axis=0), (8, 4, 3, 3), 288),
    "block_4x1_conv": (Block(4, 1), (3, 3, 4, 8), 72),
    "block_4x4_dense": (Block(4, 4), (8, 12), 6),
    "block_8x1_depthwise": (Block(8, 1), (3, 3, 1, 16), 18),
    "block_2x2_grouped": (Block(2, 2), (3, 3, 2, 8), 36),
    "block_kernels_equinox": (Block(2, 9, output_axis=0), (4, 5, 3, 3), 10),
    "block_3_inputs_equinox": (Block(2, 3, output_axis=0), (4, 6, 1, 1), 4),
    "nm_2_4_dense": (NM(2, 4), (8, 5), 40),
    "nm_1_4_conv": (NM(1, 4), (3, 3, 8, 4), 288),
    "nm_4_8_equinox": (NM(4, 8, axis=1), (3, 16), 48),
    "nm_2_3": (NM(2, 3), (9, 2), 18),
    "channel_out": (Channel(), (3, 3, 4, 8), 8),
    "channel_in": (Channel(axis=-2), (6, 10), 6),
}
SPARSITIES = (0.0, 0.01, 0.25, 0.5, 0.9, 0.999)
every_case = pytest.mark.parametrize("case", CASES)


def leaf(shape, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    values = rng.integers(-2, 3, shape) if ties else rng.normal(size=shape)
    return values.astype(np.float32)


def reachable(pattern, shape):
    return [s for s in SPARSITIES if s <= pattern.max_sparsity(shape)]


@functools.cache
def mask_of(pattern):
    """The pattern's mask, traced once a shape; keep none and allow all by default."""
    mask = jax.jit(lambda scores, s, k, a: pattern.mask(scores, s, keep=k, allowed=a))

    def with_defaults(scores, sparsity, keep=None, allowed=None):
        keep = np.zeros(scores.shape, bool) if keep is None else keep
        allowed = np.ones(scores.shape, bool) if allowed is None else allowed
        return np.asarray(mask(scores, jnp.float32(sparsity), keep, allowed))

    return with_defaults


@every_case
def test_the_count_is_exact_also_with_ties_infinities_and_nan(case):
    pattern, shape, num_groups = CASES[case]
    scores = np.abs(leaf(shape, ties=True))
    scores.ravel()[:3] = np.inf, np.nan, -0.0
    for sparsity in reachable(pattern, shape):
        mask = mask_of(pattern)(scores, sparsity)
        pruned = int(np.floor(sparsity * num_groups + 0.5))
        assert (~mask).sum() == pruned * (scores.size // num_groups)
        if not isinstance(pattern, NM) or sparsity == pattern.max_sparsity(shape):
            pattern.check(mask)


@pytest.mark.parametrize("case", ["unstructured_dense", "block_4x4_dense", "nm_2_3", "channel_in"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_static_sparsity_equals_traced_and_jit_no_jit(case, dtype):
    pattern, shape, num_groups = CASES[case]
    scores = jnp.asarray(np.abs(leaf(shape, ties=True)), dtype)
    for sparsity in reachable(pattern, shape):
        mask = np.asarray(pattern.mask(scores, sparsity))
        np.testing.assert_array_equal(mask, mask_of(pattern)(scores, sparsity))
        pruned = int(np.floor(sparsity * num_groups + 0.5))
        assert (~mask).sum() == pruned * (scores.size // num_groups)


@every_case
def test_the_groups_with_the_lowest_sums_go(case):
    pattern, shape, num_groups = CASES[case]
    scores = np.abs(leaf(shape))
    mask = mask_of(pattern)(scores, 0.5 * pattern.max_sparsity(shape))
    sums = np.asarray(pattern.group_scores(scores))
    kept = np.asarray(pattern.group_scores(mask.astype(np.float32))) > 0
    assert sums.size == num_groups
    if not isinstance(pattern, NM):
        assert sums[kept].min() >= sums[~kept].max()


@every_case
def test_keep_comes_first_and_not_allowed_last(case):
    pattern, shape, _ = CASES[case]
    scores = np.abs(leaf(shape))
    half = pattern.max_sparsity(shape) / 2
    favoured = mask_of(pattern)(1 / (1 + scores), half)
    for priority in ("keep", "allowed"):
        mask = mask_of(pattern)(scores, half, **{priority: favoured})
        np.testing.assert_array_equal(mask, favoured)


@every_case
def test_packing_keeps_every_bit_and_gather_follows(case):
    pattern, shape, _ = CASES[case]
    todense = jax.jit(lambda packed: packed.todense())
    for sparsity in (0.0, 0.5, 0.9) if not isinstance(pattern, NM) else (pattern.max_sparsity(()),):
        weights = leaf(shape, ties=True)
        weights.ravel()[:2] = -0.0, np.inf
        mask = mask_of(pattern)(np.abs(weights), sparsity)
        packed = pattern.pack(weights, mask)
        dense = np.asarray(todense(packed))
        expected = np.where(mask, weights, np.float32(0))
        np.testing.assert_array_equal(dense.view(np.uint32), expected.view(np.uint32))

    other = leaf(shape, seed=1)
    regathered = lambda weights: packed.gather(weights).todense()
    dense, pull = jax.vjp(jax.jit(regathered), other)
    np.testing.assert_array_equal(dense, np.where(mask, other, 0))
    np.testing.assert_array_equal(pull(dense)[0], np.where(mask, other, 0))
    gathered = packed.gather(other)
    assert jax.tree.structure(gathered) == jax.tree.structure(packed)


@every_case
def test_without_a_mask_the_nonzeros_are_packed(case):
    pattern, shape, _ = CASES[case]
    weights = leaf(shape)
    mask = mask_of(pattern)(np.abs(weights), 0.5 if not isinstance(pattern, NM) else 1 - 1e-9)
    weights = np.where(mask, weights, np.float32(0)).astype(jnp.bfloat16)
    packed = pattern.pack(weights)
    assert packed.values.dtype == jnp.bfloat16
    np.testing.assert_array_equal(packed.todense(), weights)
    assert packed.values.size <= mask.sum()


def test_csr_by_hand():
    kernel = np.array([[0, 5], [3, 0], [4, 0]], np.float32)  # (in, out)
    packed = Unstructured().pack(kernel)
    assert isinstance(packed, CSR)
    assert packed.values.tolist() == [3, 4, 5]
    assert packed.indices.tolist() == [1, 2, 0]
    assert packed.row_starts.tolist() == [0, 2, 3]
    assert packed.indices.dtype == packed.row_starts.dtype == np.int32
    assert (packed.matrix_shape, packed.leaf_shape) == ((2, 3), (3, 2))
    empty = Unstructured().pack(np.zeros((3, 2), np.float32))
    assert empty.values.size == 0
    assert empty.row_starts.tolist() == [0, 0, 0]
    np.testing.assert_array_equal(empty.todense(), np.zeros((3, 2)))


def test_bsr_by_hand():
    kernel = np.array([[0, 0, 7, 0], [1, 2, 0, 0]], np.float32)  # (in, out)
    packed = Block(2, 1).pack(kernel)
    assert isinstance(packed, BSR)
    assert packed.values.tolist() == [[[1], [2]], [[7], [0]]]
    assert packed.indices.tolist() == [1, 0]
    assert packed.row_starts.tolist() == [0, 1, 2]
    assert (packed.block, packed.matrix_shape) == ((2, 1), (4, 2))


def test_n_of_m_by_hand():
    scores = jnp.array([[4.0], [1.0], [3.0], [2.0], [1.0], [1.0], [1.0], [9.0]])
    target = NM(2, 4).mask(scores, 0.5)
    assert target[:, 0].tolist() == [True, False, True, False, True, False, False, True]
    half_way = NM(2, 4).mask(scores, 0.25)  # the last two that no group needs
    assert half_way[:, 0].tolist() == [True, True, True, True, True, False, False, True]
    packed = NM(2, 4).pack(np.asarray(scores), target)
    assert packed.values[:, 0].tolist() == [4, 3, 1, 9]
    assert packed.indices[:, 0].tolist() == [0, 2, 0, 3]
    sparser = NM(2, 4).pack(np.array([[0], [0], [0], [6]], np.float32))
    assert sparser.values[:, 0].tolist() == [0, 6]


ERRORS = {
    "nm_text": (
        lambda: NM(2, 4, axis=-1).validate((3, 6)),
        r"^NM\(2, 4\) needs the last axis to be a multiple of 4, got shape \(3, 6\)\.$",
    ),
    "nm_path": (lambda: NM(2, 4).validate((3, 6), "head/kernel"), r"^head/kernel: NM\(2, 4\) .*-2"),
    "nm_vector": (lambda: NM(2, 4).validate((8,)), "NM.*axis -2"),
    "nm_sizes": (lambda: NM(3, 2), r"NM\(3, 2\) needs 1 <= n <= m"),
    "nm_bytes": (lambda: NM(1, 257), "m <= 256"),
    "nm_sparsity": (
        lambda: NM(2, 4).mask(jnp.ones((4, 4)), 0.9),
        "at most 0.5 .* got sparsity 0.9",
    ),
    "nm_mask": (lambda: NM(1, 4).check(np.ones((4, 2), bool)), "at most 1 kept .* got 4"),
    "nm_pack": (lambda: NM(1, 4).pack(np.ones((4, 2), np.float32)), "at most 1 kept"),
    "block_rows": (lambda: Block(4, 1).validate((8, 6), "a/b"), r"^a/b: Block\(4, 1\).*\(8, 6\)"),
    "block_cols": (lambda: Block(2, 4).validate((3, 3, 6, 8)), r"Block\(2, 4\).*multiples of 4"),
    "block_sizes": (lambda: Block(0, 1), r"Block\(0, 1\) needs rows and cols"),
    "block_axis": (lambda: Block(2, 1, output_axis=3).validate((4, 4)), "axis 3"),
    "block_mask": (lambda: Block(2, 1).check(np.eye(4, dtype=bool)), "4 of 8 groups in between"),
    "channel_axis": (lambda: Channel(2).validate((4, 4), "w"), r"^w: Channel\(2\) needs axis 2"),
    "channel_mask": (lambda: Channel().check(np.eye(4, dtype=bool)), r"Channel\(-1\)"),
    "scalar": (lambda: Unstructured().validate(()), "needs an axis"),
    "mask_shape": (
        lambda: Unstructured().pack(np.ones((2, 2)), np.ones((2, 3), bool)),
        r"mask of shape \(2, 2\), got \(2, 3\)",
    ),
}


@pytest.mark.parametrize("error", ERRORS)
def test_errors_say_who_what_and_got(error):
    make, message = ERRORS[error]
    with pytest.raises(ValueError, match=message):
        make()


def test_a_group_of_which_some_is_kept_or_not_allowed_is_so_as_one():
    some = np.array([[True], [False], [False], [False]])
    scores = jnp.array([[1.0], [1.0], [3.0], [3.0]])
    block = Block(1, 2)
    assert block.mask(scores, 0.5)[:, 0].tolist() == [False, False, True, True]
    assert block.mask(scores, 0.5, keep=some)[:, 0].tolist() == [True, True, False, False]
    allowed = block.mask(scores[::-1], 0.5, allowed=some | (scores[::-1] < 2.0))
    assert allowed[:, 0].tolist() == [False, False, True, True]


def test_half_precision_groups_are_summed_in_float32():
    scores = np.array([[256.0], [1.0], [256.0], [0.0]], jnp.bfloat16)
    for kind in (np.asarray, jnp.asarray):
        assert Block(1, 2).group_scores(kind(scores)).ravel().tolist() == [257.0, 256.0]


def test_type_errors():
    with pytest.raises(TypeError, match="mask must be bool, got float64"):
        Unstructured().check(np.ones((2, 2)))
    with pytest.raises(TypeError, match=r"outside jax\.jit"):
        jax.jit(lambda w: Unstructured().pack(w).todense())(jnp.ones((2, 2)))


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("pattern", [Block(4, 1), Block(4, 4), NM(2, 4), Channel(-2)], ids=str)
def test_masks_of_sharded_leaves_equal_those_of_whole_ones(pattern, axis_type):
    mesh = jax.make_mesh((2, 2), ("a", "b"), axis_types=(axis_type,) * 2)
    values = np.abs(leaf((64, 48)))
    scores = jax.device_put(values, NamedSharding(mesh, P("a", "b")))
    compiled = jax.jit(lambda scores: pattern.mask(scores, 0.5)).lower(scores).compile()
    mask = compiled(scores)
    np.testing.assert_array_equal(mask, pattern.mask(jnp.asarray(values), 0.5))
    assert "all-gather" not in compiled.as_text()
    if axis_type is AxisType.Explicit:
        assert mask.sharding.is_equivalent_to(scores.sharding, 2)
