"""A pipeline on engines, event by event in whole nanoseconds: what would run when."""

import heapq
from collections.abc import Callable, Mapping

from sparsejax.deploy.board import Board, Ran, Run
from sparsejax.deploy.policies import Job, Policy, edf
from sparsejax.deploy.tasks import Pipeline


def simulate(
    pipeline: Pipeline,
    engine_of: Mapping[str, str] | None = None,
    *,
    policy: Policy = edf,
    horizon_ns: int,
    takes_ns: Callable[[Job, str], int] | None = None,
) -> Run:
    """What runs when, if engines take the jobs by the policy, and run each to its end.

    At one instant jobs end first, then others are released, then free engines take them, in the
    order of their names; jobs that are equal for the policy go in the pipeline's order. A late job
    runs to its end, too, and the jobs of a task run in their order. The same arguments give the
    same run.

    Args:
      pipeline: the tasks.
      engine_of: task -> engine; without it any engine that knows the task's WCET takes its jobs.
      policy: `fifo`, `rate_monotonic`, `deadline_monotonic`, `edf`, `boosted_edf(...)` or a
        function of the same arguments.
      horizon_ns: jobs released before it are run, all to their end.
      takes_ns: how long a job takes on an engine; the task's WCET there by default.

    Example:
      >>> a = sj.deploy.Task("a", {"core0": 2}, 5)
      >>> b = sj.deploy.Task("b", {"core0": 4}, 10)
      >>> run = sj.deploy.simulate(sj.deploy.Pipeline((a, b)), horizon_ns=10)
      >>> [(ran.job.task.name, ran.begin_ns, ran.end_ns) for ran in run.ran]
      [('a', 0, 2), ('b', 2, 6), ('a', 6, 8)]
    """
    engines = engines_of(pipeline, engine_of)
    board = Board(pipeline, engine_of, policy, horizon_ns)
    running: list[tuple[int, str, Ran]] = []
    while not board.done():
        release = board.next_release_ns()
        now = min([*(end for end, _, _ in running[:1]), *([] if release is None else [release])])
        while running and running[0][0] == now:
            board.finish(heapq.heappop(running)[2])
        board.release(now)
        for engine in sorted(engines - {engine for _, engine, _ in running}):
            if job := board.take(engine, now):
                time = takes_ns(job, engine) if takes_ns else job.task.wcet_ns[engine]
                if time < 1:
                    raise ValueError(f"simulate needs jobs of 1 ns at least, got {time} for {job}.")
                heapq.heappush(running, (now + time, engine, Ran(job, engine, now, now + time)))
    return board.run()


def engines_of(pipeline: Pipeline, engine_of: Mapping[str, str] | None) -> set[str]:
    """The engines in use, after a check that each task has one that it can run on."""
    if engine_of is None:
        return {engine for task in pipeline.tasks for engine in task.wcet_ns}
    for task in pipeline.tasks:
        if engine_of.get(task.name) not in task.wcet_ns:
            raise ValueError(
                f"Task {task.name!r} needs one of its engines {sorted(task.wcet_ns)} in engine_of, "
                f"got {engine_of.get(task.name)!r}."
            )
    return {engine_of[task.name] for task in pipeline.tasks}
