"""Which of the jobs that are ready an engine takes next: the one with the least of a function."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from sparsejax.deploy.tasks import Pipeline, Task


class Job(NamedTuple):
    """One call of a task.

    Attributes:
      task: whose call it is.
      number: 0 for the first.
      release_ns: from when on it may run, if it need not wait for its producers.
      deadline_ns: by when it must have ended, on the same clock.
    """

    task: Task
    number: int
    release_ns: int
    deadline_ns: int


Policy = Callable[[Job, int], tuple[int, ...]]


def fifo(job: Job, now_ns: int) -> tuple[int, ...]:
    """What was released first, first; as an executor without an idea of deadlines does it."""
    return (job.release_ns,)


def rate_monotonic(job: Job, now_ns: int) -> tuple[int, ...]:
    """The shortest period first."""
    return (job.task.period_ns,)


def deadline_monotonic(job: Job, now_ns: int) -> tuple[int, ...]:
    """The shortest deadline from release first, the order of `fixed_priorities`."""
    return (job.task.deadline_ns,)


def edf(job: Job, now_ns: int) -> tuple[int, ...]:
    """The earliest deadline first, which `jeffay` is about."""
    return (job.deadline_ns,)


def boosted_edf(pipeline: Pipeline, engine_of: Mapping[str, str]) -> Policy:
    """EDF with a just-in-time boost: jobs whose chain runs out of slack come before all others.

    The chain of a job is the path of it and its consumers that has to begin first; R is its WCET,
    and its slack what is left at `now` until the last consumer's deadline, less R. With slack < R
    the job is boosted, and of those the one with the least slack is taken.

    Args:
      pipeline: with deadlines from release for every task.
      engine_of: task -> engine, whose WCETs count.

    Differs: a reconstruction. The paper's text was not at hand; that it adjusts priorities just in
    time is from memory, and the rule is ours.

    Reference: "Enabling Level-4 autonomous driving on a single $1k off-the-shelf card", RTAS 2022
    (brief industry paper), arXiv 2110.06373.
    """
    rests: dict[str, tuple[tuple[int, int], ...]] = {}  # (WCET of the path, deadline of its end)
    for name in reversed(pipeline.order):
        task = pipeline[name]
        paths = {
            (wcet, due + pipeline[other].offset_ns - task.offset_ns)
            for other in pipeline.consumers[name]
            for wcet, due in rests[other]
        } or {(0, task.deadline_ns)}
        own = task.wcet_ns[engine_of[name]]
        rests[name] = tuple(sorted((own + wcet, due) for wcet, due in paths))

    def policy(job: Job, now_ns: int) -> tuple[int, ...]:
        rest, due = min(rests[job.task.name], key=lambda path: path[1] - path[0])
        slack = job.release_ns + due - rest - now_ns
        return (0, slack) if slack < rest else (1, job.deadline_ns)

    return policy
