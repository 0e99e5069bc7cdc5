"""Block-based column-row pruning: masks, BCRC against dense and against CSR, and its products."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.ops import _ffi

PATTERNS = {
    "columns": sj.BlockColumnRow(4, 8),
    "columns_and_rows": sj.BlockColumnRow(4, 8, kept_rows=2),
    "one_row": sj.BlockColumnRow(4, 8, kept_rows=1),
    "equinox": sj.BlockColumnRow(4, 8, kept_rows=2, output_axis=0),
    "convolution": sj.BlockColumnRow(4, 8, kept_rows=2),
}
SHAPES = {"convolution": (3, 3, 8, 16), "equinox": (24, 40)}
every_pattern = pytest.mark.parametrize("name", PATTERNS)


def weights_of(name, seed=0):
    shape = SHAPES.get(name, (40, 24))
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def packed_of(name, sparsity=0.8, seed=0):
    weights = weights_of(name, seed)
    mask = np.asarray(PATTERNS[name].mask(np.abs(weights), sparsity))
    return PATTERNS[name].pack(weights, mask), np.where(mask, weights, 0)


def num_bytes(packed):
    return sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(packed))


def with_values(packed, values):
    return dataclasses.replace(packed, values=values)


def test_one_block_by_hand():
    # outputs x inputs: column sums 13, 3, 12, 2; of the kept columns 0 and 2 row sums 9, 1, 7, 8
    matrix = np.array([[5, 1, 4, 0], [1, 0, 0, 1], [4, 1, 3, 0], [3, 1, 5, 1]], np.float32)
    mask = sj.BlockColumnRow(4, 4, kept_rows=2).mask(jnp.asarray(matrix.T), 0.75).T
    np.testing.assert_array_equal(np.flatnonzero(mask.any(0)), [0, 2])
    np.testing.assert_array_equal(np.flatnonzero(mask.any(1)), [0, 3])
    assert int(mask.sum()) == 4
    packed = sj.BlockColumnRow(4, 4, kept_rows=2).pack(matrix.T, mask.T)
    assert packed.values.tolist() == [5, 3, 4, 5]  # column by column
    assert packed.rows.tolist() == [0, 3]
    assert packed.columns.tolist() == [0, 2]
    assert packed.run_starts.tolist() == packed.column_starts.tolist() == [0, 2]
    assert packed.value_starts.tolist() == [0, 4]


@every_pattern
def test_masks_are_of_the_pattern_on_the_whole_ramp_and_exact(name):
    pattern, scores = PATTERNS[name], np.abs(weights_of(name))
    group_size = scores.size // pattern.num_groups(scores.shape)
    mask_of = jax.jit(lambda s, allowed: pattern.mask(scores, s, allowed=allowed) & allowed)
    mask = np.ones(scores.shape, bool)
    for sparsity in (0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.75, 0.9, 1.0):
        mask = np.asarray(mask_of(jnp.float32(sparsity), mask))
        pattern.check(mask)
        pruned = int(np.floor(sparsity * scores.size / group_size + 0.5)) * group_size
        assert int((~mask).sum()) == pruned


@every_pattern
def test_the_projection_is_idempotent_and_no_farther_than_a_random_mask(name):
    pattern, weights = PATTERNS[name], weights_of(name)
    mask = np.asarray(pattern.mask(np.square(weights), 0.8))
    projected = np.where(mask, weights, 0)
    np.testing.assert_array_equal(pattern.mask(np.square(projected), 0.8), mask)
    other = pattern.mask(jnp.asarray(np.random.default_rng(1).random(weights.shape)), 0.8)
    lost = lambda kept: np.sum(np.where(kept, 0, weights) ** 2)
    assert lost(mask) < lost(np.asarray(other))


@every_pattern
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.8, 1.0])
def test_bcrc_keeps_every_bit_and_gather_follows(name, sparsity):
    packed, dense = packed_of(name, sparsity)
    np.testing.assert_array_equal(packed.todense(), dense)
    other = weights_of(name, seed=1)
    kept = np.asarray(packed.gather(np.ones_like(other)).todense()) == 1
    np.testing.assert_array_equal(packed.gather(other).todense(), np.where(kept, other, 0))
    assert packed.values.size == (dense != 0).sum()


def test_any_matrix_can_be_packed():
    weights = np.where(np.random.default_rng(0).random((16, 12)) < 0.3, 1.5, 0).astype(np.float32)
    packed = sj.BlockColumnRow(4, 8).pack(weights)
    np.testing.assert_array_equal(packed.todense(), weights)


@pytest.mark.parametrize("pattern", [sj.BlockColumnRow(8, 16), sj.BlockColumnRow(32, 64, 16)])
@pytest.mark.parametrize("sparsity", [0.6, 0.9])
def test_bcrc_is_smaller_than_csr_where_rows_share_columns(pattern, sparsity):
    weights = np.random.default_rng(0).normal(size=(256, 128)).astype(np.float32)
    mask = np.asarray(pattern.mask(np.abs(weights), sparsity))
    bcrc, csr = pattern.pack(weights, mask), sj.Unstructured().pack(weights, mask)
    assert bcrc.values.size == csr.values.size
    assert num_bytes(bcrc) < 0.8 * num_bytes(csr)


def test_rows_are_grouped_wherever_they_are():
    weights = np.zeros((8, 16), np.float32)  # (in, out): even outputs share, odd ones share
    weights[:3, ::2], weights[4:, 1::2] = 1, 2
    packed = sj.BlockColumnRow(4, 8).pack(weights)
    assert packed.rows.tolist() == [*range(0, 16, 2), *range(1, 16, 2)]
    assert packed.columns.tolist() == [0, 1, 2, 4, 5, 6, 7]


ERRORS = {
    "kept_rows": (lambda: sj.BlockColumnRow(4, 8, kept_rows=5), "kept_rows of 1 to rows"),
    "cols": (lambda: sj.BlockColumnRow(4, 9, kept_rows=2), "cols in multiples of kept_rows"),
    "cols_of_rows": (lambda: sj.BlockColumnRow(4, 8, kept_rows=3), "in multiples of kept_rows"),
    "shape": (lambda: sj.BlockColumnRow(4, 8).validate((9, 8), "a/b"), "^a/b: BlockColumnRow.*8"),
    "mask": (
        lambda: sj.BlockColumnRow(2, 2).check(np.eye(4, dtype=bool)),
        "whole rows and columns .* 2 of 4 blocks",
    ),
}


@pytest.mark.parametrize("error", ERRORS)
def test_errors_say_who_what_and_got(error):
    make, message = ERRORS[error]
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("channels_last", [True, False], ids=["nhwc", "channel-major"])
@pytest.mark.parametrize("name", ["columns", "columns_and_rows"])
@pytest.mark.parametrize("pixels", [1, 3, 130])
def test_products_and_gradients_are_those_of_the_dense_product(name, pixels, channels_last):
    packed, dense = packed_of(name)
    rng = np.random.default_rng(1)
    inputs, outputs = dense.shape
    to = lambda pixels_first: pixels_first if channels_last else pixels_first.transpose(0, 2, 1)
    x = rng.standard_normal((2, pixels, inputs)).astype(np.float32)
    grad_y = rng.standard_normal((2, pixels, outputs)).astype(np.float32)
    bias = rng.standard_normal(outputs).astype(np.float32)

    @jax.jit
    def run(values, x, bias):
        f = lambda v, x, b: sj.spmm(with_values(packed, v), x, b, channels_last=channels_last)
        y, vjp = jax.vjp(f, values, x, bias)
        return y, vjp(jnp.asarray(to(grad_y)))

    y, (grad_values, grad_x, grad_bias) = run(packed.values, to(x), bias)
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-4)
    close(to(y), x.astype(np.float64) @ dense + bias)
    close(to(grad_x), grad_y.astype(np.float64) @ dense.T)
    expected = np.einsum("bpk,bpm->km", x.astype(np.float64), grad_y)
    close(grad_values, packed.gather(jnp.asarray(expected, jnp.float32)).values)
    close(grad_bias, grad_y.sum((0, 1)))


@pytest.mark.parametrize("activation", [None, jax.nn.relu6, jnp.tanh], ids=["none", "6", "tanh"])
def test_activations_and_their_gradients_are_those_of_the_reference(activation):
    packed, _ = packed_of("columns_and_rows")
    x = 4 * np.random.default_rng(0).standard_normal((5, 40)).astype(np.float32)
    bias = np.linspace(-2, 4, 24, dtype=np.float32)

    def results(op):
        f = lambda v, x, b: op(with_values(packed, v), x, b, activation=activation)
        y, vjp = jax.vjp(f, packed.values, x, bias)
        return y, *vjp(jnp.cos(y))

    ours, reference = (jax.jit(partial(results, op)) for op in (sj.spmm, sj.ops.spmm_reference))
    for got, expected in zip(ours(), reference(), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-4)


def test_vmap_equals_a_loop_over_any_operand():
    packed, _ = packed_of("columns_and_rows")
    normal = lambda *shape: np.random.default_rng(0).normal(size=shape).astype(np.float32)
    values, x = normal(3, *packed.values.shape), normal(3, 2, 40)
    loss = lambda v, x: (sj.spmm(with_values(packed, v), x, activation=jax.nn.relu) ** 2).sum()
    f = jax.jit(jax.grad(loss, argnums=(0, 1)))
    for axes in ((0, 0), (None, 0), (0, None)):
        operands = [a if axis == 0 else a[0] for a, axis in zip((values, x), axes, strict=True)]
        got = jax.jit(jax.vmap(f, axes))(*operands)
        for i in range(3):
            one = [a[i] if axis == 0 else a for a, axis in zip(operands, axes, strict=True)]
            for g, e in zip(got, f(*one), strict=True):
                np.testing.assert_allclose(g[i], e, rtol=1e-5, atol=1e-4)


def test_products_and_gradients_run_as_custom_calls():
    packed, _ = packed_of("columns")
    f = jax.grad(lambda v, x: sj.spmm(with_values(packed, v), x).sum(), argnums=(0, 1))
    text = jax.jit(f).lower(packed.values, jnp.ones((4, 40))).as_text()
    assert "sparsejax.bcr_grad_values.v1" in text
    assert "sparsejax.bcr.v1" in text
    assert "dot_general" not in text
    other = jax.jit(sj.spmm).trace(packed, jnp.ones((4, 40))).lower(lowering_platforms=("cuda",))
    assert "sparsejax" not in other.as_text()


def test_other_dtypes_run_as_the_reference():
    packed, dense = packed_of("columns")
    packed = with_values(packed, jnp.asarray(packed.values, jnp.bfloat16))
    y = sj.spmm(packed, jnp.ones((4, 40), jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(np.float32), np.ones((4, 40)) @ dense, 0.1, 0.1)


def test_a_single_pixel_of_tall_runs():
    weights = np.random.default_rng(0).normal(size=(33, 90)).astype(np.float32)
    weights[::2] = 0
    packed = sj.BlockColumnRow(90, 33).pack(weights)
    x = np.random.default_rng(1).normal(size=(1, 33)).astype(np.float32)
    np.testing.assert_allclose(sj.spmm(packed, x), x @ weights, rtol=1e-4, atol=1e-4)


def bad(name, numbers):
    packed, _ = packed_of("columns")
    array = getattr(packed, name).copy()
    array[: len(numbers)] = numbers
    return dataclasses.replace(packed, **{name: array})


@pytest.mark.parametrize("name", ["rows", "columns"])
@pytest.mark.parametrize("number", [-1, 10**6, 2**31 - 1])
def test_indices_out_of_range_are_refused_by_the_kernel(name, number):
    with pytest.raises(jax.errors.JaxRuntimeError, match=f"spmm: {name} must"):
        jax.block_until_ready(sj.spmm(bad(name, [number]), jnp.ones((2, 40))))


@pytest.mark.parametrize("name", ["run_starts", "column_starts", "value_starts"])
def test_starts_that_make_no_matrix_are_refused_by_the_kernel(name):
    for numbers in ([1], [0, -3], [0, 2**31 - 1], [0, 1]):
        with pytest.raises(jax.errors.JaxRuntimeError, match=f"spmm: ({name}|value_starts) must"):
            jax.block_until_ready(sj.spmm(bad(name, numbers), jnp.ones((2, 40))))


BAD = {
    "dtype": ({"rows": np.zeros(3)}, TypeError, "int32 rows"),
    "rank": ({"columns": np.zeros((3, 1), np.int32)}, ValueError, "columns with one axis"),
    "starts": ({"value_starts": np.zeros(1, np.int32)}, ValueError, "value_starts with shape"),
    "values": ({"values": np.zeros((3, 1), np.float32)}, ValueError, "values with one axis"),
    "x": ({"matrix_shape": (24, 39)}, ValueError, "x with 39 channels"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_fields_are_refused_by_name(case):
    fields, error, message = BAD[case]
    packed = dataclasses.replace(packed_of("columns")[0], **fields)
    with pytest.raises(error, match=message):
        sj.spmm(packed, jnp.ones((2, 40)))


def test_the_handler_checks_what_python_has_checked():
    packed, _ = packed_of("columns")
    lists = [packed.rows, packed.run_starts, packed.columns, packed.column_starts]
    call = jax.ffi.ffi_call(_ffi.TARGET.format("bcr"), jax.ShapeDtypeStruct((2, 24), np.float32))
    sizes = {"rows": np.int64(24), "cols": np.int64(40), "activation": np.int64(0)}
    flags = {"channels_last": True, "transpose": False}
    x, no_bias = np.ones((2, 40), np.float32), np.ones(0, np.float32)
    good = [packed.values, *lists, packed.value_starts, no_bias, x]
    wrong = {
        0: (packed.values[1:], "value_starts"),
        2: (packed.run_starts[1:], "column_starts"),
        6: (np.ones(3, np.float32), "bias"),
        7: (x[:, 1:], "x"),
    }
    for index, (array, word) in wrong.items():
        operands = [array if i == index else other for i, other in enumerate(good)]
        with pytest.raises(jax.errors.JaxRuntimeError, match=f"spmm: {word} "):
            jax.block_until_ready(call(*operands, **sizes, **flags))
    with pytest.raises(jax.errors.JaxRuntimeError, match="spmm: matrix_shape"):
        jax.block_until_ready(call(*good, **{**sizes, "rows": np.int64(-1)}, **flags))
