"""Schedules worked by hand, and the law of admission: what is admitted never misses."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsejax as sj
from sparsejax.deploy import Pipeline, Task


def schedule(run):
    return [(ran.job.task.name, ran.begin_ns, ran.end_ns) for ran in run.ran]


A, B = Task("a", {"e": 2}, 5), Task("b", {"e": 4}, 10)
PAIR = Pipeline((A, B))


def test_two_tasks_by_hand():
    # The second a, released at 5, waits until 6 for b, which nothing interrupts.
    once = [("a", 0, 2), ("b", 2, 6), ("a", 6, 8)]
    again = [(name, begin + 10, end + 10) for name, begin, end in once]
    assert schedule(sj.deploy.simulate(PAIR, horizon_ns=20)) == once + again


def test_policies_differ_where_they_should():
    # At 3, when z ends, a, b and c wait: released at 2, 3, 1, and due at 13, 9, 21.
    tasks = (
        Task("z", {"e": 3}, 100, 100, 0),
        Task("a", {"e": 1}, 11, 11, 2),
        Task("b", {"e": 1}, 30, 6, 3),
        Task("c", {"e": 1}, 20, 20, 1),
    )
    run = lambda policy: sj.deploy.simulate(Pipeline(tasks), policy=policy, horizon_ns=4)
    names = lambda policy: [name for name, _, _ in schedule(run(policy))]
    assert names(sj.deploy.fifo) == ["z", "c", "a", "b"]
    assert names(sj.deploy.edf) == ["z", "b", "a", "c"]
    assert names(sj.deploy.rate_monotonic) == ["z", "a", "c", "b"]
    assert names(sj.deploy.deadline_monotonic) == ["z", "b", "a", "c"]


def test_the_boost_saves_a_chain_that_edf_loses():
    # camera has a late deadline of its own, but plan, which waits for it on f, is due at 12.
    camera, plan = Task("camera", {"e": 2}, 30, 20), Task("plan", {"f": 9}, 30, 12)
    other = Task("other", {"e": 4}, 30, 15)
    pipeline = Pipeline((other, camera, plan), (("camera", "plan"),))
    engine_of = {"other": "e", "camera": "e", "plan": "f"}
    by_edf = sj.deploy.simulate(pipeline, engine_of, horizon_ns=1)
    assert schedule(by_edf) == [("other", 0, 4), ("camera", 4, 6), ("plan", 6, 15)]
    assert [ran.job.task.name for ran in by_edf.missed] == ["plan"]
    policy = sj.deploy.boosted_edf(pipeline, engine_of)
    boosted = sj.deploy.simulate(pipeline, engine_of, policy=policy, horizon_ns=1)
    assert schedule(boosted) == [("camera", 0, 2), ("other", 2, 6), ("plan", 2, 11)]
    assert boosted.missed == ()


def test_consumers_wait_for_the_latest_input():
    # fast runs twice for each run of slow, which reads the job released with it.
    slow, fast = Task("slow", {"e": 3}, 10), Task("fast", {"f": 1}, 5)
    pipeline = Pipeline((slow, fast), (("slow", "fast"),))
    run = sj.deploy.simulate(pipeline, horizon_ns=20)
    assert [ran.begin_ns for ran in run.of("fast")] == [3, 5, 13, 15]
    back = Pipeline((slow, fast), (("fast", "slow"),))
    assert [ran.begin_ns for ran in sj.deploy.simulate(back, horizon_ns=20).of("slow")] == [1, 11]


def test_jobs_of_a_task_run_in_their_order_on_any_engine():
    task = Task("a", {"e": 5, "f": 5}, 5)
    run = sj.deploy.simulate(Pipeline((task,)), horizon_ns=20, takes_ns=lambda job, engine: 8)
    assert [(ran.begin_ns, ran.end_ns) for ran in run.ran] == [(0, 8), (8, 16), (16, 24), (24, 32)]


def test_misses_and_responses():
    run = sj.deploy.simulate(PAIR, horizon_ns=20, takes_ns=lambda job, engine: 4)
    # a 0-4, b 4-8, a 8-12 (due 10), a 12-16 (due 15), a 16-20 (due 20), b 20-24 (due 20).
    assert [(ran.job.task.name, ran.job.number) for ran in run.missed] == [
        ("a", 1),
        ("a", 2),
        ("b", 1),
    ]
    assert run.miss_ratio == 0.5
    assert [ran.response_ns for ran in run.of("a")] == [4, 7, 6, 5]
    assert run.response_ns("a") == run.response_ns("a", quantile=1.0) == 7
    assert run.response_ns("a", quantile=0.5) == 5
    with pytest.raises(ValueError, match=r"Run.of needs one of \['a', 'b'\], got 'c'"):
        run.of("c")


def test_what_cannot_run_is_said():
    with pytest.raises(
        ValueError, match=r"'a' needs one of its engines \['e'\] in engine_of, got 'f'"
    ):
        sj.deploy.simulate(PAIR, {"a": "f", "b": "e"}, horizon_ns=10)
    with pytest.raises(ValueError, match="jobs of 1 ns at least, got 0"):
        sj.deploy.simulate(PAIR, horizon_ns=10, takes_ns=lambda job, engine: 0)


@st.composite
def task_sets(draw):
    """Two to four tasks on one engine, whose load is often near 1."""
    tasks = []
    for name in "abcd"[: draw(st.integers(2, 4))]:
        period = draw(st.sampled_from([3, 4, 5, 6, 8, 10, 12]))
        deadline = draw(st.integers((period + 1) // 2, period))
        tasks.append(Task(name, {"e": draw(st.integers(1, min(4, deadline)))}, period, deadline))
    return tasks


def phasings(tasks):
    """All at once, and each a tick before the others, which is the worst for some job."""
    yield tasks
    for first in tasks:
        yield [task if task is first else replace(task, offset_ns=1) for task in tasks]


def misses(tasks, policy, takes_ns=None):
    runs = (
        sj.deploy.simulate(Pipeline(own), policy=policy, horizon_ns=241, takes_ns=takes_ns)
        for own in phasings(tasks)
    )
    return any(run.missed for run in runs)


@settings(max_examples=120, deadline=None)
@given(task_sets(), st.randoms(use_true_random=False))
def test_jeffay_agrees_with_the_simulation_of_the_worst_phasing(tasks, random):
    admitted = bool(sj.deploy.jeffay(tasks, "e"))
    if sj.deploy.utilization(tasks, "e") <= 1:
        assert misses(tasks, sj.deploy.edf) == (not admitted)
    else:
        assert not admitted
    if admitted:
        shorter = lambda job, engine: random.randint(1, job.task.wcet_ns[engine])
        assert not misses(tasks, sj.deploy.edf, shorter)


@settings(max_examples=120, deadline=None)
@given(task_sets())
def test_response_times_are_reached_and_never_exceeded(tasks):
    tasks = sorted(tasks, key=lambda task: task.deadline_ns)
    responses = sj.deploy.response_times(tasks, "e")
    priority = {task.name: place for place, task in enumerate(tasks)}
    by_place = lambda job, now: (priority[job.task.name],)
    runs = [
        sj.deploy.simulate(Pipeline(own), policy=by_place, horizon_ns=241)
        for own in phasings(tasks)
    ]
    for task in tasks:
        if responses[task.name] is not None:
            longest = max(run.response_ns(task.name, quantile=1.0) for run in runs)
            assert longest == responses[task.name]
    assert bool(sj.deploy.fixed_priorities(tasks, "e")) == all(
        responses[task.name] is not None and responses[task.name] <= task.deadline_ns
        for task in tasks
    )


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_an_admitted_pipeline_never_misses(data):
    names = "abcde"[: data.draw(st.integers(2, 5))]
    wcets = [{"e": data.draw(st.integers(1, 6)), "f": data.draw(st.integers(1, 6))} for _ in names]
    pairs = [(x, y) for x in names for y in names if x < y]
    edges = data.draw(st.lists(st.sampled_from(pairs), unique=True))
    tasks = [Task(name, wcet, 30) for name, wcet in zip(names, wcets, strict=True)]
    pipeline = sj.deploy.decouple(Pipeline(tasks, edges))
    try:
        found = sj.deploy.assign(pipeline, ["e", "f"])
    except ValueError:
        return
    assert all(sj.deploy.admit(pipeline, found.engine_of).values())
    run = sj.deploy.simulate(pipeline, found.engine_of, horizon_ns=90)
    assert not run.missed
    assert len(run.ran) == 3 * len(names)
    ends = {(ran.job.task.name, ran.job.number): ran.end_ns for ran in run.ran}
    begins = {(ran.job.task.name, ran.job.number): ran.begin_ns for ran in run.ran}
    assert all(ends[x, k] <= begins[y, k] for x, y in edges for k in range(3))
