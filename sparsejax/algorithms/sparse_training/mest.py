"""Memory-economic sparse training (MEST): mutations of random growth that the memory bounds."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import optax

from sparsejax.masks.prune_and_grow import resize, start
from sparsejax.masks.scores import magnitude, random
from sparsejax.masks.transforms import MaskTransform, Schedule, Score, chain
from sparsejax.masks.transforms import every as at_every


def mest_em(
    boundaries: Sequence[int],
    *,
    every: int,
    fractions: Sequence[float] = (0.2, 0.1, 0.0),
    gradient_weight: float = 0.0,
) -> MaskTransform:
    """MEST with elastic mutation (EM): the kept weights never exceed the target.

    Starts at the target by magnitude. At a mutation each leaf drops the `fraction` of what it
    keeps, lowest |w| + gradient_weight * |dL/dw| first, and grows as many at random, which start
    from zero with zero moments. It falls at the boundaries: 0.2, 0.1 and 0 are the paper's sparsity
    bounds 0.92, 0.91 and 0.90 at a target of 0.90.

    Args:
      boundaries: the steps at which the fraction changes, the last of which ends all mutation;
        epochs 90 and 120 of 160 in the paper.
      every: steps between two mutations; 5 epochs in the paper.
      fractions: of the kept weights, one more than boundaries.
      gradient_weight: lambda; the gradient is the dense one of one batch. 0 in the released
        scripts, which rank by |w| alone.

    Raises:
      ValueError: boundaries do not ascend, or fractions are not one more, in [0, 1), 0 at last.

    Reference: Yuan et al., "MEST: Accurate and Fast Memory-Economic Sparse Training Framework on
    the Edge", NeurIPS 2021, arXiv 2110.14032; schedule as in the authors' code.
    """
    ratio = _stages("mest_em", boundaries, fractions, highest=1.0)
    score = _importance(gradient_weight)
    mutate = chain(resize(score, lambda step: 1.0 - ratio(step)), resize(random, lambda step: 1.0))
    return _mutations(mutate, boundaries, every)


def mest_ems(
    boundaries: Sequence[int],
    *,
    every: int,
    fractions: Sequence[float] = (0.5, 0.25, 0.0),
    gradient_weight: float = 0.0,
) -> MaskTransform:
    """MEST with elastic mutation and soft memory bound (EM&S): grown weights compete, then some go.

    As `mest_em`, but a mutation first prunes each leaf to its target and then grows that fraction
    of it on top, at random: until the next mutation the leaf keeps (1 + fraction) times its
    target, and new weights are trained before the least important of all are removed. 0.5, 0.25
    and 0 are the paper's sparsity bounds 0.85, 0.875 and 0.90 at a target of 0.90; at 0.95 its
    0.90, 0.925 and 0.95 are 1, 0.5 and 0.

    Args:
      boundaries: the steps at which the fraction changes; at the last the leaf returns to its
        target for good. Epochs 90 and 120 of 160 in the paper.
      every: steps between two mutations; 5 epochs in the paper.
      fractions: of the kept weights, one more than boundaries.
      gradient_weight: lambda, as in `mest_em`.

    Raises:
      ValueError: boundaries do not ascend, or the fractions are not one more, >= 0 and 0 at last.

    Reference: Yuan et al., "MEST: Accurate and Fast Memory-Economic Sparse Training Framework on
    the Edge", NeurIPS 2021, arXiv 2110.14032; schedule as in the authors' code.
    """
    ratio = _stages("mest_ems", boundaries, fractions, highest=float("inf"))
    score = _importance(gradient_weight)
    mutate = chain(resize(score, lambda step: 1.0), resize(random, lambda step: 1.0 + ratio(step)))
    return _mutations(mutate, boundaries, every)


def _mutations(mutate: MaskTransform, boundaries: Sequence[int], every: int) -> MaskTransform:
    end = boundaries[-1]
    return chain(start(magnitude), at_every(every, mutate, begin=min(every, end), end=end))


def _importance(gradient_weight: float) -> Score:
    def score(weights: Any, grads: Any, key: Any) -> Any:
        return jnp.abs(weights) + gradient_weight * jnp.abs(grads)

    return score if gradient_weight else magnitude


def _stages(
    name: str, boundaries: Sequence[int], fractions: Sequence[float], *, highest: float
) -> Schedule:
    """fractions[i] from boundaries[i - 1] on."""
    ascend = all(a < b for a, b in itertools.pairwise((0, *boundaries)))
    fits = len(fractions) == len(boundaries) + 1 > 1 and fractions[-1] == 0.0
    if not (ascend and fits and all(0.0 <= ratio < highest for ratio in fractions)):
        raise ValueError(
            f"{name} needs ascending boundaries and one fraction more, in [0, {highest:g}), 0 at "
            f"last, got boundaries={tuple(boundaries)} and fractions={tuple(fractions)}."
        )
    return optax.join_schedules([optax.constant_schedule(r) for r in fractions], list(boundaries))
