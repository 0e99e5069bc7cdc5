"""The choice of a block size by measured latency, before any weight is trained."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.ops import spmm
from sparsejax.patterns import Pattern

Measure = Callable[[Sequence[Any]], Sequence[float]]


def finest_fast_pattern(
    patterns: Sequence[Pattern],
    shape: tuple[int, ...],
    sparsity: float,
    *,
    tolerance: float = 0.05,
    measure: Measure | None = None,
) -> Pattern:
    """The finest pattern that runs within `tolerance` of the latency of the coarsest one.

    Fine blocks cost less accuracy and more time. Hyperparameters are decoupled from weights: each
    pattern prunes a synthetic layer of the shape to the sparsity, its packed form is timed, and the
    first that is fast enough is taken; weights are trained afterwards, once.

    Args:
      patterns: from the finest to the coarsest, whose latency is the bar.
      shape: of the leaf.
      sparsity: fraction of zeros in [0, 1).
      tolerance: how much slower than the coarsest is fast enough.
      measure: `f(packed matrices) -> their times`; None is `time_products` for one input.

    Raises:
      ValueError: there is no pattern, or one does not fit the shape.

    Example:
      >>> sizes = [sj.BlockColumnRow(rows, 16) for rows in (2, 4, 8, 16)]
      >>> measure = lambda patterns: [3.0, 1.85, 1.8, 1.8]
      >>> sj.structured.finest_fast_pattern(sizes, (64, 128), 0.9, measure=measure)
      BlockColumnRow(rows=4, cols=16, kept_rows=None, output_axis=-1)

    Differs: the 5 % and the order of trial are ours; the paper names the decoupling alone.

    Reference: Niu et al., "GRIM: A General, Real-Time Deep Learning Inference Framework for Mobile
    Devices based on Fine-Grained Structured Weight Sparsity", TPAMI 2021, arXiv 2108.11033.
    """
    if not patterns:
        raise ValueError("finest_fast_pattern needs at least one pattern, got none.")
    weights = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    packed = []
    for pattern in patterns:
        pattern.validate(shape)
        mask = np.asarray(pattern.mask(jnp.abs(weights), sparsity))
        packed.append(pattern.pack(weights, mask))
    times = list((measure or time_products)(packed))
    fast_enough = [seconds <= times[-1] * (1 + tolerance) for seconds in times]
    return patterns[fast_enough.index(True)]


def time_products(packed: Sequence[Any], *, pixels: int = 1, rounds: int = 30) -> list[float]:
    """The median seconds of `spmm` with each matrix and so many inputs, taken in turn."""
    x = jnp.ones((pixels, packed[0].matrix_shape[1]))
    product = jax.jit(spmm)
    times: list[list[float]] = [[] for _ in packed]
    for _ in range(rounds + 2):
        for own, matrix in zip(times, packed, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(product(matrix, x))
            own.append(time.perf_counter() - start)
    return [statistics.median(own[2:]) for own in times]
