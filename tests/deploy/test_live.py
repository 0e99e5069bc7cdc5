"""Measuring and running live: the mechanism by an own clock, the threads with wide margins."""

import os
import threading
import time

import jax
import pytest

import sparsejax as sj
from sparsejax.deploy import Pipeline, Task

MS = 1_000_000


class Clock:
    """Time that passes only when somebody works or waits."""

    def __init__(self):
        self.ns = 7

    def __call__(self):
        return self.ns

    def work(self, ns):
        self.ns += ns

    def wait(self, condition, seconds):
        self.ns += round(seconds * 1e9)


def test_times_are_a_distribution_with_its_conditions():
    clock, takes = Clock(), iter([50, 60, *range(1, 201)])
    times = sj.deploy.measure_wcet(lambda: clock.work(next(takes)), num_warm=2, clock=clock)
    assert times.times_ns == tuple(range(1, 201))
    assert (times.median_ns, times.p99_ns, times.max_ns) == (100, 198, 200)
    assert "of 200 calls on no core, caches warm" in str(times)
    cold = sj.deploy.measure_wcet(lambda: clock.work(1), num_calls=1, evicted_bytes=64, clock=clock)
    assert "caches 64 bytes written before each" in str(cold)


def test_calls_are_pinned_to_a_core_and_given_back(monkeypatch):
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system does not pin threads")
    before, seen = os.sched_getaffinity(0), []
    core = max(before)
    sj.deploy.measure_wcet(lambda: seen.append(os.sched_getaffinity(0)), core=core, num_calls=1)
    assert seen[-1] == {core} and os.sched_getaffinity(0) == before
    with pytest.raises(ValueError, match=r"A core needs to be one of .*, got 4096"):
        sj.deploy.measure_wcet(lambda: None, core=4096)
    monkeypatch.delattr(os, "sched_setaffinity")
    with pytest.raises(
        ValueError, match=r"Core 0 needs os.sched_setaffinity, which \w+ does not have"
    ):
        sj.deploy.measure_wcet(lambda: None, core=0)


def test_a_waiting_thread_is_told_from_a_busy_one():
    times = sj.deploy.measure_wcet(lambda: time.sleep(0.05), num_calls=2, num_warm=1)
    assert times.own_fraction < 0.5
    with pytest.raises(ValueError, match="num_calls and num_warm of 1 at least, got 0, 10"):
        sj.deploy.measure_wcet(lambda: None, num_calls=0)


def of_board(run):
    return [(ran.job.task.name, ran.job.number, ran.begin_ns, ran.end_ns) for ran in run.ran]


@pytest.mark.parametrize(
    "policy", [sj.deploy.fifo, sj.deploy.edf, sj.deploy.rate_monotonic], ids=lambda p: p.__name__
)
def test_the_live_run_on_a_clock_of_our_own_is_the_simulation(policy):
    tasks = (Task("a", {"e": 2}, 5), Task("b", {"e": 4}, 11, 9, 1), Task("c", {"e": 2}, 20, 19))
    pipeline = Pipeline(tasks, (("a", "c"),))
    takes = {"a": 2, "b": 5, "c": 6}
    clock = Clock()
    functions = {name: lambda ns=ns: clock.work(ns) for name, ns in takes.items()}
    run = sj.deploy.run_live(
        pipeline, functions, policy=policy, horizon_ns=100, clock=clock, wait=clock.wait
    )
    simulated = sj.deploy.simulate(
        pipeline, policy=policy, horizon_ns=100, takes_ns=lambda job, engine: takes[job.task.name]
    )
    assert of_board(run) == of_board(simulated)
    assert run.missed


def test_two_live_engines_miss_what_the_simulation_misses():
    # By margins of a second either way: sleeping longer than the deadline is late on any machine.
    tasks = (
        Task("good", {"e": MS, "f": MS}, 2_000 * MS),
        Task("late", {"e": MS, "f": MS}, 2_000 * MS, 20 * MS),
        Task("last", {"e": MS, "f": MS}, 2_000 * MS),
    )
    pipeline = Pipeline(tasks, (("good", "last"), ("late", "last")))
    engine_of = {"good": "e", "late": "f", "last": "f"}
    takes = {"good": 1, "late": 40, "last": 1}
    cores = None
    if hasattr(os, "sched_setaffinity"):
        available = sorted(os.sched_getaffinity(0))
        cores = {"e": available[0], "f": available[-1]}
    seen = {}

    def function(name):
        def call():
            seen[name] = threading.get_ident(), cores and os.sched_getaffinity(0)
            time.sleep(takes[name] / 1e3)

        return call

    live = sj.deploy.run_live(
        pipeline, {name: function(name) for name in takes}, engine_of, horizon_ns=1, cores=cores
    )
    simulated = sj.deploy.simulate(
        pipeline, engine_of, horizon_ns=1, takes_ns=lambda job, engine: takes[job.task.name] * MS
    )
    late = lambda run: [ran.job.task.name for ran in run.missed]
    assert late(live) == late(simulated) == ["late"]
    assert [ran.job.task.name for ran in live.ran][-1] == "last"
    assert seen["late"] == seen["last"] != seen["good"]
    if cores:
        assert seen["good"][1] == {cores["e"]} and seen["late"][1] == {cores["f"]}


def test_what_a_function_raises_ends_the_run():
    pipeline = Pipeline([Task("a", {"e": 1}, 10**12), Task("b", {"f": 1}, 10**12)])

    def fail():
        raise OSError("no camera")

    with pytest.raises(OSError, match="no camera"):
        sj.deploy.run_live(pipeline, {"a": fail, "b": lambda: None}, horizon_ns=10**13)
    with pytest.raises(ValueError, match=r"a function for each task, got none for \['b'\]"):
        sj.deploy.run_live(pipeline, {"a": fail}, horizon_ns=1)
    with pytest.raises(ValueError, match=r"a core for each engine, got none for \['f'\]"):
        sj.deploy.run_live(pipeline, {"a": fail, "b": fail}, horizon_ns=1, cores={"e": 0})


def test_results_are_waited_for():
    waited = []

    class Result:
        def block_until_ready(self):
            waited.append(self)
            return self

    assert jax.block_until_ready(Result())
    sj.deploy.run_live(Pipeline([Task("a", {"e": 1}, 10)]), {"a": Result}, horizon_ns=1)
    assert len(waited) == 2


def test_a_simulation_in_the_times_of_a_live_run_is_that_run():
    clock, takes = Clock(), iter([3, 9, 4, 2, 1])
    a, b = Task("a", {"core0": 3}, 10), Task("b", {"core0": 4}, 20, offset_ns=4)
    pipeline, work = Pipeline((a, b)), lambda: clock.work(next(takes))
    run = {"horizon_ns": 30, "policy": sj.deploy.edf}
    live = sj.deploy.run_live(pipeline, {"a": work, "b": work}, clock=clock, wait=clock.wait, **run)
    again = sj.deploy.simulate(pipeline, takes_ns=sj.deploy.times_of(live), **run)
    assert [(r.job.task.name, r.begin_ns, r.end_ns) for r in again.ran] == [
        ("a", 0, 3),
        ("b", 4, 13),
        ("a", 13, 17),
        ("a", 20, 22),
        ("b", 24, 25),
    ]
    assert again == live and sj.deploy.agreement(again, live) == (5, 0, 0, 0)
    late = sj.deploy.simulate(pipeline, takes_ns=lambda job, engine: 11, **run)
    found = sj.deploy.agreement(late, live)
    assert found == (5, 0, len(late.missed), 0) and found.fraction == 1 - len(late.missed) / 5
    with pytest.raises(ValueError, match="two runs of the same jobs, got 5 and 2"):
        sj.deploy.agreement(live, sj.deploy.simulate(pipeline, horizon_ns=10))
