"""Admission tests: examples of the books, and the formulas written out the slow way."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsejax as sj
from sparsejax.deploy import Pipeline, Task

US = 1_000


def tasks_of(*rows):
    """Tasks a, b, c from (cost, period) or (cost, period, deadline)."""
    return [
        Task(name, {"e": cost}, *times)
        for name, (cost, *times) in zip("abcdefg", rows, strict=False)
    ]


task_sets = st.lists(
    st.integers(2, 12)
    .flatmap(lambda period: st.tuples(st.integers(1, 4), st.just(period)))
    .filter(lambda row: row[0] <= row[1]),
    min_size=1,
    max_size=4,
)


def jeffay_as_published(tasks):
    """Theorem 4.1 for every L, with D = T."""
    rows = sorted((task.period_ns, task.wcet_ns["e"]) for task in tasks)
    if sj.deploy.utilization(tasks, "e") > 1:
        return False
    return all(
        length >= cost + sum((length - 1) // p * c for p, c in rows[:i])
        for i, (period, cost) in enumerate(rows)
        for length in range(rows[0][0] + 1, period)
    )


@settings(max_examples=200, deadline=None)
@given(task_sets)
def test_jeffay_is_the_published_test(rows):
    tasks = tasks_of(*rows)
    assert bool(sj.deploy.jeffay(tasks, "e")) == jeffay_as_published(tasks)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        # Two tasks that fill the engine: b may hold it for 2 when a is released, which leaves 3.
        (((3, 5), (3, 10)), ""),
        # By one tick too long: a has 2 of its 5 left.
        (((3, 5), (4, 10)), "within 5 ns, 3 ns are due and 'b' may hold e for 3 more"),
        (((3, 5), (5, 10)), "e would be busy for 1.100"),
        # Full, and admitted: equal periods never block each other.
        (((3, 9), (6, 9)), ""),
        # Nobody is due later than 9, yet two are due by 4.
        (((2, 9, 4), (3, 9, 4)), "within 4 ns, 5 ns are due"),
        # Blocking by the longest of those that are due later, not by their sum.
        (((2, 8), (4, 30), (6, 30)), ""),
        (((2, 8), (4, 30), (8, 30)), "within 8 ns, 2 ns are due and 'c' may hold e for 7 more"),
    ],
)
def test_jeffay_worked_by_hand(rows, reason):
    verdict = sj.deploy.jeffay(tasks_of(*rows), "e")
    assert bool(verdict) == (reason == "")
    assert reason in verdict.reason


def test_jeffay_says_where_there_is_too_much_to_look_at():
    tasks = tasks_of((4_999_999_000, 10**10 - 1, 10**10 - 2), (1, 3, 3), (1, 7, 6))
    with pytest.raises(ValueError, match="at most 2000000 deadlines to look at"):
        sj.deploy.jeffay(tasks, "e")


def test_the_refuted_message_of_can():
    # Three messages of 1 ms: the first instance of C takes 3 ms, the second 3.5, later than due.
    rows = ((1000, 2500), (1000, 3500, 3250), (1000, 3500, 3250))
    tasks = tasks_of(*(tuple(US * time for time in row) for row in rows))
    assert sj.deploy.response_times(tasks, "e") == {
        "a": 2000 * US - 1,
        "b": 3000 * US - 1,
        "c": 3500 * US,
    }
    assert not sj.deploy.fixed_priorities(tasks, "e")
    assert "'c' may take 3500000 ns" in sj.deploy.fixed_priorities(tasks, "e").reason


def test_responses_without_end():
    tasks = tasks_of((3, 5), (4, 8))
    assert sj.deploy.response_times(tasks, "e") == {"a": 6, "b": None}
    assert not sj.deploy.fixed_priorities(tasks, "e")


@pytest.mark.parametrize(
    ("rows", "responses"),
    [
        # Burns and Wellings, "Real-Time Systems and Programming Languages": full, and all meet.
        (((5, 20), (10, 40), (40, 80)), [5, 15, 80]),
        (((3, 7), (3, 12), (5, 20)), [3, 6, 20]),
        # 12 / 50 + 10 / 40 + 10 / 30 is above the bound of 0.78, and the last one is late.
        (((10, 30), (10, 40), (12, 50)), [10, 20, None]),
    ],
)
def test_preemptive_responses_of_the_textbook(rows, responses):
    found = sj.deploy.preemptive_response_times(tasks_of(*rows), "e")
    assert list(found.values()) == responses


def test_blocking_by_a_resource_delays_its_ceiling_and_below():
    tasks = tasks_of((3, 7), (3, 12), (4, 20))
    assert list(sj.deploy.preemptive_response_times(tasks, "e").values()) == [3, 6, 19]
    found = sj.deploy.preemptive_response_times(tasks, "e", blocking_ns={"a": 2, "b": 2})
    assert list(found.values()) == [5, 11, 19]


def test_bounds():
    bounds = [round(sj.deploy.rate_monotonic_bound(n), 3) for n in (1, 2, 3, 10)]
    assert bounds == [1.0, 0.828, 0.78, 0.718]
    with pytest.raises(ValueError, match="a task at least, got 0"):
        sj.deploy.rate_monotonic_bound(0)
    assert sj.deploy.utilization(tasks_of((1, 3), (1, 6)), "e") * 2 == 1


def test_tasks_that_wait_are_not_admitted_as_independent():
    tasks = tasks_of((1, 10), (1, 10))
    with pytest.raises(ValueError, match=r"'b' to be released when 'a' is due, .*decouple"):
        sj.deploy.admit(Pipeline(tasks, (("a", "b"),)), {"a": "e", "b": "e"})
