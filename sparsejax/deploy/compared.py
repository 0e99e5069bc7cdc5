"""A run held against another: whether the same jobs were late, and one run in the other's times."""

from collections.abc import Callable
from typing import NamedTuple

from sparsejax.deploy.board import Run
from sparsejax.deploy.policies import Job


class Agreement(NamedTuple):
    """Which jobs were late in two runs of the same jobs.

    Attributes:
      jobs: of each run.
      late_in_both: jobs that ended late in both.
      late_in_first, late_in_second: in that one alone.
    """

    jobs: int
    late_in_both: int
    late_in_first: int
    late_in_second: int

    @property
    def fraction(self) -> float:
        """Of the jobs, those that both runs say the same of."""
        return 1.0 - (self.late_in_first + self.late_in_second) / max(1, self.jobs)


def agreement(first: Run, second: Run) -> Agreement:
    """How far two runs agree about which jobs end late, a simulation and a live run above all.

    Raises:
      ValueError: the runs are not of the same jobs.

    Example:
      >>> pipeline = sj.deploy.Pipeline((sj.deploy.Task("a", {"core0": 2}, 5),))
      >>> simulated = sj.deploy.simulate(pipeline, horizon_ns=10)
      >>> live = sj.deploy.simulate(pipeline, horizon_ns=10, takes_ns=lambda job, engine: 6)
      >>> sj.deploy.agreement(simulated, live).fraction
      0.0
    """
    late = [{(r.job.task.name, r.job.number): r.missed for r in run.ran} for run in (first, second)]
    if late[0].keys() != late[1].keys():
        raise ValueError(
            f"agreement needs two runs of the same jobs, got {len(late[0])} and {len(late[1])} of "
            "which some differ; run the same pipeline to the same horizon."
        )
    pairs = [(late[0][job], late[1][job]) for job in late[0]]
    counts = (pairs.count(pair) for pair in ((True, True), (True, False), (False, True)))
    return Agreement(len(pairs), *counts)


def times_of(run: Run) -> Callable[[Job, str], int]:
    """What each job of a run took, as `simulate(..., takes_ns=)` wants it, on whatever engine.

    A simulation in the times of a live run tells whether the board explains the run's misses, and
    leaves apart whether the WCETs were right.

    Example:
      >>> pipeline = sj.deploy.Pipeline((sj.deploy.Task("a", {"core0": 2}, 5),))
      >>> run = sj.deploy.simulate(pipeline, horizon_ns=10, takes_ns=lambda job, engine: 6)
      >>> again = sj.deploy.simulate(pipeline, horizon_ns=10, takes_ns=sj.deploy.times_of(run))
      >>> again == run
      True
    """
    took = {(r.job.task.name, r.job.number): max(1, r.end_ns - r.begin_ns) for r in run.ran}
    return lambda job, engine: took[job.task.name, job.number]
