"""Benchmarks; `python -m benchmarks.NAME --json FILE` runs one, `python -m benchmarks` all."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax


def time_ms(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median time of each call; the calls alternate, after one that warms up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            if turn:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}
