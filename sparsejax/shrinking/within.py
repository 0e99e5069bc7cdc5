"""The channels that stay within a fraction of the multiply-adds or of the params."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float

from sparsejax.doors import FUNCTION, check_examples, checked, tracing
from sparsejax.jaxprs.multiply_adds import multiply_adds as counted
from sparsejax.jaxprs.widths.groups import traced
from sparsejax.shrinking.cut import positions
from sparsejax.shrinking.scores import best_channels
from sparsejax.shrinking.smaller_apply import version
from sparsejax.tree import leaves_with_paths

STEPS = 12  # of the bisection: sparsity to 1 / 4096


@checked(apply_fn=FUNCTION)
def channels_within(
    apply_fn: Callable[..., Any],
    params: Any,
    *example: Any,
    scores: Mapping[str, Float[np.ndarray, " units"]],
    multiply_adds: float = 1.0,
    parameters: float = 1.0,
    globally: bool = False,
    multiple: int = 8,
    minimum: float = 0.1,
) -> dict[str, Bool[np.ndarray, " units"]]:
    """Which units stay, for `shrink`: `best_channels` at the least sparsity that fits the budget.

    Args:
      apply_fn, params, example: as for `channel_groups`.
      scores: of `channel_scores`.
      multiply_adds: the fraction of them that may be left, counted on the example.
      parameters: the fraction of all numbers in the params that may be left.
      globally, multiple, minimum: as for `best_channels`.

    Raises:
      ValueError: no sparsity fits.

    Example:
      >>> scores = {"body/kernel": jnp.array([3.0, 1.0, 2.0, 4.0])}
      >>> half = dict(scores=scores, multiply_adds=0.5, multiple=1)
      >>> sj.structured.channels_within(model.apply, params, x, **half)
      {'body/kernel': array([ True, False, False,  True])}
    """
    check_examples("channels_within", apply_fn, params, example)
    arrays = {path: leaf for path, leaf in leaves_with_paths(params) if hasattr(leaf, "shape")}
    with tracing("channels_within"):
        made = traced(apply_fn, params, example)
    shapes = {path: np.shape(leaf) for path, leaf in arrays.items()}
    options = {"globally": globally, "multiple": multiple, "minimum": minimum}

    def costs(sparsity: float) -> np.ndarray:
        keep = best_channels(made.groups, scores, sparsity, **options)  # type: ignore[arg-type]
        stays = positions(made.groups, keep, shapes)
        small = {
            path: jax.ShapeDtypeStruct(_left(leaf.shape, stays.get(path, {})), leaf.dtype)
            for path, leaf in arrays.items()
        }
        run = version(made, stays)
        flat = lambda own, *inputs: run(own, jax.tree.leaves(inputs))
        adds = sum(counted(flat, small, *example).values()) if multiply_adds < 1 else 0
        return np.array([adds, sum(math.prod(leaf.shape) for leaf in small.values())])

    limits = np.array([multiply_adds, parameters]) * costs(0.0)
    low, high = 0.0, 1.0 - 2.0**-STEPS
    if (costs(high) > limits).any():
        raise ValueError(
            "channels_within needs a budget that its groups can meet, got "
            f"multiply_adds={multiply_adds} and parameters={parameters}; the least are "
            f"{' and '.join(f'{least:.3g}' for least in costs(high) / np.maximum(costs(0.0), 1))}."
        )
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if (costs(middle) > limits).any() else (low, middle)
    return best_channels(made.groups, scores, high, **options)  # type: ignore[arg-type]


def _left(shape: tuple[int, ...], axes: Mapping[int, np.ndarray]) -> tuple[int, ...]:
    return tuple(int(axes[i].sum()) if i in axes else size for i, size in enumerate(shape))
