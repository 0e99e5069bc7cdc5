"""When skipping zero activations pays, by hand."""

import numpy as np

from benchmarks.zero_activations import DENSITIES, layers, pays_below, sparse_map


def test_layers_are_those_of_mobilenet():
    found = layers(224)
    assert found[0] == (112 * 112, 32, 64) and found[-1] == (49, 1024, 1024)
    assert len(found) == 9


def test_it_pays_below_the_largest_density_that_is_faster_than_both():
    times = {f"{d:g}": 10 * d for d in DENSITIES} | {"compile": 5.0, "jit": 3.5}
    assert pays_below(times, 0.0) == 0.3
    assert pays_below(times, 1.0) == 0.2
    assert pays_below(times, 9.0) == 0.0


def test_maps_have_the_density_asked_for():
    assert abs(np.mean(sparse_map(100, 50, 0.3) > 0) - 0.3) < 0.03
