"""Tests that say before anything runs whether the tasks of an engine meet all their deadlines."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

from sparsejax.deploy.tasks import Pipeline, Task

MAX_DEADLINES = 2_000_000


@dataclass(frozen=True)
class Verdict:
    """Whether tasks are admitted, true or false in an `if`, and why.

    Attributes:
      admitted: no job misses its deadline, whenever the tasks are released.
      reason: a sentence.
    """

    admitted: bool
    reason: str

    def __bool__(self) -> bool:
        """Whether the tasks are admitted."""
        return self.admitted


def utilization(tasks: Sequence[Task], engine: str) -> Fraction:
    """The part of the engine's time that the tasks need, sum of C / T; above 1 some job is late."""
    return sum((Fraction(task.wcet_ns[engine], task.period_ns) for task in tasks), Fraction(0))


def rate_monotonic_bound(num_tasks: int) -> float:
    """The utilization n (2^(1/n) - 1) up to which preemptive rate-monotonic priorities suffice.

    It is sufficient, not necessary, for deadlines at the ends of periods; without preemption take
    `response_times`.

    Example:
      >>> round(sj.deploy.rate_monotonic_bound(3), 4)
      0.7798

    Reference: Liu and Layland, "Scheduling algorithms for multiprogramming in a hard-real-time
    environment", JACM 1973.
    """
    if num_tasks < 1:
        raise ValueError(f"rate_monotonic_bound needs a task at least, got {num_tasks}.")
    return num_tasks * math.expm1(math.log(2) / num_tasks)


def jeffay(tasks: Sequence[Task], engine: str) -> Verdict:
    """Whether non-preemptive EDF meets every deadline, however the tasks are released: exact.

    The utilization is at most 1, and for every t the jobs that are released and due within t, and
    one that began a tick before them and is due later, fit into it:
    sum over D_i <= t of (1 + floor((t - D_i) / T_i)) C_i + max over D_j > t of (C_j - 1) <= t.
    With D = T it is Jeffay's test. It is exact for sporadic tasks and for periodic ones whose
    offsets are not known; with known offsets it is sufficient. It says nothing of tasks that wait
    for others: see `admit`.

    Args:
      tasks: that run on the engine.
      engine: its name.

    Raises:
      ValueError: where more than 2 million deadlines would have to be looked at.

    Example:
      >>> tasks = [sj.deploy.Task("a", {"core0": 2}, 5), sj.deploy.Task("b", {"core0": 5}, 20)]
      >>> print(sj.deploy.jeffay(tasks, "core0").reason)
      within 5 ns, 2 ns are due and 'b' may hold core0 for 4 more

    Reference: Jeffay, Stanat and Martel, "On non-preemptive scheduling of periodic and sporadic
    tasks", RTSS 1991, theorem 4.1; deadlines before the period's end: George, Rivierre and Spuri,
    "Preemptive and non-preemptive real-time uniprocessor scheduling", INRIA 2966, 1996. Both from
    memory, and held here by simulation.
    """
    load = utilization(tasks, engine)
    if load > 1:
        return Verdict(False, f"{engine} would be busy for {float(load):.3f} of the time")
    for t in _due(tasks, _last_due(tasks, engine, load)):
        due = sum(
            (1 + (t - task.deadline_ns) // task.period_ns) * task.wcet_ns[engine]
            for task in tasks
            if task.deadline_ns <= t
        )
        later = [task for task in tasks if task.deadline_ns > t]
        blocker = max(later, key=lambda task: task.wcet_ns[engine], default=None)
        held = blocker.wcet_ns[engine] - 1 if blocker else 0
        if due + held > t:
            words = f" and {blocker.name!r} may hold {engine} for {held} more" if blocker else ""
            return Verdict(False, f"within {t} ns, {due} ns are due{words}")
    return Verdict(True, f"{engine} is busy for {float(load):.3f} of the time, no job is late")


def _last_due(tasks: Sequence[Task], engine: str, load: Fraction) -> int:
    """The time from release beyond which the jobs that are due always fit, at a load up to 1.

    From the last deadline on nobody blocks, and at most t U + sum (T - D) U_i is due.
    """
    last = max((task.deadline_ns for task in tasks), default=0)
    early = sum(
        Fraction(task.wcet_ns[engine] * (task.period_ns - task.deadline_ns), task.period_ns)
        for task in tasks
    )
    if not early:
        return last
    if load < 1:
        return max(last, math.floor(early / (1 - load)))
    return max(last, math.lcm(*(task.period_ns for task in tasks)))


def _due(tasks: Sequence[Task], last: int) -> list[int]:
    """All deadlines up to `last` of tasks that are released together."""
    count = sum(max(0, last - task.deadline_ns) // task.period_ns + 1 for task in tasks)
    if count > MAX_DEADLINES:
        raise ValueError(
            f"jeffay needs at most {MAX_DEADLINES} deadlines to look at, got {count}; choose "
            "periods with a smaller common multiple, or lower the utilization."
        )
    ranges = (range(task.deadline_ns, last + 1, task.period_ns) for task in tasks)
    return sorted({t for times in ranges for t in times})


def response_times(tasks: Sequence[Task], engine: str) -> dict[str, int | None]:
    """Task -> its longest response in ns without preemption, by fixed priorities: exact.

    The q-th job of a busy period begins at the least w with
    w = B_i + q C_i + sum over higher priorities of (floor(w / T_j) + 1) C_j; the response is the
    largest w + C_i - q T_i of the busy period, and B_i = max over lower priorities of (C_k - 1).
    All jobs of the busy period count: later ones may be slower than the first.

    Args:
      tasks: that run on the engine, the highest priority first (`sorted` by period is
        rate-monotonic).
      engine: its name.

    Returns:
      None for a task whose busy period has no end, as the utilization is too high.

    Example:
      >>> tasks = [sj.deploy.Task("a", {"core0": 2}, 5), sj.deploy.Task("b", {"core0": 3}, 20)]
      >>> sj.deploy.response_times(tasks, "core0")
      {'a': 4, 'b': 5}

    Reference: Davis, Burns, Bril and Lukkien, "Controller area network (CAN) schedulability
    analysis: refuted, revisited and revised", Real-Time Systems 2007. From memory, and held here by
    simulation.
    """
    costs = [(task.wcet_ns[engine], task.period_ns) for task in tasks]
    return {
        task.name: _response(costs[:i], costs[i], [cost for cost, _ in costs[i + 1 :]])
        for i, task in enumerate(tasks)
    }


def _response(higher: list[tuple[int, int]], own: tuple[int, int], lower: list[int]) -> int | None:
    """The longest response of the task with `own` (cost, period)."""
    cost, period = own
    held = max(lower, default=1) - 1
    load = sum((Fraction(c, p) for c, p in [*higher, own]), Fraction(0))
    if load > 1 or (load == 1 and held):
        return None
    # Without preemption the worst response need not be of the first job in a busy period: each job
    # q that begins in it is tried.
    busy = _fixed_point(
        held + cost, lambda t: held + sum(-(-t // p) * c for c, p in [*higher, own])
    )
    longest, begin = 0, 0
    for q in range(-(-busy // period)):
        fixed = held + q * cost
        growth = partial(_begun, fixed, higher)
        begin = _fixed_point(max(begin, fixed), growth)
        longest = max(longest, begin + cost - q * period)
    return longest


def _begun(fixed: int, higher: list[tuple[int, int]], w: int) -> int:
    """What has to be done before a job begins at w: `fixed`, and all of higher priority by then."""
    return fixed + sum((w // period + 1) * cost for cost, period in higher)


def _fixed_point(value: int, function: Callable[[int], int]) -> int:
    """The least fixed point of a growing function from `value` on."""
    while (following := function(value)) > value:
        value = following
    return value


def preemptive_response_times(
    tasks: Sequence[Task], engine: str, *, blocking_ns: Mapping[str, int] | None = None
) -> dict[str, int | None]:
    """Task -> its longest response in ns with preemption: R = C + B + sum ceil(R / T_j) C_j.

    Our engines do not preempt; this is what they would have to beat.

    Args:
      tasks: that run on the engine, the highest priority first.
      engine: its name.
      blocking_ns: task -> the longest section of lower priority whose resource has a ceiling at or
        above it (priority ceiling); 0 unless given.

    Returns:
      None for a task whose response is longer than its deadline.

    Example:
      >>> tasks = [sj.deploy.Task("a", {"core0": 2}, 5), sj.deploy.Task("b", {"core0": 4}, 20)]
      >>> sj.deploy.preemptive_response_times(tasks, "core0", blocking_ns={"a": 1})
      {'a': 3, 'b': 8}

    Reference: Joseph and Pandya, "Finding response times in a real-time system", The Computer
    Journal 1986; blocking: Sha, Rajkumar and Lehoczky, IEEE Transactions on Computers 1990.
    """
    found: dict[str, int | None] = {}
    for i, task in enumerate(tasks):
        fixed = task.wcet_ns[engine] + (blocking_ns or {}).get(task.name, 0)
        response = following = fixed
        while following <= task.deadline_ns:
            response = following
            following = fixed + sum(
                -(-response // other.period_ns) * other.wcet_ns[engine] for other in tasks[:i]
            )
            if following == response:
                break
        found[task.name] = response if following == response <= task.deadline_ns else None
    return found


def fixed_priorities(tasks: Sequence[Task], engine: str) -> Verdict:
    """Whether `response_times` are within the deadlines, the shortest deadline being first.

    Args:
      tasks: that run on the engine, in any order.
      engine: its name.
    """
    ordered = sorted(tasks, key=lambda task: task.deadline_ns)
    responses = response_times(ordered, engine)
    for task in ordered:
        response = responses[task.name]
        if response is None or response > task.deadline_ns:
            took = "without end" if response is None else f"{response} ns"
            return Verdict(False, f"{task.name!r} may take {took}, due after {task.deadline_ns} ns")
    return Verdict(True, "every response is within its deadline")


AdmissionTest = Callable[[Sequence[Task], str], Verdict]


def admit(
    pipeline: Pipeline, engine_of: Mapping[str, str], *, test: AdmissionTest = jeffay
) -> dict[str, Verdict]:
    """Engine -> whether its tasks meet all deadlines, with every task on an engine of its own.

    Args:
      pipeline: whose consumers are released when their producers are due, as `decouple` makes it:
        the tests are for tasks that do not wait for each other.
      engine_of: task -> engine.
      test: `jeffay` for EDF, `fixed_priorities` for priorities by deadline.

    Example:
      >>> task = sj.deploy.Task("detect", {"core0": 30}, 100)
      >>> admitted = sj.deploy.admit(sj.deploy.Pipeline((task,)), {"detect": "core0"})
      >>> bool(admitted["core0"])
      True
    """
    for first, second in pipeline.edges:
        producer, consumer = pipeline[first], pipeline[second]
        common = math.gcd(producer.period_ns, consumer.period_ns)
        if (consumer.offset_ns - producer.offset_ns) % common < producer.deadline_ns:
            raise ValueError(
                f"admit needs {second!r} to be released when {first!r} is due, got offsets of "
                f"{consumer.offset_ns} and {producer.offset_ns} ns; use sj.deploy.decouple."
            )
    return {
        engine: test([task for task in pipeline.tasks if engine_of[task.name] == engine], engine)
        for engine in sorted(set(engine_of.values()))
    }
