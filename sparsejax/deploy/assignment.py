"""Which engine runs which task, chosen before anything runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from sparsejax.deploy.admission import AdmissionTest, jeffay, utilization
from sparsejax.deploy.tasks import Pipeline, Task

EXHAUSTIVE = 10


@dataclass(frozen=True)
class Assignment:
    """An engine for each task.

    Attributes:
      engine_of: task -> engine.
      utilization: of the busiest engine.
      exact: no assignment that passes the test has a lower one; False for the heuristic's.
    """

    engine_of: dict[str, str]
    utilization: Fraction
    exact: bool


def assign(
    pipeline: Pipeline, engines: Sequence[str], *, test: AdmissionTest | None = jeffay
) -> Assignment:
    """The assignment with the least utilization of the busiest engine, of those that pass the test.

    Up to 10 tasks it is the best there is, by trying all with what cannot be better cut off.
    Beyond, it is a heuristic: the tasks in the order of their utilization, the largest first, each
    where the engine is least busy after it; it may then find none where there is one, and says so.

    Args:
      pipeline: whose tasks' WCETs name engines.
      engines: that may be used.
      test: what an engine's tasks have to pass; None only shares the load, at any utilization.

    Raises:
      ValueError: where no assignment passes.

    Example:
      >>> both = lambda time: {"core0": time, "core1": time}
      >>> tasks = [sj.deploy.Task(n, both(c), 100) for n, c in zip("abc", (50, 30, 20))]
      >>> found = sj.deploy.assign(sj.deploy.Pipeline(tasks), ["core0", "core1"])
      >>> found.engine_of, found.exact
      ({'a': 'core0', 'b': 'core1', 'c': 'core1'}, True)
    """
    largest = lambda task: max(
        (Fraction(task.wcet_ns[e], task.period_ns) for e in engines if e in task.wcet_ns),
        default=Fraction(0),
    )
    tasks = sorted(pipeline.tasks, key=largest, reverse=True)
    for task in tasks:
        if not set(engines) & set(task.wcet_ns):
            raise ValueError(
                f"assign needs an engine of {list(engines)} for {task.name!r}, which has "
                f"{sorted(task.wcet_ns)}."
            )
    exact = len(tasks) <= EXHAUSTIVE
    search = _Search(engines, test)
    search.descend(tasks, dict.fromkeys(engines, ()), tries=None if exact else 1)
    if search.best is None:
        words = "there is none" if exact else f"the heuristic for more than {EXHAUSTIVE} found none"
        raise ValueError(
            f"assign needs an assignment of {len(tasks)} tasks to {list(engines)} that passes the "
            f"test, got nothing: {words}; prune, add an engine, or share the load by test=None."
        )
    of = {task.name: engine for engine, own in search.best.items() for task in own}
    return Assignment({task.name: of[task.name] for task in pipeline.tasks}, search.least, exact)


class _Search:
    """Depth first, the least busy engine first, and nothing that is no better than the best."""

    def __init__(self, engines: Sequence[str], test: AdmissionTest | None) -> None:
        self.engines, self.test = engines, test
        self.best: dict[str, tuple[Task, ...]] | None = None
        self.least = Fraction(0)

    def descend(
        self, tasks: Sequence[Task], placed: dict[str, tuple[Task, ...]], *, tries: int | None
    ) -> None:
        """Place the first task on each engine, on the first of them only with `tries` of 1."""
        if not tasks:
            self.best, self.least = placed, max(utilization(own, e) for e, own in placed.items())
            return
        first, *rest = tasks
        options = [
            {**placed, engine: (*placed[engine], first)}
            for engine in self.engines
            if engine in first.wcet_ns
        ]
        loads = lambda option: sorted(
            (utilization(own, e) for e, own in option.items()), reverse=True
        )
        passing = (o for o in sorted(options, key=loads) if self._passes(o, first))
        for number, option in enumerate(passing):
            if number == tries:
                return
            if self.best is None or loads(option)[0] < self.least:
                self.descend(rest, option, tries=tries)

    def _passes(self, option: dict[str, tuple[Task, ...]], task: Task) -> bool:
        """Only the engine that got the task has to be looked at."""
        if self.test is None:
            return True
        return all(bool(self.test(own, e)) for e, own in option.items() if task in own)
