"""When skipping zero activations pays, by hand."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import benchmarks
from benchmarks.zero_activations import (
    DENSITIES,
    Shape,
    check,
    compare,
    layers,
    markdown,
    pays_below,
    region_of,
    shapes,
    sparse_map,
)

PUBLISHED = Path(benchmarks.__file__).parent / "results" / "zero_activations.json"


def test_layers_are_those_of_mobilenet():
    found = layers(224)
    assert found[0] == (112 * 112, 32, 64) and found[-1] == (49, 1024, 1024)
    assert len(found) == 9


def test_both_products_of_a_layer_are_right_and_are_timed():
    shape = Shape(6, 20, 24, window=3)
    assert len({str(shape) for shape in shapes(224)}) == 9 + 4 + 3
    row = compare(shape, 1)  # ends at a wrong one
    assert set(row["speedup"]) == {f"{density:g}" for density in DENSITIES}
    assert row["dense ms"] > 0 and min(row["skipping ms"].values()) > 0


def test_a_wrong_product_ends_it():
    shape = Shape(6, 20, 24)
    region = region_of(shape, np.ones((20, 24), np.float32))
    with pytest.raises(SystemExit, match="differs by"):
        check(region, jnp.zeros((6, 24)), shape.map(0.5))


def test_it_pays_below_the_largest_density_that_is_faster():
    assert pays_below({f"{d:g}": 0.35 / d for d in DENSITIES}) == 0.3
    assert pays_below(dict.fromkeys(map("{:g}".format, DENSITIES), 1.0)) == 0.0


def test_the_published_table_is_of_the_published_numbers():
    layers = json.loads(PUBLISHED.read_text())["layers"]
    assert set(layers) == {str(shape) for shape in shapes(224)}
    assert PUBLISHED.with_suffix(".md").read_text() == markdown(layers)


def test_maps_have_the_density_asked_for():
    assert abs(np.mean(sparse_map(100, 50, 0.3) > 0) - 0.3) < 0.03
