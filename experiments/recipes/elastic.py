"""Recipes of networks that swell and shrink: MEST with EM and EM&S, and grow-and-prune."""

import optax

import sparsejax as sj
from experiments.recipes import Setup, version


def mest_em(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """MEST with elastic mutation, on the paper's schedule of 160 epochs."""
    return _sparsified(
        tx, setup, sj.sparse_training.mest_em(_boundaries(setup), every=_interval(setup))
    )


def mest_ems(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """MEST with the soft memory bound, on the same schedule."""
    return _sparsified(
        tx, setup, sj.sparse_training.mest_ems(_boundaries(setup), every=_interval(setup))
    )


@version(2)  # before, as gap_on_one_schedule
def gap(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """Cyclic grow-and-prune of 4 parts, twice round in the first 75 % of the steps.

    The learning rate restarts with each phase, as in the paper, and once more when all are pruned.
    """
    num_parts, every = _phases(setup)
    lengths = [every] * (2 * num_parts)
    lengths.append(max(2, setup.steps - sum(lengths)))
    restarting = setup.optimizer._replace(schedule=_restarts(setup.optimizer.schedule, lengths))
    return gap_on_one_schedule(restarting.transform(), setup)


def gap_on_one_schedule(
    tx: optax.GradientTransformation, setup: Setup
) -> optax.GradientTransformation:
    """The same without restarts: one schedule goes through all phases."""
    num_parts, every = _phases(setup)
    return _sparsified(tx, setup, sj.sparse_training.gap(num_parts, every=every, rounds=2))


def _phases(setup: Setup) -> tuple[int, int]:
    """Parts, and steps of a phase."""
    num_parts = min(4, len(setup.plan.leaves))
    return num_parts, max(1, setup.steps * 3 // 4 // (2 * num_parts))


def _restarts(schedule: optax.Schedule, lengths: list[int]) -> optax.Schedule:
    """For each length a fifth of warm-up to the schedule's peak and a cosine to zero."""
    peak = max(float(schedule(step)) for step in range(0, sum(lengths), max(1, lengths[0] // 4)))
    phase = {"init_value": 0.0, "peak_value": peak}
    return optax.sgdr_schedule(
        [{**phase, "warmup_steps": -(-n // 5), "decay_steps": n} for n in lengths]
    )


def _boundaries(setup: Setup) -> tuple[int, int]:
    """Epochs 90 and 120 of 160."""
    return setup.steps * 9 // 16, setup.steps * 3 // 4


def _interval(setup: Setup) -> int:
    """5 epochs of 160."""
    return max(1, setup.steps // 32)


def _sparsified(
    tx: optax.GradientTransformation, setup: Setup, method: sj.masks.MaskTransform
) -> optax.GradientTransformation:
    return sj.sparsify(tx, method, setup.plan, key=setup.key)
