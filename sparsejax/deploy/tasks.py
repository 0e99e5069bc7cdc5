"""What runs on a small machine: tasks with periods and deadlines, and which waits for which."""

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Any


@dataclass(frozen=True)
class Task:
    """A function that is called once a period, and has to end by a deadline each time.

    An engine is a name: whatever runs one job at a time, from its begin to its end. All times are
    whole nanoseconds, so that nothing is rounded.

    Attributes:
      name: of the task.
      wcet_ns: engine -> the longest time that a call takes there; others cannot run the task.
      period_ns: from one release to the next.
      deadline_ns: from a release to the time by which the call must have ended; the period by
        default, and never more.
      offset_ns: of the first release.

    Example:
      >>> task = sj.deploy.Task("detect", {"core0": 30_000_000}, 100_000_000)
      >>> task.deadline_ns
      100000000
    """

    name: str
    wcet_ns: Mapping[str, int]
    period_ns: int
    deadline_ns: int = None  # type: ignore[assignment]  # __post_init__ gives it the period
    offset_ns: int = 0

    def __post_init__(self) -> None:
        """Check the times."""
        deadline = self.period_ns if self.deadline_ns is None else self.deadline_ns
        wcet = {engine: self._whole("wcet_ns", time) for engine, time in self.wcet_ns.items()}
        object.__setattr__(self, "wcet_ns", wcet)
        object.__setattr__(self, "period_ns", self._whole("period_ns", self.period_ns))
        object.__setattr__(self, "deadline_ns", self._whole("deadline_ns", deadline))
        object.__setattr__(self, "offset_ns", self._whole("offset_ns", self.offset_ns))
        if not wcet:
            raise ValueError(f"Task {self.name!r} needs an engine in wcet_ns, got none.")
        if min(wcet.values()) < 1:
            raise ValueError(f"Task {self.name!r} needs a wcet_ns of 1 at least, got {wcet}.")
        if self.offset_ns < 0:
            raise ValueError(f"Task {self.name!r} needs an offset_ns >= 0, got {self.offset_ns}.")
        if self.deadline_ns > self.period_ns:
            raise ValueError(
                f"Task {self.name!r} needs a deadline within its period of {self.period_ns} ns, "
                f"got {self.deadline_ns} ns."
            )
        if self.deadline_ns < min(wcet.values()):
            raise ValueError(
                f"Task {self.name!r} needs an engine that ends by its deadline of "
                f"{self.deadline_ns} ns, got {wcet}; prune it, or give it more time."
            )

    def _whole(self, field: str, time: Any) -> int:
        try:
            return operator.index(time)
        except TypeError:
            raise TypeError(
                f"Task {self.name!r} needs whole nanoseconds for {field}, got {time!r}; round it."
            ) from None


@dataclass(frozen=True)
class Pipeline:
    """Tasks, and edges (producer, consumer) between them, without a circle.

    A job of the consumer waits for the producer's latest job that was released by then: with equal
    periods and offsets the k-th for the k-th.

    Attributes:
      tasks: with names of their own.
      edges: pairs of names.

    Example:
      >>> camera = sj.deploy.Task("camera", {"core0": 2}, 10)
      >>> detect = sj.deploy.Task("detect", {"core0": 5}, 10)
      >>> sj.deploy.Pipeline((camera, detect), (("camera", "detect"),)).order
      ('camera', 'detect')
    """

    tasks: tuple[Task, ...]
    edges: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        """Check the names and the edges."""
        object.__setattr__(self, "tasks", tuple(self.tasks))
        object.__setattr__(self, "edges", tuple(map(tuple, self.edges)))
        names = [task.name for task in self.tasks]
        if not names:
            raise ValueError("Pipeline needs a task at least, got none.")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"Pipeline needs names of their own for tasks, got {twice} twice.")
        for edge in self.edges:
            if unknown := sorted(set(edge) - set(names)):
                raise ValueError(f"Pipeline needs edges between its tasks {names}, got {unknown}.")
        try:
            self.order  # noqa: B018  # sorting finds circles
        except CycleError as error:
            circle = " -> ".join(error.args[1])
            raise ValueError(
                f"Pipeline needs edges without a circle, got {circle}; take one out."
            ) from None

    def __getitem__(self, name: str) -> Task:
        """The task of this name."""
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, Task]:
        return {task.name: task for task in self.tasks}

    @cached_property
    def producers(self) -> dict[str, tuple[str, ...]]:
        """Task -> those that it waits for."""
        return {
            task.name: tuple(first for first, second in self.edges if second == task.name)
            for task in self.tasks
        }

    @cached_property
    def consumers(self) -> dict[str, tuple[str, ...]]:
        """Task -> those that wait for it."""
        return {
            task.name: tuple(second for first, second in self.edges if first == task.name)
            for task in self.tasks
        }

    @cached_property
    def order(self) -> tuple[str, ...]:
        """The names of the tasks, producers before consumers."""
        return tuple(TopologicalSorter(self.producers).static_order())


def decouple(pipeline: Pipeline) -> Pipeline:
    """The pipeline with deadlines and offsets by which no job ever waits for its producers.

    Of a task's deadline D, its producers and it have the part h / (h + a): h is the longest path of
    WCETs up to the end of the task, a the longest after it. Consumers are released when that is
    over, so that the tasks of an engine are independent, as the admission tests need them. There is
    such a split whenever the longest path is within D.

    Args:
      pipeline: in which tasks with an edge between have equal periods, deadlines and offsets; the
        deadline is then that of the whole path.

    Example:
      >>> camera = sj.deploy.Task("camera", {"core0": 2}, 10)
      >>> detect = sj.deploy.Task("detect", {"core0": 3}, 10)
      >>> both = sj.deploy.Pipeline((camera, detect), (("camera", "detect"),))
      >>> [(task.offset_ns, task.deadline_ns) for task in sj.deploy.decouple(both).tasks]
      [(0, 4), (4, 6)]
    """
    for first, second in pipeline.edges:
        times = [
            (t.period_ns, t.deadline_ns, t.offset_ns)
            for t in map(pipeline.__getitem__, (first, second))
        ]
        if times[0] != times[1]:
            raise ValueError(
                f"decouple needs one period, deadline and offset along an edge, got {times[0]} for "
                f"{first!r} and {times[1]} for {second!r}."
            )
    until = _longest(pipeline, pipeline.order, pipeline.producers)
    beyond = _longest(pipeline, pipeline.order[::-1], pipeline.consumers)
    begins: dict[str, int] = {}
    ends: dict[str, int] = {}
    for name in pipeline.order:
        task = pipeline[name]
        path = until[name] + beyond[name] - max(task.wcet_ns.values())
        if path > task.deadline_ns:
            raise ValueError(
                f"decouple needs a deadline of {path} ns at least for the longest path through "
                f"{name!r}, got {task.deadline_ns}; prune, or give it more time."
            )
        begins[name] = max((ends[producer] for producer in pipeline.producers[name]), default=0)
        ends[name] = task.deadline_ns * until[name] // path
    return Pipeline(
        tuple(
            replace(
                task,
                offset_ns=task.offset_ns + begins[task.name],
                deadline_ns=ends[task.name] - begins[task.name],
            )
            for task in pipeline.tasks
        ),
        pipeline.edges,
    )


def _longest(
    pipeline: Pipeline, order: Iterable[str], neighbours: Mapping[str, tuple[str, ...]]
) -> dict[str, int]:
    """Task -> the longest path of WCETs that ends with it, neighbours first."""
    paths: dict[str, int] = {}
    for name in order:
        own = max(pipeline[name].wcet_ns.values())
        paths[name] = own + max((paths[other] for other in neighbours[name]), default=0)
    return paths
