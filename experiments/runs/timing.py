"""Times of calls that are taken in turns, so that all see the same machine."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import ArrayLike, Float

from sparsejax.text import table

TOLERANCE = 3e-5  # relative, between two float32 orders of summation


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


def rows_of(
    calls: dict[str, Callable],
    errors: dict[str, float],
    repeats: int,
    *,
    baseline: str,
    tolerance: float = TOLERANCE,
) -> list[dict[str, Any]]:
    """Time the calls in turns; refuse to time one that is wrong."""
    refuse_wrong(errors, tolerance)
    times = [[timed(call) for call in calls.values()] for _ in range(repeats)]
    return [
        {"name": name, **row, "baseline": baseline, "relative_error": errors[name]}
        for name, row in zip(calls, summaries(times, list(calls).index(baseline)), strict=True)
    ]


def refuse_wrong(errors: dict[str, float], tolerance: float = TOLERANCE) -> None:
    """End the program where an output differs by more than `tolerance`."""
    wrong = {name: error for name, error in errors.items() if not error <= tolerance}
    if wrong:
        raise SystemExit(f"Outputs differ from the dense ones by {wrong}; nothing was timed.")


def timed(call: Callable) -> list[tuple[float, float]]:
    """Seconds on the wall and of the CPU of three calls, after one to warm the caches."""
    jax.block_until_ready(call())
    times = []
    for _ in range(3):
        wall, cpu = time.perf_counter(), time.process_time()
        jax.block_until_ready(call())
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    return times


def warm_ms(calls: dict[str, Callable], repeats: int) -> dict[str, float]:
    """Median time of each call by the wall, of `timed` in so many turns."""
    times = [[timed(call) for call in calls.values()] for _ in range(repeats)]
    medians = 1e3 * np.median(np.asarray(times)[..., 0], axis=(0, 2))
    return dict(zip(calls, medians.tolist(), strict=True))


def summaries(
    times: Float[ArrayLike, "turns ways calls clocks"], baseline: int
) -> list[dict[str, float]]:
    """Of each way the median times, and the median over turns of the ratio within a turn.

    What slows the machine for a while slows the ways of a turn alike and leaves their ratio.
    """
    turns = np.median(np.asarray(times), axis=2)
    speedups = np.median(turns[:, baseline, None] / turns, axis=0)
    return [
        dict(zip(("wall_ms", "cpu_ms", "wall_speedup", "cpu_speedup"), row, strict=True))
        for row in np.concatenate([1e3 * np.median(turns, axis=0), speedups], axis=1).tolist()
    ]


def relative_error(y: jax.Array, expected: jax.Array) -> float:
    return float(jnp.abs(y - expected).max() / jnp.abs(expected).max())


def tree_error(tree: Any, expected: Any) -> float:
    """The distance of two trees relative to the length of the second."""
    difference = jax.tree.map(jnp.subtract, tree, expected)
    return float(optax.tree.norm(difference) / optax.tree.norm(expected))


def show(title: str, rows: list[dict[str, Any]]) -> None:
    cells = (
        (
            row["name"],
            f"{row['wall_ms']:.2f}",
            f"{row['cpu_ms']:.2f}",
            f"{row['wall_speedup']:.2f} ({row['cpu_speedup']:.2f})",
            f"{row['relative_error']:.1e}",
        )
        for row in rows
    )
    columns = ("", "wall ms", "CPU ms", "speedup (CPU)", "error")
    print(table(f"{title}, one core; speedup over {rows[0]['baseline']}", columns, cells))
