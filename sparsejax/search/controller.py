"""A controller of choices that is trained by REINFORCE, and the search in two phases."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sparsejax.search.loop import Report, best, optimize
from sparsejax.search.samplers import Sampler, Trial
from sparsejax.search.space import Choice, Interval, Space, check_space


class Policy(NamedTuple):
    """The logits of each name's values, and mean, squared deviation and number of rewards."""

    logits: dict[str, np.ndarray]
    mean: float
    deviation: float
    trials: int


def policy_gradient(space: Space, *, seed: int, rate: float = 0.3, decay: float = 0.8) -> Sampler:
    """A sampler whose probabilities rise with the scores of what it tried: REINFORCE.

    With p = softmax(logits) of a name and its value i, each trial adds

        rate * (score - mean) / deviation * (onehot(i) - p)

    to the logits; mean and deviation are running ones of the scores before.

    Args:
      space: by name a `range` of whole numbers, or a sequence of values.
      seed: of its choices.
      rate: of learning.
      decay: of mean and deviation.

    Raises:
      ValueError: the space has an `Interval`.

    Example:
      >>> sampler = sj.search.policy_gradient({"x": (1, 2, 3)}, seed=0)
      >>> trials = sj.search.optimize(lambda c: {"score": c["x"]}, sampler, num_trials=60)
      >>> [trial.choice["x"] for trial in trials[-3:]]
      [3, 3, 3]

    Reference: Williams, "Simple Statistical Gradient-Following Algorithms for Connectionist
    Reinforcement Learning", Machine Learning 1992; as the controller of Niu et al., "A
    Compression-Compilation Framework for On-mobile Real-time BERT Applications", 2021, arXiv
    2106.00526. Differs: logits of each name, where the paper's controller is said to be recurrent.
    """
    check_space("policy_gradient", space)
    if smooth := [name for name, own in space.items() if isinstance(own, Interval)]:
        raise ValueError(
            f"policy_gradient needs ranges or values, got an Interval for {', '.join(smooth)}; "
            "give some of its values, or use tpe."
        )

    def init() -> Policy:
        return Policy({name: np.zeros(len(own)) for name, own in space.items()}, 0.0, 0.0, 0)

    def ask(policy: Policy, number: int) -> Choice:
        rng = np.random.default_rng((seed, number))
        pick = lambda name, own: own[int(rng.choice(len(own), p=_softmax(policy.logits[name])))]
        return {name: pick(name, own) for name, own in space.items()}

    def tell(policy: Policy, trial: Trial) -> Policy:
        return _told(policy, space, trial, rate, decay)

    return Sampler(space, init, ask, tell)


def _told(policy: Policy, space: Space, trial: Trial, rate: float, decay: float) -> Policy:
    trials, away = policy.trials + 1, trial.score - policy.mean
    if not policy.trials:
        return policy._replace(mean=trial.score, trials=trials)
    keep = min(decay, 1 - 1 / trials)  # the first trials count alike
    deviation = keep * policy.deviation + (1 - keep) * abs(away)
    lift = rate * away / deviation if deviation else 0.0
    logits = {}
    for name, own in space.items():
        taken = np.arange(len(own)) == list(own).index(trial.choice[name])
        logits[name] = policy.logits[name] + lift * (taken - _softmax(policy.logits[name]))
    return Policy(logits, policy.mean + (1 - keep) * away, deviation, trials)


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def two_phases(
    evaluate: Callable[[Choice], Mapping[str, float]],
    first: Space,
    second: Callable[[Choice], Space],
    sampler: Callable[[Space], Sampler],
    *,
    num_trials: tuple[int, int],
    file: str | Path | None = None,
    report: Report | None = None,
) -> list[Trial]:
    """The trials of two searches after each other: the second keeps the best choice of the first.

    CANAO searches the number of layers first, then the sizes of these.

    Args:
      evaluate: of choices of the first space, and of both spaces together; as in `optimize`.
      first: the space of the first phase.
      second: the space of the second, given the best choice of the first.
      sampler: what searches a space: `lambda space: policy_gradient(space, seed=0)`.
      num_trials: of each phase.
      file: for `optimize`; the phases have ".first" and ".second" behind its name.
      report: for `optimize`.

    Returns:
      The trials of both phases, numbered on; what a choice leaves out was left to `evaluate`.

    Reference: Niu et al., "A Compression-Compilation Framework for On-mobile Real-time BERT
    Applications", 2021, arXiv 2106.00526; its text was not at hand.
    """
    files = [Path(f"{file}.{phase}") if file else None for phase in ("first", "second")]
    options: dict[str, Any] = {"report": report}
    early = optimize(evaluate, sampler(first), num_trials=num_trials[0], file=files[0], **options)
    kept = best(early).choice
    late = optimize(
        lambda choice: evaluate(kept | choice),
        sampler(second(kept)),
        num_trials=num_trials[1],
        file=files[1],
        **options,
    )
    return early + [
        Trial(trial.number + len(early), kept | trial.choice, trial.score, trial.numbers)
        for trial in late
    ]
