"""How long a call takes on a core: all the times, since a single number says little."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from sparsejax.deploy.board import nearest_rank


@dataclass(frozen=True)
class Times:
    """The times of many calls.

    The longest is the longest that was seen, and no bound: nothing but an analysis of the machine
    gives one. What admission assumes is as good as the calls are like those to come.

    Attributes:
      times_ns: of each call, in their order.
      core: that the calling thread was pinned to, None if to none.
      evicted_bytes: written before each call; with 0 the caches are warm, as the call before was
        the same.
      own_fraction: of these times, that the calling thread itself computed. The rest it waited, for
        other threads (which nobody pinned) or for the core.
    """

    times_ns: tuple[int, ...]
    core: int | None
    evicted_bytes: int
    own_fraction: float

    @property
    def median_ns(self) -> int:
        """The middle of the times."""
        return nearest_rank(list(self.times_ns), 0.5)

    @property
    def p99_ns(self) -> int:
        """What 99 of 100 calls do not exceed."""
        return nearest_rank(list(self.times_ns), 0.99)

    @property
    def max_ns(self) -> int:
        """The longest that was seen."""
        return max(self.times_ns)

    def __str__(self) -> str:
        """One line: the distribution, and under which conditions."""
        ms = [f"{ns / 1e6:.3f}" for ns in (self.median_ns, self.p99_ns, self.max_ns)]
        where = "no core" if self.core is None else f"core {self.core}"
        state = f"{self.evicted_bytes} bytes written before each" if self.evicted_bytes else "warm"
        return (
            f"median {ms[0]}, p99 {ms[1]}, longest {ms[2]} ms of {len(self.times_ns)} calls on "
            f"{where}, caches {state}, {self.own_fraction:.0%} by the calling thread"
        )


def measure_wcet(
    function: Callable[..., Any],
    *args: Any,
    core: int | None = None,
    num_calls: int = 200,
    num_warm: int = 10,
    evicted_bytes: int = 0,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> Times:
    """The times of calls of a function, until its results are there, on one core.

    Only the calling thread is pinned. XLA hands work to threads of its own: for one core set
    `XLA_FLAGS=--xla_cpu_multi_thread_eigen=false` before JAX is imported, and
    `jax.config.update("jax_cpu_enable_async_dispatch", False)`; `own_fraction` shows whether it is.

    Args:
      function: best compiled; it is called with `args`.
      args: its arguments.
      core: to pin to, given back after; None pins nothing.
      num_calls: that are timed.
      num_warm: calls before them, for compilation and caches; 1 at least.
      evicted_bytes: of a buffer that is written before each call, more than the last cache has, for
        the time with cold caches; 0 for warm ones.
      clock: in ns, for tests.

    Raises:
      ValueError: where the system cannot pin threads, or this process may not use the core.

    Example:
      >>> times = sj.deploy.measure_wcet(jax.jit(jnp.sum), x, num_calls=5)
      >>> len(times.times_ns), times.median_ns <= times.max_ns
      (5, True)
    """
    if num_calls < 1 or num_warm < 1:
        raise ValueError(
            f"measure_wcet needs num_calls and num_warm of 1 at least, got {num_calls}, {num_warm}."
        )
    buffer = np.zeros(evicted_bytes, np.uint8)
    times, own = [], 0
    with pinned(core):
        for _ in range(num_warm):
            jax.block_until_ready(function(*args))
        for _ in range(num_calls):
            buffer += 1
            thread, begin = time.thread_time_ns(), clock()
            jax.block_until_ready(function(*args))
            times.append(clock() - begin)
            own += time.thread_time_ns() - thread
    return Times(tuple(times), core, evicted_bytes, min(1.0, own / max(1, sum(times))))


@contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """The calling thread on this core alone, and after on those that it had."""
    if core is None:
        yield
        return
    if not hasattr(os, "sched_setaffinity"):
        raise ValueError(
            f"Core {core} needs os.sched_setaffinity, which {sys.platform} does not have; pass no "
            "core, and read the times as those of any core."
        )
    before = os.sched_getaffinity(0)
    if core not in before:
        raise ValueError(
            f"A core needs to be one of {sorted(before)} for this process, got {core}."
        )
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
