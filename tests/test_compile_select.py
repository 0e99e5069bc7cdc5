"""compile's choice of a kernel: by the pattern of the zeros and the number of positions."""

import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj


def choice(matrix, positions):
    """The row of the report for x @ matrix."""
    fast = sj.compile(lambda matrix, x: x @ matrix, matrix, jnp.ones((positions, len(matrix))))
    return fast.report().layers[0]


def pruned(size, density, rows=1):
    rng = np.random.default_rng(0)
    blocks = np.repeat(rng.random((size, size // rows)) < density, rows, axis=1)
    return (rng.standard_normal((size, size)) * blocks).astype(np.float32)


@pytest.mark.parametrize(("rows", "name"), [(1, "CSR"), (2, "2x1"), (4, "4x1"), (8, "8x1")])
def test_the_pattern_of_the_zeros_is_found(rows, name):
    row = choice(pruned(64, 0.2, rows), 16)
    assert (row.kernel, row.pattern) == ("spmm", name)


@pytest.mark.parametrize(("density", "kernel"), [(1.0, "xla"), (0.5, "xla"), (0.2, "spmm")])
def test_dense_stays_where_it_is_faster_and_says_so(density, kernel):
    row = choice(pruned(256, density), 196)
    assert row.kernel == kernel
    assert ("dense is faster" in row.reason) == (kernel == "xla")
    assert f"{1 - density:.0%}"[:2] in row.reason or abs(row.sparsity - 1 + density) < 0.01


@pytest.mark.parametrize(("positions", "kernel"), [(1, "xla"), (64, "spmm")])
def test_few_positions_make_dense_faster(positions, kernel):
    assert choice(pruned(256, 0.3), positions).kernel == kernel


def test_empty_inputs_and_weights_are_left_alone():
    assert choice(pruned(64, 0.2), 0).kernel == "xla"
    fast = sj.compile(lambda matrix, x: x @ matrix, np.ones((4, 0), np.float32), jnp.ones((2, 4)))
    assert fast(jnp.ones((2, 4))).shape == (2, 0)
