"""When skipping zero activations pays, by hand."""

import numpy as np

from benchmarks.zero_activations import DENSITIES, Shape, layers, pays_below, shapes, sparse_map


def test_layers_are_those_of_mobilenet():
    found = layers(224)
    assert found[0] == (112 * 112, 32, 64) and found[-1] == (49, 1024, 1024)
    assert len(found) == 9


def test_columns_times_weights_are_the_layer():
    shape = Shape(4, 2, 3, window=3)
    x, weights = shape.map(0.5), np.random.default_rng(0).normal(size=(18, 3)).astype(np.float32)
    expected = np.asarray(shape.layer(weights, x)).reshape(16, 3)
    np.testing.assert_allclose(shape.columns(x) @ weights, expected, atol=1e-5)
    assert len({str(shape) for shape in shapes(224)}) == 9 + 4 + 3


def test_it_pays_below_the_largest_density_that_is_faster_than_both():
    times = {f"{d:g}": 10 * d for d in DENSITIES} | {"compile": 5.0, "jit": 3.5}
    assert pays_below(times, 0.0) == 0.3
    assert pays_below(times, 1.0) == 0.2
    assert pays_below(times, 9.0) == 0.0


def test_maps_have_the_density_asked_for():
    assert abs(np.mean(sparse_map(100, 50, 0.3) > 0) - 0.3) < 0.03
