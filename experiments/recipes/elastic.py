"""Recipes of networks that swell and shrink: MEST with EM and EM&S, and grow-and-prune."""

import optax

import sparsejax as sj
from experiments.recipes import Setup


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


def gap(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """Cyclic grow-and-prune of 4 parts, twice round in the first 75 % of the steps."""
    num_parts = min(4, len(setup.plan.leaves))
    every = max(1, setup.steps * 3 // 4 // (2 * num_parts))
    return _sparsified(tx, setup, sj.sparse_training.gap(num_parts, every=every, rounds=2))


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
