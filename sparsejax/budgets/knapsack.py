"""One option for each item, with the least sum of losses within a sum of costs."""

from collections.abc import Sequence

import numpy as np

MAX_STATES = 4_000


def cheapest_loss(
    costs: Sequence[np.ndarray], losses: Sequence[np.ndarray], limit: float
) -> list[int]:
    """The option of each item, by dynamic programming over the sums that nothing beats.

    Item by item, the sums of costs and losses are kept that no other has both less of. That is
    exact; where there are more than 4,000 of them, those of nearly equal cost (a 4,000th of the
    limit) become one, that which loses least.

    Args:
        costs, losses: of the options of each item.
        limit: of the costs' sum; the cheapest options must keep it.
    """
    limit *= 1 + 1e-9
    rest = np.cumsum([0.0, *(own.min() for own in costs[::-1])])[::-1]  # the least of items to come
    cost, loss = np.zeros(1), np.zeros(1)
    trail = []
    for own_costs, own_losses, ahead in zip(costs, losses, rest[1:], strict=True):
        sums = (cost[:, None] + own_costs).ravel()
        total = (loss[:, None] + own_losses).ravel()
        fits = np.flatnonzero(sums + ahead <= max(limit, rest[0]))
        kept = fits[_unbeaten(sums[fits], total[fits], limit)]
        trail.append(np.divmod(kept, len(own_costs)))
        cost, loss = sums[kept], total[kept]
    state, chosen = len(cost) - 1, []  # the most costly loses least
    for before, option in reversed(trail):
        chosen.append(int(option[state]))
        state = before[state]
    return chosen[::-1]


def _unbeaten(costs: np.ndarray, losses: np.ndarray, limit: float) -> np.ndarray:
    """Indices of the sums that no other beats, in the order of their costs."""
    order = np.lexsort((losses, costs))
    own = losses[order]
    best_before = np.minimum.accumulate(np.concatenate([[np.inf], own[:-1]]))
    front = order[own < best_before]
    if len(front) <= MAX_STATES:
        return front
    buckets = np.floor(costs[front] / max(limit, np.finfo(float).tiny) * MAX_STATES)
    return front[np.append(buckets[1:] != buckets[:-1], True)]
