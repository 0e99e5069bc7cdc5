"""What an observer sees of a function that runs: times from outside, the program on its host."""

import math
import time
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np

from sparsejax.audit.programs import read_program
from sparsejax.doors import FUNCTION, checked

Sees = Literal["times", "program", "all"]


@checked(fn=FUNCTION)
def execution_features(
    fn: Callable,
    *example: Any,
    sees: Sees = "all",
    more: int = 8,
    larger: tuple | None = None,
    repeats: int = 9,
) -> dict[str, float]:
    """Features of one function by which `family_attack` tells its architecture, without its code.

    "times" are what any caller can measure: the logarithm of the milliseconds of a call, how much
    longer `more` times the batch takes, how much longer larger inputs take, and the spread of the
    times relative to their median. "program" is what the machine's owner can read without looking
    into a kernel: logarithms of operations, bytes accessed, temporary bytes and constant bytes,
    operations a byte, and how many kernels run. A custom call, such as a region of `sj.compile`,
    tells XLA neither operations nor bytes.

    Args:
        fn: of the inputs alone; its weights are closed over.
        example: inputs, each with a batch along its first axis.
        sees: which of them.
        more: so many times the batch.
        larger: inputs of another size, such as images of twice the side.
        repeats: calls that are timed, after one to warm up.

    Returns:
        The features by name, always in the same order.

    Raises:
        ValueError: `sees` is something else.

    Example:
        >>> sorted(sj.audit.execution_features(lambda x: x @ x.T, x, sees="times", repeats=3))
        ['log ms', 'ms of 8 times the batch', 'spread']

    Reference:
        Jha, Mittal, Kumar and Mattela, "DeepPeep: Exploiting Design Ramifications to Decipher the
        Architecture of Compact DNNs", ACM JETC 2020, arXiv:2007.15248. Its features were not at
        hand: these are a reconstruction for a CPU.
    """
    if sees not in ("times", "program", "all"):
        raise ValueError(
            f'execution_features needs sees="times", "program" or "all", got {sees!r}.'
        )
    found = _of_program(fn, example) if sees != "times" else {}
    if sees == "program":
        return found
    batch = tuple(np.concatenate([np.asarray(x)] * more) for x in example)
    found |= _of_times(fn, example, {f"ms of {more} times the batch": batch}, repeats)
    if larger is not None:
        own = found["log ms"]
        found["ms of larger inputs"] = _of_times(fn, larger, {}, repeats)["log ms"] - own
    return found


def _of_program(fn: Callable, example: tuple) -> dict[str, float]:
    compiled = jax.jit(lambda *inputs: fn(*inputs)).lower(*example).compile()
    costs: Any = compiled.cost_analysis() or {}
    memory: Any = compiled.memory_analysis()
    program = read_program(compiled.as_text() or "")
    operations = max(float(costs.get("flops", 0)), 0.0)
    accessed = max(float(costs.get("bytes accessed", 0)), 0.0)
    return {
        "log operations": math.log1p(operations),
        "log bytes": math.log1p(accessed),
        "log temporary bytes": math.log1p(memory.temp_size_in_bytes),
        "log constant bytes": math.log1p(program.constant_bytes),
        "operations a byte": operations / max(accessed, 1.0),
        "kernels": float(program.kernels),
    }


def _of_times(
    fn: Callable, example: tuple, others: dict[str, tuple], repeats: int
) -> dict[str, float]:
    """The time of a call, and logarithms of how much longer others take."""
    run = jax.jit(lambda *inputs: fn(*inputs))
    times = _milliseconds(run, example, repeats)
    median = float(np.median(times))
    quarters = np.subtract(*np.percentile(times, [75, 25]))
    found = {"log ms": math.log(median), "spread": float(quarters / median)}
    for name, inputs in others.items():
        found[name] = math.log(float(np.median(_milliseconds(run, inputs, repeats))) / median)
    return found


def _milliseconds(run: Callable, inputs: tuple, repeats: int) -> list[float]:
    """Of single calls."""
    inputs = jax.device_put(inputs)
    jax.block_until_ready(run(*inputs))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(run(*inputs))
        times.append(1e3 * (time.perf_counter() - start))
    return times
