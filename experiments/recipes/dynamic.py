"""Recipes of sparse-to-sparse training: a fixed random mask, SET and RigL."""

import optax

import sparsejax as sj
from experiments.recipes import Setup


def _interval(setup: Setup) -> int:
    """Steps between two changes of the masks: 1 % of the training."""
    return max(1, setup.steps // 100)


def static_random(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """A random mask that stays as it is."""
    return sj.sparsify(tx, sj.static_random(), setup.plan, key=setup.key)


def sparse_evolution(
    tx: optax.GradientTransformation, setup: Setup
) -> optax.GradientTransformation:
    """SET: small weights make way for random ones, for the first 75 % of the training."""
    method = sj.sparse_evolution(every=_interval(setup), end=setup.steps * 3 // 4)
    return sj.sparsify(tx, method, setup.plan, key=setup.key)


def rigl(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """RigL: small weights make way where gradients are large; 25k of 32k steps in the paper."""
    method = sj.rigl(setup.steps * 3 // 4, every=_interval(setup))
    return sj.sparsify(tx, method, setup.plan, key=setup.key)
