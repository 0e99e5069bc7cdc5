"""Samplers: what a search tries next. Random search, the control, and Optuna's TPE."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from sparsejax.search.space import Choice, Interval, Space, check_space, drawn


@dataclass(frozen=True)
class Trial:
    """What was tried, and what came of it.

    Attributes:
      number: from 0 on.
      choice: the value of each name of the space.
      score: what the search maximises.
      numbers: everything that was measured, the score among it.
    """

    number: int
    choice: Choice
    score: float
    numbers: dict[str, float]


class Sampler(NamedTuple):
    """What chooses; its randomness goes by the trial's number, so that a search can go on.

    Attributes:
      space: what there is to choose from.
      init: `init() -> state`.
      ask: `ask(state, number) -> choice` for the trial of that number.
      tell: `tell(state, trial) -> state` after it.
    """

    space: Space
    init: Callable[[], Any]
    ask: Callable[[Any, int], Choice]
    tell: Callable[[Any, Trial], Any]


def random_search(space: Space, *, seed: int) -> Sampler:
    """A sampler that learns nothing: the control at equal cost for every other one.

    Args:
      space: by name an `Interval`, a `range` of whole numbers, or a sequence of values.
      seed: of its choices.

    Example:
      >>> sampler = sj.search.random_search({"bits": range(2, 9)}, seed=0)
      >>> sampler.ask(sampler.init(), 0)["bits"] in range(2, 9)
      True
    """
    check_space("random_search", space)
    ask = lambda _, number: drawn(space, np.random.default_rng((seed, number)))
    return Sampler(space, lambda: None, ask, lambda state, trial: state)


def tpe(space: Space, *, seed: int, num_random: int = 10) -> Sampler:
    """Optuna's tree-structured Parzen estimator: likely among the good, unlikely among the rest.

    Args:
      space: by name an `Interval`, a `range` of whole numbers, or a sequence of values (numbers,
        strings, bools) without an order.
      seed: of its choices.
      num_random: trials at random before it chooses.

    Raises:
      ImportError: optuna is missing: pip install "sparsejax[search]".

    Reference: Bergstra et al., "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011; as
    Optuna has it, Akiba et al., KDD 2019, arXiv 1907.10902.
    """
    check_space("tpe", space)
    optuna = imported_optuna()
    own = distributions(space)

    def ask(study: Any, number: int) -> Choice:
        # One generator a trial: it does not matter how many processes made the ones before.
        seed_here = int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
        sampler = optuna.samplers.TPESampler(seed=seed_here, n_startup_trials=num_random)
        asked = optuna.create_study(direction="maximize", sampler=sampler)
        asked.add_trials(study)
        return asked.ask(own).params

    tell = lambda study, trial: [*study, frozen_trial(trial, own)]
    return Sampler(space, list, ask, tell)


def distributions(space: Space) -> dict[str, Any]:
    """The space in Optuna's words."""
    kinds = imported_optuna().distributions

    def one(own: Any) -> Any:
        if isinstance(own, Interval):
            return kinds.FloatDistribution(own.low, own.high)
        if isinstance(own, range):
            return kinds.IntDistribution(own[0], own[-1], step=own.step)
        return kinds.CategoricalDistribution(tuple(own))

    return {name: one(own) for name, own in space.items()}


def frozen_trial(trial: Trial, own: dict[str, Any]) -> Any:
    """The trial as Optuna keeps it."""
    return imported_optuna().trial.create_trial(
        value=trial.score,
        params=trial.choice,
        distributions=own,
        user_attrs=trial.numbers,
    )


def imported_optuna() -> Any:
    """The module, silent but for warnings.

    Raises:
      ImportError: it is missing.
    """
    try:
        import optuna
    except ImportError as error:
        raise ImportError(
            "tpe and the file of a search need optuna, which is not installed; "
            'install it with pip install "sparsejax[search]".'
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
