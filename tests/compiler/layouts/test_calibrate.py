"""The costs of the kernels: fitted to what was measured, and remembered."""

import math

import pytest

from sparsejax.compiler.layouts import calibrate, select, times
from sparsejax.compiler.layouts.select import Traits, estimate, is_product, traits_of
from sparsejax.patterns.layout import BLOCKS, LAYOUTS, ROWS, Layout
from tests.costs import COSTS

measured_costs = calibrate.costs  # before the fixture puts others in its place


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    path = tmp_path / "times.json"
    monkeypatch.setenv("SPARSEJAX_CACHE", str(path))
    return path


def test_the_fit_finds_the_costs_that_made_the_times():
    for layout in LAYOUTS:
        regions = calibrate.products(layout), calibrate.few_rows(layout)
        traits = [traits_of(node, region) for region in regions for node in region.nodes]
        exact = {each: estimate(COSTS, each, layout) for each in traits}
        fitted = calibrate.fit(layout, exact)
        assert fitted == pytest.approx(COSTS[layout.storage, layout.block], rel=1e-3)


def test_a_value_costs_the_same_in_all_layouts():
    alike = {key: cost._replace(activation=0.08) for key, cost in COSTS.items()}
    found = {}
    for layout in LAYOUTS:
        regions = calibrate.products(layout), calibrate.few_rows(layout)
        traits = [traits_of(node, region) for region in regions for node in region.nodes]
        found[layout] = {each: estimate(alike, each, layout) for each in traits}
    found[Layout(BLOCKS, 8)] = {
        key: 1.1 * micros for key, micros in found[Layout(BLOCKS, 8)].items()
    }
    costs = calibrate.fit_all(found)
    for key in alike:
        assert costs[key].activation == pytest.approx(0.08, rel=1e-3)
        if key != (BLOCKS, 8):
            assert costs[key] == pytest.approx(alike[key], rel=1e-3)


def test_no_cost_is_negative():
    """Times that fall with the activations, which no x >= 0 explains."""
    regions = calibrate.products(Layout(ROWS, 1)), calibrate.few_rows(Layout(ROWS, 1))
    traits = [traits_of(node, region) for region in regions for node in region.nodes]
    odd = {each: 1e4 / each.pixels for each in traits}
    assert min(calibrate.fit(Layout(ROWS, 1), odd)) >= 0


def test_costs_are_measured_by_two_processes(monkeypatch, own_cache):
    costs = measured_costs()
    assert set(costs) == set(COSTS)
    assert all(math.isfinite(number) and number >= 0 for cost in costs.values() for number in cost)
    traits = Traits(256, 192, 196, False, 1, (0.1, 0.19, 0.34, 0.57))
    assert (
        0
        < estimate(costs, traits, Layout(BLOCKS, 4), 0.1)
        < estimate(costs, traits, Layout(BLOCKS, 4), 1)
    )
    assert measured_costs() is costs
    calibrate._costs.cache_clear()  # as in another process
    again = measured_costs()
    assert {sample.repeats for sample in times.read_cache().values()} == {calibrate.MOST_MEASURED}
    shapes = len(calibrate.SHAPES) + 1  # and few rows
    assert len(times.read_cache()) == len(LAYOUTS) * shapes * len(calibrate.DENSITIES)
    monkeypatch.setattr(calibrate, "profile", None)
    calibrate._costs.cache_clear()
    assert measured_costs() == again


def test_what_is_timed_is_what_each_layout_may_hold():
    region = calibrate.products(Layout(BLOCKS, 4))
    assert all(map(is_product, region.nodes))
    for node in region.nodes:
        stored = [select.stored_fraction(node.op.matrix(), rows) for rows in (1, 4)]
        assert stored[0] == pytest.approx(stored[1])
