"""A pipeline on threads, one for each engine: what does run when, to hold against a simulation."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from sparsejax.deploy.board import Board, Ran, Run
from sparsejax.deploy.measuring import pinned
from sparsejax.deploy.policies import Job, Policy, edf
from sparsejax.deploy.simulation import engines_of
from sparsejax.deploy.tasks import Pipeline


def run_live(
    pipeline: Pipeline,
    functions: Mapping[str, Callable[[], Any]],
    engine_of: Mapping[str, str] | None = None,
    *,
    policy: Policy = edf,
    horizon_ns: int,
    cores: Mapping[str, int] | None = None,
    clock: Callable[[], int] = time.perf_counter_ns,
    wait: Callable[[threading.Condition, float | None], Any] = threading.Condition.wait,
) -> Run:
    """What ran when: the jobs of a pipeline, called when they are due, one thread for an engine.

    The threads ask the same board as `simulate`, so that a run differs from the simulation by the
    times alone. They are of one process: a function that holds the GIL keeps the other engines from
    running. JAX's compiled functions, the kernels of `sj.compile` too, release it while they
    compute; Python, and what JAX does before and after, do not. What a function hands to other
    threads is not pinned: see `measure_wcet`.

    Args:
      pipeline: the tasks.
      functions: task -> what its job calls; the job ends when the results are there. Warm ones:
        a first call compiles.
      engine_of: task -> engine; without it any engine that knows the task's WCET takes its jobs.
      policy: as of `simulate`.
      horizon_ns: jobs released before it are run, all to their end.
      cores: engine -> the core that its thread is pinned to; without it none is.
      clock: in ns, for tests.
      wait: for the next release, of at most so many seconds on the condition that the ends of jobs
        notify, for tests.

    Raises:
      Whatever a function raises; the other engines end with the job that they run.

    Example:
      >>> task = sj.deploy.Task("sum", {"core0": 1_000_000}, 5_000_000)
      >>> pipeline = sj.deploy.Pipeline((task,))
      >>> run = sj.deploy.run_live(pipeline, {"sum": lambda: x.sum()}, horizon_ns=10_000_000)
      >>> len(run.ran)
      2
    """
    engines = sorted(engines_of(pipeline, engine_of))
    if missing := [task.name for task in pipeline.tasks if task.name not in functions]:
        raise ValueError(f"run_live needs a function for each task, got none for {missing}.")
    if cores is not None and (unknown := [engine for engine in engines if engine not in cores]):
        raise ValueError(f"run_live needs a core for each engine, got none for {unknown}.")
    crew = _Crew(Board(pipeline, engine_of, policy, horizon_ns), functions, clock, wait)
    threads = [
        threading.Thread(target=crew.guarded, args=(engine, cores[engine] if cores else None))
        for engine in engines
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if crew.errors:
        raise crew.errors[0]
    return crew.board.run()


class _Crew:
    """The threads of the engines, around one board and one lock."""

    def __init__(
        self,
        board: Board,
        functions: Mapping[str, Callable[[], Any]],
        clock: Callable[[], int],
        wait: Callable[[threading.Condition, float | None], Any],
    ) -> None:
        """The time begins."""
        self.board, self.functions, self.clock, self.wait = board, functions, clock, wait
        self.changed = threading.Condition()
        self.errors: list[BaseException] = []
        self.begin_ns = clock()

    def now(self) -> int:
        return self.clock() - self.begin_ns

    def next_job(self, engine: str) -> Job | None:
        """The engine's next job as soon as there is one, None when all is over."""
        with self.changed:
            while not self.errors and not self.board.done():
                now = self.now()
                self.board.release(now)
                if job := self.board.take(engine, now):
                    return job
                release = self.board.next_release_ns()
                self.wait(self.changed, None if release is None else max(0, release - now) / 1e9)
            return None

    def serve(self, engine: str, core: int | None) -> None:
        with pinned(core):
            while job := self.next_job(engine):
                begin = self.now()
                jax.block_until_ready(self.functions[job.task.name]())
                with self.changed:
                    self.board.finish(Ran(job, engine, begin, self.now()))
                    self.changed.notify_all()

    def guarded(self, engine: str, core: int | None) -> None:
        try:
            self.serve(engine, core)
        except BaseException as error:  # the caller's thread raises it again
            with self.changed:
                self.errors.append(error)
                self.changed.notify_all()
