"""What a user can get wrong with tasks and pipelines is said, and paths get their time."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsejax as sj
from sparsejax.deploy import Pipeline, Task


@pytest.mark.parametrize(
    ("error", "words", "arguments"),
    [
        (ValueError, "needs an engine", ({}, 10)),
        (ValueError, "wcet_ns of 1 at least", ({"e": 0}, 10)),
        (ValueError, "offset_ns >= 0", ({"e": 1}, 10, 10, -1)),
        (ValueError, "deadline within its period of 10 ns, got 11 ns", ({"e": 1}, 10, 11)),
        (
            ValueError,
            "ends by its deadline of 4 ns, got {'e': 5, 'f': 6}",
            ({"e": 5, "f": 6}, 9, 4),
        ),
        (TypeError, "whole nanoseconds for period_ns, got 1e7; round it", ({"e": 1}, 1e7, 10)),
        (TypeError, "whole nanoseconds for wcet_ns, got 0.5", ({"e": 0.5}, 10)),
        (TypeError, "whole nanoseconds for offset_ns, got None", ({"e": 1}, 10, 10, None)),
    ],
)
def test_tasks_that_cannot_be_are_refused(error, words, arguments):
    with pytest.raises(error) as caught:
        Task("a", *arguments)
    said = str(caught.value).replace("10000000.0", "1e7")
    assert said.startswith("Task 'a' needs") and words in said


A, B, C = (Task(name, {"e": 1}, 10) for name in "abc")


@pytest.mark.parametrize(
    ("words", "tasks", "edges"),
    [
        ("a task at least", (), ()),
        (r"got \['a'\] twice", (A, B, A), ()),
        (r"between its tasks \['a', 'b'\], got \['c'\]", (A, B), (("a", "c"),)),
        ("got a -> a", (A,), (("a", "a"),)),
        ("without a circle, got .*->.*->", (A, B, C), (("a", "b"), ("b", "c"), ("c", "a"))),
    ],
)
def test_pipelines_that_cannot_be_are_refused(words, tasks, edges):
    with pytest.raises(ValueError, match=f"Pipeline needs.*{words}"):
        Pipeline(tasks, edges)


def test_a_circle_is_named_in_its_direction():
    with pytest.raises(ValueError, match=r"a -> b|b -> c|c -> a") as caught:
        Pipeline((A, B, C), (("a", "b"), ("b", "c"), ("c", "a")))
    names = str(caught.value).partition("got ")[2].partition(";")[0].split(" -> ")
    assert all(pair in {("a", "b"), ("b", "c"), ("c", "a")} for pair in itertools.pairwise(names))


def test_deadlines_are_split_along_the_longest_path():
    # a -> b -> d and a -> c -> d: b takes 3, c 1, so that c has room to spare.
    tasks = [
        Task(name, {"e": wcet}, 100, 60) for name, wcet in zip("abcd", (1, 3, 1, 2), strict=True)
    ]
    edges = [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")]
    split = sj.deploy.decouple(Pipeline(tasks, edges))
    times = {task.name: (task.offset_ns, task.deadline_ns) for task in split.tasks}
    assert times == {"a": (0, 10), "b": (10, 30), "c": (10, 20), "d": (40, 20)}


def test_paths_that_cannot_be_split_are_refused():
    tasks = Task("a", {"e": 6}, 10), Task("b", {"e": 5}, 10)
    with pytest.raises(
        ValueError, match="deadline of 11 ns at least for the longest path through 'a'"
    ):
        sj.deploy.decouple(Pipeline(tasks, (("a", "b"),)))
    with pytest.raises(ValueError, match="one period, deadline and offset along an edge"):
        sj.deploy.decouple(Pipeline((A, Task("b", {"e": 1}, 20)), (("a", "b"),)))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_consumers_are_released_when_producers_are_due(data):
    wcets = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=6))
    total = sum(wcets)
    names = "abcdef"[: len(wcets)]
    pairs = [(x, y) for x in names for y in names if x < y]
    edges = data.draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    deadline = total + data.draw(st.integers(0, 9))
    tasks = [Task(n, {"e": c}, deadline + 1, deadline) for n, c in zip(names, wcets, strict=True)]
    split = sj.deploy.decouple(Pipeline(tasks, edges))
    for task in split.tasks:
        assert task.wcet_ns["e"] <= task.deadline_ns
        assert task.offset_ns + task.deadline_ns <= deadline
    for first, second in edges:
        assert split[first].offset_ns + split[first].deadline_ns <= split[second].offset_ns
    sj.deploy.admit(split, dict.fromkeys(names, "e"))
