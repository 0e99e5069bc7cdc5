"""Bayesian optimisation over choices: a Gaussian process and the expected improvement."""

from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Float, Int

from sparsejax.search.samplers import Sampler, Trial
from sparsejax.search.space import Choice, Interval, Space, check_space, drawn

LENGTHS = (0.05, 0.1, 0.2, 0.4, 0.8)  # of the kernel, in fractions of all names
NOISES = (1e-4, 1e-2, 1e-1)  # variances, of scores with variance 1
POOL = 300  # choices among which the improvement is looked for
PARENTS = 5  # best trials, of which half of the pool are changes


class Fitted(NamedTuple):
    """A Gaussian process over choices: where the trials are, and what they weigh."""

    points: np.ndarray
    factor: tuple[np.ndarray, bool]
    weights: np.ndarray
    length: float


def bayesian(space: Space, *, seed: int, num_random: int = 10) -> Sampler:
    """A sampler that tries where a Gaussian process expects the largest improvement.

    The kernel is exp(-d / length), with d the mean over names of 1 where two choices differ, or of
    their distance in a `range` as a fraction of it. Length and noise have the highest likelihood.
    The improvement is looked for among choices at random and changes of one or two names of the
    best trials, none tried before.

    Args:
      space: by name a `range` of whole numbers, or a sequence of values without an order.
      seed: of its choices.
      num_random: trials at random before it chooses.

    Raises:
      ValueError: the space has an `Interval`.

    Example:
      >>> sampler = sj.search.bayesian({"x": range(8), "y": range(8)}, seed=0, num_random=4)
      >>> score = lambda choice: {"score": -float(abs(choice["x"] - 5) + abs(choice["y"] - 2))}
      >>> trials = sj.search.optimize(score, sampler, num_trials=25)
      >>> sj.search.best(trials).choice
      {'x': 5, 'y': 2}

    Reference: Jones et al., "Efficient Global Optimization of Expensive Black-Box Functions",
    Journal of Global Optimization 1998; in neural pruning search: Zhao et al., 2021, arXiv
    2106.14943. Differs: the paper's process and pool of candidates are not known to us.
    """
    check_space("bayesian", space)
    if smooth := [name for name, own in space.items() if isinstance(own, Interval)]:
        raise ValueError(
            f"bayesian needs ranges or values, got an Interval for {', '.join(smooth)}; give some "
            "of its values, or use tpe."
        )

    def ask(trials: list[Trial], number: int) -> Choice:
        rng = np.random.default_rng((seed, number))
        if number < num_random:
            return drawn(space, rng)
        known = np.array([_point(space, trial.choice) for trial in trials])
        scores = np.array([trial.score for trial in trials])
        own = (scores - scores.mean()) / (scores.std() or 1.0)
        pool = _pool(space, known[np.argsort(-scores, kind="stable")], rng)
        gain = expected_improvement(fit(space, known, own), space, pool, own.max())
        return _choice(space, pool[int(gain.argmax())])

    return Sampler(space, list, ask, lambda trials, trial: [*trials, trial])


def fit(
    space: Space, points: Float[np.ndarray, "trials names"], scores: Float[np.ndarray, " trials"]
) -> Fitted:
    """The process of the highest likelihood, for scores of mean 0 and variance 1."""
    distances, best, found = _distances(space, points, points), -np.inf, None
    for length in LENGTHS:
        for noise in NOISES:
            kernel = np.exp(-distances / length) + noise * np.eye(len(points))
            factor = scipy.linalg.cho_factor(kernel, lower=True)
            weights = scipy.linalg.cho_solve(factor, scores)
            likelihood = -0.5 * scores @ weights - np.log(np.diag(factor[0])).sum()
            if likelihood > best:
                best, found = likelihood, Fitted(points, factor, weights, length)
    assert found is not None
    return found


def expected_improvement(
    fitted: Fitted, space: Space, points: Float[np.ndarray, "pool names"], best: float
) -> Float[np.ndarray, " pool"]:
    """E max(0, score - best) at each point."""
    from scipy.stats import norm  # slow to import

    near = np.exp(-_distances(space, points, fitted.points) / fitted.length)
    mean = near @ fitted.weights
    spent = np.sum(near * scipy.linalg.cho_solve(fitted.factor, near.T).T, axis=1)
    deviation = np.sqrt(np.maximum(1.0 - spent, 1e-12))
    lift = (mean - best) / deviation
    return deviation * (lift * norm.cdf(lift) + norm.pdf(lift))


def _pool(
    space: Space, known: Int[np.ndarray, "trials names"], rng: np.random.Generator
) -> Int[np.ndarray, "pool names"]:
    """Points that were not tried, if there are any; the known ones are in order, the best first."""
    sizes = [len(own) for own in space.values()]  # type: ignore[arg-type]
    pool = rng.integers(0, sizes, (POOL, len(sizes)))
    children = pool[: POOL // 2]
    parents = known[rng.integers(0, min(PARENTS, len(known)), len(children))]
    changed = rng.integers(0, len(sizes), (len(children), 2))
    stays = (np.arange(len(sizes)) != changed[..., None]).all(1)
    children[stays] = parents[stays]
    tried = set(map(tuple, known.tolist()))
    new = [tuple(point) not in tried for point in pool.tolist()]
    return pool[new] if any(new) else pool


def _choice(space: Space, point: Int[np.ndarray, " names"]) -> Choice:
    pairs = zip(space.items(), point.tolist(), strict=True)
    return {name: own[index] for (name, own), index in pairs}  # type: ignore[index]


def _point(space: Space, choice: Choice) -> list[int]:
    """The number of each name's value among those that it may have."""
    return [list(own).index(choice[name]) for name, own in space.items()]


def _distances(space: Space, a: np.ndarray, b: np.ndarray) -> Float[np.ndarray, "a b"]:
    apart = np.abs(a[:, None] - b[None]).astype(float)
    for index, own in enumerate(space.values()):
        ordered = isinstance(own, range)
        apart[..., index] = (
            apart[..., index] / max(len(own) - 1, 1) if ordered else (apart[..., index] > 0)
        )
    return apart.mean(-1)
