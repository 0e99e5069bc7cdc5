"""Benchmarks; `python -m benchmarks.NAME --json FILE` runs one, `python -m benchmarks` all."""

import json
import os
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

if find_spec("jax") is None:
    raise ImportError(
        "The benchmarks need sparsejax, and those of networks its extra `experiments`, but this "
        "Python has not even jax: run `make setup` and use .venv/bin/python."
    )

import jax


def measure(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, dict[str, float]]:
    """Median time of each call, by the wall and of all cores; the calls alternate after a first."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            start, cpu_start = time.perf_counter(), time.process_time()
            jax.block_until_ready(call())
            elapsed = time.perf_counter() - start, time.process_time() - cpu_start
            if turn:
                times[name].append(elapsed)
    median_ms = lambda seconds: round(1e3 * statistics.median(seconds), 3)
    return {
        name: {"ms": median_ms(wall), "cpu ms": median_ms(cpu)}
        for name, (wall, cpu) in ((name, zip(*pairs, strict=True)) for name, pairs in times.items())
    }


def time_ms(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median time of each call by the wall, as `measure` takes it."""
    return {name: times["ms"] for name, times in measure(calls, repeats).items()}


def publish(results: dict[str, Any], file: str | None) -> None:
    """Print the results, and write them with the machine's cores and jax to a JSON file."""
    print(json.dumps(results, indent=1))
    if file:
        machine = {"cores": os.cpu_count(), "jax": jax.__version__}
        with open(file, "w") as out:
            json.dump({"machine": machine, **results}, out, indent=1)
