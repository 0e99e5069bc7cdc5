"""Recipes of magnitude pruning: dense, gradual, and global with and without a floor."""

import optax

import sparsejax as sj
from experiments.recipes import Setup, allocates, ramp


def dense(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """No pruning at all: what the others are compared with."""
    del setup
    return tx


def gmp(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """Gradual magnitude pruning, each layer to its own target."""
    begin, end, every = ramp(setup)
    return sj.sparsify(tx, sj.gmp(begin, end, every=every), setup.plan, key=setup.key)


@allocates("global")
def global_mp(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """Gradual magnitude pruning under one threshold for the network."""
    begin, end, every = ramp(setup)
    return sj.sparsify(tx, sj.global_mp(begin, end, every=every), setup.plan, key=setup.key)


@allocates("global, with a floor")
def global_mp_floor(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """The same with the minimum threshold: a layer keeps 0.2 % of the planned weights' number.

    Where that is more than 60 % of what a layer keeps on average, it is those 60 %.
    """
    plan = setup.plan
    average = (plan.num_weights - plan.num_pruned) / len(plan.leaves)
    floor = int(min(0.002 * plan.num_weights, 0.6 * average))
    begin, end, every = ramp(setup)
    method = sj.global_mp(begin, end, every=every, min_weights=floor)
    return sj.sparsify(tx, method, setup.plan, key=setup.key)


def fast_sparse_convnets(
    tx: optax.GradientTransformation, setup: Setup
) -> optax.GradientTransformation:
    """Gradual pruning from 10 to 70 % of the steps."""
    return sj.sparsify(tx, sj.pruning.fast_sparse_convnets(setup.steps), setup.plan, key=setup.key)
