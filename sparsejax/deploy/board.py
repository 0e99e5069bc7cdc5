"""The jobs of a pipeline as time goes on, for whoever brings a clock: simulation and live run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from sparsejax.deploy.policies import Job, Policy
from sparsejax.deploy.tasks import Pipeline


class Ran(NamedTuple):
    """A job that has run.

    Attributes:
      job: the call.
      engine: where it ran.
      begin_ns, end_ns: when, on the clock that starts with the run.
    """

    job: Job
    engine: str
    begin_ns: int
    end_ns: int

    @property
    def response_ns(self) -> int:
        """From the release to the end."""
        return self.end_ns - self.job.release_ns

    @property
    def missed(self) -> bool:
        """Whether it ended after its deadline."""
        return self.end_ns > self.job.deadline_ns


@dataclass(frozen=True)
class Run:
    """What ran when: of a simulation or of a live run.

    Attributes:
      ran: all jobs released before the horizon, by their begin.
      horizon_ns: the end of releases.
    """

    ran: tuple[Ran, ...]
    horizon_ns: int

    def of(self, name: str) -> tuple[Ran, ...]:
        """The jobs of the task of this name."""
        found = tuple(ran for ran in self.ran if ran.job.task.name == name)
        if not found:
            names = sorted({ran.job.task.name for ran in self.ran})
            raise ValueError(f"Run.of needs one of {names}, got {name!r}.")
        return found

    @property
    def missed(self) -> tuple[Ran, ...]:
        """The jobs that ended late."""
        return tuple(ran for ran in self.ran if ran.missed)

    @property
    def miss_ratio(self) -> float:
        """The fraction of jobs that ended late."""
        return len(self.missed) / max(1, len(self.ran))

    def response_ns(self, name: str, *, quantile: float = 0.99) -> int:
        """The quantile of a task's responses by nearest rank; 1.0 is the longest."""
        return nearest_rank([ran.response_ns for ran in self.of(name)], quantile)


def nearest_rank(times: list[int], quantile: float) -> int:
    """The least of the times that a fraction of `quantile` does not exceed."""
    if not 0 < quantile <= 1:
        raise ValueError(f"A quantile needs to be in (0, 1], got {quantile}.")
    rank = -(-len(times) * round(quantile * 10**9) // 10**9)
    return sorted(times)[rank - 1]


class Board:
    """Releases jobs, hands them to engines and takes them back; not for threads without a lock."""

    def __init__(
        self,
        pipeline: Pipeline,
        engine_of: Mapping[str, str] | None,
        policy: Policy,
        horizon_ns: int,
    ) -> None:
        """Nothing is released yet."""
        self._pipeline = pipeline
        self._engine_of = engine_of
        self._policy = policy
        self._horizon_ns = horizon_ns
        self._coming = {task.name: _job(pipeline, task.name, 0) for task in pipeline.tasks}
        self._place = {task.name: place for place, task in enumerate(pipeline.tasks)}
        self._waiting: list[Job] = []
        self._ended: set[tuple[str, int]] = set()
        self._running = 0
        self.ran: list[Ran] = []

    def next_release_ns(self) -> int | None:
        """When the next job is released, None after the horizon."""
        least = min(job.release_ns for job in self._coming.values())
        return least if least < self._horizon_ns else None

    def done(self) -> bool:
        """Whether all jobs released before the horizon have ended."""
        return self.next_release_ns() is None and not self._waiting and not self._running

    def release(self, now_ns: int) -> None:
        """Let in all jobs whose release is due."""
        until = min(now_ns, self._horizon_ns - 1)
        for name, job in self._coming.items():
            while job.release_ns <= until:
                self._waiting.append(job)
                job = _job(self._pipeline, name, job.number + 1)
            self._coming[name] = job

    def take(self, engine: str, now_ns: int) -> Job | None:
        """The job that the engine runs now, None if there is none for it."""
        ready = [job for job in self._waiting if self._may_run(job, engine)]
        if not ready:
            return None
        first = min(ready, key=lambda job: (*self._policy(job, now_ns), self._order(job)))
        self._waiting.remove(first)
        self._running += 1
        return first

    def finish(self, ran: Ran) -> None:
        """Take a job back that has ended."""
        self._running -= 1
        self._ended.add((ran.job.task.name, ran.job.number))
        self.ran.append(ran)

    def run(self) -> Run:
        """All that ran."""
        order = lambda ran: (ran.begin_ns, self._order(ran.job))
        return Run(tuple(sorted(self.ran, key=order)), self._horizon_ns)

    def _order(self, job: Job) -> tuple[int, int]:
        """What decides between jobs that are equal for the policy."""
        return self._place[job.task.name], job.number

    def _may_run(self, job: Job, engine: str) -> bool:
        name = job.task.name
        here = (
            engine in job.task.wcet_ns
            if self._engine_of is None
            else self._engine_of[name] == engine
        )
        before = job.number == 0 or (name, job.number - 1) in self._ended  # of itself
        return (
            here
            and before
            and all(
                number < 0 or (producer, number) in self._ended
                for producer, number in self._inputs(job)
            )
        )

    def _inputs(self, job: Job) -> list[tuple[str, int]]:
        """The producers' latest jobs that were released when this one was."""
        producers = map(self._pipeline.__getitem__, self._pipeline.producers[job.task.name])
        return [
            (task.name, (job.release_ns - task.offset_ns) // task.period_ns) for task in producers
        ]


def _job(pipeline: Pipeline, name: str, number: int) -> Job:
    task = pipeline[name]
    release = task.offset_ns + number * task.period_ns
    return Job(task, number, release, release + task.deadline_ns)
