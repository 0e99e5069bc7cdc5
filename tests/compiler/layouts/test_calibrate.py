"""The costs of the kernels: fitted to what was measured, and remembered."""

import math

import pytest

from sparsejax.compiler.layouts import calibrate, select, times
from sparsejax.compiler.layouts.select import Traits, estimate, is_product, traits_of
from sparsejax.patterns.layout import BLOCKS, LAYOUTS, MASKS, ROWS, Layout
from tests.costs import COSTS

measured_costs = calibrate.costs  # before the fixture puts others in its place


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    path = tmp_path / "times.json"
    monkeypatch.setenv("SPARSEJAX_CACHE", str(path))
    return path


def timed(layout):
    """The traits of all that is timed in a layout."""
    regions = calibrate.regions(layout)
    return [traits_of(node, region) for region in regions for node in region.nodes]


def test_the_fit_finds_the_costs_that_made_the_times():
    for layout in LAYOUTS:
        exact = {each: estimate(COSTS, each, layout) for each in timed(layout)}
        fitted = calibrate.fit(layout, exact)
        assert fitted == pytest.approx(COSTS[layout.storage, layout.block], rel=1e-3)


def test_a_shape_is_timed_alone_unless_its_branches_would_be_learned():
    shapes, densities = len(calibrate.SHAPES), len(calibrate.DENSITIES)
    for layout in LAYOUTS:
        *regions, _ = calibrate.regions(layout)
        together = shapes if layout.storage == MASKS else 1
        assert [len(r.nodes) for r in regions] == [together * densities] * (shapes // together)


def test_mask_groups_cost_the_columns_that_a_group_uses():
    alike = Traits(64, 64, 784, False, 1, (0.1, 0.1, 0.1, 0.2))  # rows of a group have the same
    apart = alike._replace(stored=(0.1, 0.19, 0.34, 0.57))
    one, other = (select.work(traits, Layout(MASKS, 4), 0.1)[2] for traits in (alike, apart))
    assert one / other == pytest.approx(0.1 / 0.34)
    assert select.work(alike, Layout(ROWS, 1), 0.1) == select.work(apart, Layout(ROWS, 1), 0.1)
    assert select.work(apart, Layout(MASKS, 4), 1.0)[2] == 64 * 64 * 784  # no more than all


def test_no_cost_is_negative():
    """Times that fall with the activations, which no x >= 0 explains."""
    odd = {each: 1e4 / each.pixels for each in timed(Layout(ROWS, 1))}
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
    nodes = [node for region in calibrate.regions(Layout(BLOCKS, 4)) for node in region.nodes]
    assert all(map(is_product, nodes))
    for node in nodes:
        stored = [select.stored_fraction(node.op.matrix(), rows) for rows in (1, 4)]
        assert stored[0] == pytest.approx(stored[1])
