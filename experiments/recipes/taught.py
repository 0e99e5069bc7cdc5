"""Recipes for a student beside what is trained with it and then dropped, at a tenth of its rate.

Projectors are far wider than the student. At its rate, under Adam, what they send through a
teacher's blocks falls where these have no gradient, and the student with it.
"""

import optax

import sparsejax as sj
from experiments.recipes import Setup
from experiments.recipes.magnitude import gmp

SLOWER = 0.1


def dense_taught(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """No pruning."""
    del setup
    return _slower_beside(tx)


def gmp_taught(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """Gradual magnitude pruning of the student."""
    return gmp(_slower_beside(tx), setup)


def _slower_beside(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    beside = lambda tree: sj.tree.map_with_paths(lambda path, _: path.startswith("features/"), tree)
    return optax.chain(tx, optax.masked(optax.scale(SLOWER), beside))
