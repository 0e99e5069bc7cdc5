"""Assignments: the best for few tasks, against all of them; a heuristic for more, that says so."""

import itertools
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsejax as sj
from sparsejax.deploy import Pipeline, Task

ENGINES = ["e", "f"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 6), st.integers(1, 6), st.sampled_from([6, 8, 12, 24])),
        min_size=1,
        max_size=5,
    )
)
def test_the_best_of_all_assignments_is_found(rows):
    tasks = [Task(n, {"e": e, "f": f}, p) for n, (e, f, p) in zip("abcde", rows, strict=False)]
    best = None
    for choice in itertools.product(ENGINES, repeat=len(tasks)):
        own = {e: [t for t, c in zip(tasks, choice, strict=True) if c == e] for e in ENGINES}
        if all(sj.deploy.jeffay(own[e], e) for e in ENGINES):
            load = max(sj.deploy.utilization(own[e], e) for e in ENGINES)
            best = load if best is None else min(best, load)
    if best is None:
        with pytest.raises(ValueError, match="there is none; prune"):
            sj.deploy.assign(Pipeline(tasks), ENGINES)
    else:
        found = sj.deploy.assign(Pipeline(tasks), ENGINES)
        assert found.exact and found.utilization == best
        assert all(sj.deploy.admit(Pipeline(tasks), found.engine_of).values())


def test_more_than_ten_tasks_are_left_to_a_heuristic():
    tasks = [Task(f"t{i}", {"e": i + 1, "f": i + 1}, 200) for i in range(12)]
    found = sj.deploy.assign(Pipeline(tasks), ENGINES)
    assert not found.exact
    assert found.utilization == Fraction(39, 200)  # of 78, by the largest first
    full = [Task(f"t{i}", {"e": 40, "f": 40}, 200) for i in range(12)]
    with pytest.raises(ValueError, match="the heuristic for more than 10 found none"):
        sj.deploy.assign(Pipeline(full), ENGINES)


def test_an_overload_is_shared_without_a_test():
    tasks = [Task(n, {"e": 9, "f": 9}, 10) for n in "abc"]
    found = sj.deploy.assign(Pipeline(tasks), ENGINES, test=None)
    assert found.utilization == Fraction(18, 10)


def test_tasks_stay_where_they_can_run():
    tasks = [Task("a", {"e": 9}, 10), Task("b", {"f": 9, "g": 1}, 10)]
    assert sj.deploy.assign(Pipeline(tasks), ENGINES).engine_of == {"a": "e", "b": "f"}
    with pytest.raises(ValueError, match=r"an engine of \['f'\] for 'a', which has \['e'\]"):
        sj.deploy.assign(Pipeline(tasks), ["f"])
