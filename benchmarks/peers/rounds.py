"""The rounds of one case: outputs are compared first, then the engines are timed in turns."""

import statistics
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.peers.case import Files
from benchmarks.peers.environments import CannotBeHadError, Engine
from benchmarks.peers.process import Worker, start
from experiments.runs.cores import usable_cores

# Of the largest output; Winograd convolutions differ by more than an order of summation.
TOLERANCE = 1e-3
CANNOT = "cannot be had"


def name_of(engine: Engine | str) -> str:
    return engine if isinstance(engine, str) else engine.name


def cores(threads: int) -> list[int]:
    """The last cores of those we may use."""
    usable = usable_cores()
    if threads > len(usable):
        raise SystemExit(f"--threads needs as many cores, got {threads} of {len(usable)}.")
    return usable[-threads:]


def measure(
    files: Files, engines: Sequence[Engine | str], *, rounds: int, seconds: float
) -> dict[str, dict[str, Any]]:
    """Per engine its time in milliseconds, its error and its version, or why it cannot be had.

    A round gives each engine `seconds` and takes the median of its calls. "ms" is the median of
    the rounds, "low" and "high" are the fastest and the slowest round. "cpu ms" is the same for the
    time of the CPU, which others' load disturbs less; threads that wait in a loop count, too.
    """
    found: dict[str, dict[str, Any]] = {}
    workers: dict[str, Worker] = {}
    try:
        for engine in engines:
            name = name_of(engine)
            try:
                workers[name] = start(engine, cores(files.case.threads), files.variables.parent)
                found[name] = _load(workers[name], engine, files)
            except CannotBeHadError as error:
                found[name] = {CANNOT: str(error)}
        timed = {name: workers[name] for name in workers if CANNOT not in found[name]}
        for name, answers in _take_turns(timed, rounds, seconds).items():
            found[name] |= summary(answers)
    finally:
        for worker in workers.values():
            worker.close()
    return found


def _load(worker: Worker, engine: Engine | str, files: Files) -> dict[str, Any]:
    """What the worker says of itself, with the distance of its output from JAX's."""
    order = files.order(engine)
    print(f"  {name_of(engine)}", end="", file=sys.stderr, flush=True)
    first = worker.ask(order)
    y = np.load(order["output"])
    if y.size != files.expected.size:
        raise CannotBeHadError(f"its output has the shape {y.shape}, not {files.expected.shape}")
    y = y.reshape(files.expected.shape)
    error = float(np.abs(y - files.expected).max() / np.abs(files.expected).max())
    print(f" {error:.0e}", end="", file=sys.stderr, flush=True)
    if not error <= TOLERANCE:
        raise CannotBeHadError(f"its output differs by {error:.1e} of the largest")
    return {**first, "error": error}


def _take_turns(
    workers: dict[str, Worker], rounds: int, seconds: float
) -> dict[str, list[dict[str, list[float]]]]:
    """The answers of each engine, by round; every round starts with another engine."""
    answers: dict[str, list[dict[str, list[float]]]] = {name: [] for name in workers}
    names = list(workers)
    for turn in range(rounds):
        first = turn % max(len(names), 1)
        for name in names[first:] + names[:first]:
            answers[name].append(workers[name].ask({"seconds": seconds}))
    print(file=sys.stderr)
    return answers


def summary(rounds: Sequence[dict[str, Sequence[float]]]) -> dict[str, Any]:
    """The median of the rounds' medians, and the rounds it is made of."""
    medians, cpu = (
        [statistics.median(answer[kind]) for answer in rounds] for kind in ("times_ms", "cpu_ms")
    )
    return {
        "ms": round(statistics.median(medians), 4),
        "low": round(min(medians), 4),
        "high": round(max(medians), 4),
        "cpu ms": round(statistics.median(cpu), 4),
        "calls": sum(len(answer["times_ms"]) for answer in rounds),
    }
