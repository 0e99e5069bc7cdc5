"""Views of arrays go back to the arrays that they are of."""

import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax import arrays


@pytest.mark.parametrize("output_axis", [-1, 0, 1])
@pytest.mark.parametrize("make", [np.asarray, jnp.asarray])
def test_matrix_view_round_trips(make, output_axis):
    leaf = make(np.arange(2 * 3 * 4).reshape(2, 3, 4))
    matrix = arrays.as_matrix(leaf, output_axis)
    assert matrix.shape == (leaf.shape[output_axis], leaf.size // leaf.shape[output_axis])
    assert type(matrix) is type(leaf)
    np.testing.assert_array_equal(arrays.from_matrix(matrix, leaf.shape, output_axis), leaf)
    np.testing.assert_array_equal(matrix[1], np.take(np.asarray(leaf), 1, output_axis).ravel())
