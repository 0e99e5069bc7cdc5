"""The NEON kernels against NumPy in float64; made for the emulated Python of tests/arm/run.sh.

Compilation is slow there, custom calls apart: all cases of an op are one jitted function, and
everything else is NumPy.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.ops import _ffi

pytestmark = pytest.mark.skipif(
    _ffi.instruction_set() != "neon", reason="make test-arm runs these on NEON"
)
INPUTS, OUTPUTS = 70, 48


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def sparse_weights(block: int, seed: int = 0) -> np.ndarray:
    """(inputs, outputs) with one block in five kept."""
    kept = np.random.default_rng(seed).random((INPUTS, OUTPUTS // block)) < 0.2
    return normal(INPUTS, OUTPUTS) * np.repeat(kept, block, axis=1)


def pattern(block: int) -> sj.Pattern:
    return sj.Unstructured() if block == 1 else sj.Block(block, 1)


def assert_close(found: jax.Array, expected: np.ndarray, length: int, name: object):
    tolerance = 4 * np.finfo(np.float32).eps * length
    np.testing.assert_allclose(found, expected, tolerance, tolerance, err_msg=str(name))


def at_stored_positions(
    packed: sj.patterns.CSR | sj.patterns.BSR, block: int, weights: np.ndarray
) -> np.ndarray:
    """`packed.gather(weights).values` without JAX."""
    rows = np.repeat(np.arange(OUTPUTS // block), np.diff(packed.row_starts))
    return weights[packed.indices[:, None], rows[:, None] * block + np.arange(block)]


def test_spmm():
    bias = normal(OUTPUTS, seed=2)
    cases = list(itertools.product([1, 2, 4, 8], [1, 3, 32, 77]))
    packed = {block: pattern(block).pack(sparse_weights(block)) for block in [1, 2, 4, 8]}
    x = {pixels: normal(pixels, INPUTS, seed=1) for pixels in [1, 3, 32, 77]}

    @jax.jit
    def run(packed, x):
        product = lambda b, p: sj.spmm(packed[b], x[p], bias, activation=jax.nn.relu)
        return {(b, p): product(b, p) for b, p in cases}

    for (block, pixels), y in run(packed, x).items():
        product = x[pixels].astype(np.float64) @ sparse_weights(block)
        assert_close(y, np.maximum(product + bias, 0), INPUTS, (block, pixels))


def test_spmm_gradients_of_channel_major_images():
    packed = {block: pattern(block).pack(sparse_weights(block)) for block in [1, 2, 4, 8]}
    x, seed = normal(2, INPUTS, 37, seed=1), normal(2, OUTPUTS, 37, seed=2)

    @jax.jit
    def run(packed, x):
        def pullback(matrix):
            return jax.vjp(lambda m, x: sj.spmm(m, x, channels_last=False), matrix, x)[1](seed)

        return {block: pullback(matrix) for block, matrix in packed.items()}

    grad_weights = np.einsum("bkp,bmp->km", x, seed.astype(np.float64))
    for block, (grad_packed, grad_x) in run(packed, x).items():
        stored = at_stored_positions(packed[block], block, grad_weights)
        assert_close(grad_packed.values.reshape(-1, block), stored, 2 * 37, block)
        expected = np.einsum("km,bmp->bkp", sparse_weights(block).astype(np.float64), seed)
        assert_close(grad_x, expected, OUTPUTS, block)


def test_products_of_runs_and_their_gradients():
    patterns = {"columns": sj.BlockColumnRow(8, 70), "rows": sj.BlockColumnRow(4, 10, kept_rows=2)}
    kept = np.repeat(np.random.default_rng(0).random((INPUTS, OUTPUTS // 8)) < 0.3, 8, axis=1)
    kept[:, ::3] &= np.arange(INPUTS)[:, None] % 4 < 2
    weights = normal(INPUTS, OUTPUTS) * kept
    packed = {name: pattern.pack(weights) for name, pattern in patterns.items()}
    x = {pixels: normal(pixels, INPUTS, seed=1) for pixels in [1, 3, 77]}
    seeds = {pixels: normal(pixels, OUTPUTS, seed=2) for pixels in x}

    @jax.jit
    def run(packed, x, seeds):
        both = lambda m, x, seed: (sj.spmm(m, x), *jax.vjp(sj.spmm, m, x)[1](seed))
        return {(n, p): both(packed[n], x[p], seeds[p]) for n in packed for p in x}

    for (name, pixels), (y, grad_packed, grad_x) in run(packed, x, seeds).items():
        assert_close(y, x[pixels].astype(np.float64) @ weights, INPUTS, (name, pixels))
        assert_close(grad_x, seeds[pixels].astype(np.float64) @ weights.T, OUTPUTS, (name, pixels))
        expected = x[pixels].astype(np.float64).T @ seeds[pixels]
        runs = zip(*(np.split(a, s[1:-1]) for a, s in lists_of(packed[name])), strict=True)
        values = [expected[np.ix_(columns, rows)].ravel() for rows, columns in runs]
        assert_close(grad_packed.values, np.concatenate(values), 2 * pixels, (name, pixels))


def lists_of(packed: sj.patterns.BCRC) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows and columns with their starts."""
    return [(packed.rows, packed.run_starts), (packed.columns, packed.column_starts)]


def depthwise_in_numpy(x, kernel, seed, stride):
    """The convolution with SAME padding, and the pullback of `seed` in x and kernel."""
    side, height, width = len(kernel), *x.shape[1:3]
    high, wide = seed.shape[1:3]
    top = max((high - 1) * stride + side - height, 0) // 2
    left = max((wide - 1) * stride + side - width, 0) // 2
    padded = np.pad(x.astype(np.float64), [(0, 0), (top, side), (left, side), (0, 0)])
    y, grad_kernel, grad_padded = 0.0, np.zeros(kernel.shape), np.zeros(padded.shape)
    for i, j in np.ndindex(side, side):
        rows = slice(i, i + stride * (high - 1) + 1, stride)
        cols = slice(j, j + stride * (wide - 1) + 1, stride)
        y = y + padded[:, rows, cols] * kernel[i, j, 0]
        grad_kernel[i, j, 0] = (padded[:, rows, cols] * seed).sum((0, 1, 2))
        grad_padded[:, rows, cols] += seed * kernel[i, j, 0]
    return y, grad_padded[:, top : top + height, left : left + width], grad_kernel


def test_depthwise_and_its_gradients():
    x = normal(2, 9, 11, 7, seed=1)
    cases = list(itertools.product([3, 5, 7], [1, 2], [True, False]))
    kernels = {side: normal(side, side, 1, 7, seed=2) for side in [3, 5, 7]}
    seeds = {stride: normal(2, -(-9 // stride), -(-11 // stride), 7, seed=3) for stride in [1, 2]}

    @jax.jit
    def run(x, kernels):
        def both(side, stride, channels_last):
            to = lambda images: images if channels_last else jnp.moveaxis(images, -1, 1)
            options = {"strides": (stride, stride), "channels_last": channels_last}
            convolve = lambda x, k: sj.depthwise_conv2d(x, k, **options)
            y, pullback = jax.vjp(convolve, to(x), kernels[side])
            return y, *pullback(to(seeds[stride]))

        return {case: both(*case) for case in cases}

    for (side, stride, channels_last), (y, grad_x, grad_kernel) in run(x, kernels).items():
        expected = depthwise_in_numpy(x, kernels[side], seeds[stride], stride)
        back = lambda images, last=channels_last: images if last else np.moveaxis(images, 1, -1)
        found = (back(y), back(grad_x), grad_kernel)
        for one, other, length in zip(found, expected, [side**2, side**2, 2 * 99], strict=True):
            assert_close(one, other, length, (side, stride, channels_last))


def test_vmap_over_weights():
    weights = [sparse_weights(4, seed) for seed in range(2)]
    kept = (weights[0] != 0) & (weights[1] != 0)
    packed = [sj.Block(4, 1).pack(matrix, kept) for matrix in weights]
    x = normal(2, 5, INPUTS, seed=3)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *packed)
    expected = [one.astype(np.float64) @ (w * kept) for one, w in zip(x, weights, strict=True)]
    assert_close(jax.jit(jax.vmap(sj.spmm))(stacked, x), np.stack(expected), INPUTS, "vmap")


def test_indices_out_of_range_are_refused():
    packed = sj.Unstructured().pack(sparse_weights(1))
    packed.indices[-1] = INPUTS
    with pytest.raises(jax.errors.JaxRuntimeError, match="spmm"):
        jax.block_until_ready(jax.jit(sj.spmm)(packed, normal(3, INPUTS)))
