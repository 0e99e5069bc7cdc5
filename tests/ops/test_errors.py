"""No input crashes an op: each bad one is a Python error that names the argument."""

import dataclasses
import importlib
import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sparsejax as sj
from sparsejax.ops import _ffi
from sparsejax.ops.kernel import Call

PACKED = sj.patterns.CSR(
    values=np.ones(3, np.float32),
    indices=np.array([0, 2, 1], np.int32),
    row_starts=np.array([0, 2, 3], np.int32),
    matrix_shape=(2, 3),
    leaf_shape=(3, 2),
)
BLOCKS = sj.patterns.BSR(
    values=np.ones((2, 2, 1), np.float32),
    indices=np.array([0, 2], np.int32),
    row_starts=np.array([0, 2], np.int32),
    block=(2, 1),
    matrix_shape=(2, 3),
    leaf_shape=(3, 2),
)
X = np.ones((4, 3), np.float32)
INT32_MAX = 2**31 - 1


def changed(**fields):
    return dataclasses.replace(PACKED, **fields)


def int32(*numbers):
    return np.array(numbers, np.int32)


def spmm_of(**fields):
    return sj.spmm(changed(**fields), X)


# how spmm is called, the error, a word of its message
BAD_SPMM = {
    "not packed": (lambda: sj.spmm(X, X), TypeError, "packed"),
    "int x": (lambda: sj.spmm(PACKED, X.astype(int)), TypeError, "x"),
    "complex values": (
        lambda: sj.spmm(changed(values=np.ones(3, complex)), X),
        TypeError,
        "values",
    ),
    "int64 indices": (lambda: sj.spmm(changed(indices=np.arange(3)), X), TypeError, "indices"),
    "float row starts": (
        lambda: sj.spmm(changed(row_starts=np.ones(3)), X),
        TypeError,
        "row_starts",
    ),
    "x of few channels": (lambda: sj.spmm(PACKED, X[:, :2]), ValueError, "x"),
    "scalar x": (lambda: sj.spmm(PACKED, jnp.float32(1)), ValueError, "x"),
    "vector channel-major x": (
        lambda: sj.spmm(PACKED, X[0], channels_last=False),
        ValueError,
        "x",
    ),
    "short values": (
        lambda: sj.spmm(changed(values=np.ones(2, np.float32)), X),
        ValueError,
        "values",
    ),
    "2-D values": (
        lambda: sj.spmm(changed(values=np.ones((3, 1), np.float32)), X),
        ValueError,
        "values",
    ),
    "2-D indices": (
        lambda: sj.spmm(changed(indices=np.ones((3, 1), np.int32)), X),
        ValueError,
        "indices",
    ),
    "few row starts": (
        lambda: sj.spmm(changed(row_starts=int32(0, 3)), X),
        ValueError,
        "row_starts",
    ),
    "long bias": (lambda: sj.spmm(PACKED, X, np.ones(3, np.float32)), ValueError, "bias"),
    "empty bias": (lambda: sj.spmm(PACKED, X, np.ones(0, np.float32)), ValueError, "bias"),
    "named activation": (lambda: sj.spmm(PACKED, X, activation="relu"), TypeError, "activation"),
    "odd block": (
        lambda: sj.spmm(dataclasses.replace(BLOCKS, block=(1, 2), values=np.ones((2, 1, 2))), X),
        ValueError,
        "blocks",
    ),
    "blocks that do not fit": (
        lambda: sj.spmm(dataclasses.replace(BLOCKS, matrix_shape=(3, 3)), X),
        ValueError,
        "blocks",
    ),
}

# what only the kernel sees
BAD_MATRICES = {
    "index too large": (changed(indices=int32(0, 3, 1)), "indices"),
    "huge index": (changed(indices=int32(0, INT32_MAX, 1)), "indices"),
    "negative index": (changed(indices=int32(-1, 2, 1)), "indices"),
    "unsorted row": (changed(indices=int32(2, 0, 1)), "indices"),
    "repeated index": (changed(indices=int32(1, 1, 1)), "indices"),
    "first start": (changed(row_starts=int32(1, 2, 3)), "row_starts"),
    "last start": (changed(row_starts=int32(0, 2, 2)), "row_starts"),
    "starts overrun": (changed(row_starts=int32(0, 2, INT32_MAX)), "row_starts"),
    "starts decrease": (changed(row_starts=int32(0, 4, 3)), "row_starts"),
    "negative start": (changed(row_starts=int32(0, -5, 3)), "row_starts"),
    "block index": (dataclasses.replace(BLOCKS, indices=int32(0, 3)), "indices"),
    "block starts": (dataclasses.replace(BLOCKS, row_starts=int32(0, 3)), "row_starts"),
}

IMAGE, KERNEL = np.ones((2, 5, 5, 4), np.float32), np.ones((3, 3, 1, 4), np.float32)
conv = partial(sj.depthwise_conv2d, IMAGE, KERNEL)
BAD_CONVS = {
    "flat x": (lambda: sj.depthwise_conv2d(IMAGE[0, 0], KERNEL), ValueError, "x"),
    "int kernel": (lambda: sj.depthwise_conv2d(IMAGE, KERNEL.astype(int)), TypeError, "kernel"),
    "3-D kernel": (lambda: sj.depthwise_conv2d(IMAGE, KERNEL[:, :, 0]), ValueError, "kernel"),
    "other channels": (lambda: sj.depthwise_conv2d(IMAGE, KERNEL[..., :2]), ValueError, "kernel"),
    "multiplier": (lambda: sj.depthwise_conv2d(IMAGE, np.ones((3, 3, 2, 4))), ValueError, "kernel"),
    "empty kernel": (lambda: sj.depthwise_conv2d(IMAGE, KERNEL[:0]), ValueError, "kernel"),
    "long bias": (lambda: conv(np.ones(5, np.float32)), ValueError, "bias"),
    "stride 0": (lambda: conv(strides=(0, 1)), ValueError, "strides"),
    "huge stride": (lambda: conv(strides=(2**31, 1)), ValueError, "strides"),
    "one stride": (lambda: conv(strides=(1,)), ValueError, "strides"),
    "dilation 0": (lambda: conv(dilation=(0, 1)), ValueError, "dilation"),
    "unknown padding": (lambda: conv(padding="FULL"), ValueError, "padding"),
    "one pad": (lambda: conv(padding=((1, 1),)), ValueError, "padding"),
    "huge pad": (lambda: conv(padding=((2**40, 0), (0, 0))), ValueError, "padding"),
}


@pytest.mark.parametrize(
    "case", [*BAD_SPMM.values(), *BAD_CONVS.values()], ids=[*BAD_SPMM, *BAD_CONVS]
)
def test_bad_arguments_are_refused_by_name(case):
    call, error, word = case
    with pytest.raises(error, match=rf"\b{word}\b"):
        call()


@pytest.mark.parametrize("case", BAD_MATRICES.values(), ids=BAD_MATRICES)
def test_arrays_that_are_no_matrix_are_refused_by_the_kernel(case):
    packed, word = case
    with pytest.raises(jax.errors.JaxRuntimeError, match=rf"spmm: {word} must"):
        jax.block_until_ready(sj.spmm(packed, X))


def test_gradients_refuse_bad_matrices_too():
    packed, _ = BAD_MATRICES["index too large"]
    module = importlib.import_module("sparsejax.ops.sparse_matmul")
    options = module._Options(2, 3, 1, 0, True)
    results = (jax.ShapeDtypeStruct((3, 1), np.float32), jax.ShapeDtypeStruct((2,), np.float32))
    arrays = (packed.indices, packed.row_starts, X, np.ones((4, 2), np.float32))
    operands = map(jnp.asarray, arrays)
    with pytest.raises(jax.errors.JaxRuntimeError, match="spmm gradient: indices must"):
        jax.block_until_ready(module._KERNELS.weights(Call(options, results), *operands))


# name, shapes and dtypes of operands and results, attributes, a word: past every check in Python
F32, S32 = np.float32, np.int32
SIZES = {"rows": np.int64(2), "cols": np.int64(3), "block": np.int64(1)}
FLAGS = {"activation": np.int64(0), "channels_last": True, "transpose": False}
WINDOW = {name: np.ones(2, np.int64) for name in ("strides", "dilation", "pads")}
NO_BIAS = np.ones(0, np.float32)
GOOD_SPMM = [PACKED.values[:, None], PACKED.indices, PACKED.row_starts, NO_BIAS, X]
GOOD_CONV = [KERNEL[:, :, 0], NO_BIAS, IMAGE]
CONV = {**WINDOW, "activation": np.int64(0), "channels_last": True}
RAW = {
    "values dtype": ("spmm", {0: ((3, 1), S32)}, (4, 2), {}, "values"),
    "indices dtype": ("spmm", {1: ((3,), F32)}, (4, 2), {}, "indices"),
    "values rank": ("spmm", {0: ((3,), F32)}, (4, 2), {}, "values"),
    "values length": ("spmm", {0: ((4, 1), F32)}, (4, 2), {}, "values"),
    "row_starts length": ("spmm", {2: ((9,), S32)}, (4, 2), {}, "row_starts"),
    "bias length": ("spmm", {3: ((7,), F32)}, (4, 2), {}, "bias"),
    "x channels": ("spmm", {4: ((4, 5), F32)}, (4, 2), {}, "x"),
    "y channels": ("spmm", {}, (4, 5), {}, "y"),
    "y pixels": ("spmm", {}, (9, 2), {}, "y"),
    "leading dimension": ("spmm", {4: ((2, 4, 3), F32)}, (4, 2), {}, "x"),
    "block of 3": ("spmm", {}, (4, 2), {"block": np.int64(3)}, "block"),
    "negative rows": ("spmm", {}, (4, 2), {"rows": np.int64(-2)}, "matrix_shape"),
    "huge cols": ("spmm", {}, (4, 2), {"cols": np.int64(2**40)}, "matrix_shape"),
    "activation": ("spmm", {}, (4, 2), {"activation": np.int64(7)}, "activation"),
    "conv kernel": ("depthwise", {0: ((3, 3, 5), F32)}, (2, 5, 5, 4), {}, "kernel"),
    "conv bias": ("depthwise", {1: ((5,), F32)}, (2, 5, 5, 4), {}, "bias"),
    "conv x": ("depthwise", {2: ((5, 5, 4), F32)}, (2, 5, 5, 4), {}, "x"),
    "conv images": ("depthwise", {}, (3, 5, 5, 4), {}, "y"),
    "conv stride": ("depthwise", {}, (2, 5, 5, 4), {"strides": np.zeros(2, np.int64)}, "strides"),
    "conv pads": ("depthwise", {}, (2, 5, 5, 4), {"pads": np.full(2, 2**40)}, "strides"),
    "three strides": ("depthwise", {}, (2, 5, 5, 4), {"strides": np.ones(3, np.int64)}, "strides"),
    "many taps": ("depthwise", {0: ((99, 3, 4), F32)}, (2, 5, 5, 4), {}, "kernel"),
}


@pytest.mark.parametrize("case", RAW.values(), ids=RAW)
def test_the_kernels_check_what_python_has_checked(case):
    name, wrong, result, attributes, word = case
    good = GOOD_SPMM if name == "spmm" else GOOD_CONV
    operands = [np.zeros(*wrong[i]) if i in wrong else array for i, array in enumerate(good)]
    attributes = {**(SIZES | FLAGS if name == "spmm" else CONV), **attributes}
    call = jax.ffi.ffi_call(_ffi.TARGET.format(name), jax.ShapeDtypeStruct(result, F32))
    with pytest.raises(jax.errors.JaxRuntimeError, match=rf": {word}\b"):
        jax.block_until_ready(call(*operands, **attributes))


# target, operands, shapes of the two results, attributes
TWO_RESULTS = {
    "spmm": (
        "spmm_grad_values",
        [PACKED.indices, PACKED.row_starts, X, np.ones((4, 2), F32)],
        [(3, 1), (2,)],
        SIZES | {"channels_last": True},
    ),
    "depthwise": (
        "depthwise_grad_kernel",
        [IMAGE, IMAGE],
        [(1, 1, 4), (4,)],
        WINDOW | {"pads": np.zeros(2, np.int64), "channels_last": True},
    ),
}


@pytest.mark.parametrize("leading", [((64,), ()), ((), (2,)), ((64,), (2,)), ((2, 3), (3, 2))])
@pytest.mark.parametrize("case", TWO_RESULTS.values(), ids=TWO_RESULTS)
def test_results_of_different_leading_dimensions_are_refused(case, leading):
    name, operands, shapes, attributes = case
    results = [
        jax.ShapeDtypeStruct((*lead, *shape), F32)
        for lead, shape in zip(leading, shapes, strict=True)
    ]
    depth = max(map(len, leading))
    operands = [array.reshape((1,) * depth + array.shape) for array in operands]
    call = jax.ffi.ffi_call(_ffi.TARGET.format(name), results)
    with pytest.raises(jax.errors.JaxRuntimeError, match="grad_bias must have the leading"):
        jax.block_until_ready(call(*operands, **attributes))


def test_reach_beyond_memory_is_refused():
    x, kernel = np.ones((1, 5, 5, 1), np.float32), np.ones((3, 3, 1, 1), np.float32)
    far = 2**30
    options = {"dilation": (far, far), "padding": ((far, far), (far, far)), "strides": (far, far)}
    np.testing.assert_array_equal(sj.depthwise_conv2d(x, kernel, **options), np.ones((1, 1, 1, 1)))
    with pytest.raises(jax.errors.JaxRuntimeError, match="depthwise_conv2d: dilation or padding"):
        channel_major = np.moveaxis(x, 3, 1)
        jax.block_until_ready(
            sj.depthwise_conv2d(channel_major, kernel, channels_last=False, **options)
        )


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_indices_and_row_starts_give_a_product_or_an_error(data):
    number = st.integers(-(2**31), 2**31 - 1) | st.integers(-1, 4)
    indices = data.draw(st.lists(number, min_size=3, max_size=3) | st.just([0, 2, 1]))
    starts = data.draw(st.lists(number, min_size=3, max_size=3) | st.just([0, 2, 3]))
    packed = changed(indices=int32(*indices), row_starts=int32(*starts))
    rows = [indices[a:b] for a, b in itertools.pairwise(starts)]
    good = starts[0] == 0 and starts[-1] == 3 and starts == sorted(starts)
    good = good and all(row == sorted(set(row)) and set(row) <= {0, 1, 2} for row in rows)
    try:
        y = np.asarray(spmm_jit(packed, X))
    except jax.errors.JaxRuntimeError as error:
        assert not good
        assert "spmm: " in str(error)
    else:
        assert good
        np.testing.assert_array_equal(y, np.tile([len(row) for row in rows], (4, 1)))


spmm_jit = jax.jit(sj.spmm)


@pytest.mark.parametrize("offset", [1, 2, 3])
def test_misaligned_and_strided_numpy_operands_work(offset):
    size = 64 * 16
    misaligned = np.zeros(size * 4 + 64, np.uint8)[offset * 4 :][: size * 4].view(np.float32)
    misaligned[:] = np.arange(size) % 7
    x = misaligned.reshape(64, 16)
    packed = sj.Unstructured().pack(np.eye(16, dtype=np.float32))
    np.testing.assert_array_equal(spmm_jit(packed, x), x)
    strided = np.asfortranarray(x)[::2]
    np.testing.assert_array_equal(spmm_jit(packed, strided), strided)
    image, one = x.reshape(1, 8, 8, 16), np.ones((1, 1, 1, 16), np.float32)
    np.testing.assert_array_equal(sj.depthwise_conv2d(image, one), image)
