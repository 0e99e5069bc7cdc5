"""Lottery tickets: find the masks, start over from what one likes, and test what was won."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Any, NamedTuple

import jax.numpy as jnp
import scipy
from jaxtyping import Array, Float

from sparsejax.doors import PLAN, checked
from sparsejax.masks.global_threshold import cut_globally
from sparsejax.masks.initial import by_leaves, full_masks, masks_of_leaves
from sparsejax.plans.plan import Plan

Train = Callable[[Any], Any]


class Ticket(NamedTuple):
    """The masks of a ticket, and the params at the end of the training that they came from.

    Start over with `masked(params, masks)` from the initial params (the lottery ticket), from a
    checkpoint of an early step (rewinding), from newly drawn ones (random re-initialisation), or
    from `trained` (prune and retrain); `initial_masks=lambda params, plan: masks` with the method
    `sj.chain()` then keeps what is pruned at zero.
    """

    masks: Any
    trained: Any


@checked(plan=PLAN)
def lottery_ticket(train: Train, params: Any, plan: Plan, *, rounds: int = 1) -> Ticket:
    """The ticket that magnitude pruning of a trained network finds, at once or in rounds.

    Round k = 1..n trains with the masks so far and prunes to the density rho^(k/n), rho that of the
    plan, by one threshold on |w| over the plan's leaves. One round is one-shot pruning (OMP); with
    n = log(rho) / log(0.8) each round of iterative pruning (IMP) takes 20 % of what is left.

    Args:
      train: `f(masks) -> trained params`; it starts from the same initial params, masked, in every
        round (rewinding to step 0), or from those of an early step.
      params: any params of the network, for the shapes of the masks.
      plan: names the leaves and the final sparsity of the whole.
      rounds: n.

    Raises:
      ValueError: rounds < 1.

    Example:
      >>> train = lambda masks: sj.masked(params, masks)
      >>> ticket = sj.studies.lottery_ticket(train, params, plan, rounds=2)
      >>> start = sj.masked(params, ticket.masks)

    Reference: Frankle and Carbin, "The Lottery Ticket Hypothesis", ICLR 2019, arXiv 1803.03635,
    section 1; as in Ma, Yuan et al., "Sanity Checks for Lottery Tickets", NeurIPS 2021,
    arXiv 2107.00166, and its authors' code.
    """
    if rounds < 1:
        raise ValueError(f"lottery_ticket needs rounds >= 1, got {rounds}.")
    masks, trained = full_masks(params, plan), params
    for index in range(1, rounds + 1):
        trained = train(masks)
        fraction = (1.0 - (1.0 - plan.sparsity) ** (index / rounds)) / max(plan.sparsity, 1e-12)
        masks = _largest(trained, masks, plan, fraction)
    return Ticket(masks, trained)


@checked(plan=PLAN)
def magnitude_overlap(before: Any, after: Any, plan: Plan) -> Float[Array, ""]:
    """The fraction of the largest weights before a training that are among the largest after it.

    The largest are those that global magnitude pruning at the plan's sparsity keeps. 1 says that
    magnitudes did not change rank, 1 - sparsity is chance; it is high at small learning rates.

    Reference: Ma, Yuan et al., "Sanity Checks for Lottery Tickets", NeurIPS 2021,
    arXiv 2107.00166.
    """
    one, other = (
        by_leaves(_largest(params, full_masks(params, plan), plan, 1.0), plan)
        for params in (before, after)
    )
    pairs = zip(one, other, strict=True)
    common = sum(jnp.sum(mine & theirs, dtype=jnp.int32) for mine, theirs in pairs)
    return jnp.asarray(common, jnp.float32) / max(plan.num_weights - plan.num_pruned, 1)


@dataclass(frozen=True)
class Jackpot:
    """Whether a ticket won, and by how much.

    Attributes:
        verdict: "jackpot", "secondary prize" or "no ticket".
        over_reinitialised: mean of the tickets minus that of the random re-initialisations.
        over_dense: mean of the tickets minus that of the dense networks.
        interval_reinitialised: the confidence interval of the former.
        interval_dense: and of the latter.
    """

    verdict: str
    over_reinitialised: float
    over_dense: float
    interval_reinitialised: tuple[float, float]
    interval_dense: tuple[float, float]


def jackpot(
    tickets: Sequence[float],
    reinitialised: Sequence[float],
    dense: Sequence[float],
    *,
    margin: float = 0.5,
    confidence: float = 0.95,
) -> Jackpot:
    """The verdict on tickets: do they beat random re-initialisation and match a well-trained net.

    A "secondary prize" is a mean of at least `margin` above the re-initialised nets, with an
    interval of the difference (Welch's, for unequal variances) wholly above 0. A "jackpot" is that
    and a mean at most `margin` below the dense nets.

    Args:
      tickets: accuracies in percent of nets trained from the original weights, one a seed.
      reinitialised: of nets with the same masks and new weights.
      dense: of dense nets, trained well: with a learning rate and a length that suit them.
      margin: in points.
      confidence: of the intervals.

    Raises:
      ValueError: fewer than two seeds of anything.

    Example:
      >>> sj.studies.jackpot([92.1, 92.3, 92.2], [91.0, 91.2, 90.9], [92.5, 92.4, 92.6]).verdict
      'jackpot'

    Differs: the paper states its definition in words; margin and intervals are ours.

    Reference: Ma, Yuan et al., "Sanity Checks for Lottery Tickets: Does Your Winning Ticket Really
    Win the Jackpot?", NeurIPS 2021, arXiv 2107.00166.
    """
    if min(map(len, (tickets, reinitialised, dense))) < 2:
        raise ValueError(
            "jackpot needs at least two seeds each, got "
            f"{len(tickets)} tickets, {len(reinitialised)} re-initialised, {len(dense)} dense."
        )
    over_reinitialised, first = _difference(tickets, reinitialised, confidence)
    over_dense, second = _difference(tickets, dense, confidence)
    wins = over_reinitialised >= margin and first[0] > 0.0
    prize = "jackpot" if over_dense >= -margin else "secondary prize"
    return Jackpot(prize if wins else "no ticket", over_reinitialised, over_dense, first, second)


def _largest(params: Any, masks: Any, plan: Plan, fraction: float) -> Any:
    """The masks cut to `fraction` of the plan's budget by one threshold on |w|."""
    scores = [jnp.abs(weights) for weights in by_leaves(params, plan)]
    cut = cut_globally(plan.leaves, scores, by_leaves(masks, plan), fraction)
    return masks_of_leaves(params, plan, cut)


def _difference(
    one: Sequence[float], other: Sequence[float], confidence: float
) -> tuple[float, tuple[float, float]]:
    """The difference of means and Welch's interval."""
    errors = [variance(values) / len(values) for values in (one, other)]
    difference, error = fmean(one) - fmean(other), math.sqrt(sum(errors))
    if error == 0.0:
        return difference, (difference, difference)
    degrees = sum(errors) ** 2 / sum(
        e**2 / (len(values) - 1) for e, values in zip(errors, (one, other), strict=True)
    )
    half = float(scipy.special.stdtrit(degrees, 0.5 + confidence / 2)) * error
    return difference, (difference - half, difference + half)
