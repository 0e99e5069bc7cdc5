"""What was found for one shape is told of those alike, and keeps nothing of that shape alive."""

import gc
import weakref
from types import SimpleNamespace

import numpy as np

from sparsejax.compiler.graph.graph import Region
from sparsejax.compiler.precedents import Precedents, alike
from sparsejax.compiler.regions.split import split
from sparsejax.compiler.reports.verdict import Verdict
from tests.compiler.graphs import rewritten

P = {"w": np.eye(6, 5, dtype=np.float32)}


def court_of(rows):
    """Its graph, and what was built: a call for each region."""
    graph = rewritten(lambda p, x: x @ p["w"], P, np.ones((rows, 6), np.float32))
    regions = [step for step in split(graph) if isinstance(step, Region)]
    built = SimpleNamespace(calls=dict.fromkeys(regions, None))
    return SimpleNamespace(graph=graph, built=built)


def test_shapes_between_the_same_powers_of_two_are_alike():
    assert alike([(5, 3)]) == alike([(8, 4)]) != alike([(9, 4)])
    assert alike([(0, 3)]) != alike([(1, 3)])


def test_a_shape_alike_is_not_judged_and_no_region_of_the_first_stays_alive():
    judged = []

    def judge(court, chooser, shelf):
        judged.append(court)
        return court, Verdict(dict.fromkeys(court.built.calls, "slower"), micros=7.0)

    precedents, first = Precedents(), court_of(5)
    _, verdict = precedents("key", first, None, None, judge)
    (region,) = verdict.given
    alive = weakref.ref(region)
    second = court_of(7)
    _, again = precedents("key", second, None, None, judge)
    assert judged == [first] and again.micros == 7.0
    assert again.given == dict.fromkeys(second.built.calls, "slower")
    judged.clear()
    del region, verdict, first
    gc.collect()
    assert alive() is None
